"""The whole story of an upscaled picture: its recipe in, the picture and facts out."""

import contextlib
import time
from collections.abc import Callable

import torch
from PIL import Image

from modules.engine.facts import Clock, Facts, versions
from modules.engine.machine import free_memory, memory_errors_explained, peak_memory
from modules.engine.progress import Emit
from modules.engine.stop import CannotDraw, Skipped
from modules.engine.upscalers.rack import Enlarger, Rack
from modules.engine.weights import checking
from modules.incoming.reader import BadPicture, Incoming
from modules.incoming.shelf import Shelf
from modules.jobs.messages import Picture, Progress
from modules.model_manager.stored import amount
from modules.png import packed
from modules.recipe.plan import Size
from modules.recipe.upscaling import MAX_BYTES, Upscaling, enlarged_size, finished_size, infotext

WORKING = 800_000_000  # bytes that a tile on its way through a network may fill
CORE = 4  # bytes of a pixel while it is in memory

Each = Callable[[], None]


def run(upscaling: Upscaling, rack: Rack, shelf: Shelf, emit: Emit, check: Callable[[], None]) -> Facts:
    """Enlarges the picture of a resolved upscaling and returns how it went.

    `check` is called before every layer of every network; what it raises ends the run. CannotDraw says in one line why it cannot be
    done, before any work on the picture has begun.
    """
    clock, drawn = Clock(), 0
    names = [upscaling.upscaler, *([upscaling.upscaler_2] if upscaling.blends else [])]
    with torch.inference_mode(), memory_errors_explained("enlarge this picture"), checking(check), contextlib.suppress(Skipped):
        incoming = _read(shelf, upscaling.picture)
        with clock.phase("load"):
            emit(Progress(0, 0, 0, 1, 0, 1, "load", None))
            ways = [rack.enlarger(name, check) for name in names]
        _require_room(upscaling, ways, incoming.image)
        with clock.phase("draw"):
            finished = _finished(upscaling, ways, incoming.image, emit, check)
        with clock.phase("file"):
            text = infotext(upscaling, incoming.image.size, incoming.infotext)
            emit(Picture(0, 0, 0, 0, *finished.size, text, packed(finished, text, incoming.profile, incoming.exif)))
        drawn = 1
    return {
        "upscalers": names,
        "device": str(rack.device),
        "precision": str(rack.dtype).removeprefix("torch."),
        "threads": torch.get_num_threads(),
        "seconds": clock.rounded(),
        "peak_memory_bytes": peak_memory(),
        "versions": versions(),
        "pictures": drawn,
        "skipped": 1 - drawn,
    }


def _read(shelf: Shelf, id: str) -> Incoming:
    try:
        return shelf.picture(id)
    except (LookupError, BadPicture) as error:
        raise CannotDraw(f"the picture to enlarge cannot be used: {error}") from error


def _finished(upscaling: Upscaling, ways: list[Enlarger], image: Image.Image, emit: Emit, check: Callable[[], None]) -> Image.Image:
    """The picture, enlarged in each way, blended and cropped."""
    size = enlarged_size(upscaling, image.size)
    planes = 1 + _is_transparent(image)
    each = _told(sum(way.tiles(image.size, size) for way in ways) * planes, emit, check)
    first, *second = [enlarged(image, size, way, each) for way in ways]
    blended = Image.blend(first, second[0], upscaling.upscaler_2_weight) if second else first
    width, height = finished_size(upscaling, image.size)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    return blended if (width, height) == size else blended.crop((left, top, left + width, top + height))


def enlarged(image: Image.Image, size: Size, way: Enlarger, each: Each) -> Image.Image:
    """A picture ("RGB" or "RGBA") at this size; how transparent it is, is enlarged by itself. `each` is called after every tile."""
    if image.mode != "RGBA":
        return way.enlarged(image, size, each)
    colours = way.enlarged(image.convert("RGB"), size, each)
    alpha = image.getchannel("A")
    colours.putalpha(way.enlarged(alpha, size, each) if _is_transparent(image) else Image.new("L", size, 255))
    return colours


def _is_transparent(image: Image.Image) -> bool:
    return image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255


def _told(tiles: int, emit: Emit, check: Callable[[], None]) -> Each:
    """Called after every tile, of `tiles`, it says how far the picture is and how long it still takes."""
    begun, done = time.monotonic(), 0

    def tell() -> None:
        left = (time.monotonic() - begun) / done * (tiles - done) if done else None
        emit(Progress(0, 0, 0, 1, done, max(tiles, 1), "upscale", left))

    def each() -> None:
        nonlocal done
        check()
        done += 1
        tell()

    tell()
    return each


def _require_room(upscaling: Upscaling, ways: list[Enlarger], image: Image.Image) -> None:
    """CannotDraw unless the finished picture fits into its file, and all that is held on the way into the memory."""
    width, height = size = enlarged_size(upscaling, image.size)
    file = width * height * len(image.getbands())
    if file > MAX_BYTES:
        raise CannotDraw(
            f"{width}x{height} would be a file of up to {amount(file)}, {amount(MAX_BYTES)} are possible: choose a smaller size"
        )
    grown = max((across * down for way in ways for across, down in way.sizes(image.size, size)), default=0)
    needed = CORE * (grown + width * height * (len(ways) + (image.mode == "RGBA"))) + file + WORKING
    free = free_memory(torch.device("cpu"))
    if needed > free:
        raise CannotDraw(f"{width}x{height} needs {amount(needed)} of memory, {amount(free)} are free: choose a smaller size")
