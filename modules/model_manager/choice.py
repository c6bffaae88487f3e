"""Which checkpoint draws: the one that was asked for, or the one a newcomer starts with."""

from collections.abc import Sequence

from modules.model_manager.library import Checkpoint, find

STARTER = "starter.safetensors"


def usable(checkpoints: Sequence[Checkpoint], wanted: str) -> Checkpoint:
    """The checkpoint called `wanted`; for "" the starter, or else the first that can be used. LookupError says what is wrong."""
    if wanted:
        found = find(checkpoints, wanted)
        if found.status != "ok":
            raise LookupError(f"{found.name} cannot be used: {found.reason}")
        return found
    can_be_used = [checkpoint for checkpoint in checkpoints if checkpoint.status == "ok"]
    if not can_be_used:
        raise LookupError("there is no usable checkpoint: put one into models/Stable-diffusion")
    return next((checkpoint for checkpoint in can_be_used if checkpoint.name == STARTER), can_be_used[0])
