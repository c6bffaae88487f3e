"""Samplers: the way from noise to a picture. One plain function each, (denoise, x, sigmas, noise) -> x.

All solve dx/dsigma = (x - denoise(x, sigma)) / sigma (Karras et al. 2022, eq. 3), the ancestral ones and the SDE with fresh
noise on the way. Where lambda is named it is -log(sigma).
"""

from itertools import pairwise

from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import ddim_timesteps


@sampler("Euler")
def euler(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler steps (Karras et al. 2022, Algorithm 2 without churn)."""
    for sigma, following in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (following - sigma)
    return x


@sampler("Euler a")
def euler_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler steps that go further down than asked and come back up with fresh noise."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following)
        slope = (x - denoise(x, sigma)) / sigma
        x = x + slope * (down - sigma)
        if following > 0:
            x = x + noise(sigma, following) * up
    return x


@sampler("Heun")
def heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Euler steps, each corrected with the slope at its end (Karras et al. 2022, Algorithm 1). Two calls a step."""
    for sigma, following in pairwise(sigmas):
        slope = (x - denoise(x, sigma)) / sigma
        predicted = x + slope * (following - sigma)
        if following > 0:
            slope = (slope + (predicted - denoise(predicted, following)) / following) / 2
        x = x + slope * (following - sigma)
    return x


@sampler("DPM++ 2M")
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M) (Lu et al. 2022, Algorithm 2): the last two denoised latents, extrapolated linearly in lambda."""
    before: Tensor | None = None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        if before is not None and following > 0:
            ratio = (sigmas[i - 1] / sigma).log() / (sigma / following).log()  # h of the last step / h of this one
            target = denoised + (denoised - before) / (2 * ratio)
        x = toward(x, target, sigma, following)
        before = denoised
    return x


@sampler("DPM++ SDE", brownian=True)
def dpmpp_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++ for the diffusion SDE, single step, second order, its inner point halfway in lambda. Two calls a step."""
    for sigma, following in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if following == 0:
            return denoised
        middle = (sigma * following).sqrt()
        down, up = ancestral(sigma, middle)
        inner = toward(x, denoised, sigma, down) + noise(sigma, middle) * up
        down, up = ancestral(sigma, following)
        x = toward(x, denoise(inner, middle), sigma, down) + noise(sigma, following) * up
    return x


@sampler("DDIM", own_schedule=ddim_timesteps, unit_start=True)
def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DDIM with eta 0 (Song et al. 2021, eq. 12), which is Euler in these variables.

    It may stop above sigma 0, and then returns the paper's x, of the variance that training data has there.
    """
    return at_unit_variance(euler(denoise, x, sigmas, noise), sigmas[-1])


def ancestral(sigma: Tensor, following: Tensor) -> tuple[Tensor, Tensor]:
    """(down, up) with down^2 + up^2 = following^2: denoise to `down`, add noise of deviation `up` (Ho et al. 2020, eq. 7)."""
    up = (following**2 * (sigma**2 - following**2) / sigma**2).sqrt().minimum(following)
    return (following**2 - up**2).clamp(min=0).sqrt(), up


def toward(x: Tensor, denoised: Tensor, sigma: Tensor, following: Tensor) -> Tensor:
    """The exact step from sigma to `following` if `denoised` stays the same all the way (DPM-Solver++ eq. 8)."""
    return denoised + (following / sigma) * (x - denoised)


def at_unit_variance(x: Tensor, sigma: Tensor) -> Tensor:
    """x = x0 + sigma e, scaled to the variance-preserving form of the DDPM papers."""
    return x / (1 + sigma**2).sqrt()
