"""The one table of fields: what a picture is made from.

Each field of `Recipe` is a row: type, default, bounds, label, help and infotext key. The page's form, the command line,
validation, the parameters text and the documentation are all built from it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

from modules.recipe.catalogue import (
    AUTOMATIC,
    CPU_NOISE,
    DEFAULT_NOISE,
    HARD,
    HIRES_SAMPLERS,
    HIRES_SCHEDULES,
    INPAINT_AREAS,
    LATENT,
    MASK_EDGES,
    MASK_MODES,
    MASKED,
    MASKED_CONTENT,
    NOISE_SCHEDULES,
    NOISE_SOURCES,
    ORIGINAL,
    RESIZE_MODES,
    SAME_SAMPLER,
    SAME_SCHEDULE,
    SAMPLERS,
    SCHEDULES,
    STRETCH,
    WHOLE_PICTURE,
    Named,
    named,
)


class BadField(ValueError):
    """A value that a recipe cannot have. `field` names the row, the message is one line for the person who typed it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Row:
    """What is known of a field besides its name, type and default. `choices` are names from the catalogue.

    A `quiet` field is left out of the parameters text where it has its default, or no say in the picture.
    """

    label: str
    help: str
    low: float | None = None
    high: float | None = None
    step: float = 1
    choices: Mapping[str, Named] | None = None
    infotext: str | None = None
    quiet: bool = False


def row(default: object, label: str, help: str, **known: object) -> dataclasses.Field:
    return dataclasses.field(default=default, metadata={"row": Row(label, help, **known)})


def rare(default: object, label: str, help: str, **known: object) -> dataclasses.Field:
    """A row that few pictures need: quiet, and named by its label in the parameters text if not told otherwise."""
    return row(default, label, help, **{"infotext": label, "quiet": True, **known})


MAX_SEED = 2**63 - 1
MAX_PROMPT = 100_000  # characters
MAX_PICTURES = 1_000  # in one job
_SUBSEED_HELP = "The seed whose picture a variation leans to; -1 picks one at random."
_VARIATION_HELP = "How far the noise leans to the variation seed; then pictures differ by that seed."
_RESIZE_HELP = "Pixels of the picture whose composition this seed shall keep; 0 for none."
_ENSD_HELP = "Added to the seed for noise that is drawn after the first."
_SOURCE_HELP = "CPU: the same on every machine. NV: what an NVIDIA card draws, also without one."
_TERMINAL_HELP = "Zero Terminal SNR begins with noise alone: for models trained so."
_RESCALE_HELP = "Takes back contrast that a high CFG scale adds; 0.7 suits Zero Terminal SNR."
_INTERVAL_HELP = "The negative prompt and CFG act between these sigmas only, which saves time; 0 for no limit."
MAX_ID = 64  # characters
_SIZE_HELP = "Pixels, a multiple of 8 unless a picture is changed."
_STRENGTH_HELP = "How much may change: at 0 nothing, at 1 nothing of the old is kept."
_EDGE_HELP = "Hard: what is more white than black is drawn anew. Soft: the greyer, the less may change."
_AREA_HELP = "Only masked: the part around the mask is drawn at the full size above, the rest is not touched."
_HIRES_HELP = "Draws small first, then enlarges and draws again for detail."
_HIRES_SIZE_HELP = "The finished side in pixels; 0 keeps proportions, both crop."
_HIRES_UPSCALER_HELP = "Latent ways want a strength above 0.5; others keep more."
_CFG_HELP = "How closely the prompt is followed. At 1 the negative prompt is not used."


