"""The rarer controls of how a picture is drawn: variations of a seed, guidance, the sampler's own options and the schedule's."""

import gradio as gr
from gradio.components import Component

from modules.recipe.fields import FIELDS
from modules.ui import form

GROUPS = {  # heading -> rows of fields
    "Seed and noise": (
        ("subseed", "subseed_strength"),
        ("seed_resize_from_w", "seed_resize_from_h"),
        ("randn_source", "eta_noise_seed_delta"),
    ),
    "Guidance": (("cfg_rescale",), ("guidance_sigma_min", "guidance_sigma_max")),
    "Sampler": (("eta", "eta_ddim", "s_noise"), ("s_churn", "s_tmin", "s_tmax")),
    "Schedule": (
        ("sigma_min", "sigma_max"),
        ("rho", "sd_noise_schedule"),
        ("beta_dist_alpha", "beta_dist_beta"),
        *((name,) for name in ("always_discard_next_to_last_sigma", "sgm_noise_multiplier", "use_downcasted_alpha_bar")),
    ),
}
NAMES = tuple(name for rows in GROUPS.values() for row in rows for name in row)
LARGE = ("subseed",)  # text, because a browser's numbers end at 2^53


def controls() -> dict[str, Component]:
    """Draws them all, group by group. Returns them by field name."""
    fields = {}
    for heading, rows in GROUPS.items():
        gr.HTML(f"<h3>{heading}</h3>", elem_classes="heading", apply_default_css=False, padding=False)
        for row in rows:
            with gr.Row(elem_classes="pair"):
                fields |= {name: _control(name) for name in row}
    return fields


def _control(name: str) -> Component:
    kind, about = FIELDS[name]
    if kind is bool:
        return form.flag(name, min_width=0)
    if about.choices:
        return form.choice(name, min_width=0)
    return form.text(name, min_width=0, max_lines=1) if name in LARGE else form.number(name, min_width=0)
