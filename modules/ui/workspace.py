"""The workspace of all tabs that draw: what goes in on the left, the picture to change and the stage on the right, Generate in one place.

The tabs differ in what of it is shown, and in what of the form is asked for.
"""

import json
import time
from collections.abc import Callable
from functools import partial
from html import escape
from typing import TYPE_CHECKING

import gradio as gr
from gradio.components import Component

from modules.model_manager.choice import inpaints
from modules.recipe.catalogue import AUTOMATIC, ONLY_MASKED, WHOLE_PICTURE
from modules.recipe.fields import BadField, Recipe, to_dict
from modules.recipe.request import extension, removal
from modules.ui import form, hires, pasted, sampling
from modules.ui.examples import EXAMPLES
from modules.ui.sizes import PRESETS, multiple_of_8, native_size, preset

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

QUIET = {"queue": False, "show_progress": "hidden", "api_visibility": "private"}  # an event that shows no spinner and is no API
RAW = {**QUIET, "preprocess": False}  # and whose values reach us as typed: the recipe checks them, in its own words
FOLDED = ("clip_skip", "vae", *sampling.NAMES)
LARGE_FOR = 1.5  # times the checkpoint's own side: what is larger is not drawn as a whole
TEXT, IMAGE, INPAINTING = "text-to-image", "image-to-image", "inpainting"
TABS = {TEXT: "Text to image", IMAGE: "Image to image", INPAINTING: "Inpainting"}
_PICTURES = ("init_image", "mask")
_SUITED = ("width", "height", "inpaint_area")
_DRAWN_WITH = ("sampler", "schedule", "steps", "cfg_scale", "seed", "width", "height", "clip_skip", "vae", *sampling.NAMES)
_TWICE = (*hires.NAMES, hires.STRENGTH)
_SENT = ("prompt", "negative_prompt", *_DRAWN_WITH, *_TWICE)

_SOURCE = '<section id="source" aria-label="The picture to change"></section>'
_STAGE = f'<section id="stage" aria-label="Stage" data-examples="{escape(json.dumps(EXAMPLES))}"></section>'

Fields = dict[str, Component]


def build(desk: "Desk", checkpoint: gr.Dropdown, tabs: gr.Tabs) -> tuple[Fields, list[gr.Accordion]]:
    """Draws the workspace. Returns its controls by field name, `checkpoint` and `tab` among them, and the parts that are folded."""
    with gr.Row(elem_id="workspace", equal_height=False):
        with gr.Column(elem_id="form", scale=0, min_width=0):
            fields = {
                "checkpoint": checkpoint,
                **_prompts(),
                **_size(desk, checkpoint),
                **_drawing(),
                **_changing(desk, checkpoint),
                **_seed_and_batch(),
            }
            with gr.Accordion(hires.CLOSED, open=False, elem_id="hires") as twice:
                fields |= hires.controls(hires.upscalers(desk))
            gr.HTML("<div id='networks'></div>", apply_default_css=False, padding=False)
            with gr.Accordion("More", open=False, elem_id="more") as more:
                with gr.Row(elem_classes="pair"):
                    fields["clip_skip"] = form.slider("clip_skip", min_width=0)
                    fields["vae"] = form.choice("vae", vae_choices(desk), min_width=0)
                fields |= sampling.controls()
            with gr.Column(elem_id="press", min_width=0):
                problem = gr.HTML("", elem_id="problem", apply_default_css=False, padding=False)
                with gr.Row(elem_id="presses"):
                    remove = gr.Button("Remove object", size="lg", elem_id="remove", min_width=0, scale=0)
                    generate = gr.Button("Generate", variant="primary", size="lg", elem_id="generate", min_width=0)
        with gr.Column(elem_id="right", scale=1, min_width=0):
            gr.HTML(_SOURCE, elem_id="source-home", apply_default_css=False, padding=False)
            gr.HTML(_STAGE, elem_id="stage-home", apply_default_css=False, padding=False)
    keep = gr.Button("Keep what is typed", elem_id="keep-draft", elem_classes="behind")
    fields |= {name: form.behind(name) for name in ("tab", *_PICTURES)}
    wish = form.behind("wish")

    names, controls = list(fields), list(fields.values())
    generate.click(partial(_submit, desk, names, False), controls, problem, trigger_mode="multiple", **RAW)
    remove.click(partial(_submit, desk, names, True), controls, problem, trigger_mode="multiple", **RAW)
    _grant(desk, wish, fields, checkpoint, tabs, problem)
    keep.click(partial(_keep, desk, names), controls, [twice, more], trigger_mode="always_last", **RAW)
    gr.on([control.change for control in controls], None, js="() => window.easel?.changed()", **QUIET)
    return fields, [twice, more]


