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
from modules.engine.canvas import Canvas, Latents, blank, encoded, read_canvas
from modules.engine.facts import Clock, Facts, versions
from modules.engine.guides import Guide, finite, guided, masked, only_between, require_descent, require_finite, twice, watched
from modules.engine.machine import is_about_memory, peak_memory
from modules.engine.png import png
from modules.engine.progress import Emit, Reporter
from modules.engine.stop import CannotDraw, Skipped
from modules.engine.studio import Studio, Warm
from modules.engine.weights import checking
from modules.jobs.messages import Picture
from modules.recipe import infotext
from modules.recipe.catalogue import SAMPLERS, SOFT
from modules.recipe.fields import Recipe
from modules.recipe.plan import steps_drawn
from modules.recipe.prompt import networks, words
from modules.samplers import chosen
from modules.samplers.registry import Denoise

CFG_SCALE_OF_1 = 12.5  # the CFG scale that CFG++ takes for its own 1, its highest, so that usual values are usual there too


def run(recipe: Recipe, studio: Studio, emit: Emit, check: Callable[[], None]) -> Facts:
    """Draws every picture of a resolved recipe, one after the other, and returns how it went.

    `check` is called before every layer of every network; what it raises ends the run (Cancelled) or the batch (Skipped).
    CannotDraw says in one line why it cannot be done. Pictures already emitted stay good.
    """
    reporter, clock = Reporter(recipe, emit), Clock()
    drawn = 0
    with (
        torch.inference_mode(),
        memory_errors_explained(recipe),
        prepared(recipe, studio, reporter, clock, check) as shared,
    ):
        for batch in range(recipe.batch_count):
            with checking(check), contextlib.suppress(Skipped):
                for picture in range(batch * recipe.batch_size, (batch + 1) * recipe.batch_size):
                    emit(draw(recipe, picture, shared, reporter, clock))
                    drawn += 1
    return facts(recipe, studio, shared, clock) | {"pictures": drawn, "skipped": len(recipe.seeds) - drawn}


@dataclass(frozen=True)
class Shared:
    """What all pictures of a recipe share: the loaded checkpoint, the encoded prompts (the wanted one first), the picture to change.

    `shown` is what an inpainting network sees besides the latent.
    """

    warm: Warm
    conditionings: list[Tensor]
    canvas: Canvas | None
    latents: Latents | None
    shown: Tensor | None


@contextlib.contextmanager
def prepared(recipe: Recipe, studio: Studio, reporter: Reporter, clock: "Clock", check: Callable[[], None]) -> Iterator[Shared]:
    """Loads and encodes what the recipe names, with LoRAs for the time of the block."""

    def early_check() -> None:
        with contextlib.suppress(Skipped):  # no batch is being drawn yet
            check()

    def report(fraction: float) -> None:
        early_check()
        reporter.loading(fraction)

    canvas = read_canvas(recipe, studio.shelf)
    with contextlib.ExitStack() as loras:
        with clock.phase("load"), checking(early_check):
            reporter.phase("load")
            warm = studio.warm(recipe.checkpoint, recipe.vae, report)
            loras.enter_context(studio.adapted(warm, networks(recipe.prompt), early_check))
        with clock.phase("encode"), checking(early_check):
            reporter.phase("encode")
            prompts = [words(recipe.prompt)] if skips_negative(recipe) else [words(recipe.prompt), recipe.negative_prompt]
            conditionings = [studio.encoded(warm, prompt, recipe.clip_skip) for prompt in prompts]
            latents, shown = encoded(recipe, canvas, warm.family) if canvas else (None, blank(recipe, warm.family))
        yield Shared(warm, conditionings, canvas, latents, shown)


