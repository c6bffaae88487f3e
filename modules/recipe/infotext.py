"""The parameters text that a picture carries, in the form the AUTOMATIC1111 web UI made the convention."""

import json
from pathlib import PurePosixPath

from modules.recipe.catalogue import AUTOMATIC, SAMPLERS, SCHEDULES
from modules.recipe.fields import FIELDS, Recipe, to_dict
from modules.version import VERSION


def write(recipe: Recipe, seed: int) -> str:
    """The text of the picture that `seed` drew: prompt, negative prompt if any, then one line of `Key: value` pairs."""
    lines = [recipe.prompt]
    if recipe.negative_prompt:
        lines.append(f"Negative prompt: {recipe.negative_prompt}")
    special = {
        "seed": seed,
        "schedule": _schedule_used(recipe),
        "width": f"{recipe.width}x{recipe.height}",
        "model_hash": recipe.model_hash or None,
        "checkpoint": PurePosixPath(recipe.checkpoint).stem or None,
        "vae": recipe.vae if recipe.vae not in (AUTOMATIC, "None") else None,
        "clip_skip": recipe.clip_skip if recipe.clip_skip > 1 else None,
        "lora_hashes": recipe.lora_hashes or None,
    }
    values = {**to_dict(recipe), **special}
    pairs = {about.infotext: values[name] for name, (_, about) in FIELDS.items() if about.infotext}
    pairs |= {"RNG": "CPU", "Version": f"Easel {VERSION}"}
    lines.append(", ".join(f"{key}: {_quoted(value)}" for key, value in pairs.items() if value is not None))
    return "\n".join(lines)


def _schedule_used(recipe: Recipe) -> str:
    """The schedule by name: "Automatic" is spelled out where the sampler has a named one of its own."""
    own = SAMPLERS[recipe.sampler].automatic
    return own if recipe.schedule == AUTOMATIC and own in SCHEDULES and own != "Uniform" else recipe.schedule


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text
