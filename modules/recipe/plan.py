"""Where on a picture is drawn, at which size and from which step on: decided by numbers alone. Sizes are (width, height) in pixels."""

from dataclasses import dataclass, replace

from modules.recipe.catalogue import CROP, FILL_BORDERS, ONLY_MASKED, SAME_SAMPLER, SAME_SCHEDULE
from modules.recipe.fields import Recipe

Size = tuple[int, int]

NEARLY_ALL = 0.999  # the strength from which on a second pass takes all of its schedule
CELL = 8  # pixels a side of what sizes that are computed are whole numbers of


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


@dataclass(frozen=True)
class Pass:
    """One way down the noise: the recipe it follows, and how many of that one's steps are drawn, the last ones."""

    recipe: Recipe
    drawn: int


@dataclass(frozen=True)
class Enlargement:
    """How the second pass of hires fix begins: the first picture is brought to this `size`, and `part` of it is drawn again."""

    size: Size
    part: Box


def passes(recipe: Recipe) -> list[Pass]:
    """How each picture of the recipe is drawn: in one pass, or with hires fix in two.

    The second one's steps are all drawn: they are the last of a schedule as much longer as its strength is below 1.
    """
    if not recipe.hires:
        return [Pass(recipe, _last_steps(recipe))]
    drawn, strength = recipe.hires_steps or recipe.steps, recipe.denoising_strength
    width, height = enlargement(recipe).part.size
    second = replace(
        recipe,
        prompt=recipe.hires_prompt or recipe.prompt,
        negative_prompt=recipe.hires_negative_prompt or recipe.negative_prompt,
        sampler=recipe.sampler if recipe.hires_sampler == SAME_SAMPLER else recipe.hires_sampler,
        schedule=recipe.schedule if recipe.hires_schedule == SAME_SCHEDULE else recipe.hires_schedule,
        steps=int(drawn / min(strength, NEARLY_ALL)) if strength else drawn,
        width=width,
        height=height,
    )
    return [Pass(recipe, recipe.steps), Pass(second, drawn if strength else 0)]


def _last_steps(recipe: Recipe) -> int:
    """All for a new picture, none at strength 0, or else at least one."""
    if not recipe.init_image:
        return recipe.steps
    drawn = int(recipe.steps * recipe.denoising_strength + 1e-6)  # 100 x 0.29 is 28.999999999999996
    return max(drawn, 1) if recipe.denoising_strength > 0 else 0


def steps_drawn(recipe: Recipe) -> int:
    """How many steps are drawn in all passes of a picture."""
    return sum(one.drawn for one in passes(recipe))


def enlargement(recipe: Recipe) -> Enlargement:
    """By the factor, or to the size that is asked for: of two sides that have other proportions the middle is kept, of one they stay.

    Both are cut down to whole cells.
    """
    width, height, across, down = recipe.width, recipe.height, recipe.hires_width, recipe.hires_height
    if not (across or down):
        size = int(width * recipe.hires_scale), int(height * recipe.hires_scale)
    elif width * down <= height * across:
        size = across, across * height // width
    else:
        size = down * width // height, down
    whole = _in_cells(size)
    return Enlargement(whole, _centred(_in_cells((across or size[0], down or size[1])), whole))


def _in_cells(size: Size) -> Size:
    return size[0] // CELL * CELL, size[1] // CELL * CELL


def finished_size(recipe: Recipe, source: Size) -> Size:
    """The size of the finished picture, when the one that is changed has the size `source`."""
    if recipe.hires:
        return enlargement(recipe).part.size
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
