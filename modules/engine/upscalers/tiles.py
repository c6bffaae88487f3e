"""A picture of any size through a network in tiles: they overlap, and fade into each other where all they show is sound.

Near its edges a tile lacks what lies beyond them, so that strip, the margin, is thrown away; the next tile begins early enough
to cover it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import numpy
import torch
from PIL import Image
from torch import Tensor

FADE = 8  # pixels of the small picture over which two tiles fade into each other
Enlarge = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Tiling:
    """How a network wants its pictures cut: tiles of `side` pixels at most, whose outer `margin` is not to be trusted, which begin
    at multiples of `step`."""

    side: int
    margin: int
    step: int = 1

    @property
    def overlap(self) -> int:
        return -(-(2 * self.margin + FADE) // self.step) * self.step


@dataclass(frozen=True)
class Span:
    """A tile along one axis: pixels `start` to `end` go in, `first` to `last` of them are seen, the first ones faded in if it `fades`."""

    start: int
    end: int
    first: int
    last: int
    fades: bool


def spans(length: int, tiling: Tiling) -> list[Span]:
    """As few tiles as cover `length`, as equal as their step allows."""
    overlap, step = tiling.overlap, tiling.step
    if length <= tiling.side:
        return [Span(0, length, 0, length, False)]
    count = math.ceil((length - overlap) / (tiling.side - overlap))
    side = -(-(length + (count - 1) * overlap) // count)
    side = min(-(-side // step) * step, length)
    starts = [min(at * (side - overlap), -(-(length - side) // step) * step) for at in range(count)]
    ends = [min(start + side, length) for start in starts]
    whole = tiling.margin
    return [
        Span(start, end, start + whole * (at > 0), end - whole * (at < count - 1), at > 0)
        for at, (start, end) in enumerate(zip(starts, ends, strict=True))
    ]


def count(size: tuple[int, int], tiling: Tiling) -> int:
    """How many tiles a picture of this size is cut into."""
    return len(spans(size[0], tiling)) * len(spans(size[1], tiling))


def enlarged(image: Image.Image, enlarge: Enlarge, scale: int, tiling: Tiling, each: Callable[[], None]) -> Image.Image:
    """`image` ("RGB" or "L") with sides `scale` times as long; `each` is called after every tile.

    `enlarge` takes and gives pictures (1, 3, H, W) in 0 to 1. Besides the result, only a tile is ever held.
    """
    result = Image.new(image.mode, (image.width * scale, image.height * scale))
    for down in spans(image.height, tiling):
        for across in spans(image.width, tiling):
            tile = picture(enlarge(tensor(image.crop((across.start, down.start, across.end, down.end)))), image.mode)
            seen = [(edge - start) * scale for edge, start in _edges(across, down)]
            mask = _mask(seen[2] - seen[0], seen[3] - seen[1], FADE * scale * across.fades, FADE * scale * down.fades)
            result.paste(tile.crop(tuple(seen)), (across.first * scale, down.first * scale), mask)
            each()
    return result


def _edges(across: Span, down: Span) -> list[tuple[int, int]]:
    return [(across.first, across.start), (down.first, down.start), (across.last, across.start), (down.last, down.start)]


@lru_cache(maxsize=8)
def _mask(width: int, height: int, fade_x: int, fade_y: int) -> Image.Image | None:
    """How much of a tile is seen: less and less over its first columns and rows where it fades in; None for all of it."""
    if not fade_x and not fade_y:
        return None
    across, down = (
        numpy.minimum((numpy.arange(length) + 0.5) / fade, 1) if fade else numpy.ones(length)
        for length, fade in ((width, fade_x), (height, fade_y))
    )
    return Image.fromarray(numpy.round(255 * down[:, None] * across).astype(numpy.uint8))


def tensor(image: Image.Image) -> Tensor:
    """A picture ("RGB" or "L") as (1, 3, H, W) in 0 to 1."""
    pixels = torch.from_numpy(numpy.array(image)).float().div_(255)
    return pixels.permute(2, 0, 1)[None] if pixels.ndim == 3 else pixels.expand(1, 3, *pixels.shape)


def picture(image: Tensor, mode: str) -> Image.Image:
    """(1, 3, H, W) in about 0 to 1 as a picture ("RGB", or "L" of the mean)."""
    plain = image[0].float().mean(0) if mode == "L" else image[0].float().permute(1, 2, 0)
    return Image.fromarray(plain.clamp(0, 1).mul(255).round().byte().cpu().numpy())
