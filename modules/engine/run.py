"""The whole story of a picture: recipe in, pictures and facts out."""

import contextlib
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import reduce

import torch
from PIL import Image
from torch import Tensor

from modules.engine import preview
from modules.engine.canvas import Canvas, Latents, blank, encoded, pixels, read_canvas
from modules.engine.enlarge import Enlarge, second_start
from modules.engine.facts import Clock, Facts, versions
from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.guides import Guide, finite, guided, masked, only_between, require_descent, require_finite, twice, watched
from modules.engine.machine import memory_errors_explained, peak_memory
from modules.engine.progress import Emit, Reporter
from modules.engine.stop import Skipped
from modules.engine.studio import Studio, Warm
from modules.engine.weights import checking
from modules.jobs.messages import Picture
from modules.png import packed
from modules.recipe import infotext
from modules.recipe.catalogue import SAMPLERS, SOFT
from modules.recipe.fields import Recipe
from modules.recipe.plan import Pass, Size, finished_size, passes
from modules.recipe.prompt import networks, words
from modules.samplers import chosen
from modules.samplers.registry import Denoise

Watch = Callable[[int, Tensor | None], None]
"""Told the steps done before each call of the denoiser, and besides what it answered after it."""

CFG_SCALE_OF_1 = 12.5  # the CFG scale that CFG++ takes for its own 1, its highest, so that usual values are usual there too


def run(recipe: Recipe, studio: Studio, emit: Emit, check: Callable[[], None]) -> Facts:
    """Draws every picture of a resolved recipe, one after the other, and returns how it went.

    `check` is called before every layer of every network; what it raises ends the run (Cancelled) or the batch (Skipped).
    CannotDraw says in one line why it cannot be done. Pictures already emitted stay good.
    """
    reporter, clock = Reporter(recipe, emit), Clock()
    drawn = 0
    width, height = finished_size(recipe, (recipe.width, recipe.height))
    with (
        torch.inference_mode(),
        memory_errors_explained(f"draw {width}x{height} with {recipe.checkpoint}"),
        prepared(recipe, studio, reporter, clock, check) as shared,
    ):
        for batch in range(recipe.batch_count):
            with checking(check), contextlib.suppress(Skipped):
                for picture in range(batch * recipe.batch_size, (batch + 1) * recipe.batch_size):
                    emit(draw(recipe, picture, shared, reporter, clock))
                    drawn += 1
    return facts(recipe, studio, shared, clock) | {"pictures": drawn, "skipped": len(recipe.seeds) - drawn}


@dataclass(frozen=True)
class Means:
    """What one pass is drawn with, whatever the seed: the latent's shape (C, H, W), the encoded prompts (the wanted one first).

    `shown` is what an inpainting network sees besides the latent.
    """

    shape: tuple[int, ...]
    conditionings: list[Tensor]
    shown: Tensor | None


@dataclass(frozen=True)
class Shared:
    """What all pictures of a recipe share: the loaded checkpoint, what each pass is drawn with, the picture to change.

    `wear` gives the checkpoint the LoRAs of a pass, `enlarge` is for the picture that a second one draws on.
    """

    warm: Warm
    means: list[Means]
    canvas: Canvas | None
    latents: Latents | None
    wear: Callable[[Recipe], None]
    enlarge: Enlarge


@contextlib.contextmanager
def prepared(recipe: Recipe, studio: Studio, reporter: Reporter, clock: "Clock", check: Callable[[], None]) -> Iterator[Shared]:
    """Loads and encodes what the recipe names, with LoRAs for the time of the block."""

    def early_check() -> None:
        with contextlib.suppress(Skipped):  # no batch is being drawn yet
            check()

    def report(fraction: float) -> None:
        early_check()
        reporter.loading(fraction)

    def enlarge(picture: Image.Image, size: Size, name: str) -> Image.Image:
        return studio.rack.enlarger(name, check).enlarged(picture, size, check)

    canvas = read_canvas(recipe, studio.shelf)
    with clock.phase("load"), checking(early_check):
        reporter.phase("load")
        warm = studio.warm(recipe.checkpoint, recipe.vae, report)
    with studio.wardrobe(warm) as wear:
        with clock.phase("encode"), checking(early_check):
            reporter.phase("encode")
            latents, shown = encoded(recipe, canvas, warm.family) if canvas else (None, None)
            means = []
            for one in passes(recipe):
                wear(networks(one.recipe.prompt), early_check)
                shape = latents.known.shape[1:] if latents else warm.family.latent_shape(one.recipe.width, one.recipe.height)
                shown = shown if canvas else blank(one.recipe, warm.family)
                means.append(Means(tuple(shape), conditionings(one.recipe, studio, warm), shown))
        yield Shared(warm, means, canvas, latents, lambda drawn: wear(networks(drawn.prompt), check), enlarge)


def conditionings(recipe: Recipe, studio: Studio, warm: Warm) -> list[Tensor]:
    """The recipe's prompts as the text encoder reads them, without the negative one where that has no say."""
    prompts = [words(recipe.prompt)] if skips_negative(recipe) else [words(recipe.prompt), recipe.negative_prompt]
    return [studio.encoded(warm, prompt, recipe.clip_skip) for prompt in prompts]


