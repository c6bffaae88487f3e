import inspect
import math
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from diffusers.schedulers.scheduling_ddim import rescale_zero_terminal_snr
from scipy.stats import beta

from modules.recipe.catalogue import SAMPLERS, SCHEDULES
from modules.recipe.fields import Recipe
from modules.samplers import chosen
from modules.samplers.registry import sampler, sampler_named, schedule, schedule_named
from modules.samplers.schedules import ddim_timesteps, leading_timesteps, unipc_timesteps, whole_range
from modules.samplers.sigmas import ALIGNED_SD1, ALIGNED_SDXL, SigmaTable, scaled_linear

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
@pytest.mark.parametrize("steps", [1, 2, 7, 11, 20, 150])
def test_every_schedule_descends(name: str, steps: int) -> None:
    values = sigmas(name, steps)
    assert len(values) == steps + 1 or name == "DDIM" and len(values) == len(range(1, 1000, 1000 // steps)) + 1
    assert values[-1] == (pytest.approx(float(TABLE.min)) if name == "KL Optimal" else 0)
    assert all(a > b for a, b in pairwise(values))
    if name == "Align Your Steps":
        assert values[0] == pytest.approx(0.029 if steps == 1 else 14.615)
    elif name != "DDIM":
        assert values[0] == pytest.approx(14.614642, rel=1e-6)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("Polyexponential", [4, 1, 1 / 4, 0]),
        ("Normal", [4, 1, 1 / 4, 0]),
        ("Simple", [4, 2, 1 / 2, 0]),  # steps 4, 4 - int(5/3), 4 - int(10/3)
        ("DDIM", [4, 2, 1, 1 / 2, 0]),  # one more than asked for
        ("KL Optimal", [4, math.tan((2 * math.atan(4) + math.atan(0.25)) / 3), math.tan((math.atan(4) + 2 * math.atan(0.25)) / 3), 1 / 4]),
        ("Beta", [4, (4 + 1 / 4) / 2, 1 / 4, 0]),  # its median is the middle
        ("Align Your Steps", [14.615, 1.396, 0.029, 0]),
    ],
)
def test_the_others_by_hand(name: str, wanted: list[float]) -> None:
    assert sigmas(name, 3, POWERS) == pytest.approx(wanted)


def test_align_your_steps_is_the_papers_table_and_log_linear_between() -> None:
    assert sigmas("Align Your Steps", 11) == pytest.approx([*ALIGNED_SD1, 0])
    assert sigmas("Align Your Steps", 21)[1] == pytest.approx(math.sqrt(14.615 * 6.475))
    sdxl = replace(TABLE, aligned=ALIGNED_SDXL)
    assert sigmas("Align Your Steps", 11, sdxl)[1] == pytest.approx(6.315)


def test_ddim_counts_a_few_more_than_asked_for() -> None:
    values = sigmas("DDIM", 30)
    assert len(values) == 32
    assert values[:2] == pytest.approx(TABLE.sigmas[[991, 958]].tolist())


def test_beta_is_the_distributions_quantile_function() -> None:
    values = schedule_named("Beta", "Euler")(9, TABLE, beta_dist_alpha=0.6, beta_dist_beta=1.3).tolist()
    low, high = float(TABLE.min), float(TABLE.max)
    assert [float(beta.cdf((value - low) / (high - low), 0.6, 1.3)) for value in values[:-1]] == pytest.approx(
        [1 - i / 8 for i in range(9)], abs=1e-4
    )


@pytest.mark.parametrize("name", [name for name, info in SCHEDULES.items() if "sigma_min" in info.options])
def test_a_chosen_range_is_kept(name: str) -> None:
    recipe = Recipe(sampler="Euler", schedule=name, steps=10, sigma_min=0.1, sigma_max=10.0)
    values = chosen.sigmas(recipe, TABLE).tolist()
    last = values[-1] if name == "KL Optimal" else values[-2]
    assert values[0] == pytest.approx(10, rel=1e-5)
    assert last > 0.3 if name == "SGM Uniform" else last == pytest.approx(0.1, rel=1e-5)
    assert chosen.sigmas(replace(recipe, sigma_min=0.0, sigma_max=0.0), TABLE).tolist() == sigmas(name, 10)


def test_rho_is_for_those_that_have_one() -> None:
    straight = Recipe(sampler="Euler", schedule="Karras", steps=5, rho=1.0)
    assert chosen.sigmas(straight, POWERS).tolist() == pytest.approx([4, 4 - 15 / 16, 4 - 30 / 16, 4 - 45 / 16, 1 / 4, 0])
    squared = replace(straight, schedule="Polyexponential", rho=2.0)
    assert chosen.sigmas(squared, POWERS).tolist() == pytest.approx([2 ** (4 * (1 - i / 4) ** 2 - 2) for i in range(5)] + [0])
    assert chosen.sigmas(replace(straight, schedule="Exponential"), POWERS).tolist() == sigmas("Exponential", 5, POWERS)


