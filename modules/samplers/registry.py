"""The tables of samplers and schedules. What can be chosen is named in `recipe.catalogue`; here the names get their functions."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from modules.recipe.catalogue import AUTOMATIC, SAMPLERS, SCHEDULES
from modules.samplers.sigmas import SigmaTable

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> x0: what a noisy latent x with noise of standard deviation sigma (0-dim) looks like without noise."""

Noise = Callable[[Tensor, Tensor], Tensor]
"""(sigma from, sigma to) -> unit noise of the latent's shape, fresh at each call."""

Sampler = Callable[[Denoise, Tensor, Tensor, Noise], Tensor]
"""(denoise, x at sigmas[0], descending sigmas, noise) -> x at sigmas[-1]."""

Schedule = Callable[[int, SigmaTable], Tensor]
"""(steps, the model's levels) -> steps + 1 descending sigmas."""


@dataclass(frozen=True)
class Entry:
    """A sampler and what goes with it: its own schedule if no named one is its own, and the kind of noise it wants."""

    sample: Sampler
    own_schedule: Schedule | None
    unit_start: bool
    brownian: bool


_samplers: dict[str, Entry] = {}
_schedules: dict[str, Schedule] = {}


def sampler(
    name: str, own_schedule: Schedule | None = None, unit_start: bool = False, brownian: bool = False
) -> Callable[[Sampler], Sampler]:
    """Registers the function below it under `name`.

    `own_schedule` is what "Automatic" means where no named schedule does. `unit_start`: pure noise begins at the variance
    sigma^2 + 1 that training data has at that level, instead of sigma^2. `brownian`: noise comes from a Brownian path.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is not in recipe.catalogue")

    def register(function: Sampler) -> Sampler:
        _samplers[name] = Entry(function, own_schedule, unit_start, brownian)
        return function

    return register


def schedule(name: str) -> Callable[[Schedule], Schedule]:
    """Registers the function below it under `name`."""
    if name not in SCHEDULES:
        raise ValueError(f"schedule {name!r} is not in recipe.catalogue")

    def register(function: Schedule) -> Schedule:
        _schedules[name] = function
        return function

    return register


def sampler_named(name: str) -> Entry:
    """The sampler registered under `name`, exactly."""
    return _samplers[name]


def schedule_named(name: str, for_sampler: str) -> Schedule:
    """The schedule registered under `name`, exactly; "Automatic" is what suits the sampler."""
    if name != AUTOMATIC:
        return _schedules[name]
    return _samplers[for_sampler].own_schedule or _schedules[SAMPLERS[for_sampler].automatic]
