"""Where on a picture is drawn, at which size and from which step on: decided by numbers alone. Sizes are (width, height) in pixels."""

from dataclasses import dataclass

from modules.recipe.catalogue import CROP, FILL_BORDERS, ONLY_MASKED
from modules.recipe.fields import Recipe

Size = tuple[int, int]


@dataclass(frozen=True)
class Box:
    """A part of a picture: columns left to right and rows top to bottom, the last of each not included."""

    left: int
    top: int
    right: int
    bottom: int

    @property
    def size(self) -> Size:
        return self.right - self.left, self.bottom - self.top

    def grown(self, by: int, within: Size) -> "Box":
        """A box larger by so many pixels on each side, as far as the picture goes."""
        return Box(max(self.left - by, 0), max(self.top - by, 0), min(self.right + by, within[0]), min(self.bottom + by, within[1]))

    @property
    def corners(self) -> tuple[int, int, int, int]:
        return self.left, self.top, self.right, self.bottom


@dataclass(frozen=True)
class Plan:
    """How a picture is changed: the `part` of the finished picture that is drawn, and the size it is `drawn` at."""

    part: Box
    drawn: Size


def steps_drawn(recipe: Recipe) -> int:
    """How many of the steps are drawn, the last ones: all for a new picture, none at strength 0, or else at least one."""
    if not recipe.init_image:
        return recipe.steps
    drawn = int(recipe.steps * recipe.denoising_strength + 1e-6)  # 100 x 0.29 is 28.999999999999996
    return max(drawn, 1) if recipe.denoising_strength > 0 else 0


def finished_size(recipe: Recipe, source: Size) -> Size:
    """The size of the finished picture, when the one that is changed has the size `source`."""
    return source if recipe.is_masked and recipe.inpaint_area == ONLY_MASKED else (recipe.width, recipe.height)


def plan(recipe: Recipe, finished: Size, painted: Box) -> Plan:
    """Where and how large is drawn, for a finished picture of this size; `painted` is what may change of it."""
    wanted = (recipe.width, recipe.height)
    if not (recipe.is_masked and recipe.inpaint_area == ONLY_MASKED):
        return Plan(Box(0, 0, *finished), finished)
    part = shaped_like(wanted, painted.grown(recipe.masked_padding, finished), finished)
    return Plan(part, scaled_into(part.size, wanted))


def shaped_like(shape: Size, box: Box, within: Size) -> Box:
    """The smallest box around `box` with these proportions, around the same centre where the picture has room for that."""
    width, height = box.size
    width, height = max(width, round(height * shape[0] / shape[1])), max(height, round(width * shape[1] / shape[0]))
    left, right = _span(box.left, box.right, width, within[0])
    top, bottom = _span(box.top, box.bottom, height, within[1])
    return Box(left, top, right, bottom)


def _span(start: int, end: int, length: int, limit: int) -> tuple[int, int]:
    length = min(length, limit)
    start = min(max(start - (length - (end - start)) // 2, 0), limit - length)
    return start, start + length


def scaled_into(size: Size, room: Size) -> Size:
    """`size` enlarged or reduced, its proportions kept, until it fills `room` one way."""
    scale = min(room[0] / size[0], room[1] / size[1])
    return min(max(round(size[0] * scale), 1), room[0]), min(max(round(size[1] * scale), 1), room[1])


def fitted(mode: str, source: Size, target: Size) -> tuple[Box, Box]:
    """Which part of a picture of size `source` is shown, and which part of the `target` it fills, in this resize mode."""
    whole, all_of_it = Box(0, 0, *source), Box(0, 0, *target)
    if mode == CROP:
        return _centred(scaled_into(target, source), source), all_of_it
    if mode == FILL_BORDERS:
        return whole, _centred(scaled_into(source, target), target)
    return whole, all_of_it


def _centred(size: Size, within: Size) -> Box:
    left, top = (within[0] - size[0]) // 2, (within[1] - size[1]) // 2
    return Box(left, top, left + size[0], top + size[1])


def padded(size: Size, factor: int) -> Size:
    """The next size that is a multiple of `factor` both ways."""
    return -(-size[0] // factor) * factor, -(-size[1] // factor) * factor
