"""Pictures of scenes, as the networks are trained on them."""

from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path

import numpy as np

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS, Thing
from modules.training.scenes import SIDE, Scene
from modules.training.sprites import Icons, backdrop, fetch, paste, recoloured

SEPIA = np.array([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
GREY = np.array([[0.299, 0.587, 0.114]] * 3)


@cache
def icons(style: str, folder: Path) -> Icons:
    return Icons(fetch(style, folder))


@cache
def _sprite(folder: Path, style: str, icon: str, size: int, colour: str = "") -> np.ndarray:
    pixels = icons(style, folder).render(icon, size)
    return recoloured(pixels, colour) if colour else pixels


def sprite(thing: Thing, colour: str, size: int, folder: Path) -> np.ndarray:
    """A thing in one of its colours, premultiplied RGBA, (size, size, 4) uint8."""
    return _sprite(folder, "flat", thing.icon, size, colour if colour != thing.colour else "")


def draw(scene: Scene, folder: Path, things: Sequence[Thing] = THINGS) -> np.ndarray:
    """The scene's picture, (side, side, 3) uint8. `things` are what the scene's numbers mean."""
    return compose(scene, (sprite(things[placed.thing], placed.colour, placed.size, folder) for placed in scene.things))


def compose(scene: Scene, sprites: Iterable[np.ndarray]) -> np.ndarray:
    """The scene's picture with these premultiplied sprites for its things, (side, side, 3) uint8."""
    picture = backdrop(BACKGROUNDS[scene.background].drawings[scene.drawing], scene.side).copy()
    for placed, pixels in zip(scene.things, sprites, strict=True):
        paste(picture, pixels, placed.left, placed.top)
    return _styled(picture, scene.style)


def _styled(picture: np.ndarray, style: int) -> np.ndarray:
    """As photographs look: in colour, in black and white, in sepia."""
    if style == 0:
        return picture
    return np.clip(picture @ (GREY, SEPIA)[style - 1].T, 0, 255).round().astype(np.uint8)


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
        paste(picture, _sprite(folder, style, names[rng.integers(len(names))], size), left, top)
    return picture


@cache
def _wide(style: str, folder: Path) -> tuple[str, ...]:
    """Every fourth icon of a package, without the skin tones, and all of THINGS: many shapes, few enough to keep rendered."""
    shown = icons(style, folder)
    return tuple(name for name in shown.names if "skin" not in name)[::4] + tuple(thing.icon for thing in THINGS if thing.icon in shown)


def to_signed(pictures: np.ndarray) -> np.ndarray:
    """(N, H, W, 3) uint8 -> (N, 3, H, W) float32 in [-1, 1]."""
    return np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)).astype(np.float32) / 127.5 - 1
