"""Picture sizes that suit a checkpoint: its native size, in the usual aspects."""

from collections.abc import Sequence

from modules.model_manager.library import Checkpoint
from modules.recipe.fields import DEFAULTS

PRESETS = {"1:1": (1, 1), "2:3": (2, 3), "3:2": (3, 2), "9:16": (9, 16), "16:9": (16, 9)}


def preset(name: str, native_size: int) -> tuple[int, int]:
    """(width, height) in pixels: the short side at the native size, the long side to the nearest multiple of 8."""
    across, down = PRESETS[name]
    short = min(across, down)
    return multiple_of_8(native_size * across / short), multiple_of_8(native_size * down / short)


def native_size(checkpoints: Sequence[Checkpoint], name: str | None) -> int:
    """The side in pixels that the checkpoint was trained at; the table's default when there is no such checkpoint."""
    return next((model.native_size for model in checkpoints if model.name == name and model.native_size), DEFAULTS.width)


def multiple_of_8(pixels: float) -> int:
    return round(pixels / 8) * 8
