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
    """A sampler, and what is known of it without torch.

    `automatic`: the schedule that "Automatic" stands for (a name that is no schedule's means one of its own). `calls`: how often it
    calls the network in one step. `options`: the recipe's fields that it reads. `brownian`: its noise comes from a Brownian path.
    `renoises`: it draws fresh noise whatever its options are. `discards`: it wants a step more, of which the last level but one is
    left out. `apart`: it wants the answer to the negative prompt beside the guided one (CFG++).
    """

    automatic: str
    calls: int = 1
    options: tuple[str, ...] = ()
    brownian: bool = False
    renoises: bool = False
    discards: bool = False
    apart: bool = False


@dataclass(frozen=True)
class ScheduleInfo(Named):
    """A schedule, and the recipe's fields that it reads."""

    options: tuple[str, ...] = ()


Row = TypeVar("Row", bound=Named)


def _by_name(rows: Iterable[Row]) -> dict[str, Row]:
    return {row.name: row for row in rows}


AUTOMATIC = "Automatic"
CHURN = ("s_churn", "s_tmin", "s_tmax", "s_noise")
ETA = ("eta",)
NOISY = ("eta", "s_noise")

SAMPLERS = _by_name(
    [
        SamplerInfo("DPM++ 2M", ("k_dpmpp_2m",), "Karras"),
        SamplerInfo("DPM++ SDE", ("k_dpmpp_sde",), "Karras", calls=2, options=NOISY, brownian=True),
        SamplerInfo("DPM++ 2M SDE", ("k_dpmpp_2m_sde",), "Exponential", options=NOISY, brownian=True),
        SamplerInfo("DPM++ 2M SDE Heun", ("k_dpmpp_2m_sde_heun",), "Exponential", options=NOISY, brownian=True),
        SamplerInfo("DPM++ 2S a", ("k_dpmpp_2s_a",), "Karras", calls=2, options=NOISY),
        SamplerInfo("DPM++ 3M SDE", ("k_dpmpp_3m_sde",), "Exponential", options=NOISY, brownian=True, discards=True),
        SamplerInfo("Euler a", ("k_euler_a", "k_euler_ancestral"), "Uniform", options=ETA),
        SamplerInfo("Euler", ("k_euler",), "Uniform", options=CHURN),
        SamplerInfo("LMS", ("k_lms",), "Uniform"),
        SamplerInfo("Heun", ("k_heun",), "Uniform", calls=2, options=CHURN),
        SamplerInfo("DPM2", ("k_dpm_2",), "Karras", calls=2, options=CHURN, discards=True),
        SamplerInfo("DPM2 a", ("k_dpm_2_a",), "Karras", calls=2, options=NOISY, discards=True),
        SamplerInfo("DPM fast", ("k_dpm_fast",), "Whole range", options=NOISY),
        SamplerInfo("DPM adaptive", ("k_dpm_ad",), "Whole range", options=ETA),
        SamplerInfo("Restart", ("restart",), "Karras", calls=2, renoises=True),
        SamplerInfo("DDIM", ("ddim",), "Timesteps", options=("eta_ddim",)),
        SamplerInfo("DDIM CFG++", ("ddim_cfgpp",), "Timesteps", options=("eta_ddim",), apart=True),
        SamplerInfo("PLMS", ("plms",), "Timesteps"),
        SamplerInfo("UniPC", ("unipc",), "Timesteps"),
        SamplerInfo("LCM", ("k_lcm",), "Uniform", renoises=True),
        SamplerInfo("Euler CFG++", ("euler_cfg_pp",), "Uniform", apart=True),
        SamplerInfo("Euler a CFG++", ("euler_ancestral_cfg_pp",), "Uniform", options=ETA, apart=True),
        SamplerInfo("DPM++ 2M CFG++", ("dpmpp_2m_cfg_pp",), "Karras", apart=True),
        SamplerInfo("DPM++ 2S a CFG++", ("dpmpp_2s_ancestral_cfg_pp",), "Karras", calls=2, options=NOISY, apart=True),
    ]
)

RANGE = ("sigma_min", "sigma_max")
SCHEDULES = _by_name(
    [
        ScheduleInfo(AUTOMATIC, ("automatic",)),
        ScheduleInfo("Uniform", ("uniform",)),
        ScheduleInfo("Karras", ("karras",), (*RANGE, "rho")),
        ScheduleInfo("Exponential", ("exponential",), RANGE),
        ScheduleInfo("Polyexponential", ("polyexponential",), (*RANGE, "rho")),
        ScheduleInfo("SGM Uniform", ("sgm_uniform", "SGMUniform"), RANGE),
        ScheduleInfo("KL Optimal", ("kl_optimal",), RANGE),
        ScheduleInfo("Align Your Steps", ("align_your_steps",)),
        ScheduleInfo("Simple", ("simple",)),
        ScheduleInfo("Normal", ("normal",), RANGE),
        ScheduleInfo("DDIM", ("ddim",)),
        ScheduleInfo("Beta", ("beta",), (*RANGE, "beta_dist_alpha", "beta_dist_beta")),
    ]
)

