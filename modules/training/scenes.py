"""What stands where: scenes as plain data, drawn at random for each stage of the curriculum.

Corners lie on the autoencoder's 8-pixel grid, so that the same thing is the same patch of latent wherever it stands. Every tenth
combination of things, colours and background is held out: no stage shows it, and what was learnt is judged by these alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import numpy as np

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import COLOURS, THINGS, Thing

SIDE = 128
GRID = 8
HELD_OUT = 10
NAMES = tuple(COLOURS)


@dataclass(frozen=True)
class Placed:
    """A thing in a scene: an index of THINGS (or what is used instead), its colour ("" for things of one), and its square in pixels."""

    thing: int
    colour: str
    size: int
    left: int
    top: int

    @property
    def box(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom) in pixels."""
        return self.left, self.top, self.left + self.size, self.top + self.size


def side_of(middle: float) -> str:
    """left, middle or right for a part of the picture's width."""
    return "left" if middle < 0.4 else "right" if middle > 0.6 else "middle"


@dataclass(frozen=True)
class Scene:
    """One or two things (from left to right) on a background, a square of `side` pixels; `style` indexes grammar.STYLES."""

    things: tuple[Placed, ...]
    background: int
    drawing: int
    style: int = 0
    side: int = SIDE

    def small(self, placed: Placed) -> bool:
        """Whether a thing that stands alone looks small: 64 pixels and less."""
        return placed.size <= 64

    def where(self, placed: Placed) -> str:
        """left, middle or right."""
        return side_of((placed.left + placed.size / 2) / self.side)

    @property
    def meaning(self) -> int:
        """A number that scenes share for which the same words are right."""
        content = [(p.thing, p.colour, self.small(p), self.where(p)) for p in self.things]
        return crc32(repr((content, self.background, self.style, [p.size for p in self.things[1:]])).encode())

    @property
    def held_out(self) -> bool:
        content = [(placed.thing, placed.colour) for placed in self.things]
        return crc32(repr((content, self.background)).encode()) % HELD_OUT == 0


@dataclass(frozen=True)
class Stage:
    """How often each kind of scene is drawn; the rest is one large thing. `sides` are canvases to choose from.

    `only` are the numbers of the things that are shown, if not all of them.
    """

    two: float
    small: float
    same: float
    styled: float
    recoloured: float
    sides: tuple[int, ...] = (SIDE,)
    only: tuple[int, ...] = ()


SIMPLE = Stage(two=0, small=0, same=0, styled=0, recoloured=0)
WIDE = Stage(two=0.42, small=0.12, same=0.04, styled=0.05, recoloured=0.3)
LARGE = Stage(two=0.42, small=0.08, same=0.04, styled=0.05, recoloured=0.3, sides=(256, 256, 192))


def draw_scene(rng: np.random.Generator, stage: Stage, things: Sequence[Thing] = THINGS) -> Scene:
    """A random scene of a stage with any of `things`, held-out ones included."""
    background = int(rng.integers(len(BACKGROUNDS)))
    place = BACKGROUNDS[background]
    drawing = int(rng.integers(len(place.drawings)))
    style = int(rng.integers(1, 3)) if rng.random() < stage.styled else 0
    side = stage.sides[rng.integers(len(stage.sides))]
    kind = rng.random()
    if kind < stage.two + stage.same:
        squares = _two(rng, side, place.ground, equal=kind >= stage.two)
        first = _thing(rng, stage, things)
        second = first if kind >= stage.two else _other(rng, stage, first, things)
        looks = (first, second)
    else:
        squares = (_small(rng, side, place.ground) if kind < stage.two + stage.same + stage.small else _large(rng, side, place.ground),)
        looks = (_thing(rng, stage, things),)
    placed = tuple(Placed(*look, *square) for look, square in zip(looks, squares, strict=True))
    return Scene(placed, background, drawing, style, side)


def scenes(rng: np.random.Generator, stage: Stage, count: int, held_out: bool = False, things: Sequence[Thing] = THINGS) -> list[Scene]:
    """`count` random scenes, none of them held out, or all of them."""
    found: list[Scene] = []
    while len(found) < count:
        scene = draw_scene(rng, stage, things)
        if scene.held_out == held_out:
            found.append(scene)
    return found


