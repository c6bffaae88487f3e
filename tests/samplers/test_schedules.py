from itertools import pairwise

import pytest
import torch

from modules.recipe.catalogue import SAMPLERS, SCHEDULES
from modules.samplers.registry import sampler, sampler_named, schedule, schedule_named
from modules.samplers.schedules import ddim_timesteps, unipc_timesteps
from modules.samplers.sigmas import SigmaTable, scaled_linear

TABLE = scaled_linear()
POWERS = SigmaTable(2.0 ** torch.arange(-2, 3, dtype=torch.float64))  # 1/4, 1/2, 1, 2, 4: small enough to work out by hand


def sigmas(name: str, steps: int, table: SigmaTable = TABLE) -> list[float]:
    return schedule_named(name, "Euler")(steps, table).tolist()


def test_stable_diffusions_levels() -> None:
    assert float(TABLE.min) == pytest.approx(0.0291675, rel=2e-5)
    assert float(TABLE.max) == pytest.approx(14.614642, rel=1e-6)
    assert len(TABLE.sigmas) == 1000


def test_between_training_steps_log_sigma_is_linear() -> None:
    assert float(POWERS.at(torch.tensor(2.5))) == pytest.approx(2**0.5)
    assert float(POWERS.t_of(torch.tensor(2**0.5))) == pytest.approx(2.5)
    assert [float(POWERS.at(torch.tensor(t))) for t in (-1.0, 9.0)] == [0.25, 4]
    assert [float(POWERS.t_of(torch.tensor(s))) for s in (0.01, 99.0)] == [0, 4]
    t = torch.linspace(0, 999, 77, dtype=torch.float64)
    torch.testing.assert_close(TABLE.t_of(TABLE.at(t)), t)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Uniform", [4, 1, 1 / 4, 0]),
        ("Exponential", [4, 1, 1 / 4, 0]),
        ("SGM Uniform", [4, 2 ** (2 / 3), 2 ** (-2 / 3), 0]),
        ("Karras", [4, ((4 ** (1 / 7) + 4 ** (-1 / 7)) / 2) ** 7, 1 / 4, 0]),
    ],
)
def test_by_hand(name: str, wanted: list[float]) -> None:
    assert sigmas(name, 3, POWERS) == pytest.approx(wanted)


def test_karras_on_stable_diffusion() -> None:
    values = sigmas("Karras", 9)
    roots = [sigma ** (1 / 7) for sigma in values[:-1]]
    assert values[-2:] == pytest.approx([float(TABLE.min), 0])
    assert [b - a for a, b in pairwise(roots)] == pytest.approx([(roots[-1] - roots[0]) / 8] * 8, rel=1e-4)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "Automatic"])
@pytest.mark.parametrize("steps", [1, 2, 7, 150])
def test_every_schedule_descends_to_zero(name: str, steps: int) -> None:
    values = sigmas(name, steps)
    assert len(values) == steps + 1
    assert values[0] == pytest.approx(14.614642, rel=1e-6)
    assert values[-1] == 0
    assert values == sorted(values, reverse=True)


def test_ddim_uses_whole_training_steps_and_stops_at_the_lowest() -> None:
    own = ddim_timesteps(20, TABLE)
    torch.testing.assert_close(own, TABLE.sigmas[[*range(951, 0, -50), 0]].float())
    assert len(ddim_timesteps(7, TABLE)) == 8
    assert len(ddim_timesteps(150, TABLE)) == 151


def test_unipc_ends_at_the_lowest_level() -> None:
    own = unipc_timesteps(3, POWERS).tolist()
    assert own == pytest.approx([4, 2 ** (2 / 3), 2 ** (-2 / 3), 1 / 4])


def test_automatic_is_what_the_sampler_names() -> None:
    assert schedule_named("Automatic", "DPM++ 2M") is schedule_named("Karras", "DPM++ 2M")
    assert schedule_named("Automatic", "Euler a") is schedule_named("Uniform", "Euler")
    assert schedule_named("Automatic", "DDIM") is ddim_timesteps
    assert schedule_named("Karras", "DDIM") is schedule_named("Karras", "Euler")


def test_the_catalogue_and_the_registry_agree() -> None:
    for name in SAMPLERS:
        assert sampler_named(name).sample
        for wanted in SCHEDULES:
            assert schedule_named(wanted, name)
    with pytest.raises(ValueError, match="not in recipe.catalogue"):
        sampler("Euler b")
    with pytest.raises(ValueError, match="not in recipe.catalogue"):
        schedule("Linear")
