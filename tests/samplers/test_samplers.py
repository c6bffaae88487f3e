"""Every sampler against data whose exact denoiser and exact solution are known: independent Gaussians, N(MEAN, SPREAD^2)."""

import inspect
import math
import typing
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from modules.recipe.catalogue import SAMPLERS
from modules.recipe.fields import DEFAULTS
from modules.samplers.dpm_solver import RELATIVE
from modules.samplers.euler import descents
from modules.samplers.noise import brownian, cpu, fresh
from modules.samplers.registry import Denoise, Noise, sampler_named
from modules.samplers.schedules import karras, leading_timesteps
from modules.samplers.sigmas import scaled_linear
from modules.samplers.steps import ancestral, at_unit_variance, churned
from modules.samplers.unipc import weights

MEAN, SPREAD = 0.7, 0.5
HIGH, LOW = 10.0, 0.1
STILL = {"eta": 0.0, "eta_ddim": 0.0}  # what makes a sampler one without noise
ORDERS = {
    **dict.fromkeys(("Euler", "Euler a", "DDIM", "Euler CFG++", "Euler a CFG++", "DDIM CFG++"), 1),
    **dict.fromkeys(("Heun", "DPM2", "DPM2 a", "Restart"), 2),
    **dict.fromkeys(("DPM++ 2M", "DPM++ SDE", "DPM++ 2M SDE", "DPM++ 2M SDE Heun", "DPM++ 2S a", "DPM++ 2M CFG++", "DPM++ 2S a CFG++"), 2),
    **dict.fromkeys(("DPM++ 3M SDE", "UniPC", "PLMS"), 2),  # the first is so published; the others' first steps are of lower order
    "DPM fast": 3,
    "LMS": 4,
}
NOISY = {  # how far the deviation may be from the data's at 60 steps, and the options that make noise
    "Euler a": (0.06, {}),
    "Euler a CFG++": (0.06, {}),
    "DDIM": (0.06, {"eta_ddim": 1.0}),
    "DDIM CFG++": (0.06, {"eta_ddim": 1.0}),
    "DPM2 a": (0.015, {}),
    "DPM++ 2S a": (0.015, {}),
    "DPM++ 2S a CFG++": (0.015, {}),
    "DPM++ SDE": (0.015, {}),
    "DPM++ 2M SDE": (0.015, {}),
    "DPM++ 2M SDE Heun": (0.015, {}),
    "DPM++ 3M SDE": (0.015, {}),
    "DPM fast": (0.015, {}),
    "DPM adaptive": (0.02, {}),
    "Restart": (0.015, {}),
    "Euler": (0.1, {"s_churn": 20.0, "s_tmin": 0.05, "s_tmax": 5.0}),
    "Heun": (0.015, {"s_churn": 20.0}),
    "DPM2": (0.015, {"s_churn": 20.0}),
}


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def denoise_for(name: str) -> Denoise:
    """The same, answering twice for the samplers that ask for it."""
    return (lambda x, sigma: denoise(x, sigma).repeat(2, 1, 1, 1)) if SAMPLERS[name].apart else denoise


