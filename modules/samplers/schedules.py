"""Schedules: at which noise levels a sampler stops on its way down. One plain function each, (steps, levels) -> sigmas."""

import torch
from torch import Tensor

from modules.samplers.registry import schedule
from modules.samplers.sigmas import SigmaTable


@schedule("Uniform")
def uniform(steps: int, table: SigmaTable) -> Tensor:
    """Equal steps in training time, both ends included, then 0."""
    return _then_zero(table.at(torch.linspace(table.last_step, 0, steps, dtype=torch.float64)))


@schedule("Karras")
def karras(steps: int, table: SigmaTable, rho: float = 7.0) -> Tensor:
    """Equal steps in sigma^(1/rho), then 0 (Karras et al. 2022, eq. 5)."""
    high, low = table.max ** (1 / rho), table.min ** (1 / rho)
    return _then_zero((high + torch.linspace(0, 1, steps, dtype=torch.float64) * (low - high)) ** rho)


@schedule("Exponential")
def exponential(steps: int, table: SigmaTable) -> Tensor:
    """Equal steps in log sigma, then 0."""
    return _then_zero(torch.linspace(float(table.max.log()), float(table.min.log()), steps, dtype=torch.float64).exp())


@schedule("SGM Uniform")
def sgm_uniform(steps: int, table: SigmaTable) -> Tensor:
    """Equal steps in training time without the lower end, then 0."""
    return _then_zero(table.at(torch.linspace(table.last_step, 0, steps + 1, dtype=torch.float64)[:-1]))


def ddim_timesteps(steps: int, table: SigmaTable) -> Tensor:
    """DDIM's own: whole training steps 1, 1 + stride, 1 + 2 stride ... descending, then the lowest level (Song et al. 2021, 4.2)."""
    stride = (table.last_step + 1) // steps
    return table.sigmas[[*(1 + stride * i for i in reversed(range(steps))), 0]].float()


def unipc_timesteps(steps: int, table: SigmaTable) -> Tensor:
    """UniPC's own: equal steps in training time, down to the lowest level and not to 0."""
    return table.at(torch.linspace(table.last_step, 0, steps + 1, dtype=torch.float64)).float()


def _then_zero(sigmas: Tensor) -> Tensor:
    return torch.cat([sigmas, sigmas.new_zeros(1)]).float()
