"""Noise, drawn for one picture from its seed alone: a picture is the same whatever batch it was drawn in."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count

import torch
from torch import Tensor

from modules.recipe.catalogue import CPU_NOISE, NV_NOISE
from modules.samplers import philox
from modules.samplers.registry import Noise

Shape = tuple[int, int, int]  # (C, H, W)

Draw = Callable[[Shape], Tensor]
"""Unit noise (1, C, H, W) for one picture; each draw continues where the last one stopped."""

Source = Callable[[int], Draw]
"""The random numbers of a seed."""

PARALLEL = 0.9995  # mean cosine of two noises from which they are mixed in a straight line


def cpu(seed: int) -> Draw:
    """The numbers of torch's generator on the CPU, which are the same on every machine."""
    numbers = torch.Generator("cpu").manual_seed(seed)
    return lambda shape: torch.randn(shape, generator=numbers)[None]


def nv(seed: int) -> Draw:
    """The numbers of an NVIDIA card, computed on the CPU."""
    draws = count()
    return lambda shape: torch.from_numpy(philox.normal(seed, next(draws), shape[0] * shape[1] * shape[2])).view(1, *shape)


SOURCES: dict[str, Source] = {CPU_NOISE: cpu, NV_NOISE: nv}


def pasted(inner: Tensor, around: Tensor) -> Tensor:
    """`inner` in the middle of `around`, or what of it has room there."""
    (to_y, from_y), (to_x, from_x) = (_overlap(around.shape[side], inner.shape[side]) for side in (2, 3))
    whole = around.clone()
    whole[..., to_y, to_x] = inner[..., from_y, from_x]
    return whole


def between(strength: float, noise: Tensor, other: Tensor) -> Tensor:
    """From `noise` (strength 0) to `other` (1) along the sphere (Shoemake 1985), for each column of each channel."""
    cosine = (noise / noise.norm(dim=2, keepdim=True) * other / other.norm(dim=2, keepdim=True)).sum(2, keepdim=True)
    if cosine.mean() > PARALLEL:
        return noise * strength + other * (1 - strength)  # with the weights exchanged, as A1111 has them
    angle = cosine.acos()
    return (((1 - strength) * angle).sin() * noise + (strength * angle).sin() * other) / angle.sin()


def fresh(numbers: Draw, shape: Shape) -> Noise:
    """Independent noise at each call, continuing the picture's random numbers."""
    return lambda sigma_from, sigma_to: numbers(shape)


def brownian(seed: int, source: Source, shape: Shape, sigmas: Tensor) -> Noise:
    """Increments of one Brownian path over the positive sigmas, scaled to unit variance.

    Noise between the same levels is the same however many steps lie between, so that more steps refine the same picture.
    """
    import torchsde  # here, so that only the samplers that need it pay for it

    low, high = round(float(sigmas[sigmas > 0].min()), 6), round(float(sigmas.max()), 6)  # as the path itself rounds
    with _drawing_from(source):
        path = torchsde.BrownianTree(t0=low, w0=torch.zeros(shape)[None], t1=high, entropy=seed)

    def noise(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
        start, end = (min(max(float(sigma), low), high) for sigma in (sigma_from, sigma_to))
        with _drawing_from(source):
            increment = path(start, end) if start < end else -path(end, start)
        return increment / abs(end - start) ** 0.5

    return noise


def _overlap(size: int, small: int) -> tuple[slice, slice]:
    """Which cells of a side of `size` the middle of one of `small` fills, and with which of its own. Halves are rounded down."""
    margin = (size - small) // 2
    filled = small if margin >= 0 else small + 2 * margin
    to, own = max(margin, 0), max(-margin, 0)
    return slice(to, to + filled), slice(own, own + filled)


@contextmanager
def _drawing_from(source: Source) -> Iterator[None]:
    """The library's Brownian paths take their numbers from `source` inside."""
    from torchsde._brownian import brownian_interval

    before = brownian_interval._randn
    brownian_interval._randn = lambda size, dtype, device, seed: source(int(seed))(tuple(size[1:])).to(dtype)
    try:
        yield
    finally:
        brownian_interval._randn = before