def exact(x: Tensor, start: float, end: float) -> Tensor:
    """The solution of the probability flow from sigma `start` to `end`."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + end**2) / (SPREAD**2 + start**2))


def starts(high: float = HIGH) -> Tensor:
    return torch.linspace(-2 * high, 2 * high, 9, dtype=torch.float64).view(1, 1, 3, 3)


def levels(steps: int, low: float = LOW, high: float = HIGH) -> Tensor:
    return torch.logspace(math.log10(high), math.log10(low), steps + 1, dtype=torch.float64)


def to_zero(steps: int, low: float = 0.02) -> Tensor:
    above = levels(steps - 1, low) if steps > 1 else levels(0)
    return torch.cat([above, torch.zeros(1, dtype=torch.float64)])


def no_noise(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def drawn(name: str, x: Tensor, sigmas: Tensor, noise: Noise = no_noise, **options: float) -> Tensor:
    taken = {option: value for option, value in (STILL | options).items() if option in SAMPLERS[name].options}
    return sampler_named(name).sample(denoise_for(name), x, sigmas, noise, **taken)


def error(name: str, steps: int, high: float = HIGH) -> float:
    x = starts(high)
    wanted = exact(x, high, LOW)
    if sampler_named(name).unit_start:  # these end in the variance-preserving form
        wanted = at_unit_variance(wanted, torch.tensor(LOW))
    return float((drawn(name, x, levels(steps, high=high)) - wanted).abs().max())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_error_falls_with_the_order_of_the_method(name: str, order: int) -> None:
    if name == "Restart":  # has no restarts below 20 steps
        measured = math.log2(error(name, 9) / error(name, 18))
    elif order > 2:  # from high up, where the first steps, of lower order, do not count
        measured = math.log2(error(name, 83, 1000.0) / error(name, 167, 1000.0))
    else:
        measured = math.log2(error(name, 83) / error(name, 167))
    assert order - 0.25 < measured < order + 0.3


def test_no_sampler_is_left_out() -> None:
    assert {*ORDERS, "LCM", "DPM adaptive"} == set(SAMPLERS)
    noiseless = {"LMS", "DPM++ 2M", "PLMS", "UniPC", "Euler CFG++", "DPM++ 2M CFG++"}
    assert {*NOISY, *noiseless, "LCM"} == set(SAMPLERS)


def test_multistep_methods_are_more_exact_than_2m_for_the_same_calls() -> None:
    for name in ("UniPC", "LMS", "DPM++ 3M SDE", "DPM fast"):
        assert error(name, 41) < 0.6 * error("DPM++ 2M", 41)


def test_dpm_adaptive_keeps_its_tolerance_whatever_the_steps() -> None:
    x = starts()
    for steps in (1, 20):
        result = drawn("DPM adaptive", x, levels(steps))
        assert bool(((result - exact(x, HIGH, LOW)).abs() < RELATIVE * x.abs() + 0.05).all())


def test_2m_for_flow_models() -> None:
    """x = (1 - sigma) x0 + sigma e: the same Gaussians, whose flow ends where the probability flow does, and second order too."""

    def flow_denoise(x: Tensor, sigma: Tensor) -> Tensor:
        kept = 1 - sigma
        return MEAN + SPREAD**2 * kept / (kept**2 * SPREAD**2 + sigma**2) * (x - kept * MEAN)

    def off(steps: int, low: float) -> float:
        sigmas, x = torch.linspace(1, low, steps + 1, dtype=torch.float64), starts(1.0)  # from pure noise
        result = sampler_named("DPM++ 2M", flow=True).sample(flow_denoise, x, sigmas, no_noise)
        wanted = (1 - low) * MEAN + x * math.sqrt((1 - low) ** 2 * SPREAD**2 + low**2)
        return float((result - wanted).abs().max())

    assert 1.8 < math.log2(off(80, 0.1) / off(160, 0.1)) < 2.2
    assert off(40, 0.0) < 0.02


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30])
def test_ends_at_zero_noise(name: str, steps: int) -> None:
    """Down to sigma 0 as all named schedules go: one step lands on the denoised latent, many on the exact solution."""
    x, sigmas = starts(), to_zero(steps, 0.01)
    noise = fresh(cpu(1), (1, 3, 3)) if name == "Restart" else no_noise
    result = drawn(name, x, sigmas, noise)
    assert torch.isfinite(result).all()
    if steps == 1:
        torch.testing.assert_close(result, denoise(x, sigmas[0]))
    if steps == 30 and name != "Restart":
        assert (result - exact(x, HIGH, 0)).abs().max() < 0.3


@pytest.mark.parametrize(("name", "bias", "options"), [(name, *known) for name, known in NOISY.items()])
def test_stochastic_samplers_reach_the_distribution(name: str, bias: float, options: dict[str, float]) -> None:
    """20,000 numbers begun at the noisy distribution end with the data's mean and spread."""
    shape = (1, 100, 200)
    sigmas = to_zero(60).float()
    start = MEAN + math.sqrt(SPREAD**2 + HIGH**2) * cpu(1)(shape)
    drawn_noises = []
    source = brownian(2, cpu, shape, sigmas) if SAMPLERS[name].brownian else fresh(cpu(2), shape)

    def noise(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
        drawn_noises.append(sigma_to)
        return source(sigma_from, sigma_to)

    result = drawn(name, start, sigmas, noise, **({"eta": 1.0} | options))
    assert drawn_noises
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.015)
    assert float(result.std()) == pytest.approx(SPREAD, rel=bias)


