"""The form's controls, made from the table of fields: label, help and bounds come from there and nowhere else."""

from collections.abc import Mapping

import gradio as gr

from modules.recipe.fields import DEFAULTS, FIELDS, BadField, checked


def text(name: str, **options: object) -> gr.Textbox:
    """A box for the field's text."""
    return gr.Textbox(value=str(getattr(DEFAULTS, name)), **_about(name), **options)


def number(name: str, **options: object) -> gr.Number:
    """A box for a number. It has no bounds of its own: what is wrong with a number is said by the recipe, in words."""
    about = FIELDS[name][1]
    return gr.Number(value=getattr(DEFAULTS, name), step=about.step, **_about(name), **options)


def slider(name: str, **options: object) -> gr.Slider:
    """A slider over the field's bounds; its number can be typed too."""
    about = FIELDS[name][1]
    bounds = {"minimum": about.low, "maximum": about.high, "step": about.step}
    return gr.Slider(value=getattr(DEFAULTS, name), buttons=[], **bounds, **{**_about(name), **options})


def choice(name: str, choices: list[str] | None = None, **options: object) -> gr.Dropdown:
    """A list to choose from: `choices`, or what the catalogue knows."""
    known = choices if choices is not None else list(FIELDS[name][1].choices)
    value = getattr(DEFAULTS, name) or next(iter(known), None)
    return gr.Dropdown(known, value=value, filterable=len(known) > 12, **_about(name), **options)


def flag(name: str, **options: object) -> gr.Checkbox:
    """A box to tick."""
    return gr.Checkbox(value=getattr(DEFAULTS, name), **_about(name), **options)


def radio(name: str, **options: object) -> gr.Radio:
    """What the catalogue knows, side by side."""
    return gr.Radio(list(FIELDS[name][1].choices), value=getattr(DEFAULTS, name), **_about(name), **options)


def behind(name: str) -> gr.Textbox:
    """A text that scripts of the page write and nobody sees: `field-NAME`."""
    return gr.Textbox("", show_label=False, container=False, elem_id=f"field-{name}", elem_classes="behind")


def changed(values: Mapping[str, object], names: tuple[str, ...]) -> str:
    """Which of `names` differ from their default, for a folded part's title: "clip skip 2"."""
    return ", ".join(_named(name, values[name]) for name in names if _differs(name, values.get(name)))


def _differs(name: str, value: object) -> bool:
    if value is None or value == "":
        return False
    try:
        return checked(name, value) != getattr(DEFAULTS, name)
    except BadField:
        return True


def _named(name: str, value: object) -> str:
    label = _mid_sentence(FIELDS[name][1].label)
    return label if value is True else f"{label} {value}"


def _mid_sentence(label: str) -> str:
    return label[0].lower() + label[1:] if label[1:2].islower() else label


def _about(name: str) -> dict[str, object]:
    about = FIELDS[name][1]
    return {"label": about.label, "info": about.help, "elem_id": f"field-{name}", "elem_classes": ["field"]}
