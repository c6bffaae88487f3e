"""A parameters text that is pasted into the form: what it asks for, field by field."""

from typing import TYPE_CHECKING

from modules.model_manager.choice import usable
from modules.model_manager.upscalers import OF_LATENTS, find_upscaler
from modules.recipe import infotext
from modules.recipe.catalogue import AUTOMATIC
from modules.recipe.fields import DEFAULTS, FIELDS, BadField, checked
from modules.ui import hires

if TYPE_CHECKING:
    from modules.jobs.desk import Desk

_USUAL = {name: getattr(DEFAULTS, name) for name, (_, about) in FIELDS.items() if about.quiet or name in (*hires.NAMES, "clip_skip")}


def values_of(desk: "Desk", text: str) -> tuple[dict[str, object], str]:
    """The form's values for a parameters text, and in one line what of it cannot be had here ("" if all can).

    Where it says nothing of a field that is mentioned only if it is not as usual, that one is as usual. Nothing for a text of another kind.
    """
    asked = infotext.read(text)
    values, problems = dict(_USUAL) if asked else {}, []
    for name, value in asked.items():
        try:
            values[name] = _there(desk, name, checked(name, value))
        except BadField as bad:
            problems.append(str(bad))
    return {**values, hires.STRENGTH: values.get("denoising_strength", DEFAULTS.denoising_strength)} if asked else {}, "; ".join(problems)


def _there(desk: "Desk", name: str, value: object) -> object:
    """The value, or the name of the file that is meant by it. BadField for one that is not there."""
    if name == "vae" and value not in (AUTOMATIC, "None", *desk.vaes()):
        raise BadField(name, f"VAE: there is no {value}")
    try:
        if name == "checkpoint":
            return usable(desk.checkpoints(), str(value)).name
        return find_upscaler([*OF_LATENTS, *desk.upscalers()], str(value)).name if name == "hires_upscaler" else value
    except LookupError as error:
        raise BadField(name, f"{FIELDS[name][1].label}: {error}") from None