def test_lcm_reaches_the_distribution_by_a_consistency_function() -> None:
    shape = (1, 100, 400)

    def consistent(x: Tensor, sigma: Tensor) -> Tensor:
        return exact(x, float(sigma), 0)

    start = MEAN + math.sqrt(SPREAD**2 + HIGH**2) * cpu(1)(shape)
    result = sampler_named("LCM").sample(consistent, start, to_zero(4, 0.1), fresh(cpu(2), shape))
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(result.std()) == pytest.approx(SPREAD, rel=0.02)


@pytest.mark.parametrize("name", [name for name, info in SAMPLERS.items() if info.brownian])
def test_sde_refines_one_picture(name: str) -> None:
    """On one Brownian path, more steps come closer to the same result."""
    shape = (4, 16, 16)
    x = HIGH * cpu(3)(shape)

    def on_the_path(steps: int) -> Tensor:
        return drawn(name, x, levels(steps).float(), brownian(3, cpu, shape, levels(1).float()), eta=1.0)

    reference = on_the_path(256)
    assert (on_the_path(64) - reference).norm() < 0.6 * (on_the_path(16) - reference).norm()


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in ("DPM adaptive",)])
@pytest.mark.parametrize("steps", [10, 25, 40])
def test_calls_are_as_the_catalogue_says(name: str, steps: int) -> None:
    """Calls of the network for n steps: n x calls, except that the last step of a two-call sampler, to 0, needs one. PLMS begins twice."""
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma))
        return denoise_for(name)(x, sigma)

    sigmas = to_zero(steps).float()
    shape = (1, 2, 2)
    noise = brownian(1, cpu, shape, sigmas) if SAMPLERS[name].brownian else fresh(cpu(1), shape)
    sampler_named(name).sample(counted, torch.ones((1, *shape)), sigmas, noise)
    assert len(calls) == steps * SAMPLERS[name].calls - (SAMPLERS[name].calls - 1) + (name == "PLMS")
    assert min(calls) > 0


@pytest.mark.parametrize("name", SAMPLERS)
def test_options_are_those_of_the_catalogue_with_the_fields_defaults(name: str) -> None:
    parameters = list(inspect.signature(sampler_named(name).sample).parameters.values())[4:]
    if parameters and parameters[0].kind is inspect.Parameter.VAR_KEYWORD:
        (churn,) = typing.get_args(parameters[0].annotation)
        named, given = list(typing.get_type_hints(churn)), dict(list(inspect.signature(churned).parameters.items())[4:])
    else:
        named, given = [parameter.name for parameter in parameters], {parameter.name: parameter for parameter in parameters}
    assert tuple(named) == SAMPLERS[name].options
    assert all(given[option].default == getattr(DEFAULTS, option) for option in named)


def test_churn_adds_the_noise_that_it_says_in_its_range_only() -> None:
    x, noise = torch.zeros(1, 1, 100, 100), fresh(cpu(1), (1, 100, 100))
    raised, sigma = churned(x, torch.tensor(2.0), 10, noise, s_churn=1.0, s_noise=0.5)
    assert float(sigma) == pytest.approx(2.2)
    assert float(raised.std()) == pytest.approx(0.5 * math.sqrt(2.2**2 - 2**2), rel=0.03)
    assert float(churned(x, torch.tensor(2.0), 10, noise, s_churn=100.0)[1]) == pytest.approx(2 * math.sqrt(2))
    for outside in ({"s_tmin": 3.0}, {"s_tmax": 1.0}):
        assert float(churned(x, torch.tensor(2.0), 10, noise, s_churn=1.0, **outside)[1]) == 2


