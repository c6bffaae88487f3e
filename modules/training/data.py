"""Scenes: what is drawn where, as pixels, and how a person would ask for it.

A `Stage` is a part of the curriculum. All have one large thing on one of ten backgrounds; places lie on the autoencoder's 8-pixel
grid, so that the same thing is the same patch of latent wherever it stands.
`anything` is wider than any stage: it teaches the autoencoder pictures the denoiser does not draw yet.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import product
from pathlib import Path

import numpy as np

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS
from modules.training.sprites import Icons, backdrop, fetch, paste

SIDE = 128


@dataclass(frozen=True)
class Scene:
    """One thing on one background; `thing` and `background` index the tables, the rest is geometry in pixels."""

    thing: int
    background: int
    drawing: int
    size: int
    left: int
    top: int
    mirrored: bool


@dataclass(frozen=True)
class Stage:
    """Which scenes there are: `places` are (size, left edges, top edge, top edge where there is ground) in pixels."""

    places: tuple[tuple[int, tuple[int, ...], int, int], ...]
    mirrored: tuple[bool, ...]


SIMPLE = Stage(((96, (16,), 16, 24), (112, (8,), 8, 8)), mirrored=(False,))
PLACED = Stage(((96, (8, 16, 24), 16, 24), (112, (8,), 8, 8)), mirrored=(False, True))


@cache
def icons(style: str, folder: Path) -> Icons:
    return Icons(fetch(style, folder))


@cache
def _sprite(folder: Path, style: str, icon: str, size: int, mirrored: bool) -> np.ndarray:
    pixels = icons(style, folder).render(icon, size)
    return pixels[:, ::-1] if mirrored else pixels


def scenes_of(stage: Stage) -> Iterator[Scene]:
    """Every scene of a stage, once."""
    for (t, thing), (b, background), (size, lefts, top, low) in product(enumerate(THINGS), enumerate(BACKGROUNDS), stage.places):
        mirrors = stage.mirrored if thing.mirror else (False,)
        for drawing, left, mirrored in product(range(len(background.drawings)), lefts, mirrors):
            yield Scene(t, b, drawing, size, left, low if background.ground else top, mirrored)


def draw(scene: Scene, folder: Path) -> np.ndarray:
    """The scene's picture, (128, 128, 3) uint8."""
    picture = backdrop(BACKGROUNDS[scene.background].drawings[scene.drawing]).copy()
    sprite = _sprite(folder, "flat", THINGS[scene.thing].icon, scene.size, scene.mirrored)
    paste(picture, sprite, scene.left, scene.top)
    return picture


def anything(rng: np.random.Generator, folder: Path) -> np.ndarray:
    """A picture of one to three icons of either style, any size, anywhere, on a scene or a random colour; (128, 128, 3) uint8."""
    if rng.random() < 0.5:
        background = BACKGROUNDS[rng.integers(len(BACKGROUNDS))]
        picture = backdrop(background.drawings[rng.integers(len(background.drawings))]).copy()
    else:
        picture = np.broadcast_to(rng.integers(0, 256, 3, np.uint8), (SIDE, SIDE, 3)).copy()
    for _ in range(rng.integers(1, 4)):
        style = ("flat", "noto")[rng.integers(2)]
        names = _wide(style, folder)
        size = int(rng.choice((40, 56, 72, 88, 104)))
        left, top = rng.integers(-size // 4, SIDE - 3 * size // 4, 2)
        paste(picture, _sprite(folder, style, names[rng.integers(len(names))], size, bool(rng.integers(2))), left, top)
    return picture


@cache
def _wide(style: str, folder: Path) -> tuple[str, ...]:
    """Every fourth icon of a package, without the skin tones, and all of THINGS: many shapes, few enough to keep rendered."""
    shown = icons(style, folder)
    return tuple(name for name in shown.names if "skin" not in name)[::4] + tuple(thing.icon for thing in THINGS if thing.icon in shown)


def to_signed(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1
