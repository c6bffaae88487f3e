"""Samplers against diffusers' schedulers, where they are the same method, on the same Gaussian data and the same noise."""

import pytest
import torch
from diffusers import (
    DDIMScheduler,
    DPMSolverMultistepScheduler,
    DPMSolverSDEScheduler,
    EulerAncestralDiscreteScheduler,
    EulerDiscreteScheduler,
    HeunDiscreteScheduler,
    KDPM2AncestralDiscreteScheduler,
    KDPM2DiscreteScheduler,
    LCMScheduler,
    LMSDiscreteScheduler,
    PNDMScheduler,
    SchedulerMixin,
    UniPCMultistepScheduler,
)
from torch import Generator, Tensor

from modules.samplers.noise import brownian, cpu, fresh
from modules.samplers.registry import Noise, sampler_named
from modules.samplers.schedules import ddim_timesteps, karras, then_zero
from modules.samplers.sigmas import scaled_linear
from modules.samplers.steps import at_unit_variance

SHAPE = (4, 8, 8)
STEPS = 20
TABLE = scaled_linear()
LEVELS = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}
KARRAS = {**LEVELS, "use_karras_sigmas": True}
DDIM = {**LEVELS, "steps_offset": 1, "set_alpha_to_one": False}
MULTISTEP = {**KARRAS, "algorithm_type": "sde-dpmsolver++"}
TRAILING = then_zero(TABLE.sigmas[[*range(999, 0, -50)]])
UNIPC = UniPCMultistepScheduler(**LEVELS, solver_order=3, solver_type="bh1", final_sigmas_type="sigma_min")
UNIPC.set_timesteps(STEPS)


def denoise(x: Tensor, sigma: Tensor) -> Tensor:
    return (0.25 * x + sigma**2 * 0.7) / (0.25 + sigma**2)


def theirs(scheduler: SchedulerMixin, unit_variance: bool, timesteps: list[int] | None = None, **step: object) -> Tensor:
    """diffusers' loop from the noise of seed 5, with a network that is right about the data."""
    scheduler.set_timesteps(**({"timesteps": timesteps} if timesteps else {"num_inference_steps": STEPS}))
    x = cpu(5)(SHAPE) * (1 if unit_variance else TABLE.at(scheduler.timesteps[0]).float())
    for t in scheduler.timesteps:
        sigma = TABLE.at(t).float()
        seen = scheduler.scale_model_input(x, t) * (sigma**2 + 1).sqrt()
        x = scheduler.step((seen - denoise(seen, sigma)) / sigma, t, x, **step).prev_sample
    return x


def ours(name: str, sigmas: Tensor, noise: Noise, unit_variance: bool, **options: float) -> Tensor:
    x = cpu(5)(SHAPE) * ((sigmas[0] ** 2 + 1).sqrt() if unit_variance else sigmas[0])
    result = sampler_named(name).sample(denoise, x, sigmas, noise, **options)
    return at_unit_variance(result, sigmas[-1]) if unit_variance and not sampler_named(name).unit_start else result


@pytest.mark.parametrize(
    ("name", "scheduler", "sigmas", "unit_variance"),
    [
        ("Euler", EulerDiscreteScheduler(**KARRAS), karras(STEPS, TABLE), False),
        ("Heun", HeunDiscreteScheduler(**KARRAS), karras(STEPS, TABLE), False),
        ("LMS", LMSDiscreteScheduler(**KARRAS), karras(STEPS, TABLE), False),
        ("DPM2", KDPM2DiscreteScheduler(**KARRAS), karras(STEPS, TABLE), False),
        ("DPM++ 2M", DPMSolverMultistepScheduler(**KARRAS), karras(STEPS, TABLE), True),
        ("UniPC", UNIPC, TABLE.sigmas[[*UNIPC.timesteps.tolist(), 0]].float(), True),
        ("DDIM", DDIMScheduler(**DDIM, clip_sample=False), ddim_timesteps(STEPS, TABLE), True),
        ("PLMS", PNDMScheduler(**DDIM, skip_prk_steps=True), ddim_timesteps(STEPS, TABLE), True),
    ],
)
def test_deterministic(name: str, scheduler: SchedulerMixin, sigmas: Tensor, unit_variance: bool) -> None:
    def none(sigma_from: Tensor, sigma_to: Tensor) -> Tensor:
        raise AssertionError("a deterministic sampler asked for noise")

    torch.testing.assert_close(ours(name, sigmas, none, unit_variance), theirs(scheduler, unit_variance), rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize(
    ("name", "scheduler", "sigmas", "unit_variance", "options", "step"),
    [
        ("Euler a", EulerAncestralDiscreteScheduler(**LEVELS, timestep_spacing="trailing"), TRAILING, False, {}, {}),
        ("DPM2 a", KDPM2AncestralDiscreteScheduler(**KARRAS), karras(STEPS, TABLE), False, {}, {}),
        ("DPM++ 2M SDE", DPMSolverMultistepScheduler(**MULTISTEP), karras(STEPS, TABLE), True, {}, {}),
        ("DPM++ 2M SDE Heun", DPMSolverMultistepScheduler(**MULTISTEP, solver_type="heun"), karras(STEPS, TABLE), True, {}, {}),
        ("DDIM", DDIMScheduler(**DDIM, clip_sample=False), ddim_timesteps(STEPS, TABLE), True, {"eta_ddim": 0.7}, {"eta": 0.7}),
    ],
)
def test_with_noise_of_the_same_generator(
    name: str, scheduler: SchedulerMixin, sigmas: Tensor, unit_variance: bool, options: dict[str, float], step: dict[str, float]
) -> None:
    reference = theirs(scheduler, unit_variance, generator=Generator().manual_seed(9), **step)
    torch.testing.assert_close(ours(name, sigmas, fresh(cpu(9), SHAPE), unit_variance, **options), reference, rtol=2e-3, atol=2e-3)


def test_dpmpp_sde_on_the_same_brownian_path() -> None:
    sigmas = karras(STEPS, TABLE)
    reference = theirs(DPMSolverSDEScheduler(**KARRAS, noise_sampler_seed=9), False)
    torch.testing.assert_close(ours("DPM++ SDE", sigmas, brownian(9, cpu, SHAPE, sigmas), False), reference, rtol=2e-3, atol=2e-3)


def test_lcm() -> None:
    timesteps = [999, 679, 339, 19]
    reference = theirs(LCMScheduler(**DDIM, clip_sample=False), True, timesteps, generator=Generator().manual_seed(9))
    sigmas = then_zero(TABLE.sigmas[timesteps])
    result = ours("LCM", sigmas, fresh(cpu(9), SHAPE), True)
    torch.testing.assert_close(result, reference, rtol=2e-3, atol=2e-3)