CPU_NOISE, NV_NOISE = "CPU", "NV"
NOISE_SOURCES = _by_name([Named(CPU_NOISE, ()), Named(NV_NOISE, ())])
DEFAULT_NOISE, ZERO_TERMINAL = "Default", "Zero Terminal SNR"
NOISE_SCHEDULES = _by_name([Named(DEFAULT_NOISE, ()), Named(ZERO_TERMINAL, ())])

STRETCH, CROP, FILL_BORDERS, LATENT_RESIZE = "Just resize", "Crop and resize", "Resize and fill", "Just resize (latent upscale)"
RESIZE_MODES = _by_name([Named(name, ()) for name in (STRETCH, CROP, FILL_BORDERS, LATENT_RESIZE)])  # numbered so in the REST API

MASKED, NOT_MASKED = "Inpaint masked", "Inpaint not masked"
MASK_MODES = _by_name([Named(MASKED, ()), Named(NOT_MASKED, ())])

HARD, SOFT = "Hard", "Soft"
MASK_EDGES = _by_name([Named(HARD, ()), Named(SOFT, ("differential",))])

FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING = "fill", "original", "latent noise", "latent nothing"
MASKED_CONTENT = _by_name([Named(name, ()) for name in (FILL, ORIGINAL, LATENT_NOISE, LATENT_NOTHING)])  # numbered so in the REST API

WHOLE_PICTURE, ONLY_MASKED = "Whole picture", "Only masked"
INPAINT_AREAS = _by_name([Named(WHOLE_PICTURE, ()), Named(ONLY_MASKED, ())])

SAME_SAMPLER, SAME_SCHEDULE = "Use same sampler", "Use same scheduler"
HIRES_SAMPLERS = {SAME_SAMPLER: Named(SAME_SAMPLER, ()), **SAMPLERS}
HIRES_SCHEDULES = {SAME_SCHEDULE: Named(SAME_SCHEDULE, ()), **SCHEDULES}


@dataclass(frozen=True)
class LatentWay(Named):
    """A way to enlarge a latent: torch's name for the interpolation, and whether it is antialiased."""

    mode: str
    antialiased: bool = False


LATENT = "Latent"
LATENT_WAYS = _by_name(
    [
        LatentWay(LATENT, (), "bilinear"),
        LatentWay("Latent (antialiased)", (), "bilinear", antialiased=True),
        LatentWay("Latent (bicubic)", (), "bicubic"),
        LatentWay("Latent (bicubic antialiased)", (), "bicubic", antialiased=True),
        LatentWay("Latent (nearest)", (), "nearest"),
        LatentWay("Latent (nearest-exact)", (), "nearest-exact"),
    ]
)
LANCZOS, BICUBIC, NEAREST = "Lanczos", "Bicubic", "Nearest"
PICTURE_WAYS = _by_name([Named(LANCZOS, ("None",)), Named(BICUBIC, ()), Named(NEAREST, ())])
PLAIN_WAYS: Mapping[str, Named] = {**LATENT_WAYS, **PICTURE_WAYS}  # to enlarge without a network


def schedule_in_force(sampler: str, schedule: str) -> ScheduleInfo | None:
    """The named schedule that a sampler follows, with "Automatic" resolved; None for the sampler's own."""
    return SCHEDULES.get(SAMPLERS[sampler].automatic if schedule == AUTOMATIC else schedule)


def sampler_and_schedule(sampler: str, schedule: str) -> tuple[str, str]:
    """The two names, taken apart where a sampler is called by both: "DPM++ 2M Karras". A schedule that is named besides wins."""
    known = [each.lower() for row in SAMPLERS.values() for each in (row.name, *row.aliases)]
    for each in SCHEDULES.values():
        for suffix in (each.name, *each.aliases):
            if sampler.lower() not in known and sampler.lower().endswith(f" {suffix.lower()}"):
                sampler, schedule = sampler[: -len(suffix) - 1], schedule if schedule.lower() not in ("", AUTOMATIC.lower()) else each.name
    return sampler, schedule


def named(table: Mapping[str, Row], wanted: str) -> Row:
    """The row called `wanted`, by name or alias, whatever the case. LookupError says what is close."""
    names = {alias.lower(): row for row in table.values() for alias in (row.name, *row.aliases)}
    if row := names.get(wanted.strip().lower()):
        return row
    close = get_close_matches(wanted.lower(), names, n=1, cutoff=0.5)
    hint = f"did you mean {names[close[0]].name!r}?" if close else f"known are {', '.join(table)}"
    raise LookupError(f"{wanted!r} is not known: {hint}")
