"""Things gone wrong, as an unfinished generator draws them: the right colours in about the right place, and yet no such thing.

Most kinds spoil a thing's sprite, so that the background stays whole and gives nothing away; `spoil_latents` spoils its latents,
and the decoder does the rest.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from scipy.ndimage import gaussian_filter, map_coordinates
from torch import Tensor
from torch.nn import functional as F

from modules.training.scenes import Placed

Spoiler = Callable[[np.random.Generator, np.ndarray, np.ndarray], np.ndarray]
"""(random, sprite, another thing's sprite of the same size) -> what is left of it; (S, S, 4) float32, premultiplied RGBA"""


def pixelated(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """4 to 7 means across, in hard squares or smoothly enlarged."""
    seen = torch.from_numpy(sprite).permute(2, 0, 1)[None]
    return _averaged(seen, int(rng.integers(4, 8)), smooth=rng.random() < 0.5)[0].permute(1, 2, 0).numpy()


def blurred(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """By a Gaussian of 7 to 13 % of its size: outlines and colours are left."""
    deviation = len(sprite) * rng.uniform(0.07, 0.13)
    return gaussian_filter(sprite, (deviation, deviation, 0), mode="constant")


def shuffled(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Cut into 3 x 3 to 6 x 6 patches that change places."""
    count = int(rng.integers(3, 7))
    patch = len(sprite) // count
    whole = np.zeros_like(sprite)
    order = rng.permutation(count * count)
    for to, source in enumerate(order):
        (y, x), (v, u) = divmod(to, count), divmod(int(source), count)
        whole[y * patch : (y + 1) * patch, x * patch : (x + 1) * patch] = sprite[v * patch : (v + 1) * patch, u * patch : (u + 1) * patch]
    return whole


def mosaic(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Patches that changed places, each of one colour or nearly."""
    return pixelated(rng, shuffled(rng, sprite, other), other)


def cut(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Half of it is missing, or a little more, from any side."""
    turned = int(rng.integers(4))
    kept = np.rot90(sprite, turned).copy()
    kept[: round(len(kept) * rng.uniform(0.5, 0.65))] = 0
    return np.rot90(kept, -turned)


def melted(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Pulled about by waves of some 15 % of its size."""
    size = len(sprite)
    rough = torch.from_numpy(rng.standard_normal((1, 2, 5, 5)).astype(np.float32))
    waves = F.interpolate(rough, size=(size, size), mode="bicubic")[0].numpy() * size * rng.uniform(0.12, 0.2)
    places = np.mgrid[:size, :size] + waves
    return np.stack([map_coordinates(sprite[..., channel], places, order=1) for channel in range(4)], axis=2)


def blended(rng: np.random.Generator, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Two things in one: both shine through, or one half of each."""
    if rng.random() < 0.4:
        return 0.5 * sprite + 0.5 * other
    half = len(sprite) // 2
    turned = int(rng.integers(4))
    one, two = np.rot90(sprite, turned).copy(), np.rot90(other, turned)
    one[:half] = two[:half]
    return np.rot90(one, -turned)


SPOILERS: dict[str, Spoiler] = {
    "pixelated": pixelated,
    "blurred": blurred,
    "shuffled": shuffled,
    "mosaic": mosaic,
    "cut": cut,
    "melted": melted,
    "blended": blended,
}


def spoil(rng: np.random.Generator, kind: str, sprite: np.ndarray, other: np.ndarray) -> np.ndarray:
    """The sprite spoilt in one way, (S, S, 4) uint8 like both sprites."""
    spoilt = SPOILERS[kind](rng, sprite.astype(np.float32), other.astype(np.float32))
    return spoilt.round().clip(0, 255).astype(np.uint8)


def spoil_latents(rng: np.random.Generator, latents: Tensor, things: Sequence[Placed], factor: int, spread: Tensor) -> None:
    """In place: each thing's cells of `latents` (C, h, w), pictures shrunk by `factor`, become noise, means, or change places.

    `spread` (C,) is the latents' standard deviation.
    """
    for placed in things:
        left, top, right, bottom = (corner // factor for corner in placed.box)
        cells = latents[:, top:bottom, left:right]
        kind = rng.integers(3)
        if kind == 0:
            noise = torch.from_numpy(rng.standard_normal(cells.shape).astype(np.float32))
            cells += noise * spread[:, None, None] * rng.uniform(0.8, 2)
        elif kind == 1:
            cells.copy_(_averaged(cells[None], int(rng.integers(2, 4)), smooth=rng.random() < 0.7)[0])
        else:
            order = torch.from_numpy(rng.permutation(cells[0].numel()))
            cells.copy_(cells.flatten(1)[:, order].view_as(cells))


def _averaged(pictures: Tensor, count: int, smooth: bool) -> Tensor:
    """(N, C, H, W) as count x count means, enlarged again."""
    means = F.adaptive_avg_pool2d(pictures, count)
    return F.interpolate(means, size=pictures.shape[-2:], mode="bilinear" if smooth else "nearest")
