"""Small folders of pictures with captions."""

from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"red": (220, 40, 40), "green": (40, 180, 60), "blue": (40, 80, 230), "yellow": (240, 210, 40)}


def put(folder: Path, name: str, caption: str | None, side: int = 24, colour: str = "red") -> None:
    """A picture of a grey square on this colour, and the caption beside it."""
    path = folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((side, side, 3), COLOURS[colour], np.uint8)
    pixels[side // 4 : side // 2, side // 4 : side // 2] = 128
    Image.fromarray(pixels).save(path)
    if caption is not None:
        path.with_suffix(".txt").write_text(caption, encoding="utf-8")


def write_folder(folder: Path, count: int, side: int = 64) -> Path:
    """Pictures of a few colours that say which."""
    for number in range(count):
        colour = [*COLOURS][number % len(COLOURS)]
        put(folder, f"{number:02}.png", f"a square on {colour}, picture {number}", side, colour)
    return folder