def _grant(desk: "Desk", wish: gr.Textbox, fields: Fields, checkpoint: gr.Dropdown, tabs: gr.Tabs, problem: gr.HTML) -> None:
    """What scripts of the page ask for: they say what (`window.easel.wish`) and press one of these buttons."""

    def granted(name: str, grant: Callable[..., list[object]], more: list[Component], outputs: list[Component]) -> None:
        press = gr.Button(name, elem_id=f"wish-{name}", elem_classes="behind")
        press.click(partial(grant, desk), [wish, *more], outputs, js="(wish, ...more) => [window.easel.wish, ...more]", **RAW)

    def named(*names: str) -> list[Component]:
        return [fields[name] for name in names]

    suited = named(*_SUITED)
    granted("suit", _suit, [fields["tab"], checkpoint], suited)
    granted("send", _sent, [], [fields["tab"], tabs, *named(*_PICTURES, *_SENT)])
    granted("paste", _pasted, [], [problem, *named("checkpoint", *_SENT)])
    granted("extend", _extended, [checkpoint], [problem, *named(*_PICTURES), *suited, *named("masked_content", "denoising_strength")])
    granted("batch", partial(_batch, list(fields)), list(fields.values()), [problem])


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


def _changing(desk: "Desk", checkpoint: gr.Dropdown) -> Fields:
    """What is asked about a picture that is changed, and about a mask."""
    with gr.Column(elem_id="changing", min_width=0):
        with gr.Row(elem_classes="pair"):
            fields: Fields = {"denoising_strength": form.slider("denoising_strength", min_width=0)}
            fields["resize_mode"] = form.choice("resize_mode", min_width=0)
        with gr.Column(elem_id="masking", min_width=0):
            fields["inpaint_area"] = form.radio("inpaint_area")
            with gr.Row(elem_classes="pair"):
                fields |= {name: form.slider(name, min_width=0) for name in ("mask_blur", "masked_padding")}
            with gr.Row(elem_classes="pair"):
                fields |= {name: form.choice(name, min_width=0) for name in ("masked_content", "mask_mode", "mask_edge")}
            way = gr.HTML(_way(desk, None), elem_id="way", apply_default_css=False, padding=False)
    checkpoint.change(partial(_way, desk), checkpoint, way, **RAW)
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


def usable(desk: "Desk") -> list[str]:
    """The names of the checkpoints that can draw."""
    return [model.name for model in desk.checkpoints() if model.status == "ok"]


def vae_choices(desk: "Desk") -> list[str]:
    """What can be chosen as VAE: what fits, the checkpoint's own, or a file."""
    return list(dict.fromkeys((AUTOMATIC, "None", *desk.vaes())))


def _way(desk: "Desk", checkpoint: str | None) -> str:
    """In which way this checkpoint inpaints."""
    chosen = next((model for model in desk.checkpoints() if model.name == checkpoint and model.architecture), None)
    if chosen is None:
        return ""
    sees = chosen.architecture.inpaints
    how = "was made for inpainting: it sees the mask" if sees else "blends the old picture in at every step"
    return f"<p>{escape(chosen.name)} {how}. Remove object draws at denoising strength {removal(sees)['denoising_strength']:g}.</p>"


def _suited(desk: "Desk", picture: str, tab: object, checkpoint: object) -> dict[str, object]:
    """Width, height and area that suit a picture that just came: all of a small one, the masked part of a large one."""
    native = native_size(desk.checkpoints(), checkpoint)
    try:
        width, height = desk.shelf.size_of(picture)
    except (LookupError, ValueError):
        return {}
    scale = min(1, LARGE_FOR * native / (width * height) ** 0.5)
    if scale == 1:
        return {"width": width, "height": height, "inpaint_area": WHOLE_PICTURE}
    if tab == INPAINTING:
        return {"width": native, "height": native, "inpaint_area": ONLY_MASKED}
    return {"width": multiple_of_8(width * scale), "height": multiple_of_8(height * scale)}


def _suit(desk: "Desk", picture: str, tab: str, checkpoint: str | None) -> list[object]:
    suited = _suited(desk, picture, tab, checkpoint)
    return [suited.get(name, gr.skip()) for name in _SUITED]


