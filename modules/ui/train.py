"""The tab *Train*: what to make of which pictures on the left; on the right how it goes, and what was trained before."""

import time
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from modules.jobs.training import DEFAULTS, FIELDS, NEW, WHAT, datasets
from modules.model_manager.choice import first_choice
from modules.recipe.fields import BadField
from modules.ui.workspace import RAW, usable

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

_BOARD = '<section id="trainings" aria-label="Trainings"></section>'


def build(desk: "Desk") -> None:
    """Draws the tab."""
    bases = usable(desk)
    with gr.Tab("Train", id="train", elem_id="train") as tab, gr.Row(elem_id="train-room", equal_height=False):
        with gr.Column(elem_id="train-form", scale=0, min_width=0):
            fields: dict[str, Component] = {
                "what": gr.Dropdown(list(WHAT), value=DEFAULTS.what, filterable=False, **_about("what")),
                "base": gr.Dropdown(bases, value=first_choice(bases), filterable=False, **_about("base")),
                "data": gr.Dropdown(datasets(desk.settings), value=None, filterable=False, **_about("data")),
                "minutes": gr.Number(DEFAULTS.minutes, **_about("minutes")),
                "name": gr.Textbox("", max_lines=1, placeholder="cats", **_about("name")),
            }
            problem = gr.HTML("", elem_id="train-problem", apply_default_css=False, padding=False)
            start = gr.Button("Start", variant="primary", size="lg", elem_id="train-start")
        gr.HTML(_BOARD, elem_id="trainings-home", apply_default_css=False, padding=False)

    what, base, data = fields["what"], fields["base"], fields["data"]
    what.change(lambda what: [gr.update(visible=what != NEW)] * 2, what, [base, data], **RAW)
    tab.select(partial(_listed, desk), [base, data], [base, data], **RAW)
    start.click(partial(_start, desk, list(fields)), list(fields.values()), problem, trigger_mode="multiple", **RAW)


def _about(name: str) -> dict[str, object]:
    about = FIELDS[name][1]
    return {"label": about.label, "info": about.help, "elem_id": f"train-{name}", "elem_classes": ["field"], "min_width": 0}


def _listed(desk: "Desk", base: str | None, data: str | None) -> list[gr.Dropdown]:
    """What can be chosen now; the one to begin with where nothing is chosen yet."""
    lists = (usable(desk), base), (datasets(desk.settings), data)
    return [gr.Dropdown(known, value=chosen if chosen in known else first_choice(known)) for known, chosen in lists]


def _start(desk: "Desk", names: list[str], *values: object) -> str:
    """Queues the training. Returns what was wrong with it as HTML, or nothing."""
    try:
        desk.trainings.submit(dict(zip(names, values, strict=True)))
    except BadField as bad:
        said = time.monotonic_ns()  # so that the same problem is seen to be said again
        return f'<p role="alert" data-field="{escape(bad.field)}" data-said="{said}">{escape(str(bad))}</p>'
    return ""
