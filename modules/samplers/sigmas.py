"""The noise levels of a model that was trained in discrete time."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import torch
from torch import Tensor

TRAINED_STEPS = 1000
ALIGNED_SD1 = (14.615, 6.475, 3.861, 2.697, 1.886, 1.396, 0.963, 0.652, 0.399, 0.152, 0.029)
ALIGNED_SDXL = (14.615, 6.315, 3.771, 2.181, 1.342, 0.862, 0.555, 0.380, 0.234, 0.113, 0.029)
TERMINAL_ALPHA_BAR = 4.8973451890853435e-08  # what A1111 has for 0, which no sigma could stand for
CONSISTENCY_STRIDE = 20  # training steps between those that consistency models were distilled at


@dataclass(frozen=True)
class SigmaTable:
    """Sigma at each training step t = 0, 1, ...: `sigmas` ascends (float64). Between steps, log sigma is linear in t.

    The network knows the steps by their numbers stride - 1, 2 stride - 1 ..., and only those if `whole`. `aligned` is
    what the schedule Align Your Steps has for this family.
    """

    sigmas: Tensor
    aligned: tuple[float, ...] = ALIGNED_SD1
    stride: int = 1
    whole: bool = False

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

    def told(self, sigma: Tensor) -> Tensor:
        """The step that the network is told for sigma."""
        t = self.t_of(sigma)
        return (t.round() if self.whole else t) * self.stride + (self.stride - 1)

    def ends(self, high: float, low: float) -> tuple[Tensor, Tensor]:
        """The highest and the lowest level: these, or the table's own for 0."""
        return tuple(torch.tensor(given, dtype=torch.float64) if given else own for given, own in ((high, self.max), (low, self.min)))

    def steps_of(self, high: float, low: float) -> tuple[float, float]:
        """The t of the highest and the lowest level: of these, or the table's own for 0."""
        return tuple(float(self.t_of(sigma)) for sigma in self.ends(high, low))


def scaled_linear(start: float = 0.00085, end: float = 0.012, steps: int = TRAINED_STEPS) -> SigmaTable:
    """Stable Diffusion's levels: sqrt(beta) rises linearly (Rombach et al. 2022), sigma^2 = (1 - alpha_bar) / alpha_bar."""
    betas = torch.linspace(start**0.5, end**0.5, steps, dtype=torch.float64) ** 2
    alpha_bar = torch.cumprod(1 - betas, dim=0)
    return SigmaTable(((1 - alpha_bar) / alpha_bar).sqrt())


def zero_terminal(table: SigmaTable) -> SigmaTable:
    """The levels stretched so that the last is all noise, and the first stays (Lin et al. 2023, Algorithm 1)."""

    def stretched(alpha_bar: Tensor) -> Tensor:
        roots = alpha_bar.sqrt()
        squares = ((roots - roots[-1]) * roots[0] / (roots[0] - roots[-1])) ** 2
        return torch.cat([squares[:-1], squares.new_tensor([TERMINAL_ALPHA_BAR])])

    return _changed(table, stretched)


def downcast(table: SigmaTable) -> SigmaTable:
    """The levels as programs of before 2024 had them, which kept alpha_bar in half precision."""
    return _changed(table, lambda alpha_bar: alpha_bar.float().half().double())


def coarse(table: SigmaTable) -> SigmaTable:
    """The levels that a consistency model was distilled at, and is told, only (Luo et al. 2023)."""
    return replace(table, sigmas=table.sigmas[CONSISTENCY_STRIDE - 1 :: CONSISTENCY_STRIDE], stride=CONSISTENCY_STRIDE, whole=True)


def _changed(table: SigmaTable, change: Callable[[Tensor], Tensor]) -> SigmaTable:
    alpha_bar = change(1 / (1 + table.sigmas**2))
    return replace(table, sigmas=((1 - alpha_bar) / alpha_bar).sqrt())
