"""The whole story of a picture: recipe in, pictures and facts out."""

import contextlib
import io
import math
import time
from collections.abc import Callable, Iterator
from functools import reduce
from importlib.metadata import version

import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from modules.engine.guides import Guide, finite, guided, only_between, require_descent, require_finite, twice, watched
from modules.engine.machine import peak_memory
from modules.engine.progress import Emit, Reporter
from modules.engine.stop import CannotDraw, Skipped
from modules.engine.studio import Studio, Warm
from modules.engine.weights import checking
from modules.jobs.messages import Picture
from modules.recipe import infotext
from modules.recipe.catalogue import SAMPLERS
from modules.recipe.fields import Recipe
from modules.recipe.prompt import networks, words
from modules.samplers import chosen
from modules.samplers.registry import Denoise
from modules.version import VERSION

Facts = dict[str, object]

PNG_LEVEL = 4  # a third of the time of the usual 6, for a few percent more bytes
CFG_SCALE_OF_1 = 12.5  # the CFG scale that CFG++ takes for its own 1, its highest, so that usual values are usual there too
LIBRARIES = ("torch", "diffusers", "transformers")


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
        prepared(recipe, studio, reporter, clock, check) as (warm, conditionings),
    ):
        for batch in range(recipe.batch_count):
            with checking(check), contextlib.suppress(Skipped):
                for picture in range(batch * recipe.batch_size, (batch + 1) * recipe.batch_size):
                    emit(draw(recipe, picture, warm, conditionings, reporter, clock))
                    drawn += 1
    return facts(recipe, studio, warm, conditionings, clock) | {"pictures": drawn, "skipped": len(recipe.seeds) - drawn}


@contextlib.contextmanager
def prepared(
    recipe: Recipe, studio: Studio, reporter: Reporter, clock: "Clock", check: Callable[[], None]
) -> Iterator[tuple[Warm, list[Tensor]]]:
    """What all pictures share: the loaded checkpoint, with LoRAs for the time of the block, and the encoded prompts, the wanted first."""

    def early_check() -> None:
        with contextlib.suppress(Skipped):  # no batch is being drawn yet
            check()

    def report(fraction: float) -> None:
        early_check()
        reporter.loading(fraction)

    with contextlib.ExitStack() as loras:
        with clock.phase("load"), checking(early_check):
            reporter.phase("load")
            warm = studio.warm(recipe.checkpoint, recipe.vae, report)
            loras.enter_context(studio.adapted(warm, networks(recipe.prompt), early_check))
        with clock.phase("encode"), checking(early_check):
            reporter.phase("encode")
            prompts = [words(recipe.prompt)] if skips_negative(recipe) else [words(recipe.prompt), recipe.negative_prompt]
            conditionings = [studio.encoded(warm, prompt, recipe.clip_skip) for prompt in prompts]
        yield warm, conditionings


def draw(recipe: Recipe, picture: int, warm: Warm, conditionings: list[Tensor], reporter: Reporter, clock: "Clock") -> Picture:
    """One picture, from the noise of its own seed to its file. The same whatever was drawn before it."""
    alone = recipe.alone(picture)

    def report(step: int, denoised: Tensor | None) -> None:
        if denoised is None:
            reporter.phase("draw", picture, min(step, recipe.steps))  # some schedules have a few levels more
        else:
            reporter.preview(picture, denoised, warm.colours)

    with clock.phase("draw"):
        latent = sample(alone, warm, conditionings, report)
    with clock.phase("decode"):
        reporter.phase("decode", picture, recipe.steps)
        image = warm.family.to_image(latent)
        require_finite(image, "the VAE")
    with clock.phase("file"):
        text = infotext.write(alone, alone.seed)
        return Picture(0, 0, picture, alone.seed, recipe.width, recipe.height, text, png(image[0], text))


def sample(recipe: Recipe, warm: Warm, conditionings: list[Tensor], report: Callable[[int, Tensor | None], None]) -> Tensor:
    """The finished latent (1, C, H, W) of the one picture of this recipe."""
    family = warm.family
    shape, device = family.latent_shape(recipe.width, recipe.height), family.unet.device
    levels = chosen.levels(recipe, family.sigmas)
    sigmas = chosen.sigmas(recipe, levels)
    require_descent(sigmas)

    x = chosen.first_noise(recipe, shape) * chosen.start_deviation(recipe, sigmas[0])
    later = chosen.later_noise(recipe, shape, sigmas)

    guides: list[Guide] = [
        *(guidance(recipe, family.denoiser(conditionings[:1], levels)) if len(conditionings) > 1 else []),
        finite,
        watched(sigmas, report),
    ]
    denoise = reduce(lambda inner, guide: guide(inner), guides, family.denoiser(conditionings, levels))
    return chosen.sampler(recipe)(denoise, x.to(device), sigmas, lambda start, end: later(start, end).to(device))


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


def png(image: Tensor, text: str) -> bytes:
    """An image (3, H, W) in -1 to 1 as a PNG that carries `text` as its parameters."""
    pixels = image.cpu().add(1).div(2).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0)
    about = PngInfo()
    about.add_text("parameters", text)
    file = io.BytesIO()
    Image.fromarray(pixels.numpy()).save(file, "PNG", pnginfo=about, compress_level=PNG_LEVEL)
    return file.getvalue()


def facts(recipe: Recipe, studio: Studio, warm: Warm, conditionings: list[Tensor], clock: "Clock") -> Facts:
    """What happened, in plain values."""
    together = len({conditioning.shape[1] for conditioning in conditionings}) == 1
    beside = "together with the positive one" if together else "on its own, for the prompts differ in length"
    return {
        "checkpoint": warm.name,
        "vae": warm.vae_name or "the checkpoint's own",
        "device": str(studio.device),
        "number_format": warm.format.name,
        "number_format_why": warm.format.why,
        "negative_pass": "skipped (CFG scale 1)" if skips_negative(recipe) else beside,
        "threads": torch.get_num_threads(),
        "seconds": clock.rounded(),
        "peak_memory_bytes": peak_memory(),
        "versions": versions(),
    }


def versions() -> dict[str, str]:
    """What the picture's numbers depend on."""
    return {"easel": VERSION, **{name: version(name) for name in LIBRARIES}}


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0) + time.monotonic() - begun

    def rounded(self) -> dict[str, float]:
        return {name: round(seconds, 3) for name, seconds in {**self._seconds, "total": time.monotonic() - self._begun}.items()}


@contextlib.contextmanager
def memory_errors_explained(recipe: Recipe) -> Iterator[None]:
    """Turns every way in which memory can run out into CannotDraw."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_about_memory(error):
            raise
        raise CannotDraw(
            f"not enough memory to draw {recipe.width}x{recipe.height} with {recipe.checkpoint}: choose a smaller size, "
            "or close other programs"
        ) from error


def _is_about_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "not enough memory" in str(error)
