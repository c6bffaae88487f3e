"""Fills: what stands under a mask when drawing begins from the surroundings."""

import torch
import torch.nn.functional as F
from torch import Tensor

RELAXATIONS = 24  # on each level: enough that no edge of a level's cells is left to see


def smooth(image: Tensor, hole: Tensor) -> Tensor:
    """The image (1, C, H, W) with its hole (1, 1, H, W; true where nothing is known) spanned like a membrane (Laplace's equation).

    Push-pull (Gortler et al. 1996): averages of what is known go down a pyramid, come back up into the hole, and are relaxed there.
    Outside the hole nothing changes; with nothing known the image stays as it is.
    """
    return image if hole.all() else _filled(image, (~hole).to(image.dtype))


def _filled(image: Tensor, known: Tensor) -> Tensor:
    """`known` is 0 where nothing is known."""
    hole = known == 0
    if not hole.any():
        return image
    half = {"kernel_size": 2, "ceil_mode": True, "count_include_pad": False}
    weight = F.avg_pool2d(known, **half)
    coarse = _filled(F.avg_pool2d(image * known, **half) / weight.clamp(min=1e-6), (weight > 0).to(known.dtype))
    image = torch.where(hole, F.interpolate(coarse, image.shape[-2:], mode="bilinear"), image)
    for _ in range(RELAXATIONS):
        around = F.pad(image, (1, 1, 1, 1), mode="replicate")
        mean = (around[..., 1:-1, 2:] + around[..., 1:-1, :-2] + around[..., 2:, 1:-1] + around[..., :-2, 1:-1]) / 4
        image = torch.where(hole, mean, image)
    return image
