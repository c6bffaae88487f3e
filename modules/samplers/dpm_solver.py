"""DPM-Solver (Lu et al. 2022) on steps of its own choice, equal in lambda = -log(sigma) or adapted to the error.

Both go from the first sigma to the lowest that is not 0, and stop there.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import whole_range
from modules.samplers.steps import ancestral, halfway, stirred

ORDER = 3
FIRST_STEP = 0.05  # in lambda
RELATIVE, ABSOLUTE = 0.05, 0.0078  # tolerances of a step; the absolute one is a level of 256 in a picture from -1 to 1
ACCEPTED = 0.81  # the step size may shrink to this fraction of itself before the step is taken again
LAST = 1e-5  # in lambda: nearer to the end than this is there, and no step is smaller

Slope = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> dx/dsigma, which is the predicted noise."""


@sampler("DPM fast", own_schedule=whole_range)
def dpm_fast(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver-fast (appendix D.3): as many third-order steps as there are calls for, ended by lower orders. A call for each step."""
    calls, low = len(sigmas) - 1, sigmas[sigmas > 0].min()
    if low == sigmas[0]:
        return denoise(x, low)
    orders = [3] * (calls // 3 - 1) + [2, 1] if calls % 3 == 0 else [3] * (calls // 3) + [calls % 3]
    levels = torch.linspace(math.log(sigmas[0]), math.log(low), len(orders) + 1, dtype=torch.float64).exp().to(sigmas)
    slope = _slope(denoise)
    for order, sigma, following in zip(orders, levels, levels[1:], strict=False):
        down, up = _not_below(low, sigma, following, eta)
        first = slope(x, sigma)
        if order == 1:
            x = x + first * (down - sigma)
        else:
            x = _second(slope, x, first, sigma, down) if order == 2 else _second_and_third(slope, x, first, sigma, down)[1]
        x = stirred(x, noise, sigma, following, s_noise * up)
    return x


@sampler("DPM adaptive", own_schedule=whole_range)
def dpm_adaptive(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0) -> Tensor:
    """DPM-Solver-12/23's idea (appendix C) with orders 2 and 3: steps as long as the two agree. Takes as many calls as it needs."""
    low, sigma, h = sigmas[sigmas > 0].min(), sigmas[0], FIRST_STEP
    slope = _slope(denoise)
    before, first = x, None
    while (sigma / low).log() > LAST:
        following = (sigma * math.exp(-h)).maximum(low)
        down, up = _not_below(low, sigma, following, eta)
        first = slope(x, sigma) if first is None else first
        second, third = _second_and_third(slope, x, first, sigma, down)
        tolerance = (RELATIVE * second.abs().maximum(before.abs())).clamp(min=ABSOLUTE)
        error = float(((second - third) / tolerance).square().mean().sqrt())
        change = 1 + math.atan((error + 1e-8) ** (-1 / (1.5 if eta else ORDER)) - 1)
        if change >= ACCEPTED or h == LAST:
            before, first = second, None
            x = stirred(third, noise, sigma, following, up)
            sigma = following
        h = max(h * change, LAST)
    return x


def _slope(denoise: Denoise) -> Slope:
    return lambda x, sigma: (x - denoise(x, sigma)) / sigma


def _not_below(low: Tensor, sigma: Tensor, following: Tensor, eta: float) -> tuple[Tensor, Tensor]:
    """An ancestral step's (down, up) that does not go below the lowest level."""
    down = ancestral(sigma, following, eta)[0].maximum(low)
    return down, (following**2 - down**2).clamp(min=0).sqrt()


def _second(slope: Slope, x: Tensor, first: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """DPM-Solver-2 (Algorithm 1), from the slope at sigma."""
    middle = halfway(sigma, following)
    return x + (following - sigma) * slope(x + (middle - sigma) * first, middle)


def _second_and_third(slope: Slope, x: Tensor, first: Tensor, sigma: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """DPM-Solver-2 with its inner point at a third, and DPM-Solver-3 (Algorithm 2), which share that point."""
    h = (sigma / following).log()
    inner, later = (sigma * (-h * part).exp() for part in (1 / 3, 2 / 3))
    bend = slope(x + (inner - sigma) * first, inner) - first
    bend_later = slope(x + (later - sigma) * first - later * 2 * _curve(h * 2 / 3) * bend, later) - first
    straight = x + (following - sigma) * first
    return straight + (following - sigma) * 1.5 * bend, straight - following * 1.5 * _curve(h) * bend_later


def _curve(h: Tensor) -> Tensor:
    return h.expm1() / h - 1
