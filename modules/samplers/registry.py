"""The tables of samplers and schedules. What can be chosen is named in `recipe.catalogue`; here the names get their functions."""

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from modules.recipe.catalogue import SAMPLERS, SCHEDULES, schedule_in_force
from modules.samplers.sigmas import SigmaTable

Denoise = Callable[[Tensor, Tensor], Tensor]
"""(x, sigma) -> x0: what a noisy latent x with noise of standard deviation sigma (0-dim) looks like without noise."""

Noise = Callable[[Tensor, Tensor], Tensor]
"""(sigma from, sigma to) -> unit noise of the latent's shape, fresh at each call."""

Sampler = Callable[..., Tensor]
"""(denoise, x at sigmas[0], descending sigmas, noise) -> x at sigmas[-1]. Its options are keywords, named as the recipe's fields."""

Schedule = Callable[..., Tensor]
"""(steps, the model's levels) -> steps + 1 descending sigmas, or a few more. Its options are keywords, named as the recipe's fields."""


@dataclass(frozen=True)
class Entry:
    """A sampler and what goes with it: its own schedule if no named one is its own, and how it sees the model's levels."""

    sample: Sampler
    own_schedule: Schedule | None
    unit_start: bool
    levels: Callable[[SigmaTable], SigmaTable]


_samplers: dict[tuple[str, bool], Entry] = {}
_schedules: dict[str, Schedule] = {}


def sampler(
    name: str,
    own_schedule: Schedule | None = None,
    unit_start: bool = False,
    levels: Callable[[SigmaTable], SigmaTable] = lambda table: table,
    flow: bool = False,
) -> Callable[[Sampler], Sampler]:
    """Registers the function below it under `name`.

    `own_schedule` is what "Automatic" means where no named schedule does. `unit_start`: pure noise begins at the variance
    sigma^2 + 1 that training data has at that level, instead of sigma^2. `levels`: which of the model's levels it knows.
    `flow`: this is the sampler of that name for flow models.
    """
    if name not in SAMPLERS:
        raise ValueError(f"sampler {name!r} is not in recipe.catalogue")

    def register(function: Sampler) -> Sampler:
        _samplers[name, flow] = Entry(function, own_schedule, unit_start, levels)
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


def sampler_named(name: str, flow: bool = False) -> Entry:
    """The sampler registered under `name`, exactly; the one for flow models if there is one and it is asked for."""
    return _samplers[name, flow]


def schedule_named(name: str, for_sampler: str) -> Schedule:
    """The schedule registered under `name`, exactly; "Automatic" is what suits the sampler."""
    named = schedule_in_force(for_sampler, name)
    return _schedules[named.name] if named else _samplers[for_sampler, False].own_schedule