def draw(recipe: Recipe, picture: int, shared: Shared, reporter: Reporter, clock: "Clock") -> Picture:
    """One picture, from the noise of its own seed to its file. The same whatever was drawn before it."""
    alone, canvas, family = recipe.alone(picture), shared.canvas, shared.warm.family
    finished, latents, latent, done = canvas and canvas.picture, shared.latents, None, 0
    for one, means in zip(passes(alone), shared.means, strict=True):
        if latent is not None:
            with clock.phase("enlarge"):
                reporter.phase("enlarge", picture, done)
                latents = second_start(alone, latent, family, shared.enlarge)
                latent = latents.known
        if one.drawn:
            with clock.phase("draw"):
                shared.wear(one.recipe)
                latent = sample(one, means, latents, family, watcher(one, picture, done, shared, reporter))
            done += one.drawn
    if latent is not None:
        with clock.phase("decode"):
            reporter.phase("decode", picture, done)
            image = family.to_image(latent)
            require_finite(image, "the VAE")
            width, height = canvas.plan.drawn if canvas else finished_size(alone, (0, 0))
            finished = pixels(image[0, :, :height, :width])
            finished = canvas.pasted(finished) if canvas else finished
    with clock.phase("file"):
        text = infotext.write(alone, alone.seed)
        return Picture(0, 0, picture, alone.seed, *finished.size, text, packed(finished, text, canvas and canvas.profile))


def watcher(one: Pass, picture: int, done: int, shared: Shared, reporter: Reporter) -> Watch:
    """What tells of a pass as it is drawn, after so many steps `done` in the passes before it."""
    canvas = shared.canvas
    size = canvas.plan.drawn if canvas else (one.recipe.width, one.recipe.height)

    def look(denoised: Tensor) -> Image.Image:
        glimpse = preview.glimpse(denoised, shared.warm.colours, size)
        return canvas.in_place(glimpse) if canvas else glimpse

    def watch(step: int, denoised: Tensor | None) -> None:
        if denoised is None:
            reporter.phase("draw", picture, done + min(step, one.drawn))  # some schedules have a few levels more
        else:
            reporter.preview(picture, lambda: look(denoised))

    return watch


def sample(one: Pass, means: Means, latents: Latents | None, family: StableDiffusion1, watch: Watch) -> Tensor:
    """The finished latent (1, C, H, W) of a pass over one picture: a new one, or what `latents` hold, changed."""
    recipe, device = one.recipe, family.unet.device
    levels = chosen.levels(recipe, family.sigmas)
    sigmas = chosen.sigmas(recipe, levels)[recipe.steps - one.drawn :]
    require_descent(sigmas)

    unit = chosen.first_noise(recipe, means.shape).to(device)
    later = chosen.later_noise(recipe, means.shape, sigmas)
    if latents is None or recipe.denoising_strength == 1:
        x = unit * chosen.start_deviation(recipe, sigmas[0])
    else:
        x = latents.begin + (latents.noisy + sigmas[0]) * unit
    keeps = latents is not None and latents.mask is not None and (latents.soft or not family.architecture.inpaints)

    def denoiser(conditionings: list[Tensor]) -> Denoise:
        return family.denoiser(conditionings, levels, means.shown)

    guides: list[Guide] = [
        *(guidance(recipe, denoiser(means.conditionings[:1])) if len(means.conditionings) > 1 else []),
        *([masked(latents.mask_at(levels, sigmas[0]), latents.known, unit, sigmas[0])] if keeps else []),
        finite,
        watched(sigmas, watch),
    ]
    denoise = reduce(lambda inner, guide: guide(inner), guides, denoiser(means.conditionings))
    x = chosen.sampler(recipe)(denoise, x, sigmas, lambda start, end: later(start, end).to(device))
    return torch.where(latents.mask > 0, x, latents.known) if keeps else x


def guidance(recipe: Recipe, wanted: Denoise) -> list[Guide]:
    """How the two answers, wanted and unwanted, become one (or stay two, for CFG++); `wanted` answers where there is no guidance."""
    apart = SAMPLERS[recipe.sampler].apart
    scale = recipe.cfg_scale / CFG_SCALE_OF_1 if apart else recipe.cfg_scale
    low, high = recipe.guidance_sigma_min, recipe.guidance_sigma_max or math.inf
    everywhere = (low, high) == (0, math.inf)
    within = [] if everywhere else [only_between(low, high, twice(wanted) if apart else wanted)]
    return [guided(scale, recipe.cfg_rescale, apart), *within]


def skips_negative(recipe: Recipe) -> bool:
    """At CFG scale 1 guidance returns the wanted answer whatever the unwanted one is; CFG++ needs both always."""
    return recipe.cfg_scale == 1 and not SAMPLERS[recipe.sampler].apart


def way(recipe: Recipe, shared: Shared) -> str:
    """In which way a picture was drawn, or changed."""
    if recipe.hires:
        return f"a new picture, drawn again after enlarging it by {recipe.hires_upscaler}"
    if shared.canvas is None:
        return "a new picture"
    if not recipe.is_masked:
        return "the whole picture"
    kind = "an inpainting checkpoint that sees the mask" if shared.warm.family.architecture.inpaints else "masked blending at every step"
    return f"{kind}, by degrees (soft mask)" if recipe.mask_edge == SOFT else kind


def facts(recipe: Recipe, studio: Studio, shared: Shared, clock: "Clock") -> Facts:
    """What happened, in plain values."""
    warm = shared.warm
    together = len({conditioning.shape[1] for conditioning in shared.means[0].conditionings}) == 1
    beside = "together with the positive one" if together else "on its own, for the prompts differ in length"
    return {
        "checkpoint": warm.name,
        "vae": warm.vae_name or "the checkpoint's own",
        "device": str(studio.device),
        "number_format": warm.format.name,
        "number_format_why": warm.format.why,
        "negative_pass": "skipped (CFG scale 1)" if skips_negative(recipe) else beside,
        "way": way(recipe, shared),
        "threads": torch.get_num_threads(),
        "seconds": clock.rounded(),
        "peak_memory_bytes": peak_memory(),
        "versions": versions(),
    }
