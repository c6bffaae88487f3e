"""Samplers that are written in training steps in their papers; here in sigma like all others.

They may stop above sigma 0, and then return the paper's x, of the variance that training data has there.
"""

from itertools import pairwise

from torch import Tensor

from modules.samplers.euler import euler, euler_ancestral
from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import ddim_timesteps, leading_timesteps
from modules.samplers.steps import at_unit_variance

ADAMS = {2: (3 / 2, -1 / 2), 3: (23 / 12, -16 / 12, 5 / 12), 4: (55 / 24, -59 / 24, 37 / 24, -9 / 24)}  # for equal steps


@sampler("DDIM", own_schedule=ddim_timesteps, unit_start=True)
def ddim(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise, *, eta_ddim: float = 0.0) -> Tensor:
    """DDIM (Song et al. 2021, eq. 12), which is Euler in these variables, or Euler a with an eta."""
    if eta_ddim == 0:
        return at_unit_variance(euler(denoise, x, sigmas, noise), sigmas[-1])
    return at_unit_variance(euler_ancestral(denoise, x, sigmas, noise, eta=eta_ddim), sigmas[-1])


@sampler("PLMS", own_schedule=leading_timesteps, unit_start=True)
def plms(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Pseudo linear multistep (Liu et al. 2022, eq. 12 and 13): the last four slopes, as if steps were equal. One call more at first."""
    slopes: list[Tensor] = []  # the newest first
    for sigma, following in pairwise(sigmas):
        slopes = [(x - denoise(x, sigma)) / sigma, *slopes][:4]
        if len(slopes) > 1:
            slope = sum(weight * known for weight, known in zip(ADAMS[len(slopes)], slopes, strict=True))
        else:
            slope = slopes[0]
            if following > 0:
                predicted = x + slope * (following - sigma)
                slope = (slope + (predicted - denoise(predicted, following)) / following) / 2
        x = x + slope * (following - sigma)
    return at_unit_variance(x, sigmas[-1])
