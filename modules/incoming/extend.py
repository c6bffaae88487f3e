"""Outpainting: a picture on a larger canvas, and the mask of what is new on it."""

import numpy
from PIL import Image

from modules.incoming.reader import MAX_PIXELS, BadPicture, read
from modules.png import packed

OVERLAP = 12  # pixels of the old picture that are drawn anew too, so that no seam is left
MAX_MARGIN = 2048  # pixels


def extended(data: bytes, left: int, top: int, right: int, bottom: int) -> tuple[bytes, bytes]:
    """The picture of a file with so many pixels more on each side, continuing its edge, and the mask of them: two PNG files.

    BadPicture if that is not possible.
    """
    incoming = read(data)
    margins = (left, top, right, bottom)
    if min(margins) < 0 or not 0 < max(margins) <= MAX_MARGIN:
        raise BadPicture(f"it can be extended by 1 to {MAX_MARGIN} pixels a side")
    width, height = incoming.image.width + left + right, incoming.image.height + top + bottom
    if width * height > MAX_PIXELS:
        raise BadPicture(f"{width} x {height} pixels would be more than {MAX_PIXELS / 1e6:.0f} million")
    larger = Image.fromarray(numpy.pad(numpy.asarray(incoming.image), ((top, bottom), (left, right), (0, 0)), mode="edge"))
    mask = Image.new("L", larger.size, 255)
    kept = [OVERLAP * (margin > 0) for margin in margins]
    inner = (left + kept[0], top + kept[1], width - right - kept[2], height - bottom - kept[3])
    if inner[0] < inner[2] and inner[1] < inner[3]:
        mask.paste(0, inner)
    return packed(larger, profile=incoming.profile), packed(mask)
