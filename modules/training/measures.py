"""How far pictures are from others: one by one (PSNR, SSIM) and as a crowd (Frechet distance)."""

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

WINDOW, DEVIATION = 11, 1.5
RANGE = 2.0  # pictures are in [-1, 1]


def psnr(one: Tensor, other: Tensor) -> float:
    """Mean of the pictures' peak signal-to-noise ratios in dB, both (N, 3, H, W) in [-1, 1]."""
    return float((10 * torch.log10(RANGE**2 / (one - other).pow(2).mean(dim=(1, 2, 3)))).mean())


def ssim(one: Tensor, other: Tensor) -> float:
    """Mean structural similarity (Wang et al. 2004) of both (N, 3, H, W) in [-1, 1], channel by channel; 1 for equal pictures."""
    edge = torch.exp(-((torch.arange(WINDOW) - WINDOW // 2) ** 2) / (2 * DEVIATION**2))
    window = (edge[:, None] * edge / edge.sum() ** 2)[None, None]

    def mean(pictures: Tensor) -> Tensor:
        return F.conv2d(pictures.flatten(0, 1)[:, None], window)

    a, b = mean(one), mean(other)
    varied, common = mean(one**2) - a**2 + mean(other**2) - b**2, mean(one * other) - a * b
    c1, c2 = (0.01 * RANGE) ** 2, (0.03 * RANGE) ** 2
    return float(((2 * a * b + c1) * (2 * common + c2) / ((a**2 + b**2 + c1) * (varied + c2))).mean())


def frechet(one: np.ndarray, other: np.ndarray) -> float:
    """Frechet distance between normal distributions fitted to features (N, D) and (M, D) (Heusel et al. 2017), never negative."""
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    root = np.sqrt(np.linalg.eigvals(first @ second).real.clip(0)).sum()  # the trace of the product's square root
    apart = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    return max(0.0, float(apart + np.trace(first) + np.trace(second) - 2 * root))
