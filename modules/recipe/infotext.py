"""The parameters text that a picture carries, in the form the AUTOMATIC1111 web UI made the convention."""

import json
import re
from collections.abc import Mapping
from pathlib import PurePosixPath

from modules.recipe.catalogue import AUTOMATIC, ONLY_MASKED, SAMPLERS, SCHEDULES, SamplerInfo, sampler_and_schedule, schedule_in_force
from modules.recipe.fields import DEFAULTS, FIELDS, Recipe, to_dict
from modules.recipe.plan import passes
from modules.version import VERSION

_OPTIONS = frozenset(name for info in (*SAMPLERS.values(), *SCHEDULES.values()) for name in info.options)
_NEGATIVE = "Negative prompt:"
_PAIR = re.compile(r'(?:^|,)\s*+(\w[\w \-/]++):\s*+("(?:\\.|[^\\"])++"|[^,]*+)(?=,|$)')
_FEWEST = 3  # pairs that make a line one of parameters
_SIDES = {"width": "height", "seed_resize_from_w": "seed_resize_from_h", "hires_width": "hires_height"}  # said together, as WxH


def write(recipe: Recipe, seed: int) -> str:
    """The text of the picture that `seed` drew: prompt, negative prompt if any, then one line of `Key: value` pairs."""
    lines = [recipe.prompt]
    if recipe.negative_prompt:
        lines.append(f"{_NEGATIVE} {recipe.negative_prompt}")
    special = {
        "seed": seed,
        "schedule": _schedule_used(recipe),
        "width": f"{recipe.width}x{recipe.height}",
        "model_hash": recipe.model_hash or None,
        "checkpoint": PurePosixPath(recipe.checkpoint).stem or None,
        "vae": recipe.vae if recipe.vae not in (AUTOMATIC, "None") else None,
        "clip_skip": recipe.clip_skip if recipe.clip_skip > 1 else None,
        "lora_hashes": recipe.lora_hashes or None,
        "seed_resize_from_w": f"{recipe.seed_resize_from_w}x{recipe.seed_resize_from_h}",
        **dict.fromkeys(_unsaid(recipe)),
        **_about_the_picture_changed(recipe),
        **_about_the_second_pass(recipe),
    }
    values = {**to_dict(recipe), **special}
    known = {about.infotext: values[name] for name, (_, about) in FIELDS.items() if about.infotext}
    lines.append(pairs({**known, "Version": f"Easel {VERSION}"}))
    return "\n".join(lines)


def read(text: str) -> dict[str, str]:
    """What a parameters text asks for, by field, as it is written there and not checked; empty for a text of another kind.

    Keys that no field is called by are left out, and so are fields that it says nothing of.
    """
    *lines, last = text.strip().split("\n")
    said = {key: _unquoted(value) for key, value in _PAIR.findall(last)}
    if len(said) < _FEWEST:
        return {}
    request = {name: said[about.infotext] for name, (_, about) in FIELDS.items() if about.infotext in said}
    for across, down in _SIDES.items():
        if across in request:
            request[across], _, request[down] = request[across].partition("x")
    if "sampler" in request:
        request["sampler"], schedule = sampler_and_schedule(request["sampler"], request.get("schedule", ""))
        request |= {"schedule": schedule} if schedule else {}
    request["hires"] = str(not {"hires_scale", "hires_width", "hires_upscaler"}.isdisjoint(request))
    return {**_prompts(lines), **request}


def _prompts(lines: list[str]) -> dict[str, str]:
    """The prompts of what stands before the parameters; every line of a negative one may begin as one."""
    prompts: dict[str, list[str]] = {"prompt": [], "negative_prompt": []}
    name = "prompt"
    for line in map(str.strip, lines):
        name = "negative_prompt" if line.startswith(_NEGATIVE) else name
        prompts[name].append(line.removeprefix(_NEGATIVE).strip())
    return {name: "\n".join(said) for name, said in prompts.items()}


def pairs(values: Mapping[str, object]) -> str:
    """The last line of a parameters text: "Key: value, Key: value"; None is left out."""
    return ", ".join(f"{key}: {_quoted(value)}" for key, value in values.items() if value is not None)


def _about_the_picture_changed(recipe: Recipe) -> dict[str, object]:
    """What a picture that was not changed, or not by a mask, does not mention, and of a mask what is as usual."""
    only_masked = recipe.inpaint_area == ONLY_MASKED
    shown = {
        "denoising_strength": bool(recipe.init_image or recipe.hires),
        "mask_blur": recipe.is_masked,
        "masked_padding": recipe.is_masked and only_masked,
        **{
            name: recipe.is_masked and getattr(recipe, name) != getattr(DEFAULTS, name)
            for name in ("mask_mode", "mask_edge", "inpaint_area", "masked_content")
        },
    }
    return {name: getattr(recipe, name) if is_shown else None for name, is_shown in shown.items()}


def _about_the_second_pass(recipe: Recipe) -> dict[str, object]:
    """What hires fix was told where that is not as usual: the factor, or the size instead of it, and the way always."""
    names = [name for name in FIELDS if name.startswith("hires_")]
    if not recipe.hires:
        return dict.fromkeys(names)
    told = {name: getattr(recipe, name) if getattr(recipe, name) != getattr(DEFAULTS, name) else None for name in names}
    resized = recipe.hires_width or recipe.hires_height
    size = {"hires_width": f"{recipe.hires_width}x{recipe.hires_height}", "hires_scale": None}
    return {**told, "hires_upscaler": recipe.hires_upscaler, **(size if resized else {"hires_scale": f"{recipe.hires_scale:g}"})}


def _schedule_used(recipe: Recipe) -> str:
    """The schedule by name: "Automatic" is spelled out where the sampler has a named one of its own."""
    own = SAMPLERS[recipe.sampler].automatic
    return own if recipe.schedule == AUTOMATIC and own in SCHEDULES and own != "Uniform" else recipe.schedule


def _unsaid(recipe: Recipe) -> set[str]:
    """The quiet fields that have their default, or no say in this picture."""
    drawn = [(SAMPLERS[one.recipe.sampler], schedule_in_force(one.recipe.sampler, one.recipe.schedule)) for one in passes(recipe)]
    unsaid = {name for name, (_, about) in FIELDS.items() if about.quiet and getattr(recipe, name) == getattr(DEFAULTS, name)}
    unsaid |= _OPTIONS - {name for pair in drawn for info in pair if info for name in info.options}
    if not recipe.subseed_strength:
        unsaid.add("subseed")
    if min(recipe.seed_resize_from_w, recipe.seed_resize_from_h) <= 0:
        unsaid.add("seed_resize_from_w")
    if not any(_draws_numbers(recipe, sampler) for sampler, _ in drawn):
        unsaid.add("eta_noise_seed_delta")  # no noise but the first is drawn from the seed
    return unsaid


def _draws_numbers(recipe: Recipe, sampler: SamplerInfo) -> bool:
    """Whether this sampler draws fresh noise from a seed on its way."""
    amounts = [getattr(recipe, name) for name in ("eta", "eta_ddim", "s_churn") if name in sampler.options]
    return not sampler.brownian and (sampler.renoises or any(amounts))


def _quoted(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if any(c in text for c in ',:\n"') else text


def _unquoted(value: str) -> str:
    """Text that is not quoted as it should be stays as it is."""
    try:
        return str(json.loads(value)) if value.startswith('"') else value
    except ValueError:
        return value