@dataclass(frozen=True)
class Recipe:
    """Everything that decides a picture: same recipe, same machine, same picture. Sizes are pixels."""

    prompt: str = row("", "Prompt", "What to draw. (word:1.2) weighs a word more, [word] less.", high=MAX_PROMPT)
    negative_prompt: str = row("", "Negative prompt", "What to keep out of the picture.", high=MAX_PROMPT)
    steps: int = row(20, "Steps", "More take longer; 20 to 30 are enough for most samplers.", low=1, high=150, infotext="Steps")
    sampler: str = row("DPM++ 2M", "Sampler", "The method that turns noise into a picture.", choices=SAMPLERS, infotext="Sampler")
    schedule: str = row(AUTOMATIC, "Schedule type", "How the noise falls, step by step.", choices=SCHEDULES, infotext="Schedule type")
    cfg_scale: float = row(7.0, "CFG scale", _CFG_HELP, low=0, high=30, step=0.5, infotext="CFG scale")
    seed: int = row(-1, "Seed", "Same seed, same picture; -1 picks one at random.", low=-1, high=MAX_SEED, infotext="Seed")
    width: int = row(512, "Width", _SIZE_HELP, low=64, high=4096, step=8, infotext="Size")
    height: int = row(512, "Height", _SIZE_HELP, low=64, high=4096, step=8)
    model_hash: str = row("", "Model hash", "First 10 digits of the checkpoint's SHA-256.", infotext="Model hash")
    checkpoint: str = row("", "Checkpoint", "The model that draws, from models/Stable-diffusion.", infotext="Model")
    vae: str = row(AUTOMATIC, "VAE", "The decoder: Automatic, None (the checkpoint's own), or a file of models/VAE.", infotext="VAE")
    denoising_strength: float = row(0.75, "Denoising strength", _STRENGTH_HELP, low=0, high=1, step=0.01, infotext="Denoising strength")
    subseed: int = rare(-1, "Variation seed", _SUBSEED_HELP, low=-1, high=MAX_SEED)
    subseed_strength: float = rare(
        0.0, "Variation strength", _VARIATION_HELP, low=0, high=1, step=0.01, infotext="Variation seed strength"
    )
    seed_resize_from_w: int = rare(0, "Seed width", _RESIZE_HELP, low=-1, high=4096, infotext="Seed resize from")
    seed_resize_from_h: int = rare(0, "Seed height", _RESIZE_HELP, low=-1, high=4096, infotext=None)
    clip_skip: int = row(1, "Clip skip", "Which text encoder layer is read, from the last.", low=1, high=12, infotext="Clip skip")
    eta_noise_seed_delta: int = rare(0, "ENSD", _ENSD_HELP, low=-(2**32), high=2**32)
    lora_hashes: str = row("", "Lora hashes", "Which files the prompt's LoRAs are.", high=MAX_PROMPT, infotext="Lora hashes")
    randn_source: str = row(CPU_NOISE, "Noise source", _SOURCE_HELP, choices=NOISE_SOURCES, infotext="RNG")
    batch_size: int = row(1, "Batch size", "Pictures drawn together.", low=1, high=64)
    batch_count: int = row(1, "Batch count", "Batches drawn one after the other.", low=1, high=100)
    eta: float = rare(1.0, "Eta", "Share of fresh noise of the ancestral and SDE samplers.", low=0, high=1, step=0.01)
    eta_ddim: float = rare(0.0, "Eta DDIM", "Share of fresh noise of DDIM.", low=0, high=1, step=0.01)
    s_churn: float = rare(0.0, "Sigma churn", "Noise that Euler, Heun and DPM2 add before each step.", low=0, high=100, step=0.01)
    s_tmin: float = rare(0.0, "Sigma tmin", "The sigma below which no such noise is added.", low=0, high=10, step=0.01)
    s_tmax: float = rare(0.0, "Sigma tmax", "The sigma above which no such noise is added; 0 for no limit.", low=0, high=999, step=0.01)
    s_noise: float = rare(1.0, "Sigma noise", "How strong fresh noise is.", low=0, high=2, step=0.001)
    sigma_min: float = rare(0.0, "Schedule min sigma", "Where the noise ends; 0: as the model has it.", low=0, high=2, step=0.001)
    sigma_max: float = rare(0.0, "Schedule max sigma", "Where the noise begins; 0: as the model has it.", low=0, high=999, step=0.001)
    rho: float = rare(0.0, "Schedule rho", "How the steps crowd at low noise; 0: as the schedule has it.", low=0, high=100, step=0.1)
    beta_dist_alpha: float = rare(0.6, "Beta schedule alpha", "Fewer steps at low noise if higher.", low=0.01, high=5, step=0.01)
    beta_dist_beta: float = rare(0.6, "Beta schedule beta", "Fewer steps at high noise if higher.", low=0.01, high=5, step=0.01)
    always_discard_next_to_last_sigma: bool = rare(
        False, "Discard penultimate sigma", "Leaves out the last level but one, which some samplers do anyway."
    )
    sgm_noise_multiplier: bool = rare(False, "SGM noise multiplier", "Begins with a little more noise, as Stability's own programs do.")
    sd_noise_schedule: str = rare(
        DEFAULT_NOISE, "Noise schedule", _TERMINAL_HELP, choices=NOISE_SCHEDULES, infotext="Noise Schedule"
    )
    use_downcasted_alpha_bar: bool = rare(
        False, "Downcast noise levels", "Noise levels in half precision, as before 2024.", infotext="Downcast alphas_cumprod"
    )
    cfg_rescale: float = rare(0.0, "CFG rescale", _RESCALE_HELP, low=0, high=1, step=0.05)
    guidance_sigma_min: float = rare(0.0, "Guidance min sigma", _INTERVAL_HELP, low=0, high=100, step=0.01)
    guidance_sigma_max: float = rare(0.0, "Guidance max sigma", _INTERVAL_HELP, low=0, high=100, step=0.01)
    init_image: str = row("", "Picture", "The picture that is changed.", high=MAX_ID)
    mask: str = row("", "Mask", "Which part is drawn anew: what is white.", high=MAX_ID)
    resize_mode: str = row(STRETCH, "Resize mode", "How the picture is brought to another size.", choices=RESIZE_MODES)
    mask_mode: str = row(MASKED, "Mask mode", "Which side of the mask is drawn anew.", choices=MASK_MODES, infotext="Mask mode")
    mask_edge: str = row(HARD, "Mask edge", _EDGE_HELP, choices=MASK_EDGES, infotext="Mask edge")
    mask_blur: int = row(4, "Mask blur", "Pixels over which old and new fade into each other.", low=0, high=64, infotext="Mask blur")
    inpaint_area: str = row(WHOLE_PICTURE, "Inpaint area", _AREA_HELP, choices=INPAINT_AREAS, infotext="Inpaint area")
    masked_padding: int = row(
        32, "Mask padding", "Pixels around the mask that are looked at too.", low=0, high=256, infotext="Masked area padding"
    )
    masked_content: str = row(
        ORIGINAL, "Masked content", "What drawing begins from under the mask.", choices=MASKED_CONTENT, infotext="Masked content"
    )
    hires: bool = row(False, "Hires fix", _HIRES_HELP)
    hires_scale: float = row(2.0, "Upscale by", "How often larger each side becomes.", low=1, high=8, step=0.05, infotext="Hires upscale")
    hires_width: int = row(0, "Resize width to", _HIRES_SIZE_HELP, low=0, high=4096, step=8, infotext="Hires resize")
    hires_height: int = row(0, "Resize height to", _HIRES_SIZE_HELP, low=0, high=4096, step=8)
    hires_steps: int = row(0, "Hires steps", "Steps of the second drawing; 0 for as many.", low=0, high=150, infotext="Hires steps")
    hires_upscaler: str = row(LATENT, "Upscaler", _HIRES_UPSCALER_HELP, infotext="Hires upscaler")
    hires_sampler: str = row(SAME_SAMPLER, "Hires sampler", "For the second drawing.", choices=HIRES_SAMPLERS, infotext="Hires sampler")
    hires_schedule: str = row(
        SAME_SCHEDULE, "Hires schedule type", "For the second drawing.", choices=HIRES_SCHEDULES, infotext="Hires schedule type"
    )
    hires_prompt: str = row(
        "", "Hires prompt", "What to draw the second time; empty for the same.", high=MAX_PROMPT, infotext="Hires prompt"
    )
    hires_negative_prompt: str = row(
        "",
        "Hires negative prompt",
        "What to keep out the second time; empty for the same.",
        high=MAX_PROMPT,
        infotext="Hires negative prompt",
    )

    @property
    def is_masked(self) -> bool:
        """Whether only a part of a picture is drawn anew."""
        return bool(self.init_image and self.mask)

    @property
    def kind(self) -> str:
        """What the result is called among all pictures: the name of its folder without `-images`."""
        return "img2img" if self.init_image else "txt2img"

    @property
    def title(self) -> str:
        """What a list of jobs calls it."""
        return self.prompt

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture: it counts up, unless pictures are variations of one and their variation seed does."""
        return [self.seed + i * (not self.subseed_strength) for i in range(self.batch_size * self.batch_count)]

    @property
    def subseeds(self) -> list[int]:
        """The variation seed of each picture."""
        return [self.subseed + i for i in range(self.batch_size * self.batch_count)]

    def alone(self, picture: int) -> "Recipe":
        """What draws this one of the pictures alone."""
        own = {"seed": self.seeds[picture], "subseed": self.subseeds[picture]}
        return dataclasses.replace(self, **own, batch_size=1, batch_count=1)


Fields = Mapping[str, tuple[type, Row]]
Described = TypeVar("Described")
"""A frozen dataclass whose fields are all made by `row`."""


def table(described: type) -> Fields:
    """The rows of a dataclass whose fields are all made by `row`."""
    return {field.name: (field.type, field.metadata["row"]) for field in dataclasses.fields(described)}


FIELDS = table(Recipe)
DEFAULTS = Recipe()


def checked(name: str, value: object, fields: Fields = FIELDS) -> str | int | float | bool:
    """`value` as the field's own type, inside its bounds. BadField says what is wrong."""
    kind, about = fields[name]
    if kind is str:
        return _checked_text(name, value, about)
    if kind is bool:
        return _checked_flag(name, value, about)
    number = _checked_number(name, value, kind, about.label)
    if about.low is not None and not about.low <= number <= about.high:
        raise BadField(name, f"{about.label}: {value} is outside {about.low} to {about.high}")
    return number


