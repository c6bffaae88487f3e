"""Networks of other architectures, through the library spandrel where it is installed (an extra). The weights are read by our reader."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from modules.engine.upscalers.tiles import Tiling
from modules.engine.weights import Reader
from modules.model_manager.headers import read_stored_header
from modules.model_manager.stored import Refused
from modules.model_manager.tensors import open_tensors
from modules.model_manager.upscaler_file import unwrapped
from modules.model_manager.upscalers import has_spandrel

TILING = Tiling(256, 32, 64)  # windows of attention begin where they would in the whole picture


def loaded(path: Path, refusal: Refused, dtype: torch.dtype, device: torch.device) -> tuple[nn.Module, int]:
    """The network in this file and how often larger it makes a side. Raises `refusal` without spandrel, Refused if it knows no better."""
    if not has_spandrel():
        raise refusal
    header = unwrapped(read_stored_header(path))
    with open_tensors(path, header) as tensors:
        reader = Reader(tensors, header.tensors, lambda _: None)
        names = {name: info.shape for name, info in header.tensors.items()}
        weights = {name: reader.read(name, torch.Size(shape), torch.float32, torch.device("cpu"), False) for name, shape in names.items()}
    with without_torchvision():
        import spandrel
    try:
        found = spandrel.ModelLoader(device).load_from_state_dict(weights)
    except Exception as error:  # it raises whatever a file brings it to
        raise Refused(f"spandrel does not know it either ({type(error).__name__}): {refusal}") from error
    if not isinstance(found, spandrel.ImageModelDescriptor) or (found.input_channels, found.output_channels) != (3, 3):
        raise Refused("it is no upscaler of RGB pictures")
    network = Sized(found).to(device, dtype if dtype == torch.float32 or found.supports_half else torch.float32)
    return network.requires_grad_(False).eval(), found.scale


class Sized(nn.Module):
    """A network that takes pictures of any size, as its descriptor sees to."""

    def __init__(self, descriptor: Any) -> None:
        super().__init__()
        self.network, self._descriptor = descriptor.model, descriptor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self._descriptor(x.to(next(self.network.parameters()).dtype))


@contextlib.contextmanager
def without_torchvision() -> Iterator[None]:
    """spandrel imports torchvision, whose wheel breaks transformers beside the CPU build of torch, for two networks that nobody needs
    here: for the time of the block three empty modules stand in for it."""
    names = ("torchvision", "torchvision.transforms", "torchvision.transforms.functional")
    if "spandrel" in sys.modules or any(name in sys.modules for name in names):
        yield
        return
    stand_ins = {name: ModuleType(name) for name in names}
    stand_ins[names[0]].transforms, stand_ins[names[1]].functional = stand_ins[names[1]], stand_ins[names[2]]
    for name in ("InterpolationMode", "rotate", "normalize"):
        setattr(stand_ins[names[2]], name, None)
    sys.modules.update(stand_ins)
    try:
        yield
    finally:
        for name in names:
            sys.modules.pop(name, None)
