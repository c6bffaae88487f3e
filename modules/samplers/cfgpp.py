"""CFG++ (Chung et al. 2025): steps toward the guided picture whose noise is what the unwanted prompt predicts.

The denoise of these samplers answers twice, (x, sigma) -> (2, C, H, W): the guided latent, then the one for the unwanted prompt.
Lifted by the difference of the two, x takes the other samplers' steps: guided + (following / sigma) (x - unwanted).
"""

from itertools import pairwise

from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import leading_timesteps
from modules.samplers.steps import ancestral, at_unit_variance, halfway, stirred, toward


@sampler("Euler CFG++")
def euler_cfgpp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """CFG++ with Euler steps."""
    return euler_ancestral_cfgpp(denoise, x, sigmas, noise, eta=0)


@sampler("Euler a CFG++")
def euler_ancestral_cfgpp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0) -> Tensor:
    """CFG++ with ancestral Euler steps."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following, eta)
        guided, unwanted = denoise(x, sigma).chunk(2)
        x = toward(x + guided - unwanted, guided, sigma, down)
        x = stirred(x, noise, sigma, following, up)
    return x


@sampler("DDIM CFG++", own_schedule=leading_timesteps, unit_start=True)
def ddim_cfgpp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta_ddim: float = 0.0) -> Tensor:
    """CFG++ as its paper has it (Algorithm 1), in sigma like all others; ends like DDIM."""
    return at_unit_variance(euler_ancestral_cfgpp(denoise, x, sigmas, noise, eta=eta_ddim), sigmas[-1])


@sampler("DPM++ 2M CFG++")
def dpmpp_2m_cfgpp(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """CFG++ with DPM++ 2M's steps; the latent that is extrapolated from is the last unwanted one."""
    before: Tensor | None = None
    for i, (sigma, following) in enumerate(pairwise(sigmas)):
        guided, unwanted = denoise(x, sigma).chunk(2)
        target = guided
        if before is not None and following > 0:
            ratio = (sigmas[i - 1] / sigma).log() / (sigma / following).log()  # h of the last step / h of this one
            target = guided + (guided - before) / (2 * ratio)
        x = toward(x + guided - unwanted, target, sigma, following)
        before = unwanted
    return x


@sampler("DPM++ 2S a CFG++")
def dpmpp_2s_ancestral_cfgpp(
    denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta: float = 1.0, s_noise: float = 1.0
) -> Tensor:
    """CFG++ with DPM++ 2S a's steps. Two calls a step."""
    for sigma, following in pairwise(sigmas):
        down, up = ancestral(sigma, following, eta)
        guided, unwanted = denoise(x, sigma).chunk(2)
        x = x + guided - unwanted
        if down > 0:
            middle = halfway(sigma, down)
            guided = denoise(toward(x, guided, sigma, middle), middle).chunk(2)[0]
        x = toward(x, guided, sigma, down)
        x = stirred(x, noise, sigma, following, s_noise * up)
    return x
