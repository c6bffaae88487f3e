"""Which checkpoint draws: the one that was asked for, or the one a newcomer starts with."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from modules.model_manager.hashes import short_hash
from modules.model_manager.library import Checkpoint, VaeFile, find, find_vae
from modules.model_manager.loras import lora_hashes
from modules.model_manager.stored import Refused
from modules.model_manager.upscalers import OF_LATENTS, find_upscaler, scan_upscalers
from modules.recipe import prompt
from modules.recipe.fields import FIELDS, BadField, Recipe
from modules.recipe.request import Pictures, resolve

STARTER = "starter.safetensors"


def recipe_for(
    request: Mapping[str, object],
    checkpoints: Sequence[Checkpoint],
    vaes: Sequence[VaeFile],
    lora_roots: Sequence[Path],
    upscaler_roots: Sequence[Path],
    hashes: Path,
    pictures: Pictures,
) -> Recipe:
    """The recipe for a request among these files; hashes are kept in `hashes`. BadField names the field that is wrong."""

    def checkpoint_named(wanted: str) -> Checkpoint:
        return usable(checkpoints, wanted, hashes)

    try:
        recipe = resolve(request, checkpoint_named, lambda found: short_hash(found.path, hashes), pictures)
    except Refused as refusal:
        raise BadField("checkpoint", f"Checkpoint: it cannot be used: {refusal}") from None
    try:
        find_vae(vaes, recipe.vae, recipe.checkpoint)
    except LookupError as error:
        raise BadField("vae", f"VAE: {error}") from None
    try:
        if recipe.hires:
            upscalers = [*OF_LATENTS, *scan_upscalers(upscaler_roots, hashes)]
            recipe = replace(recipe, hires_upscaler=find_upscaler(upscalers, recipe.hires_upscaler).name)
    except LookupError as error:
        raise BadField("hires_upscaler", f"{FIELDS['hires_upscaler'][1].label}: {error}") from None
    networks: list[prompt.Network] = []
    for name in ("prompt", "hires_prompt") if recipe.hires else ("prompt",):
        try:
            networks += prompt.networks(getattr(recipe, name))
            architecture = find(checkpoints, recipe.checkpoint).architecture
            known = lora_hashes(networks, lora_roots, architecture, hashes)
        except (LookupError, ValueError) as error:
            raise BadField(name, f"{FIELDS[name][1].label}: {error}") from None
    return replace(recipe, lora_hashes=known)


def usable(checkpoints: Sequence[Checkpoint], wanted: str, hashes: Path | None = None) -> Checkpoint:
    """The checkpoint called `wanted`; for "" the starter, or else the first that can be used. LookupError says what is wrong."""
    if wanted:
        found = find(checkpoints, wanted, hashes)
        if found.status != "ok":
            raise LookupError(f"{found.name} cannot be used: {found.reason}")
        return found
    can_be_used = [checkpoint for checkpoint in checkpoints if checkpoint.status == "ok"]
    if not can_be_used:
        raise LookupError("there is no usable checkpoint: put one into models/Stable-diffusion")
    first = first_choice([checkpoint.name for checkpoint in can_be_used])
    return next(checkpoint for checkpoint in can_be_used if checkpoint.name == first)


def first_choice(names: Sequence[str]) -> str | None:
    """The one of these files that somebody who has chosen none begins with: the starter where it is among them; None for none at all."""
    return STARTER if STARTER in names else next(iter(names), None)


def inpaints(checkpoints: Sequence[Checkpoint], wanted: str) -> bool:
    """Whether the checkpoint that is meant was made for inpainting; False where there is none, which is said elsewhere."""
    try:
        return usable(checkpoints, wanted).architecture.inpaints
    except LookupError:
        return False
