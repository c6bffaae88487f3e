"""The upscalers that are at hand: each by its name, its network loaded when it is first used and kept while it is used again."""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from modules.engine.machine import give_back_memory
from modules.engine.stop import CannotDraw
from modules.engine.upscalers import foreign, networks, tiles
from modules.engine.upscalers.tiles import Tiling
from modules.engine.weights import Reader, fill
from modules.model_manager.library import state_of
from modules.model_manager.stored import Refused
from modules.model_manager.tensors import open_tensors
from modules.model_manager.upscaler_file import CompactShape, Shape, UnknownArchitecture, read_upscaler
from modules.model_manager.upscalers import find_upscaler, scan_upscalers
from modules.recipe.plan import Size
from modules.recipe.upscaling import passes

KEPT = 2  # networks: as many as are blended
SIDE = 512  # pixels of the small picture (as the body of the network sees it): as large as memory is meant to be filled by a tile
RRDB_MARGIN = 56  # of an RRDBNet's hundreds of pixels of reach, as much as changes a seen pixel by more than 1/255
RESAMPLED = Tiling(1 << 20, 0)  # in one piece


@dataclass(frozen=True)
class Enlarger:
    """A way to enlarge pictures. `network` is None where it only resamples; otherwise it makes sides `scale` times as long."""

    name: str
    network: Callable[[Tensor], Tensor] | None
    scale: int
    tiling: Tiling

    def sizes(self, source: Size, target: Size) -> list[Size]:
        """The sizes that come out of its passes, on the way from `source` to `target`."""
        grown = [source]
        if self.network:
            for _ in range(passes(source, target, self.scale)):
                grown.append((grown[-1][0] * self.scale, grown[-1][1] * self.scale))
        return grown[1:]

    def tiles(self, source: Size, target: Size) -> int:
        """How many tiles that takes."""
        return sum(tiles.count(size, self.tiling) for size in [source, *self.sizes(source, target)][:-1])

    def enlarged(self, image: Image.Image, size: Size, each: Callable[[], None]) -> Image.Image:
        """The picture ("RGB" or "L") at exactly this size; `each` is called after every tile.

        The network runs until the picture is large enough, then Lanczos brings it to the size.
        """
        if self.network is None:
            return image.resize(size, Image.Resampling[self.name.upper()])
        for _ in self.sizes(image.size, size):
            image = tiles.enlarged(image, self.network, self.scale, self.tiling, each)
        return image.resize(size, Image.Resampling.LANCZOS) if image.size != size else image


class Rack:
    """The upscalers in the folders `roots`. What was seen in their files is remembered in `store`."""

    def __init__(self, roots: Sequence[Path], store: Path, device: torch.device, precision: str = "auto") -> None:
        self.device = device
        self._roots, self._store = roots, store
        self._precision = precision
        self._kept: OrderedDict[tuple[Path, str], Enlarger] = OrderedDict()

    @cached_property
    def dtype(self) -> torch.dtype:
        """The number format of the networks. On a CPU bfloat16 is used only where it is asked for.

        It has 128 numbers between 1/2 and 1, where a picture has as many levels: measured twice as fast as float32, and Real-ESRGAN's
        networks then are up to 4 (the small one) and 14 levels off.
        """
        if self._precision != "auto":
            return getattr(torch, self._precision)
        return torch.float16 if self.device.type == "cuda" else torch.float32

    def enlarger(self, name: str, check: Callable[[], None]) -> Enlarger:
        """The upscaler of this name, ready. `check` is called before each tensor that is read; CannotDraw says why it cannot be had."""
        try:
            found = find_upscaler(scan_upscalers(self._roots, self._store), name)
        except LookupError as error:
            raise CannotDraw(f"Upscaler: {error}") from error
        if found.path is None:
            return Enlarger(found.name, None, 1, RESAMPLED)
        key = found.path, state_of(found.path)
        if key not in self._kept:
            try:
                self._kept[key] = self._loaded(found.name, found.path, check)
            except Refused as refusal:
                raise CannotDraw(f"{found.name} cannot be used: {refusal}") from refusal
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
                give_back_memory()
        self._kept.move_to_end(key)
        return self._kept[key]

    def _loaded(self, name: str, path: Path, check: Callable[[], None]) -> Enlarger:
        try:
            header, shape, names = read_upscaler(path)
        except UnknownArchitecture as refusal:
            network, scale = foreign.loaded(path, refusal, self.dtype, self.device)
            return Enlarger(name, self._runner(name, network), scale, foreign.TILING)
        network = networks.built(shape)
        with open_tensors(path, header) as tensors:
            reader = Reader(tensors, names.values(), lambda _: check())
            fill(network, names.__getitem__, reader, self.dtype, self.device, channels_last=True)
        return Enlarger(name, self._runner(name, network), shape.scale, tiling_of(shape))

    def _runner(self, name: str, network: torch.nn.Module) -> Callable[[Tensor], Tensor]:
        def run(pixels: Tensor) -> Tensor:
            answer = network(pixels.to(self.device, self.dtype, memory_format=torch.channels_last))
            if not torch.isfinite(answer).all():
                raise CannotDraw(f"{name} gave values that are no numbers: its weights may be damaged, or need --precision float32")
            return answer

        return run


def tiling_of(shape: Shape) -> Tiling:
    """How pictures are cut for a network of this shape."""
    if isinstance(shape, CompactShape):
        return Tiling(SIDE, shape.convolutions + 2)  # all that any of its pixels depends on
    margin = min(RRDB_MARGIN, 16 + 4 * shape.blocks)
    return Tiling(SIDE * shape.unshuffle, margin * shape.unshuffle, shape.unshuffle)
