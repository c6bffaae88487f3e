"""The one table of fields: what a picture is made from.

Each field of `Recipe` is a row: type, default, bounds, label, help and infotext key. The page's form, the command line,
validation, the parameters text and the documentation are all built from it.
"""

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass

from modules.recipe.catalogue import AUTOMATIC, SAMPLERS, SCHEDULES, Named, named


class BadField(ValueError):
    """A value that a recipe cannot have. `field` names the row, the message is one line for the person who typed it."""

    def __init__(self, field: str, message: str) -> None:
        super().__init__(message)
        self.field = field


@dataclass(frozen=True)
class Row:
    """What is known of a field besides its name, type and default. `choices` are names from the catalogue."""

    label: str
    help: str
    low: float | None = None
    high: float | None = None
    step: float = 1
    choices: Mapping[str, Named] | None = None
    infotext: str | None = None


def row(default: object, label: str, help: str, **known: object) -> dataclasses.Field:
    return dataclasses.field(default=default, metadata={"row": Row(label, help, **known)})


MAX_SEED = 2**63 - 1
MAX_PROMPT = 100_000  # characters
MAX_PICTURES = 1_000  # in one job
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
    width: int = row(512, "Width", "Pixels, a multiple of 8.", low=64, high=4096, step=8, infotext="Size")
    height: int = row(512, "Height", "Pixels, a multiple of 8.", low=64, high=4096, step=8)
    model_hash: str = row("", "Model hash", "First 10 digits of the checkpoint's SHA-256.", infotext="Model hash")
    checkpoint: str = row("", "Checkpoint", "The model that draws, from models/Stable-diffusion.", infotext="Model")
    vae: str = row(AUTOMATIC, "VAE", "The decoder: Automatic, None (the checkpoint's own), or a file of models/VAE.", infotext="VAE")
    clip_skip: int = row(1, "Clip skip", "Which text encoder layer is read, from the last.", low=1, high=12, infotext="Clip skip")
    batch_size: int = row(1, "Batch size", "Pictures drawn together.", low=1, high=64)
    batch_count: int = row(1, "Batch count", "Batches drawn one after the other.", low=1, high=100)
    lora_hashes: str = row("", "Lora hashes", "Which files the prompt's LoRAs are.", high=MAX_PROMPT, infotext="Lora hashes")

    @property
    def seeds(self) -> list[int]:
        """The seed of each picture: picture i is the one that `seed + i` draws alone."""
        return [self.seed + i for i in range(self.batch_size * self.batch_count)]


FIELDS: dict[str, tuple[type, Row]] = {f.name: (f.type, f.metadata["row"]) for f in dataclasses.fields(Recipe)}
DEFAULTS = Recipe()


def checked(name: str, value: object) -> str | int | float:
    """`value` as the field's own type, inside its bounds. BadField says what is wrong."""
    kind, about = FIELDS[name]
    if kind is str:
        return _checked_text(name, value, about)
    number = _checked_number(name, value, kind)
    if about.low is not None and not about.low <= number <= about.high:
        raise BadField(name, f"{about.label}: {value} is outside {about.low} to {about.high}")
    if kind is int and about.step > 1 and number % about.step:
        raise BadField(name, f"{about.label}: {value} is not a multiple of {about.step:g}")
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


def _checked_number(name: str, value: object, kind: type) -> int | float:
    label = FIELDS[name][1].label
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


def to_dict(recipe: Recipe) -> dict[str, str | int | float]:
    return dataclasses.asdict(recipe)


def from_dict(values: Mapping[str, object]) -> Recipe:
    """The recipe that `to_dict` described, each value checked again. Fields that are missing get their default."""
    unknown = set(values) - set(FIELDS)
    if unknown:
        raise BadField(min(unknown), f"{min(unknown)}: no such field in a recipe")
    return Recipe(**{name: checked(name, value) for name, value in values.items()})
