"""Folders of captioned pictures, for tests that train."""

from pathlib import Path

from PIL import Image

COLOURS = ("red", "green", "blue", "yellow", "white", "black", "orange", "purple", "pink", "grey", "brown")


def write_pictures(folder: Path, side: int = 64) -> Path:
    """Squares of one colour each, `red.png` with `red.txt`, and so on."""
    folder.mkdir(parents=True)
    for colour in COLOURS:
        Image.new("RGB", (side, side), colour).save(folder / f"{colour}.png")
        (folder / f"{colour}.txt").write_text(f"a {colour} square")
    return folder
