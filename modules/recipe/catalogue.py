"""What a recipe can choose by name, known without torch. The functions themselves are registered in `modules.samplers`."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TypeVar


@dataclass(frozen=True)
class Named:
    """Something chosen by `name`, found by any of its `aliases` too."""

    name: str
    aliases: tuple[str, ...]


@dataclass(frozen=True)
class SamplerInfo(Named):
    """A sampler: the schedule that "Automatic" stands for, and how often it calls the network in one step."""

    automatic: str
    calls: int = 1


Row = TypeVar("Row", bound=Named)


def _by_name(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


SAMPLERS = _by_name(
    [
        SamplerInfo("DPM++ 2M", ("k_dpmpp_2m",), "Karras"),
        SamplerInfo("DPM++ SDE", ("k_dpmpp_sde",), "Karras", calls=2),
        SamplerInfo("Euler a", ("k_euler_a", "k_euler_ancestral"), "Uniform"),
        SamplerInfo("Euler", ("k_euler",), "Uniform"),
        SamplerInfo("Heun", ("k_heun",), "Uniform", calls=2),
        SamplerInfo("DDIM", ("ddim",), "Timesteps"),
        SamplerInfo("UniPC", ("unipc",), "Timesteps"),
    ]
)

AUTOMATIC = "Automatic"
SCHEDULES = _by_name(
    [
        Named(AUTOMATIC, ("automatic",)),
        Named("Uniform", ("uniform",)),
        Named("Karras", ("karras",)),
        Named("Exponential", ("exponential",)),
        Named("SGM Uniform", ("sgm_uniform", "SGMUniform")),
    ]
)


def named(table: Mapping[str, Row], wanted: str) -> Row:
    """The row called `wanted`, by name or alias, whatever the case. LookupError says what is close."""
    names = {alias.lower(): row for row in table.values() for alias in (row.name, *row.aliases)}
    if row := names.get(wanted.strip().lower()):
        return row
    close = get_close_matches(wanted.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[close[0]].name!r}?" if close else f"known are {', '.join(table)}"
    raise LookupError(f"{wanted!r} is not known: {hint}")