def sibling(rng: np.random.Generator, scene: Scene, stage: Stage = WIDE) -> Scene:
    """The scene with one thing about it changed, to another of the stage: the things' places, a colour, a thing, or the background."""
    kind = rng.integers(4)
    chosen = int(rng.integers(len(scene.things)))
    old = scene.things[chosen]
    if kind == 0 and len(scene.things) == 2:
        left, right = scene.things
        moved = (replace(left, thing=right.thing, colour=right.colour), replace(right, thing=left.thing, colour=left.colour))
        return replace(scene, things=moved)
    if kind <= 1 and old.colour:
        new = replace(old, colour=NAMES[rng.integers(len(NAMES))])
    elif kind == 2:
        new = replace(old, **dict(zip(("thing", "colour"), _thing(rng, stage, THINGS), strict=True)))
    else:
        background = int(rng.integers(len(BACKGROUNDS)))
        return replace(scene, background=background, drawing=int(rng.integers(len(BACKGROUNDS[background].drawings))))
    return replace(scene, things=tuple(new if number == chosen else thing for number, thing in enumerate(scene.things)))


def _thing(rng: np.random.Generator, stage: Stage, things: Sequence[Thing]) -> tuple[int, str]:
    if rng.random() < stage.recoloured:
        several = [number for number, thing in enumerate(things) if thing.colour]
        return several[rng.integers(len(several))], NAMES[rng.integers(len(NAMES))]
    numbers = stage.only or range(len(things))
    thing = int(numbers[rng.integers(len(numbers))])
    return thing, things[thing].colour


def _other(rng: np.random.Generator, stage: Stage, first: tuple[int, str], things: Sequence[Thing]) -> tuple[int, str]:
    while (second := _thing(rng, stage, things))[0] == first[0]:
        pass
    return second


Square = tuple[int, int, int]
"""(size, left, top) in pixels"""


def _snap(value: float) -> int:
    return GRID * round(value / GRID)


def _top(side: int, size: int, ground: bool) -> int:
    """Things stand on the ground where there is some, and float in the middle elsewhere."""
    return _snap(side * 0.93 - size) if ground else _snap((side - size) / 2)


def _large(rng: np.random.Generator, side: int, ground: bool) -> Square:
    size = int(rng.choice((96, 112) if side == SIDE else (112, 128, 144)))
    return size, _snap((side - size) / 2), _top(side, size, ground)


def _small(rng: np.random.Generator, side: int, ground: bool) -> Square:
    size = int(rng.choice((56, 64)))
    left = (0, (side - size) / 2, side - size)[rng.integers(3)]
    inwards = (1, 0, -1)[round(left * 2 / (side - size))] * GRID * int(rng.integers(2))
    return size, _snap(left) + inwards, _top(side, size, ground)


def _two(rng: np.random.Generator, side: int, ground: bool, equal: bool) -> tuple[Square, Square]:
    """Two squares side by side that fill the width: of one size, or a big and a small one."""
    if equal or rng.random() < 0.5:
        size = int(rng.choice((56, 64) if side == SIDE else (80, 96)))
        room = side - 2 * size
        sizes, lefts = (size, size), (_snap(room / 4), side - size - _snap(room / 4))
    else:
        small, big = ((40, 48), (80, 80)) if side == SIDE else ((56, 64), (112, 128))
        sizes = (int(rng.choice(small)), int(rng.choice(big)))
        sizes = sizes if rng.random() < 0.5 else sizes[::-1]
        room = max(0, side - sum(sizes))
        lefts = (_snap(room / 4), side - sizes[1] - _snap(room / 4))
    middle = max(_top(side, size, ground) + size for size in sizes)
    tops = tuple((middle if not ground else _top(side, max(sizes), ground) + max(sizes)) - size for size in sizes)
    return (sizes[0], lefts[0], tops[0]), (sizes[1], lefts[1], tops[1])
