"""Picture sizes that suit a checkpoint: its native size, in the usual aspects."""

PRESETS = {"1:1": (1, 1), "2:3": (2, 3), "3:2": (3, 2), "9:16": (9, 16), "16:9": (16, 9)}


def preset(name: str, native_size: int) -> tuple[int, int]:
    """(width, height) in pixels: the short side at the native size, the long side to the nearest multiple of 8."""
    across, down = PRESETS[name]
    short = min(across, down)
    return _multiple_of_8(native_size * across / short), _multiple_of_8(native_size * down / short)


def _multiple_of_8(pixels: float) -> int:
    return round(pixels / 8) * 8
