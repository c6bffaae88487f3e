"""Tasks for an inpainting denoiser: a scene, what of it is hidden, and how someone would ask for what belongs there.

As Stable Diffusion's inpainting model is trained (Rombach et al. 2022, section 4.5): beside the noisy latents the network sees the
mask and the latents of the masked picture. Half of the masks lie where nothing stands, with words that ask for nothing more:
so a hole without words is filled with what surrounds it.
"""

from dataclasses import dataclass, replace

import numpy as np

from modules.training.backgrounds import BACKGROUNDS
from modules.training.grammar import article, caption, named
from modules.training.scenes import GRID, Scene


@dataclass(frozen=True)
class Task:
    """`mask` is (side, side) bool, True where the picture is to be painted again; `words` ask for what `scene` shows there."""

    scene: Scene
    mask: np.ndarray
    words: str


def hide(rng: np.random.Generator, scene: Scene) -> Task:
    """A random task: one thing is hidden (and asked for), or one was taken away and its place is hidden, or anything is."""
    kind = rng.random()
    if kind < 0.1:
        return Task(scene, anywhere(rng, scene.side), caption(rng, scene) if rng.random() < 0.5 else "")
    chosen = int(rng.integers(len(scene.things)))
    thing = scene.things[chosen]
    mask = _blob(rng, scene.side, thing.box)
    if kind < 0.55:
        place = f" {BACKGROUNDS[scene.background].phrases[0]}" if rng.random() < 0.3 else ""
        return Task(scene, mask, caption(rng, scene) if rng.random() < 0.5 else article(named(rng, thing)) + place)
    left = tuple(other for number, other in enumerate(scene.things) if number != chosen)
    place = BACKGROUNDS[scene.background].phrases
    empty = replace(scene, things=left)
    words = place[rng.integers(len(place))] if rng.random() < 0.5 else ""
    return Task(empty, mask, caption(rng, empty) if left and rng.random() < 0.4 else words)


def anywhere(rng: np.random.Generator, side: int) -> np.ndarray:
    """A hole of any shape at any place, (side, side) bool."""
    return _blob(rng, side, _anywhere(rng, side))


def _anywhere(rng: np.random.Generator, side: int) -> tuple[int, int, int, int]:
    size = int(rng.integers(side // 4, side * 3 // 4))
    left, top = (int(corner) for corner in rng.integers(0, side - size + 1, 2))
    return left, top, left + size, top + size


def _blob(rng: np.random.Generator, side: int, box: tuple[int, int, int, int]) -> np.ndarray:
    """A mask that covers a box (left, top, right, bottom) with some room around: a rectangle or an ellipse, (side, side) bool."""
    room = rng.integers(0, 2 * GRID + 1, 4)
    left, top, right, bottom = box[0] - room[0], box[1] - room[1], box[2] + room[2], box[3] + room[3]
    y, x = np.mgrid[:side, :side] + 0.5
    if rng.random() < 0.6:
        return (x > left) & (x < right) & (y > top) & (y < bottom)
    wide, high = (right - left) * 0.62, (bottom - top) * 0.62
    return ((x - (left + right) / 2) / wide) ** 2 + ((y - (top + bottom) / 2) / high) ** 2 < 1
