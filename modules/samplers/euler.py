"""Samplers in sigma itself: Euler and its relatives of higher order, with and without fresh noise on the way.

All solve dx/dsigma = (x - denoise(x, sigma)) / sigma (Karras et al. 2022, eq. 3).
"""

from collections.abc import Sequence
from itertools import pairwise
from typing import Unpack

import torch
from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import karras_between, then_zero
from modules.samplers.sigmas import coarse
from modules.samplers.steps import Churn, ancestral, churned, halfway, stirred

LMS_ORDER = 4
RESTART_FROM, RESTART_TO = 0.1, 2.0  # sigma


@sampler("Euler")
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, **churn: Unpack[Churn]) -> Tensor:
    """Euler steps (Karras et al. 2022, Algorithm 2 without its second order)."""
    for sigma, following in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, noise, **churn)
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (following - sigma)
    return x


@sampler("Euler a")
def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0) -> Tensor:
    """Euler steps that go further down than asked and come back up with fresh noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following, eta)
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (down - sigma)
        x = stirred(x, noise, sigma, following, up)
    return x


@sampler("Heun")
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, **churn: Unpack[Churn]) -> Tensor:
    """Euler steps, each corrected with the slope at its end (Karras et al. 2022, Algorithm 2). Two calls a step."""
    for sigma, following in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, noise, **churn)
        x = _heun_step(denoise, x, sigma, following)
    return x


@sampler("DPM2")
def dpm2(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, **churn: Unpack[Churn]) -> Tensor:
    """DPM-Solver-2 (Lu et al. 2022, Algorithm 1): each step with the slope halfway in lambda. Two calls a step."""
    for sigma, following in pairwise(sigmas):
        x, sigma = churned(x, sigma, len(sigmas) - 1, noise, **churn)
        x = _midpoint_step(denoise, x, sigma, following)
    return x


@sampler("DPM2 a")
def dpm2_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM2's steps to below the next level, and back up to it with fresh noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following, eta)
        x = _midpoint_step(denoise, x, sigma, down)
        x = stirred(x, noise, sigma, following, s_noise * up)
    return x


@sampler("LMS")
def lms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Linear multistep of order 4 (Adams-Bashforth for unequal steps): the last slopes, extrapolated by a polynomial in sigma."""
    levels = sigmas.tolist()
    slopes: list[Tensor] = []  # the newest first
    for i, sigma in enumerate(sigmas[:-1]):
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes][:LMS_ORDER]
        known = levels[i + 1 - len(slopes) : i + 1][::-1]
        x = x + sum(weight * slope for weight, slope in zip(_adams(known, levels[i + 1]), slopes, strict=True))
    return x


@sampler("Restart")
def restart(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Heun's steps down, once or twice back up with fresh noise from near the end, and down again (Xu et al. 2023)."""
    first, *again = descents(sigmas)
    x, lowest = heun(denoise, x, first, noise), first[-1]
    for descent in again:
        x = stirred(x, noise, lowest, descent[0], (descent[0] ** 2 - lowest**2).sqrt())
        x, lowest = heun(denoise, x, descent, noise), descent[-1]
    return x


@sampler("LCM", levels=coarse)
def lcm(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Multistep consistency sampling (Luo et al. 2023, Algorithm 3): to the picture at once, then up again with fresh noise.

    The consistency model's own scalings at its boundary differ from 1 by less than 1e-5 at these levels, and are left out.
    """
    for sigma, following in pairwise(sigmas):
        x = stirred(denoise(x, sigma), noise, sigma, following, following)
    return x


def descents(sigmas: Tensor) -> list[Tensor]:
    """The ways down between restarts. From 20 steps on, the steps of the restarts are taken from those of the only way down there was.

    That way is respaced as Karras et al. do, and broken near RESTART_FROM, to begin again near RESTART_TO.
    """
    steps = len(sigmas) - 1
    if steps < 20:
        return [sigmas]
    again, times = (steps // 4, 2) if steps >= 36 else (9, 1)
    down = then_zero(karras_between(steps - again * times, sigmas[0], sigmas[-2])).to(sigmas)
    low, high = (int((down - level).abs().argmin()) for level in (RESTART_FROM, RESTART_TO))
    if high >= low:
        return [down]
    repeated = karras_between(again + 1, down[high], down[low]).to(sigmas)
    return [down[: low + 1], *[repeated] * (times - 1), torch.cat([repeated, down[low + 1 :]])]


def _heun_step(denoise: Denoise, x: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    slope = (x - denoise(x, sigma)) / sigma
    predicted = x + slope * (following - sigma)
    if following > 0:
        slope = (slope + (predicted - denoise(predicted, following)) / following) / 2
    return x + slope * (following - sigma)


def _midpoint_step(denoise: Denoise, x: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    slope = (x - denoise(x, sigma)) / sigma
    if following > 0:
        middle = halfway(sigma, following)
        inner = x + slope * (middle - sigma)
        slope = (inner - denoise(inner, middle)) / middle
    return x + slope * (following - sigma)


def _adams(known: Sequence[float], end: float) -> list[float]:
    """How much the slope at each of `known` counts in a step from known[0] to `end`.

    The integral of its Lagrange polynomial, by Simpson's rule, which is exact up to the third degree.
    """
    start = known[0]
    return [
        (end - start) / 6 * (_lagrange(known, j, start) + 4 * _lagrange(known, j, (start + end) / 2) + _lagrange(known, j, end))
        for j in range(len(known))
    ]


def _lagrange(points: Sequence[float], j: int, at: float) -> float:
    product = 1.0
    for k, point in enumerate(points):
        if k != j:
            product *= (at - point) / (points[j] - point)
    return product
