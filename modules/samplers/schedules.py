"""Schedules: at which noise levels a sampler stops on its way down. One plain function each, (steps, levels, options) -> sigmas.

An option that is 0 leaves the choice to the model (`sigma_min`, `sigma_max`) or to the schedule (`rho`).
"""

import numpy
import torch
from scipy.special import betaincinv
from torch import Tensor

from modules.samplers.registry import schedule
from modules.samplers.sigmas import SigmaTable


@schedule("Uniform")
def uniform(steps: int, table: SigmaTable) -> Tensor:
    """Equal steps in training time, both ends included, then 0."""
    return then_zero(table.at(_ramp(table.last_step, 0, steps)))


@schedule("Karras")
def karras(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0, rho: float = 0) -> Tensor:
    """Equal steps in sigma^(1/rho), then 0 (Karras et al. 2022, eq. 5)."""
    return then_zero(karras_between(steps, *table.ends(sigma_max, sigma_min), rho or 7.0))


@schedule("Exponential")
def exponential(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0) -> Tensor:
    """Equal steps in log sigma, then 0."""
    return then_zero(_equal_in_log(steps, *table.ends(sigma_max, sigma_min)))


@schedule("Polyexponential")
def polyexponential(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0, rho: float = 0) -> Tensor:
    """Steps in log sigma that shrink toward the end for a rho above 1, then 0."""
    high, low = table.ends(sigma_max, sigma_min)
    return then_zero((_ramp(1, 0, steps) ** (rho or 1.0) * (high.log() - low.log()) + low.log()).exp())


@schedule("SGM Uniform")
def sgm_uniform(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0) -> Tensor:
    """Equal steps in training time without the lower end, then 0."""
    high, low = table.steps_of(sigma_max, sigma_min)
    return then_zero(table.at(_ramp(high, low, steps + 1)[:-1]))


@schedule("KL Optimal")
def kl_optimal(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0) -> Tensor:
    """Equal steps in arctan sigma, ending at the lowest level and not at 0 (Sabour et al. 2024, eq. 15)."""
    high, low = table.ends(sigma_max, sigma_min)
    return _ramp(high.atan(), low.atan(), steps + 1).tan().float()


@schedule("Align Your Steps")
def align_your_steps(steps: int, table: SigmaTable) -> Tensor:
    """The levels that Sabour et al. (2024) found best for ten steps of this family, log-linearly between them for others, then 0."""
    known = table.aligned
    if steps == len(known):
        return then_zero(torch.tensor(known, dtype=torch.float64))
    places = numpy.linspace(0, 1, steps)  # from the lowest up
    logs = numpy.interp(places, numpy.linspace(0, 1, len(known)), numpy.log(known[::-1]))
    return then_zero(torch.from_numpy(numpy.exp(logs[::-1])))


@schedule("Simple")
def simple(steps: int, table: SigmaTable) -> Tensor:
    """Whole training steps down from the last, as equal as they can be, then 0."""
    count = len(table.sigmas)
    return then_zero(table.sigmas[[count - 1 - int(i * (count / steps)) for i in range(steps)]])


@schedule("Normal")
def normal(steps: int, table: SigmaTable, *, sigma_min: float = 0, sigma_max: float = 0) -> Tensor:
    """Uniform between levels that can be chosen."""
    high, low = table.steps_of(sigma_max, sigma_min)
    return then_zero(table.at(_ramp(high, low, steps)))


@schedule("DDIM")
def ddim(steps: int, table: SigmaTable) -> Tensor:
    """Whole training steps 1, 1 + stride, 1 + 2 stride ... descending, which may be a few more than `steps`, then 0."""
    count = len(table.sigmas)
    return then_zero(table.sigmas[[*range(1, count, max(count // steps, 1))][::-1]])


@schedule("Beta")
def beta(
    steps: int,
    table: SigmaTable,
    *,
    sigma_min: float = 0,
    sigma_max: float = 0,
    beta_dist_alpha: float = 0.6,
    beta_dist_beta: float = 0.6,
) -> Tensor:
    """Steps by the quantiles of a Beta distribution, dense at both ends (Lee et al. 2024), then 0."""
    high, low = table.ends(sigma_max, sigma_min)
    quantiles = betaincinv(beta_dist_alpha, beta_dist_beta, 1 - numpy.linspace(0, 1, steps))
    return then_zero(low + torch.from_numpy(quantiles) * (high - low))


def ddim_timesteps(steps: int, table: SigmaTable) -> Tensor:
    """DDIM's own: whole training steps 1, 1 + stride, 1 + 2 stride ... descending, then the lowest level (Song et al. 2021, 4.2)."""
    stride = (table.last_step + 1) // steps
    return table.sigmas[[*(1 + stride * i for i in reversed(range(steps))), 0]].float()


def leading_timesteps(steps: int, table: SigmaTable) -> Tensor:
    """All whole training steps 1, 1 + stride ... descending, as the first DDIM programs had them: down to step 1, and one update less."""
    if steps == 1:
        return table.sigmas[[-1, 0]].float()  # they had no update here
    count = len(table.sigmas)
    return table.sigmas[[min(t + 1, table.last_step) for t in range(0, count, count // steps)][::-1]].float()


def unipc_timesteps(steps: int, table: SigmaTable) -> Tensor:
    """UniPC's own: equal steps in training time, down to the lowest level and not to 0."""
    return table.at(_ramp(table.last_step, 0, steps + 1)).float()


def whole_range(steps: int, table: SigmaTable) -> Tensor:
    """For samplers that choose their steps themselves: from the highest to the lowest level, equal in log sigma, and not to 0."""
    return _equal_in_log(steps + 1, table.max, table.min).float()


def karras_between(count: int, high: Tensor, low: Tensor, rho: float = 7.0) -> Tensor:
    """`count` levels from `high` to `low`, equally far apart in sigma^(1/rho)."""
    start, end = high.double() ** (1 / rho), low.double() ** (1 / rho)
    return (start + _ramp(0, 1, count) * (end - start)) ** rho


def then_zero(sigmas: Tensor) -> Tensor:
    """The same in float32, with 0 at the end."""
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()


def _equal_in_log(count: int, high: Tensor, low: Tensor) -> Tensor:
    return _ramp(high.log(), low.log(), count).exp()


def _ramp(start: float | Tensor, end: float | Tensor, count: int) -> Tensor:
    return torch.linspace(float(start), float(end), count, dtype=torch.float64)
