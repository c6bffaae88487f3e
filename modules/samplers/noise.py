"""Noise, drawn for one picture from its seed alone: a picture is the same whatever batch it was drawn in."""

import torch
from torch import Generator, Tensor

from modules.samplers.registry import Noise

Shape = tuple[int, int, int]  # (C, H, W)


def generator(seed: int) -> Generator:
    """The random numbers of one picture. They come from the CPU's generator and are the same on every device."""
    return torch.Generator("cpu").manual_seed(seed)


def draw(numbers: Generator, shape: Shape) -> Tensor:
    """Unit noise for one picture; each draw continues where the last one stopped."""
    return torch.randn(shape, generator=numbers)[None]  # (1, C, H, W)


def fresh(numbers: Generator, shape: Shape) -> Noise:
    """Independent noise at each call, continuing the picture's random numbers."""
    return lambda sigma_from, sigma_to: draw(numbers, shape)


def brownian(seed: int, shape: Shape, sigmas: Tensor) -> Noise:
    """Increments of one Brownian path over the positive sigmas, scaled to unit variance.

    Noise between the same levels is the same however many steps lie between, so that more steps refine the same picture.
    """
    import torchsde  # here, so that only the samplers that need it pay for it

    low, high = round(float(sigmas[sigmas > 0].min()), 6), round(float(sigmas.max()), 6)  # as the path itself rounds
    path = torchsde.BrownianTree(t0=low, w0=torch.zeros(shape)[None], t1=high, entropy=seed)

    def noise(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
        start, end = (min(max(float(sigma), low), high) for sigma in (sigma_from, sigma_to))
        increment = path(start, end) if start < end else -path(end, start)
        return increment / abs(end - start) ** 0.5

    return noise