@pytest.mark.parametrize("name", [name for name, info in SCHEDULES.items() if info.options])
def test_options_are_those_of_the_catalogue(name: str) -> None:
    parameters = list(inspect.signature(schedule_named(name, "Euler")).parameters)
    assert tuple(parameters[2:]) == SCHEDULES[name].options


def test_discarding_leaves_out_the_last_level_but_one_of_a_step_more() -> None:
    plain = sigmas("Karras", 11)
    wanted = [*plain[:-2], 0.0]
    for recipe in (
        Recipe(sampler="DPM2 a", steps=10),
        Recipe(sampler="Euler", schedule="Karras", steps=10, always_discard_next_to_last_sigma=True),
        Recipe(sampler="DPM2", steps=10, always_discard_next_to_last_sigma=True),
    ):
        assert chosen.sigmas(recipe, TABLE).tolist() == wanted
    assert chosen.sigmas(Recipe(sampler="DPM++ 3M SDE", schedule="Karras", steps=1), TABLE).tolist() == [plain[0], 0]


def test_zero_terminal_snr_ends_in_noise_alone_and_keeps_the_first_level() -> None:
    levels = chosen.levels(Recipe(sampler="Euler", sd_noise_schedule="Zero Terminal SNR"), TABLE)
    assert float(levels.min) == pytest.approx(float(TABLE.min))
    assert float(levels.max) == pytest.approx(4518.77, rel=1e-4)
    assert bool((levels.sigmas.diff() > 0).all())
    theirs = rescale_zero_terminal_snr(torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2)
    torch.testing.assert_close(1 / (1 + levels.sigmas[:-1] ** 2), torch.cumprod(1 - theirs, 0)[:-1], rtol=1e-6, atol=1e-9)


def test_downcast_levels_are_those_of_half_precision() -> None:
    levels = chosen.levels(Recipe(sampler="Euler", use_downcasted_alpha_bar=True), TABLE)
    alpha_bar = 1 / (1 + levels.sigmas**2)
    torch.testing.assert_close(alpha_bar, alpha_bar.half().double(), rtol=1e-12, atol=1e-12)
    assert not torch.equal(levels.sigmas, TABLE.sigmas)


def test_lcm_knows_every_twentieth_level_only() -> None:
    levels = chosen.levels(Recipe(sampler="LCM"), TABLE)
    stops = chosen.sigmas(Recipe(sampler="LCM", steps=4), levels)
    assert stops[0] == TABLE.sigmas[999].float() and stops[3] == TABLE.sigmas[19].float() and stops[4] == 0
    assert levels.told(stops[:-1]).tolist() == [999, 679, 339, 19]
    assert TABLE.told(TABLE.sigmas[[7, 500]]).tolist() == [7, 500]


def test_ddim_uses_whole_training_steps_and_stops_at_the_lowest() -> None:
    own = ddim_timesteps(20, TABLE)
    torch.testing.assert_close(own, TABLE.sigmas[[*range(951, 0, -50), 0]].float())
    assert len(ddim_timesteps(7, TABLE)) == 8
    assert len(ddim_timesteps(150, TABLE)) == 151


def test_leading_timesteps_are_a_longer_list_and_one_update_less() -> None:
    """10 steps are 9 updates; 30 steps, which do not divide 1000, are 30, for their list has 31."""
    for steps, count, first in ((10, 10, 901), (20, 20, 951), (30, 31, 991), (7, 8, 995)):
        own = leading_timesteps(steps, TABLE)
        assert len(own) == count
        torch.testing.assert_close(own[[0, -1]], TABLE.sigmas[[first, 1]].float())
    assert len(leading_timesteps(1, TABLE)) == 2


def test_samplers_that_step_themselves_take_the_whole_range() -> None:
    for steps in (1, 9):
        own = whole_range(steps, TABLE)
        assert len(own) == steps + 1
        torch.testing.assert_close(own[[0, -1]], TABLE.sigmas[[-1, 0]].float())


def test_unipc_ends_at_the_lowest_level() -> None:
    own = unipc_timesteps(3, POWERS).tolist()
    assert own == pytest.approx([4, 2 ** (2 / 3), 2 ** (-2 / 3), 1 / 4])


def test_automatic_is_what_the_sampler_names() -> None:
    assert schedule_named("Automatic", "DPM++ 2M") is schedule_named("Karras", "DPM++ 2M")
    assert schedule_named("Automatic", "Euler a") is schedule_named("Uniform", "Euler")
    assert schedule_named("Automatic", "DPM++ 2M SDE") is schedule_named("Exponential", "Euler")
    assert schedule_named("Automatic", "DDIM") is ddim_timesteps
    assert schedule_named("Automatic", "PLMS") is leading_timesteps
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
