"""The folded part Hires fix of Text to image: whether a picture is drawn twice, and how the second time."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from modules.recipe.catalogue import LATENT_WAYS
from modules.recipe.fields import FIELDS
from modules.ui import form

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

NAMES = tuple(name for name in FIELDS if name == "hires" or name.startswith("hires_"))
STRENGTH = "hires_strength"  # the recipe's denoising strength, which the other tabs ask for in a place of theirs
CLOSED = "Hires fix"


def upscalers(desk: "Desk") -> list[str]:
    """The names to choose from: ways to enlarge latents, then those for pictures."""
    return [*LATENT_WAYS, *of_pictures(desk)]


def of_pictures(desk: "Desk") -> list[str]:
    """The names of upscalers for pictures: the networks, then what needs none."""
    return [each.name for each in sorted(desk.upscalers(), key=lambda each: each.path is None) if each.status == "ok"]


def controls(upscalers: list[str]) -> dict[str, Component]:
    """Draws them all. Returns them by field name."""
    fields: dict[str, Component] = {"hires": form.flag("hires", min_width=0)}
    with gr.Row(elem_classes="pair"):
        fields["hires_upscaler"] = form.choice("hires_upscaler", upscalers, min_width=0)
        fields[STRENGTH] = form.slider("denoising_strength", min_width=0, elem_id=f"field-{STRENGTH}")
    with gr.Row(elem_classes="pair"):
        fields |= {name: form.slider(name, min_width=0) for name in ("hires_steps", "hires_scale")}
    with gr.Row(elem_classes="pair"):
        fields |= {name: form.number(name, min_width=0) for name in ("hires_width", "hires_height")}
    with gr.Row(elem_classes="pair"):
        fields |= {name: form.choice(name, min_width=0) for name in ("hires_sampler", "hires_schedule")}
    prompts = ("hires_prompt", "hires_negative_prompt")
    return fields | {name: form.text(name, lines=1, max_lines=6, placeholder="The same as above") for name in prompts}


def title(values: Mapping[str, object]) -> str:
    """The folded part's title, which says how large the picture becomes, and in which way."""
    if not values.get("hires"):
        return CLOSED
    across, down = values.get("hires_width"), values.get("hires_height")
    if across and down:
        size = f"{across} × {down}"
    elif across or down:
        size = f"{across} wide" if across else f"{down} high"
    else:
        size = f"{values.get('hires_scale')}×"
    return f"{CLOSED} · {size}, {values.get('hires_upscaler')}"
