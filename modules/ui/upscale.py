"""The tab *Super-resolution*: pictures and how they are enlarged on the left, before and after on the right."""

import json
import time
from collections.abc import Mapping
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from modules.recipe.fields import BadField
from modules.recipe.upscaling import DEFAULT, DEFAULTS, FIELDS, NO_SECOND
from modules.ui import form
from modules.ui.hires import of_pictures
from modules.ui.workspace import QUIET, RAW

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

FACTORS = {"2×": 2, "3×": 3, "4×": 4}
BY_SIZE = "A size"
_SOURCE = '<section id="upscale-pictures" aria-label="Pictures to enlarge"></section>'
_BOARD = '<section id="upscale-board" aria-label="Before and after"></section>'


def build(desk: "Desk") -> None:
    """Draws the tab."""
    with gr.Tab("Super-resolution", id="upscale", elem_id="upscale") as tab, gr.Row(elem_id="upscale-room", equal_height=False):
        with gr.Column(elem_id="upscale-form", scale=0, min_width=0):
            gr.HTML(_SOURCE, apply_default_css=False, padding=False)
            fields, sides = _fields()
            problem = gr.HTML("", elem_id="upscale-problem", apply_default_css=False, padding=False)
            start = gr.Button("Upscale", variant="primary", size="lg", elem_id="upscale-start")
            pictures = form.behind("upscaling")
        gr.HTML(_BOARD, elem_id="upscale-home", apply_default_css=False, padding=False)

    by = fields["by"]
    by.change(lambda chosen: gr.update(visible=chosen == BY_SIZE), by, sides, **RAW)
    lists = [fields["upscaler"], fields["upscaler_2"]]
    tab.select(partial(_listed, desk), lists, lists, **RAW)
    words = "(pictures, ...more) => [JSON.stringify(window.easel.upscaling()), ...more]"
    start.click(partial(_start, desk, list(fields)), [pictures, *fields.values()], problem, js=words, trigger_mode="multiple", **RAW)
    tab.select(None, None, None, js="() => window.easel.upscalingShown()", **QUIET)


def _fields() -> tuple[dict[str, Component], gr.Row]:
    """The controls by field name, and those of them that only a size needs. What there is to choose from is looked up when the tab is
    opened."""
    fields: dict[str, Component] = {
        "by": gr.Radio([*FACTORS, BY_SIZE], value="4×", label="How large", elem_id="upscale-factor", elem_classes=["field"], min_width=0)
    }
    with gr.Row(elem_classes="pair", visible=False) as sides:
        fields |= {side: gr.Number(0, precision=0, **_about(side)) for side in ("width", "height")}
        fields["crop"] = gr.Checkbox(DEFAULTS.crop, **_about("crop"))
    fields["upscaler"] = gr.Dropdown([DEFAULT], value=DEFAULT, filterable=False, **_about("upscaler"))
    with gr.Row(elem_classes="pair"):
        fields["upscaler_2"] = gr.Dropdown([NO_SECOND], value=NO_SECOND, filterable=False, **_about("upscaler_2"))
        about = FIELDS["upscaler_2_weight"][1]
        bounds = {"minimum": about.low, "maximum": about.high, "step": about.step}
        fields["upscaler_2_weight"] = gr.Slider(value=DEFAULTS.upscaler_2_weight, buttons=[], **bounds, **_about("upscaler_2_weight"))
    return fields, sides


def _about(name: str) -> dict[str, object]:
    about = FIELDS[name][1]
    return {"label": about.label, "info": about.help, "elem_id": f"upscale-{name}", "elem_classes": ["field"], "min_width": 0}


def _listed(desk: "Desk", first: str | None, second: str | None) -> list[gr.Dropdown]:
    """What can be chosen now."""
    names = of_pictures(desk)
    usual = DEFAULT if DEFAULT in names else next(iter(names), None)
    return [
        gr.Dropdown(names, value=first if first in names else usual, filterable=len(names) > 12),
        gr.Dropdown([NO_SECOND, *names], value=second if second in names else NO_SECOND),
    ]


def _request(typed: Mapping[str, object]) -> dict[str, object]:
    """What is asked for, whatever the picture."""
    request = {name: value for name, value in typed.items() if name not in ("by", "width", "height")}
    if typed["by"] == BY_SIZE:
        return {**request, "width": typed["width"] or 0, "height": typed["height"] or 0}
    return {**request, "factor": FACTORS.get(str(typed["by"]))}


def _start(desk: "Desk", names: list[str], pictures: str, *values: object) -> str:
    """Queues a job for each picture, a JSON list of ids and names. Returns as HTML which job each became, or what was wrong with it."""
    queued: dict[str, object] = {}
    problem = BadField("pictures", "Pictures: drop some first, or choose them")
    for picture in json.loads(pictures):
        try:
            request = _request(dict(zip(names, values, strict=True)))
            (queued[picture["picture"]],) = desk.upscale([{**request, **picture}])
        except BadField as bad:
            queued[picture["picture"]], problem = str(bad), bad
    said = f'data-said="{time.monotonic_ns()}" data-jobs="{escape(json.dumps(queued))}"'  # so that the same is seen to be said again
    if any(isinstance(job, int) for job in queued.values()):
        return f"<p hidden {said}></p>"
    return f'<p role="alert" data-field="{escape(problem.field)}" {said}>{escape(str(problem))}</p>'
