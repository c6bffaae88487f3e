"""What samplers share: the parts of one step from a noise level to the next. Where lambda is named it is -log(sigma)."""

import math
from typing import TypedDict

import torch
from torch import Tensor

from modules.samplers.registry import Noise


class Churn(TypedDict, total=False):
    """How much noise a step adds before it goes down, between which levels (s_tmax 0: no upper one), and its deviation."""

    s_churn: float
    s_tmin: float
    s_tmax: float
    s_noise: float


def churned(
    x: Tensor, sigma: Tensor, steps: int, noise: Noise, s_churn: float = 0, s_tmin: float = 0, s_tmax: float = 0, s_noise: float = 1
) -> tuple[Tensor, Tensor]:
    """(x, sigma) raised by fresh noise before one of `steps` steps (Karras et al. 2022, Algorithm 2, lines 4 to 6)."""
    if s_churn == 0:
        return x, sigma
    fresh = noise(sigma, sigma)  # also where it is not used, as in k-diffusion, so that later noise does not depend on the range
    if not s_tmin <= sigma <= (s_tmax or math.inf):
        return x, sigma
    raised = sigma * (1 + min(s_churn / steps, math.sqrt(2) - 1))
    return x + fresh * (s_noise * (raised**2 - sigma**2).sqrt()), raised


def ancestral(sigma: Tensor, following: Tensor, eta: float = 1.0) -> tuple[Tensor, Tensor]:
    """(down, up) with down^2 + up^2 = following^2: denoise to `down`, add noise of deviation `up` (Ho et al. 2020, eq. 7).

    eta 1 is the diffusion's own posterior, eta 0 has no noise.
    """
    if eta == 0:
        return following, torch.zeros_like(following)
    up = (eta * (following**2 * (sigma**2 - following**2) / sigma**2).sqrt()).minimum(following)
    return (following**2 - up**2).clamp(min=0).sqrt(), up


def stirred(x: Tensor, noise: Noise, sigma: Tensor, following: Tensor, deviation: Tensor) -> Tensor:
    """x with fresh noise of this deviation, for the step from sigma to `following`; none is drawn for 0."""
    return x + noise(sigma, following) * deviation if deviation > 0 else x


def toward(x: Tensor, denoised: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """The exact step from sigma to `following` if `denoised` stays the same all the way (DPM-Solver++ eq. 8)."""
    return denoised + (following / sigma) * (x - denoised)


def at_unit_variance(x: Tensor, sigma: Tensor) -> Tensor:
    """x = x0 + sigma e, scaled to the variance-preserving form of the DDPM papers."""
    return x / (1 + sigma**2).sqrt()


def halfway(sigma: Tensor, following: Tensor) -> Tensor:
    """The level in the middle between two, in lambda."""
    return (sigma * following).sqrt()
