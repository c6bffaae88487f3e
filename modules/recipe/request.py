"""Request to recipe: what was asked, with holes, becomes what will be drawn, without."""

import random
from collections.abc import Callable, Mapping
from typing import Protocol

from modules.recipe.catalogue import FILL, MASKED, ONLY_MASKED, SOFT
from modules.recipe.fields import FIELDS, MAX_PICTURES, MAX_SEED, BadField, Recipe, checked
from modules.recipe.plan import enlargement

LEVELS = 1000  # noise levels that models are trained at
MOST_ENLARGED = 8  # times the finished picture that may be enlarged on the way to it, before it is cropped
SAME_SHAPE = 0.02  # by which a mask's proportions may differ from the picture's, for sizes are rounded


class Model(Protocol):
    """What a recipe needs to know of the checkpoint that will draw it."""

    name: str
    native_size: int
    defaults: Mapping[str, object]


class Pictures(Protocol):
    """What a recipe needs to know of the pictures it names. Each raises LookupError or ValueError with one line of why not."""

    def size_of(self, id: str) -> tuple[int, int]: ...

    def mask_extremes(self, id: str) -> tuple[int, int]: ...


def removal(inpaints: bool) -> dict[str, object]:
    """What "Remove object" asks for: what is masked becomes its surroundings, begun from them and asked for nothing.

    A checkpoint that sees the mask (`inpaints`) may change more of what it begins from; any other keeps the surroundings by a low strength.
    """
    return {"prompt": "", "negative_prompt": "", "cfg_scale": 1, "masked_content": FILL, "denoising_strength": 0.75 if inpaints else 0.4}


def extension(inpaints: bool) -> dict[str, object]:
    """What drawing beyond a picture's edges asks for: it begins from their colours.

    A checkpoint that does not see the mask draws at a lower strength, or it begins things that the old picture cuts off.
    """
    return {"masked_content": FILL, "denoising_strength": 1.0 if inpaints else 0.6}


def resolve(request: Mapping[str, object], find: Callable[[str], Model], hash_of: Callable[[Model], str], pictures: Pictures) -> Recipe:
    """The recipe for `request`, a mapping of field names to raw values in which None and "" (numbers) are holes.

    Holes take the checkpoint's own defaults (its native size, what its description recommends), then the table's; a picture that
    is changed keeps its size, unless only the masked part of it is drawn.
    `find` names the model for a wanted checkpoint ("" for the first there is) or raises LookupError. A bad value raises BadField.
    """
    if len(request) > len(FIELDS):
        raise BadField("", f"{len(request)} fields are more than a recipe has")
    asked = {name: value for name, value in request.items() if not _is_hole(name, value)}
    unknown = set(asked) - set(FIELDS)
    if unknown:
        raise BadField(min(unknown), f"{min(unknown)!r:.60}: there is no such field")
    values = {name: checked(name, value) for name, value in asked.items()}
    try:
        model = find(values.pop("checkpoint", ""))
    except LookupError as error:
        raise BadField("checkpoint", f"Checkpoint: {error}") from None
    own = {"width": model.native_size, "height": model.native_size, **model.defaults}
    if values.get("init_image"):
        own |= _size_of_the_changed(values, pictures)
    values = {**{name: checked(name, own[name]) for name in own if name not in values}, **values}
    for name in ("seed", *(["subseed"] if values.get("subseed_strength") else [])):
        if values.get(name, -1) == -1:
            values[name] = random.randrange(2**32)
    recipe = Recipe(**{**values, "checkpoint": model.name, "model_hash": hash_of(model)})
    _check_pictures(recipe)
    _check_ranges(recipe)
    _check_size(recipe)
    if recipe.hires:
        _check_hires(recipe)
    if recipe.mask:
        _check_mask(recipe, pictures)
    return recipe


def _size_of_the_changed(values: Mapping[str, object], pictures: Pictures) -> dict[str, int]:
    try:
        width, height = pictures.size_of(values["init_image"])
    except (LookupError, ValueError) as error:
        raise BadField("init_image", f"Picture: {error}") from None
    only_masked = values.get("mask") and values.get("inpaint_area") == ONLY_MASKED
    return {} if only_masked else {"width": width, "height": height}


