"""UniPC (Zhao et al. 2023): a predictor and a corrector of the same form, one network call a step."""

import math

import torch
from torch import Tensor

from modules.samplers.registry import Denoise, Noise, sampler
from modules.samplers.schedules import unipc_timesteps
from modules.samplers.steps import at_unit_variance, toward

ORDER = 3


@sampler("UniPC", own_schedule=unipc_timesteps, unit_start=True)
def unipc(denoise: Denoise, x: Tensor, sigmas: Tensor, noise: Noise) -> Tensor:
    """Multistep UniPC-3 with B1(h) = h on denoised latents, lower orders at both ends (Algorithms 5 and 6)."""
    steps = len(sigmas) - 1
    lambdas = -sigmas.double().log()
    known = [denoise(x, sigmas[0])]  # denoised latents at sigmas[0], sigmas[1] ...
    for i in range(steps):
        order = min(ORDER, i + 1, steps - i)
        base = toward(x, known[i], sigmas[i], sigmas[i + 1])
        if sigmas[i + 1] == 0:
            return base
        h = float(lambdas[i + 1] - lambdas[i])
        places = [float(lambdas[i - k] - lambdas[i]) / h for k in range(1, order)]  # earlier points, in units of h
        slopes = [(known[i - k] - known[i]) / place for k, place in enumerate(places, start=1)]
        x = base + h * _weighted(slopes, weights(places, h))
        if i + 1 == steps:
            break
        known.append(denoise(x, sigmas[i + 1]))
        slopes.append(known[i + 1] - known[i])
        x = base + h * _weighted(slopes, weights([*places, 1.0], h))
    return at_unit_variance(x, sigmas[-1])


def weights(places: list[float], h: float) -> list[float]:
    """How much each slope counts, so that the step is exact for polynomials in lambda (eq. 10). [0.5] for one slope, as in the paper."""
    if len(places) < 2:
        return [0.5] * len(places)
    powers = torch.tensor([[place**k for place in places] for k in range(len(places))], dtype=torch.float64)
    return torch.linalg.solve(powers, torch.tensor(_phi(len(places), -h), dtype=torch.float64)).tolist()


def _phi(count: int, h: float) -> list[float]:
    """k! phi_(k+1)(h) for k = 1 .. count, with phi_1 = (e^h - 1) / h and phi_(k+1) = (phi_k - 1/k!) / h."""
    phi, values = math.expm1(h) / h, []
    for k in range(1, count + 1):
        phi = (phi - 1 / math.factorial(k)) / h
        values.append(phi * math.factorial(k))
    return values


def _weighted(slopes: list[Tensor], factors: list[float]) -> Tensor | float:
    return sum(factor * slope for factor, slope in zip(factors, slopes, strict=True))
