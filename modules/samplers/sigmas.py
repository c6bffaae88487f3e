"""The noise levels of a model that was trained in discrete time."""

from dataclasses import dataclass

import torch
from torch import Tensor

TRAINED_STEPS = 1000


@dataclass(frozen=True)
class SigmaTable:
    """Sigma at each training step t = 0, 1, ...: `sigmas` ascends (float64). Between steps, log sigma is linear in t."""

    sigmas: Tensor

    @property
    def min(self) -> Tensor:
        return self.sigmas[0]

    @property
    def max(self) -> Tensor:
        return self.sigmas[-1]

    @property
    def last_step(self) -> int:
        return len(self.sigmas) - 1

    def at(self, t: Tensor) -> Tensor:
        """Sigma at each t, which may lie between training steps; outside the table its ends hold."""
        t = t.double().clamp(0, self.last_step)
        low, high = t.floor().long(), t.ceil().long()
        logs = self.sigmas.log()
        return logs[low].lerp(logs[high], t - low).exp()

    def t_of(self, sigma: Tensor) -> Tensor:
        """The t at which `at` gives each sigma; outside the table its ends hold."""
        logs, wanted = self.sigmas.log(), sigma.double().clamp(self.min, self.max).log()
        high = torch.searchsorted(logs, wanted).clamp(1, self.last_step)
        return (high - 1) + (wanted - logs[high - 1]) / (logs[high] - logs[high - 1])


def scaled_linear(start: float = 0.00085, end: float = 0.012, steps: int = TRAINED_STEPS) -> SigmaTable:
    """Stable Diffusion's levels: sqrt(beta) rises linearly (Rombach et al. 2022), sigma^2 = (1 - alpha_bar) / alpha_bar."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    return SigmaTable(((1 - alpha_bar) / alpha_bar).sqrt())