def _checked_text(name: str, value: object, about: Row) -> str:
    if not isinstance(value, str):
        raise BadField(name, f"{about.label}: text is needed, not {type(value).__name__}")
    if about.high and len(value) > about.high:
        raise BadField(name, f"{about.label}: {len(value)} characters are more than {about.high}")
    if "\0" in value or not value.isprintable() and any("\ud800" <= c <= "\udfff" for c in value):
        raise BadField(name, f"{about.label}: holds characters that are no text")
    if about.choices is None:
        return value
    try:
        return named(about.choices, value).name
    except LookupError as error:
        raise BadField(name, f"{about.label}: {error}") from None


def _checked_flag(name: str, value: object, about: Row) -> bool:
    known = {"true": True, "1": True, "on": True, "false": False, "0": False, "off": False}
    if (text := str(value).lower() if isinstance(value, bool | int | str) else "") not in known:
        raise BadField(name, f"{about.label}: true or false is needed")
    return known[text]


def _checked_number(name: str, value: object, kind: type, label: str) -> int | float:
    try:
        number = int(value) if isinstance(value, int | str) and kind is int else float(value)
        finite = math.isfinite(number)
    except (TypeError, ValueError, OverflowError):
        finite = False
    if isinstance(value, bool) or not finite or kind is int and number != int(number):
        shown = f"{value!r:.40}" if isinstance(value, int | float | str) and not _is_long(value) else "that"
        raise BadField(name, f"{label}: {shown} is not a {'whole ' if kind is int else ''}number")
    return kind(number)


def _is_long(value: object) -> bool:
    """Whether Python would refuse to write the number out."""
    return isinstance(value, int) and value.bit_length() > 200


def to_dict(recipe: object) -> dict[str, str | int | float | bool]:
    return dataclasses.asdict(recipe)


def from_dict(values: Mapping[str, object], described: type[Described] = Recipe) -> Described:
    """What `to_dict` described, each value checked again. Fields that are missing get their default."""
    fields = table(described)
    unknown = set(values) - set(fields)
    if unknown:
        raise BadField(min(unknown), f"{min(unknown)}: no such field in a recipe")
    return described(**{name: checked(name, value, fields) for name, value in values.items()})