def _check_size(recipe: Recipe) -> None:
    """A new picture has a size that every autoencoder divides; one that is changed is padded while it is drawn."""
    for name in () if recipe.init_image else ("width", "height"):
        about = FIELDS[name][1]
        if getattr(recipe, name) % about.step:
            raise BadField(name, f"{about.label}: {getattr(recipe, name)} is not a multiple of {about.step:g}")


def _check_hires(recipe: Recipe) -> None:
    """The picture's final size can be drawn as any other, and the second pass knows no more levels than the models do."""
    if recipe.init_image:
        raise BadField("hires", "Hires fix: it draws new pictures; turn it off to change one")
    for name in ("hires_width", "hires_height"):
        about = FIELDS[name][1]
        if getattr(recipe, name) % about.step:
            raise BadField(name, f"{about.label}: {getattr(recipe, name)} is not a multiple of {about.step:g}")
    enlarged, bounds = enlargement(recipe), FIELDS["width"][1]
    size = enlarged.part.size
    if min(size) < bounds.low or max(size) > bounds.high:
        wrong = "hires_width" if recipe.hires_width or recipe.hires_height else "hires_scale"
        least, most = f"{bounds.low:g}x{bounds.low:g}", f"{bounds.high:g}x{bounds.high:g}"
        raise BadField(wrong, f"{FIELDS[wrong][1].label}: {size[0]}x{size[1]} is outside {least} to {most}")
    across, down = enlarged.size
    if across * down > MOST_ENLARGED * size[0] * size[1]:
        label = FIELDS["hires_width"][1].label
        raise BadField("hires_width", f"{label}: too little of {across}x{down} would be left: choose a size of a similar shape")
    drawn, strength = recipe.hires_steps or recipe.steps, recipe.denoising_strength
    if drawn >= (LEVELS + 1) * strength > 0:
        steps = f"{drawn} steps at strength {strength:g} are the last of {drawn / max(strength, 1e-9):.0f}"
        raise BadField("denoising_strength", f"Denoising strength: {steps}, and models know {LEVELS}: raise it, or lower Hires steps")


def _check_mask(recipe: Recipe, pictures: Pictures) -> None:
    if not recipe.init_image:
        raise BadField("init_image", "Picture: there is a mask, but no picture under it")
    try:
        (width, height), mask = pictures.size_of(recipe.init_image), pictures.size_of(recipe.mask)
        darkest, lightest = pictures.mask_extremes(recipe.mask)
    except (LookupError, ValueError) as error:
        raise BadField("mask", f"Mask: {error}") from None
    if abs(width * mask[1] - height * mask[0]) > SAME_SHAPE * width * mask[1]:
        raise BadField("mask", f"Mask: {mask[0]}x{mask[1]} has another shape than the picture, {width}x{height}")
    most = lightest if recipe.mask_mode == MASKED else 255 - darkest
    if most < (1 if recipe.mask_edge == SOFT else 128):
        raise BadField("mask", "Mask: it is empty; paint over what should be drawn anew")


def _is_hole(name: str, value: object) -> bool:
    return value is None or value == "" and name in FIELDS and FIELDS[name][0] is not str


def _check_pictures(recipe: Recipe) -> None:
    pictures = len(recipe.seeds)
    if pictures > MAX_PICTURES:
        raise BadField("batch_count", f"Batch count: {pictures} pictures are more than {MAX_PICTURES} in one job")
    for name, seeds in (("seed", recipe.seeds), ("subseed", recipe.subseeds)):
        if seeds[-1] > MAX_SEED:
            raise BadField(name, f"{FIELDS[name][1].label}: {seeds[0]} leaves no room to count up for {pictures} pictures")


def _check_ranges(recipe: Recipe) -> None:
    for low, high in (("sigma_min", "sigma_max"), ("guidance_sigma_min", "guidance_sigma_max")):
        least, most = getattr(recipe, low), getattr(recipe, high)
        if most and least >= most:
            raise BadField(low, f"{FIELDS[low][1].label}: {least} is not below {most}, the {FIELDS[high][1].label.lower()}")
