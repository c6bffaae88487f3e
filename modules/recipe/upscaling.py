"""What an upscaled picture is made from, and how large it becomes: the recipe of super-resolution."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from modules.recipe.fields import MAX_ID, BadField, Recipe, checked, from_dict, row, table
from modules.recipe.infotext import pairs
from modules.recipe.plan import Size
from modules.recipe.request import Pictures
from modules.version import VERSION

DEFAULT = "realesr-animevideov3"
NO_SECOND = "None"
MAX_SIDE = 65_536  # pixels
MAX_BYTES = 1_000_000_000  # of a finished picture's pixels: so its file fits into a message whatever it shows
MAX_PASSES = 3
MAX_NAME = 200  # characters
_UPSCALER_HELP = "What enlarges: a network of models/ESRGAN or a folder beside it, or plain resampling."
_SECOND_HELP = "A second way, whose result is blended with the first's."
_WEIGHT_HELP = "How much of the second is seen: 0 nothing, 1 all."
_TARGET_HELP = "Pixels; 0 for by factor. With one of width and height the other follows."
_CROP_HELP = "Cuts off what juts out where the target has another shape; without it the picture covers the target."


@dataclass(frozen=True)
class Upscaling:
    """Everything that decides how a picture is enlarged. Sizes are pixels; `picture` is the id of the one to enlarge."""

    picture: str = row("", "Picture", "The picture to enlarge.", high=MAX_ID)
    name: str = row("", "Name", "What its file was called.", high=MAX_NAME)
    upscaler: str = row(DEFAULT, "Upscaler", _UPSCALER_HELP, high=MAX_NAME)
    upscaler_2: str = row(NO_SECOND, "Second upscaler", _SECOND_HELP, high=MAX_NAME)
    upscaler_2_weight: float = row(0.5, "Second's weight", _WEIGHT_HELP, low=0, high=1, step=0.01)
    factor: float = row(4.0, "Factor", "How often larger each side becomes.", low=0.05, high=16, step=0.05)
    width: int = row(0, "Width", _TARGET_HELP, low=0, high=MAX_SIDE)
    height: int = row(0, "Height", _TARGET_HELP, low=0, high=MAX_SIDE)
    crop: bool = row(True, "Crop to fit", _CROP_HELP)

    @property
    def kind(self) -> str:
        """What the result is called among all pictures: the name of its folder without `-images`."""
        return "extras"

    @property
    def title(self) -> str:
        """What a list of jobs calls it."""
        how = f"{self.width or 'auto'} × {self.height or 'auto'}" if self.by_target else f"{self.factor:g}×"
        return f"{self.name or 'a picture'}, {how}"

    @property
    def seeds(self) -> list[int]:
        """One picture, and no chance in it."""
        return [0]

    @property
    def checkpoint(self) -> str:
        """None draws it."""
        return ""

    @property
    def by_target(self) -> bool:
        return bool(self.width or self.height)

    @property
    def blends(self) -> bool:
        """Whether there is a second upscaler that is seen."""
        return self.upscaler_2 != NO_SECOND and self.upscaler_2_weight > 0


FIELDS = table(Upscaling)
DEFAULTS = Upscaling()
Described = Recipe | Upscaling
"""All that can be asked of the engine."""


def read(values: Mapping[str, object]) -> Described:
    """The recipe or upscaling whose plain values these are, each checked again."""
    return from_dict(values, Upscaling if "picture" in values else Recipe)


def resolve(request: Mapping[str, object], named: Callable[[str], str], pictures: Pictures) -> Upscaling:
    """The upscaling for `request`, a mapping of field names to raw values in which None and "" are holes.

    `named` gives an upscaler's own name ("" is the usual one) or raises LookupError. A bad value raises BadField, and so does a size
    that no file can hold.
    """
    upscaling = Upscaling(**checked_request(request, named))
    try:
        source = pictures.size_of(upscaling.picture)
    except (LookupError, ValueError) as error:
        raise BadField("picture", f"Picture: {error}") from None
    _check_size(upscaling, source)
    return upscaling


def checked_request(request: Mapping[str, object], named: Callable[[str], str]) -> dict[str, str | int | float | bool]:
    """What is requested, whatever the picture, without holes for upscalers. BadField says what is wrong."""
    unknown = set(request) - set(FIELDS)
    if unknown:
        raise BadField(min(unknown), f"{min(unknown)!r:.60}: there is no such field")
    values = {name: checked(name, value, FIELDS) for name, value in request.items() if value is not None and value != ""}
    if {"width", "height"} & values.keys() and not (values.get("width") or values.get("height") or "factor" in values):
        raise BadField("width", "Size: say how wide or how high")
    values = {"upscaler": "", **values}
    for name in ("upscaler", "upscaler_2"):
        if values.get(name, NO_SECOND) != NO_SECOND or name == "upscaler":
            try:
                values[name] = named(values[name])
            except LookupError as error:
                raise BadField(name, f"{FIELDS[name][1].label}: {error}") from None
    return values


def _check_size(upscaling: Upscaling, source: Size) -> None:
    width, height = enlarged_size(upscaling, source)
    needed, field = width * height * 3, "width" if upscaling.by_target else "factor"
    if needed > MAX_BYTES:
        most = f"{MAX_BYTES / 3e6:.0f} million pixels"
        raise BadField(field, f"Size: {width}x{height} would be {width * height / 1e6:.0f} million pixels; a file holds {most} at most")
    if max(width, height) > MAX_SIDE:
        raise BadField(field, f"Size: {width}x{height} is longer than the {MAX_SIDE} pixels a side may have")


def enlarged_size(upscaling: Upscaling, source: Size) -> Size:
    """The size that a picture of size `source` is brought to, before anything is cropped off."""
    width, height = source
    if not upscaling.by_target:
        return max(int(width * upscaling.factor), 1), max(int(height * upscaling.factor), 1)
    scale = max(upscaling.width / width, upscaling.height / height)
    return max(round(width * scale), upscaling.width, 1), max(round(height * scale), upscaling.height, 1)


def finished_size(upscaling: Upscaling, source: Size) -> Size:
    """The size of the finished picture."""
    width, height = enlarged_size(upscaling, source)
    if not (upscaling.by_target and upscaling.crop):
        return width, height
    return upscaling.width or width, upscaling.height or height


def passes(source: Size, target: Size, scale: int) -> int:
    """How often a network that enlarges `scale` times runs, each time on what came out before: once at least, three times at most."""
    if scale < 2:
        return 1
    missing = max(target[0] / source[0], target[1] / source[1])
    return min(max(math.ceil(math.log(missing, scale) - 1e-9), 1), MAX_PASSES)


def infotext(upscaling: Upscaling, source: Size, before: str) -> str:
    """The parameters text of the upscaled picture: how it was enlarged, behind what was said of it `before`."""
    enlarged, finished = enlarged_size(upscaling, source), finished_size(upscaling, source)
    told = pairs(
        {
            "Postprocess upscale by": None if upscaling.by_target else f"{upscaling.factor:g}",
            "Postprocess upscale to": f"{finished[0]}x{finished[1]}" if upscaling.by_target else None,
            "Postprocess crop to": f"{finished[0]}x{finished[1]}" if finished != enlarged else None,
            "Postprocess upscaler": upscaling.upscaler,
            "Postprocess upscaler 2": upscaling.upscaler_2 if upscaling.blends else None,
            "Postprocess upscaler 2 visibility": f"{upscaling.upscaler_2_weight:g}" if upscaling.blends else None,
            "Version": None if before else f"Easel {VERSION}",
        }
    )
    return f"{before}, {told}" if before else told