def test_restarts_take_their_steps_from_the_way_down() -> None:
    for steps, ways, again in ((19, 1, 0), (20, 2, 9), (35, 2, 9), (36, 3, 9), (60, 3, 15)):
        found = descents(karras(steps, scaled_linear()))
        assert len(found) == ways
        assert sum(len(way) - 1 for way in found) == steps
        if ways > 1:
            assert float(found[0][-1]) == pytest.approx(0.1, rel=0.5)
            assert float(found[1][0]) == pytest.approx(2, rel=0.3)
            assert float(found[1][again]) == pytest.approx(float(found[0][-1]))
        assert all(a > b for way in found for a, b in pairwise(way.tolist()))
        assert float(found[-1][-1]) == 0


def test_cfgpp_is_the_papers_ddim() -> None:
    """Algorithm 1 of Chung et al. 2025, written as there: x of unit variance, alpha_bar, and the noise of either prompt."""
    table, share = scaled_linear(), 0.6
    sigmas = leading_timesteps(10, table).double()
    x = torch.linspace(-2, 2, 9, dtype=torch.float64).view(1, 1, 3, 3)

    def unwanted_denoise(x: Tensor, sigma: Tensor) -> Tensor:
        return (4 * x - sigma**2) / (4 + sigma**2)

    def both(x: Tensor, sigma: Tensor) -> Tensor:
        wanted, unwanted = denoise(x, sigma), unwanted_denoise(x, sigma)
        return torch.cat([unwanted + share * (wanted - unwanted), unwanted])

    ours = sampler_named("DDIM CFG++").sample(both, x * (sigmas[0] ** 2 + 1).sqrt(), sigmas, no_noise)
    for now, then in pairwise(1 / (1 + sigmas**2)):
        stretched, sigma = x / now.sqrt(), ((1 - now) / now).sqrt()
        wanted, unwanted = ((stretched - answer(stretched, sigma)) / sigma for answer in (denoise, unwanted_denoise))
        guided = unwanted + share * (wanted - unwanted)
        x = then.sqrt() * (x - (1 - now).sqrt() * guided) / now.sqrt() + (1 - then).sqrt() * unwanted
    torch.testing.assert_close(ours, x)


@pytest.mark.parametrize("name", ["Euler CFG++", "Euler a CFG++", "DPM++ 2M CFG++", "DPM++ 2S a CFG++"])
def test_cfgpp_samplers_renoise_with_the_unwanted_prompt(name: str) -> None:
    """One step by hand: what the guided latent is, and the noise that the unwanted one leaves."""
    x = starts()
    sigmas = torch.tensor([2.0, 1.0], dtype=torch.float64)
    result = sampler_named(name).sample(lambda x, sigma: torch.cat([x * 0 + 5, x * 0 + 1]), x, sigmas, no_noise, **(
        {"eta": 0.0} if "eta" in SAMPLERS[name].options else {}
    ))  # fmt: skip
    torch.testing.assert_close(result, 5 + (x - 1) / 2)


def test_ancestral_step_keeps_the_variance() -> None:
    down, up = ancestral(torch.tensor(4.0), torch.tensor(2.0))
    assert float(up) == pytest.approx(math.sqrt(3))
    assert float(down) == pytest.approx(1)
    assert [float(part) for part in ancestral(torch.tensor(4.0), torch.tensor(0.0))] == [0, 0]


def test_unipc_weights_integrate_polynomials_exactly() -> None:
    """With slopes of f(s) = a s + b s^2 in exponential time, h * sum(w * slope) is the exact integral of the step."""
    h, places, a, b = 0.8, [-1.0, 1.0], 0.3, -1.1
    slopes = [(a * h * r + b * (h * r) ** 2) / r for r in places]
    nodes = torch.linspace(0, h, 200_001, dtype=torch.float64)
    integral = torch.trapezoid((nodes - h).exp() * (a * nodes + b * nodes**2), nodes)
    assert h * sum(w * s for w, s in zip(weights(places, h), slopes, strict=True)) == pytest.approx(float(integral), rel=1e-8)
