"""The page: the frame around the tabs, and what Gradio is told about it."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING

import gradio as gr

from modules.model_manager.choice import first_choice
from modules.model_manager.library import Checkpoint
from modules.recipe.catalogue import AUTOMATIC
from modules.recipe.fields import DEFAULTS, FIELDS
from modules.ui import assets, form, hires, sampling, train, upscale, workspace
from modules.ui.sizes import native_size
from modules.ui.theme import theme
from modules.ui.workspace import FOLDED, QUIET, RAW, folded_title, usable, vae_choices

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

_STATUS = "<div id='refused'></div><div id='engine'></div><div id='scheme' data-default='{scheme}'></div>"
_ALWAYS_OWN = ("width", "height", "cfg_scale")  # follow the checkpoint even where it has no opinion
_OWN = (*_ALWAYS_OWN, "steps", "sampler", "schedule", "clip_skip")


def page_options() -> dict[str, object]:
    """What `gr.mount_gradio_app` takes besides the blocks: look, scripts, and none of Gradio's own furniture."""
    own = {"theme": theme(), "head": assets.head(), "favicon_path": str(assets.ICON)}
    return {**own, "footer_links": [], "run_history": False, "ssr_mode": False, "show_error": False}


def build(desk: "Desk") -> gr.Blocks:
    """The whole page. It is a viewer of the desk's state: each visit is filled from there."""
    with gr.Blocks(title="Easel", analytics_enabled=False, fill_width=True) as page:
        with gr.Row(elem_id="top"):
            gr.HTML("<h1 id='brand'>Easel</h1>", apply_default_css=False, padding=False)
            checkpoint = form.choice("checkpoint", usable(desk), min_width=0)
            refresh = gr.Button("Look for checkpoints again", elem_id="refresh", elem_classes="icon", min_width=0, scale=0)
            gr.HTML(_STATUS.format(scheme=desk.settings.theme), elem_id="status", apply_default_css=False, padding=False)
        with gr.Tabs(elem_id="tabs") as tabs:
            drawn = {id: gr.Tab(name, id=id) for id, name in workspace.TABS.items()}
            upscale.build(desk)
            train.build(desk)
        fields, folds = workspace.build(desk, checkpoint, tabs)
        for id, tab in drawn.items():
            tab.select(None, None, fields["tab"], js=f"() => '{id}'", **QUIET)
        models_changed = gr.Button("Show the checkpoints there are", elem_id="models-changed", elem_classes="behind")

        own = [fields[name] for name in _OWN]
        lists = [checkpoint, fields["vae"], fields["hires_upscaler"]]
        refresh.click(partial(_refreshed, desk), lists, [*lists, *own], **RAW)
        models_changed.click(partial(_listed, desk), lists, [*lists, *own], **RAW)
        checkpoint.input(partial(_own_updates, desk), checkpoint, own, **RAW)
        filled = page.load(partial(_filled, desk, list(fields)), None, [*fields.values(), *folds, tabs], **RAW)
        filled.then(None, js="() => { window.easelFilled = true; window.dispatchEvent(new Event('easel:filled')); }", **QUIET)
    return page


def _kept(desk: "Desk", chosen: object) -> str | None:
    """`chosen` while it can still draw, or else the one to begin with."""
    names = usable(desk)
    return chosen if chosen in names else first_choice(names)


def _refreshed(desk: "Desk", chosen: str | None, vae: str | None, upscaler: str | None) -> list[object]:
    desk.refresh_checkpoints()
    return _listed(desk, chosen, vae, upscaler)


def _listed(desk: "Desk", chosen: str | None, vae: str | None, upscaler: str | None) -> list[object]:
    """The lists of checkpoints, VAEs and upscalers, and what changes in the form if another checkpoint is chosen now."""
    kept = _kept(desk, chosen)
    own = [gr.skip()] * len(_OWN) if kept == chosen else _own_updates(desk, kept)
    return [gr.Dropdown(usable(desk), value=kept), _vaes(desk, vae), _upscalers(desk, upscaler), *own]


def own_values(checkpoints: Sequence[Checkpoint], name: str | None) -> dict[str, object]:
    """What changes in the form when a checkpoint is chosen: its native size and what its description recommends."""
    native = native_size(checkpoints, name)
    recommended = next((dict(model.defaults) for model in checkpoints if model.name == name), {})
    always = {field: getattr(DEFAULTS, field) for field in _ALWAYS_OWN}
    own = {**always, "width": native, "height": native, **recommended}
    return {field: own[field] for field in _OWN if field in own}


def _own_updates(desk: "Desk", checkpoint: str | None) -> list[object]:
    own = own_values(desk.checkpoints(), checkpoint)
    return [own.get(name, gr.skip()) for name in _OWN]


def _filled(desk: "Desk", names: list[str]) -> list[object]:
    """The form as it was left, or as the checkpoint likes it where that is another one now."""
    left = {name: value for name, value in desk.draft().items() if name in names}
    checkpoint = _kept(desk, left.get("checkpoint"))
    own = own_values(desk.checkpoints(), checkpoint)
    typed = {**own, **left} if left.get("checkpoint") == checkpoint else {**left, **own}
    usual = {name: getattr(DEFAULTS, name) for name in names if name in FIELDS}
    values = {"tab": workspace.TEXT, **usual, hires.STRENGTH: DEFAULTS.denoising_strength, **typed}
    values |= {name: str(values[name]) for name in ("seed", *sampling.LARGE)}
    twice = gr.Accordion(label=hires.title(values), open=bool(values["hires"]))
    more = gr.Accordion(label=folded_title(values), open=form.changed(values, FOLDED) != "")
    lists = {"checkpoint": gr.Dropdown(usable(desk), value=checkpoint), "vae": _vaes(desk, values["vae"])}
    lists["hires_upscaler"] = _upscalers(desk, values["hires_upscaler"])
    return [*({**values, **lists}[name] for name in names), twice, more, gr.Tabs(selected=values["tab"])]


def _upscalers(desk: "Desk", chosen: object) -> gr.Dropdown:
    names = hires.upscalers(desk)
    return gr.Dropdown(names, value=chosen if chosen in names else DEFAULTS.hires_upscaler)


def _vaes(desk: "Desk", chosen: object) -> gr.Dropdown:
    known = vae_choices(desk)
    return gr.Dropdown(known, value=chosen if chosen in known else AUTOMATIC)
