"""The tab *Text to image*: what goes in on the left, the stage on the right, Generate in one place."""

import json
import time
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from modules.recipe.catalogue import AUTOMATIC
from modules.recipe.fields import BadField
from modules.ui import form, sampling
from modules.ui.examples import EXAMPLES
from modules.ui.sizes import PRESETS, native_size, preset

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}  # an event that shows no spinner and is no API
RAW = {**QUIET, "preprocess": False}  # and whose values reach us as typed: the recipe checks them, in its own words
FOLDED = ("clip_skip", "vae", *sampling.NAMES)

_STAGE = f'<section id="stage" aria-label="Stage" data-examples="{escape(json.dumps(EXAMPLES))}"></section>'

Fields = dict[str, Component]


def build(desk: "Desk", checkpoint: gr.Dropdown) -> tuple[Fields, gr.Accordion]:
    """Draws the tab. Returns its controls by field name, `checkpoint` among them, and the part that is folded."""
    with gr.Row(elem_id="workspace", equal_height=False):
        with gr.Column(elem_id="form", scale=0, min_width=0):
            fields = {"checkpoint": checkpoint, **_prompts(), **_size(desk, checkpoint), **_drawing(), **_seed_and_batch()}
            gr.HTML("<div id='networks'></div>", apply_default_css=False, padding=False)
            with gr.Accordion("More", open=False, elem_id="more") as more:
                with gr.Row(elem_classes="pair"):
                    fields["clip_skip"] = form.slider("clip_skip", min_width=0)
                    fields["vae"] = form.choice("vae", vae_choices(desk), min_width=0)
                fields |= sampling.controls()
            with gr.Column(elem_id="press", min_width=0):
                problem = gr.HTML("", elem_id="problem", apply_default_css=False, padding=False)
                generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate")
        with gr.Column(elem_id="right", scale=1, min_width=0):
            gr.HTML(_STAGE, elem_id="stage-home", apply_default_css=False, padding=False)
    keep = gr.Button("Keep what is typed", elem_id="keep-draft", elem_classes="behind")

    names, controls = list(fields), list(fields.values())
    generate.click(partial(_submit, desk, names), controls, problem, trigger_mode="multiple", **RAW)
    keep.click(partial(_keep, desk, names), controls, more, trigger_mode="always_last", **RAW)
    gr.on([control.change for control in controls], None, js="() => window.easel?.changed()", **QUIET)
    return fields, more


def _prompts() -> Fields:
    return {
        "prompt": form.text("prompt", lines=4, max_lines=10, placeholder="Say what you want to see"),
        "negative_prompt": form.text("negative_prompt", lines=1, max_lines=6),
    }


def _size(desk: "Desk", checkpoint: gr.Dropdown) -> Fields:
    with gr.Row(elem_classes="size"):
        width = form.number("width", min_width=0)
        swap = gr.Button("Swap width and height", elem_id="swap", elem_classes="icon", min_width=0, scale=0)
        height = form.number("height", min_width=0)
        with gr.Row(elem_id="presets"):
            chips = {name: gr.Button(name, size="sm", min_width=0, elem_classes="chip") for name in PRESETS}
    swap.click(None, [width, height], [width, height], js="(width, height) => [height, width]", **QUIET)
    for name, chip in chips.items():
        chip.click(partial(_preset, desk, name), checkpoint, [width, height], **RAW)
    return {"width": width, "height": height}


def _drawing() -> Fields:
    with gr.Row(elem_classes="pair"):
        fields: Fields = {"sampler": form.choice("sampler", min_width=0), "schedule": form.choice("schedule", min_width=0)}
    with gr.Row(elem_classes="pair"):
        fields |= {"steps": form.slider("steps", min_width=0), "cfg_scale": form.slider("cfg_scale", min_width=0)}
    return fields


def _seed_and_batch() -> Fields:
    with gr.Row(elem_classes="seed"):
        seed = form.text("seed", min_width=0, max_lines=1)  # text, because a browser's numbers end at 2^53
        dice = gr.Button("Random seed", elem_id="random-seed", elem_classes="icon", min_width=0, scale=0)
        gr.Button("Reuse the shown picture's seed", elem_id="reuse-seed", elem_classes="icon", min_width=0, scale=0)
        batch: Fields = {name: form.number(name, min_width=0) for name in ("batch_size", "batch_count")}
    dice.click(None, None, seed, js="() => '-1'", **QUIET)
    return {"seed": seed, **batch}


def _preset(desk: "Desk", name: str, checkpoint: str | None) -> tuple[int, int]:
    return preset(name, native_size(desk.checkpoints(), checkpoint))


def vae_choices(desk: "Desk") -> list[str]:
    """What can be chosen as VAE: what fits, the checkpoint's own, or a file."""
    return list(dict.fromkeys((AUTOMATIC, "None", *desk.vaes())))


def _submit(desk: "Desk", names: list[str], *values: object) -> str:
    """Queues the job. Returns what was wrong with it as HTML, or nothing."""
    request = dict(zip(names, values, strict=True))
    desk.keep_draft(request)
    try:
        desk.submit(request)
    except BadField as bad:
        said = time.monotonic_ns()  # so that the same problem is seen to be said again
        return f'<p role="alert" data-field="{escape(bad.field)}" data-said="{said}">{escape(str(bad))}</p>'
    return ""


def _keep(desk: "Desk", names: list[str], *values: object) -> gr.Accordion:
    draft = dict(zip(names, values, strict=True))
    desk.keep_draft(draft)
    return gr.Accordion(label=folded_title(draft))


def folded_title(values: dict[str, object]) -> str:
    """The folded part's title, which says what in it differs from its default."""
    differ = form.changed(values, FOLDED)
    return f"More · {differ}" if differ else "More"