def _sent(desk: "Desk", wish: str) -> list[object]:
    """A picture of the gallery, and how it was drawn, in the tab that was wished for: "TAB ID".

    The values of: tab, tabs, the pictures' fields, the fields of _SENT.
    """
    tab, id = wish.split(" ")
    try:
        entry = desk.gallery.entry(int(id))
        picture = "" if tab == TEXT else desk.take_in(desk.gallery.png(entry.id))
        job = desk.job(entry.job)
    except (LookupError, ValueError, OSError):
        return [gr.skip()] * (2 + len(_PICTURES) + len(_SENT))
    drawn = job and isinstance(job.recipe, Recipe)  # and not an older picture made larger
    carries = drawn and (tab == TEXT or not job.recipe.init_image)  # who goes on changing a picture goes on with what is typed
    values: dict[str, object] = to_dict(job.recipe) | {"seed": entry.seed} if carries else {}
    values |= {name: str(values[name]) for name in ("seed", *sampling.LARGE) if name in values}
    values = {**values, hires.STRENGTH: values["denoising_strength"]} if carries else values
    if tab != TEXT:  # what is changed is drawn once
        values = {name: value for name, value in values.items() if name not in _TWICE}
    if picture:
        values |= {"width": entry.width, "height": entry.height}
    pictures = [gr.skip(), gr.skip()] if tab == TEXT else [picture, ""]
    return [tab, gr.Tabs(selected=tab), *pictures, *(values.get(name, gr.skip()) for name in _SENT)]


def _pasted(desk: "Desk", text: str) -> list[object]:
    """What a parameters text asks for: what of it cannot be had as HTML, then the values of checkpoint and the fields of _SENT."""
    values, problem = pasted.values_of(desk, text)
    values |= {name: str(values[name]) for name in ("seed", *sampling.LARGE) if name in values}
    said = _problem("prompt", f"Not as in the text: {problem}") if problem else ""
    return [said, *(values.get(name, gr.skip()) for name in ("checkpoint", *_SENT))]


def _extended(desk: "Desk", wish: str, checkpoint: str | None) -> list[object]:
    """What goes on when a picture is to be extended: "ID SIDE PIXELS". What was wrong as HTML, then the fields' values."""
    id, side, pixels = wish.split(" ")
    try:
        margins = [int(pixels) if side in (name, "all") else 0 for name in ("left", "top", "right", "bottom")]
        picture, mask = desk.extend(id, *margins)
    except (LookupError, ValueError, OSError) as error:
        return [_problem("init_image", f"Extend: {error}"), *[gr.skip()] * 7]
    drawn = extension(inpaints(desk.checkpoints(), checkpoint or ""))
    return ["", picture, mask, *_suit(desk, picture, INPAINTING, checkpoint), drawn["masked_content"], drawn["denoising_strength"]]


def request_of(values: dict[str, object]) -> dict[str, object]:
    """What the form asks for in its tab. BadField where a picture or a mask is missing."""
    request = {name: value for name, value in values.items() if name not in ("tab", hires.STRENGTH)}
    tab = values.get("tab") or TEXT
    if tab == TEXT:
        return {**request, "init_image": "", "mask": "", "denoising_strength": values.get(hires.STRENGTH)}
    request["hires"] = False
    if not request.get("init_image"):
        raise BadField("init_image", "Picture: drop one first, or choose it")
    if tab == IMAGE:
        return {**request, "mask": ""}
    if not request.get("mask"):
        raise BadField("mask", "Mask: paint over what should be drawn anew")
    return request


def _submit(desk: "Desk", names: list[str], removes: bool, *values: object) -> str:
    """Queues the job, to remove what is masked or as it is asked for. Returns what was wrong with it as HTML, or nothing."""
    typed = dict(zip(names, values, strict=True))
    desk.keep_draft(typed)
    instead = removal(inpaints(desk.checkpoints(), str(typed["checkpoint"] or ""))) if removes else {}
    try:
        desk.submit(request_of(typed) | instead)
    except BadField as bad:
        return _problem(bad.field, str(bad))
    return ""


def _batch(names: list[str], desk: "Desk", wish: str, *values: object) -> str:
    """Queues a job for each picture that is wished for: JSON, a list of {name, init_image, mask}, where "" stands for the painted mask.

    Each is drawn as if it had been dropped and nothing else been changed. Returns what was wrong with any of them as HTML.
    """
    typed = dict(zip(names, values, strict=True))
    problems = []
    for picture in json.loads(wish):
        own = {name: picture[name] for name in _PICTURES if picture[name]}
        try:
            desk.submit(request_of(typed | own | _suited(desk, picture["init_image"], typed["tab"], typed["checkpoint"])))
        except BadField as bad:
            problems.append(_problem(bad.field, f"{picture['name']}: {bad}"))
    return "".join(problems)


def _problem(field: str, words: str) -> str:
    said = time.monotonic_ns()  # so that the same problem is seen to be said again
    return f'<p role="alert" data-field="{escape(field)}" data-said="{said}">{escape(words)}</p>'


def _keep(desk: "Desk", names: list[str], *values: object) -> list[gr.Accordion]:
    draft = dict(zip(names, values, strict=True))
    desk.keep_draft(draft)
    return [gr.Accordion(label=hires.title(draft)), gr.Accordion(label=folded_title(draft))]


def folded_title(values: dict[str, object]) -> str:
    """The folded part's title, which says what in it differs from its default."""
    differ = form.changed(values, FOLDED)
    return f"More · {differ}" if differ else "More"