def draw(recipe: Recipe, picture: int, shared: Shared, reporter: Reporter, clock: "Clock") -> Picture:
    """One picture, from the noise of its own seed to its file. The same whatever was drawn before it."""
    alone, canvas, family = recipe.alone(picture), shared.canvas, shared.warm.family
    size = canvas.plan.drawn if canvas else (recipe.width, recipe.height)

    def report(step: int, denoised: Tensor | None) -> None:
        if denoised is None:
            reporter.phase("draw", picture, min(step, steps_drawn(recipe)))  # some schedules have a few levels more
        else:
            reporter.preview(picture, lambda: look(denoised))

    def look(denoised: Tensor) -> Image.Image:
        glimpse = preview.glimpse(denoised, shared.warm.colours, size)
        return canvas.in_place(glimpse) if canvas else glimpse

    finished = canvas.picture if canvas else None
    if steps_drawn(recipe):
        with clock.phase("draw"):
            latent = sample(alone, shared, report)
        with clock.phase("decode"):
            reporter.phase("decode", picture, steps_drawn(recipe))
            image = family.to_image(latent)
            require_finite(image, "the VAE")
            finished = pixels(image[0, :, : size[1], : size[0]])
            finished = canvas.pasted(finished) if canvas else finished
    with clock.phase("file"):
        text = infotext.write(alone, alone.seed)
        return Picture(0, 0, picture, alone.seed, *finished.size, text, png(finished, text, canvas and canvas.profile))


def sample(recipe: Recipe, shared: Shared, report: Callable[[int, Tensor | None], None]) -> Tensor:
    """The finished latent (1, C, H, W) of the one picture of this recipe."""
    family, latents, device = shared.warm.family, shared.latents, shared.warm.family.unet.device
    shape = tuple(latents.known.shape[1:]) if latents else family.latent_shape(recipe.width, recipe.height)
    levels = chosen.levels(recipe, family.sigmas)
    sigmas = chosen.sigmas(recipe, levels)[recipe.steps - steps_drawn(recipe) :]
    require_descent(sigmas)

    unit = chosen.first_noise(recipe, shape).to(device)
    later = chosen.later_noise(recipe, shape, sigmas)
    if latents is None or recipe.denoising_strength == 1:
        x = unit * chosen.start_deviation(recipe, sigmas[0])
    else:
        x = latents.begin + (latents.noisy + sigmas[0]) * unit
    keeps = latents is not None and latents.mask is not None and (latents.soft or not family.architecture.inpaints)

    def denoiser(conditionings: list[Tensor]) -> Denoise:
        return family.denoiser(conditionings, levels, shared.shown)

    guides: list[Guide] = [
        *(guidance(recipe, denoiser(shared.conditionings[:1])) if len(shared.conditionings) > 1 else []),
        *([masked(latents.mask_at(levels, sigmas[0]), latents.known, unit, sigmas[0])] if keeps else []),
        finite,
        watched(sigmas, report),
    ]
    denoise = reduce(lambda inner, guide: guide(inner), guides, denoiser(shared.conditionings))
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


def pixels(image: Tensor) -> Image.Image:
    """An image (3, H, W) in -1 to 1 as a picture."""
    return Image.fromarray(image.cpu().add(1).div(2).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def way(recipe: Recipe, shared: Shared) -> str:
    """In which way a picture was changed."""
    if shared.canvas is None:
        return "a new picture"
    if not recipe.is_masked:
        return "the whole picture"
    kind = "an inpainting checkpoint that sees the mask" if shared.warm.family.architecture.inpaints else "masked blending at every step"
    return f"{kind}, by degrees (soft mask)" if recipe.mask_edge == SOFT else kind


def facts(recipe: Recipe, studio: Studio, shared: Shared, clock: "Clock") -> Facts:
    """What happened, in plain values."""
    warm = shared.warm
    together = len({conditioning.shape[1] for conditioning in shared.conditionings}) == 1
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


@contextlib.contextmanager
def memory_errors_explained(recipe: Recipe) -> Iterator[None]:
    """Turns every way in which memory can run out into CannotDraw."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not is_about_memory(error):
            raise
        raise CannotDraw(
            f"not enough memory to draw {recipe.width}x{recipe.height} with {recipe.checkpoint}: choose a smaller size, "
            "or close other programs"
        ) from error
