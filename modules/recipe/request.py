"""Request to recipe: what was asked, with holes, becomes what will be drawn, without."""

import random
from collections.abc import Callable, Mapping
from typing import Protocol

from modules.recipe.fields import FIELDS, MAX_PICTURES, MAX_SEED, BadField, Recipe, checked


class Model(Protocol):
    """What a recipe needs to know of the checkpoint that will draw it."""

    name: str
    native_size: int
    defaults: Mapping[str, object]


def resolve(request: Mapping[str, object], find: Callable[[str], Model], hash_of: Callable[[Model], str]) -> Recipe:
    """The recipe for `request`, a mapping of field names to raw values in which None and "" (numbers) are holes.

    Holes take the checkpoint's own defaults (its native size, what its description recommends), then the table's.
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
    values = {**{name: checked(name, value) for name, value in own.items()}, **values}
    for name in ("seed", *(["subseed"] if values.get("subseed_strength") else [])):
        if values.get(name, -1) == -1:
            values[name] = random.randrange(2**32)
    recipe = Recipe(**{**values, "checkpoint": model.name, "model_hash": hash_of(model)})
    _check_pictures(recipe)
    _check_ranges(recipe)
    return recipe


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
