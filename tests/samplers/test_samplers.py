"""Every sampler against data whose exact denoiser and exact solution are known: independent Gaussians, N(MEAN, SPREAD^2)."""

import math

import pytest
import torch
from torch import Tensor

from modules.recipe.catalogue import SAMPLERS
from modules.samplers.noise import brownian, fresh, generator
from modules.samplers.registry import Entry, sampler_named
from modules.samplers.samplers import ancestral, at_unit_variance
from modules.samplers.unipc import weights

MEAN, SPREAD = 0.7, 0.5
HIGH, LOW = 10.0, 0.1
BIAS = {"Euler a": 0.06, "DPM++ SDE": 0.01}  # of the spread, at 60 steps
ORDERS = {"Euler": 1, "DDIM": 1, "Heun": 2, "DPM++ 2M": 2, "UniPC": 2}  # UniPC-3: its first and last steps are of lower order


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return (SPREAD**2 * x + sigma**2 * MEAN) / (SPREAD**2 + sigma**2)


def exact(x: Tensor, start: float, end: float) -> Tensor:
    """The solution of the probability flow from sigma `start` to `end`."""
    return MEAN + (x - MEAN) * math.sqrt((SPREAD**2 + end**2) / (SPREAD**2 + start**2))


def levels(steps: int, low: float = LOW) -> Tensor:
    return torch.logspace(math.log10(HIGH), math.log10(low), steps + 1, dtype=torch.float64)


def no_noise(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
    raise AssertionError("a deterministic sampler asked for noise")


def error(entry: Entry, steps: int) -> float:
    x = torch.linspace(-20, 20, 9, dtype=torch.float64)
    wanted = exact(x, HIGH, LOW)
    if entry.own_schedule:  # these end in the variance-preserving form
        wanted = at_unit_variance(wanted, torch.tensor(LOW))
    return float((entry.sample(denoise, x, levels(steps), no_noise) - wanted).abs().max())


@pytest.mark.parametrize(("name", "order"), ORDERS.items())
def test_error_falls_with_the_order_of_the_method(name: str, order: int) -> None:
    entry = sampler_named(name)
    measured = math.log2(error(entry, 40) / error(entry, 80))
    assert order - 0.2 < measured < order + 0.2


def test_unipc_is_more_exact_than_2m_for_the_same_calls() -> None:
    assert error(sampler_named("UniPC"), 20) < 0.5 * error(sampler_named("DPM++ 2M"), 20)


@pytest.mark.parametrize("name", ORDERS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 30])
def test_ends_at_zero_noise(name: str, steps: int) -> None:
    """Down to sigma 0 as all named schedules go: one step lands on the denoised latent, many on the exact solution."""
    x = torch.linspace(-20, 20, 9, dtype=torch.float64)
    sigmas = torch.cat([levels(steps - 1, 0.01) if steps > 1 else levels(0), torch.zeros(1, dtype=torch.float64)])
    result = sampler_named(name).sample(denoise, x, sigmas, no_noise)
    assert torch.isfinite(result).all()
    if steps == 1:
        torch.testing.assert_close(result, denoise(x, sigmas[0]))
    if steps == 30:
        assert (result - exact(x, HIGH, 0)).abs().max() < 0.3


@pytest.mark.parametrize(("name", "bias"), BIAS.items())
def test_stochastic_samplers_reach_the_distribution(name: str, bias: float) -> None:
    """100,000 numbers begun at the noisy distribution end with the data's mean and spread."""
    shape = (1, 250, 400)
    sigmas = torch.cat([levels(60, 0.02), torch.zeros(1, dtype=torch.float64)]).float()
    start = MEAN + math.sqrt(SPREAD**2 + HIGH**2) * torch.randn((1, *shape), generator=generator(1))
    noise = brownian(2, shape, sigmas) if sampler_named(name).brownian else fresh(generator(2), shape)
    result = sampler_named(name).sample(denoise, start, sigmas, noise)
    assert float(result.mean()) == pytest.approx(MEAN, abs=0.01)
    assert float(result.std()) == pytest.approx(SPREAD, rel=bias)


def test_sde_refines_one_picture() -> None:
    """On one Brownian path, more steps come closer to the same result."""
    shape = (4, 16, 16)
    x = HIGH * torch.randn((1, *shape), generator=generator(3))

    def drawn(steps: int) -> Tensor:
        return sampler_named("DPM++ SDE").sample(denoise, x, levels(steps).float(), brownian(3, shape, levels(1).float()))

    reference = drawn(256)
    assert (drawn(64) - reference).norm() < 0.6 * (drawn(16) - reference).norm()


@pytest.mark.parametrize("name", SAMPLERS)
def test_calls_are_as_the_catalogue_says(name: str) -> None:
    """Calls of the network for n steps: n x calls, except that the last step of a two-call sampler, to 0, needs one."""
    calls = []

    def counted(x: Tensor, sigma: Tensor) -> Tensor:
        calls.append(float(sigma))
        return denoise(x, sigma)

    sigmas = torch.cat([levels(9, 0.02), torch.zeros(1, dtype=torch.float64)]).float()
    shape = (1, 2, 2)
    noise = brownian(1, shape, sigmas) if sampler_named(name).brownian else fresh(generator(1), shape)
    sampler_named(name).sample(counted, torch.ones((1, *shape)), sigmas, noise)
    assert len(calls) == 10 * SAMPLERS[name].calls - (SAMPLERS[name].calls - 1)
    assert min(calls) > 0


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
