"""The DPM-Solver++ family (Lu et al. 2022): steps that are exact in lambda = -log(sigma) but for how the denoised latent changes."""

from itertools import pairwise

from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.steps import ancestral, halfway, stirred, toward


@sampler("DPM++ 2M")
def dpmpp_2m(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM-Solver++(2M) (Algorithm 2): the last two denoised latents, extrapolated linearly in lambda."""
    before: Tensor | None = None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        if before is not None and following > 0:
            ratio = (sigmas[i - 1] / sigma).log() / (sigma / following).log()  # h of the last step / h of this one
            target = denoised + (denoised - before) / (2 * ratio)
        x = toward(x, target, sigma, following)
        before = denoised
    return x


@sampler("DPM++ 2M", flow=True)
def dpmpp_2m_flow(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """DPM++ 2M for flow models, where x = (1 - sigma) x0 + sigma e and sigma falls from 1, pure noise."""
    before: Tensor | None = None
    lambdas = ((1 - sigmas) / sigmas).log()
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        denoised = target = denoise(x, sigma)
        if before is not None and following > 0:
            ratio = (lambdas[i] - lambdas[i - 1]) / (lambdas[i + 1] - lambdas[i])  # infinite after pure noise: first order
            target = denoised + (denoised - before) / (2 * ratio)
        x = (1 - following) * target + (following / sigma) * (x - (1 - sigma) * target)
        before = denoised
    return x


@sampler("DPM++ 2S a")
def dpmpp_2s_ancestral(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++(2S) (Algorithm 1), its inner point halfway in lambda, to below the next level and back up. Two calls a step."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following, eta)
        denoised = denoise(x, sigma)
        if down > 0:
            middle = halfway(sigma, down)
            denoised = denoise(toward(x, denoised, sigma, middle), middle)
        x = toward(x, denoised, sigma, down)
        x = stirred(x, noise, sigma, following, s_noise * up)
    return x


@sampler("DPM++ SDE")
def dpmpp_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """DPM-Solver++ for the diffusion SDE, single step, second order, its inner point halfway in lambda. Two calls a step."""
    for sigma, following in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if following == 0:
            return denoised
        middle = halfway(sigma, following)
        down, up = ancestral(sigma, middle, eta)
        inner = stirred(toward(x, denoised, sigma, down), noise, sigma, middle, s_noise * up)
        down, up = ancestral(sigma, following, eta)
        x = stirred(toward(x, denoise(inner, middle), sigma, down), noise, sigma, following, s_noise * up)
    return x


@sampler("DPM++ 2M SDE")
def dpmpp_2m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """SDE-DPM-Solver++(2M) (eq. 18), with the slope between the last two denoised latents counted at the step's midpoint."""
    return _multistep_sde(denoise, x, sigmas, noise, eta, s_noise, order=2, midpoint=True)


@sampler("DPM++ 2M SDE Heun")
def dpmpp_2m_sde_heun(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """SDE-DPM-Solver++(2M), with the slope between the last two denoised latents integrated exactly."""
    return _multistep_sde(denoise, x, sigmas, noise, eta, s_noise, order=2, midpoint=False)


@sampler("DPM++ 3M SDE")
def dpmpp_3m_sde(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0) -> Tensor:
    """The same with the last three denoised latents. Their curvature counts half of what a parabola in lambda would give it, as in the
    published programs, so that this is a better second-order method and none of the third.
    """
    return _multistep_sde(denoise, x, sigmas, noise, eta, s_noise, order=3, midpoint=False)


def _multistep_sde(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, eta: float, s_noise: float, order: int, midpoint: bool
) -> Tensor:
    known: list[tuple[Tensor, Tensor]] = []  # (lambda, denoised latent), the newest first
    for sigma, following in pairwise(sigmas):
        denoised = denoise(x, sigma)
        if following == 0:
            return denoised
        known = [(-sigma.log(), denoised), *known][:order]
        h = (sigma / following).log()
        stretched = h * (1 + eta)  # the noise of the SDE is denoised away too
        x = (-stretched).exp() * x - (-stretched).expm1() * denoised
        if len(known) > 1:
            phi2 = -(-stretched).expm1() / 2 if midpoint else (-stretched).expm1() / stretched + 1
            slope, curve = _derivatives(known, h)
            x = x + phi2 * slope - (phi2 / stretched - 0.5) * curve
        x = stirred(x, noise, sigma, following, s_noise * following * (-(-2 * eta * h).expm1()).sqrt())
    return x


def _derivatives(known: list[tuple[Tensor, Tensor]], h: Tensor) -> tuple[Tensor, Tensor | float]:
    """How the denoised latent changes with lambda, in units of h: its first derivative, and its second if three are known."""
    (at0, x0), (at1, x1) = known[:2]
    r0 = (at0 - at1) / h
    slope = (x0 - x1) / r0
    if len(known) < 3:
        return slope, 0.0
    at2, x2 = known[2]
    r1 = (at1 - at2) / h
    curve = (slope - (x1 - x2) / r1) / (r0 + r1)
    return slope + r0 * curve, curve
