"""LoRA (Hu et al. 2021) and its kin for convolutions, LoCon: while one is applied, each layer's weight is W + scale · up · down.

Layers are called as kohya's scripts call them, in files that come in and in files that training writes: `NAME.lora_down.weight`
(rank, in), `NAME.lora_up.weight` (out, rank) and `NAME.alpha`, a number; scale is alpha / rank times what the prompt says.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from transformers.models.clip.modeling_clip import CLIPTextModel

from modules.engine.weights import DTYPES
from modules.model_manager.architecture import Architecture
from modules.model_manager.headers import read_header
from modules.model_manager.lora_file import Adapter, adapters_of, fitted
from modules.model_manager.lora_names import TEXT, UNET
from modules.model_manager.stored import Identity, Refused
from modules.model_manager.tensors import Tensors, open_tensors
from modules.recipe.prompt import Network

STORED = {**DTYPES, "I64": torch.int64, "I32": torch.int32}

Layers = dict[str, nn.Linear | nn.Conv2d]
Check = Callable[[], None]
"""Called again and again; what it raises ends the work."""


def unet_layers(unet: UNet2DConditionModel) -> Layers:
    """Every linear layer and convolution of the U-Net by kohya's name, `lora_unet_down_blocks_0_attentions_0_…_attn2_to_k`."""
    return _named(UNET, unet)


def text_layers(encoder: CLIPTextModel) -> Layers:
    """Every linear layer of the text encoder by kohya's name, `lora_te_text_model_encoder_layers_0_self_attn_q_proj`."""
    return _named(TEXT, encoder)


@dataclass(frozen=True)
class Difference:
    """What a LoRA adds to the weight of one layer: scale · up · down, or scale · up · mid · down."""

    down: Tensor  # (rank, in) or (rank, in, k, k)
    up: Tensor  # (out, rank) or (out, rank, 1, 1)
    mid: Tensor | None  # (rank, rank, k, k)
    scale: float

    def at(self, weight: Tensor) -> Tensor:
        """The difference in float32, in the shape and on the device of this weight."""
        down, up = (part.to(weight.device, torch.float32).flatten(1) for part in (self.down, self.up))
        if self.mid is None:
            return self.scale * (up @ down).view(weight.shape)
        mid = self.mid.to(weight.device, torch.float32)
        return self.scale * torch.einsum("op,pqkl,qi->oikl", up, mid, down).reshape(weight.shape)


@dataclass(frozen=True)
class Change:
    """What one file does to one network, by layer, and how much of it is wanted."""

    network: str  # UNET or TEXT
    source: Identity
    times: float
    differences: Mapping[str, Difference]


def read(path: Path, wanted: Network, architecture: Architecture, check: Check) -> list[Change]:
    """The changes of a LoRA file to the networks of a checkpoint. Raises Refused for a file that cannot be used with it."""
    header = read_header(path)
    adapters = fitted(adapters_of(header), architecture)
    changes = []
    with open_tensors(path, header) as tensors:
        for network, times in ((UNET, wanted.unet), (TEXT, wanted.text)):
            own = {layer: adapter for layer, adapter in adapters.items() if times and layer.startswith(network)}
            differences = {layer: _difference(tensors, adapter, check) for layer, adapter in own.items()}
            changes += [Change(network, header.files[""], times, differences)] if differences else []
    return changes


@contextmanager
def applied(layers: Mapping[str, nn.Module], changes: Sequence[Change], check: Check) -> Iterator[None]:
    """The layers with these changes added to their weights; afterwards they have the very weights they had before.

    The sum is made in float32 and rounded once. A layer's own weight is put aside and never written to. Raises Refused where a
    sum is no number.
    """
    own: dict[str, nn.Parameter] = {}
    try:
        for name in dict.fromkeys(name for change in changes for name in change.differences):
            check()
            layer = layers[name]
            own[name] = layer.weight
            summands = [change.times * change.differences[name].at(layer.weight) for change in changes if name in change.differences]
            changed = torch.empty_like(layer.weight).copy_(layer.weight.float() + sum(summands))
            if not torch.isfinite(changed).all():
                raise Refused(f"it would give {name} weights that are no numbers: it may be damaged, or its weight in the prompt too large")
            layer.weight = nn.Parameter(changed, requires_grad=False)
        yield
    finally:
        for name, weight in own.items():
            layers[name].weight = weight


def _named(prefix: str, network: nn.Module) -> Layers:
    found = ((path, layer) for path, layer in network.named_modules() if isinstance(layer, nn.Linear | nn.Conv2d))
    return {prefix + path.replace(".", "_"): layer for path, layer in found}


def _difference(tensors: Tensors, adapter: Adapter, check: Check) -> Difference:
    check()
    down, up = _tensor(tensors, adapter.down), _tensor(tensors, adapter.up)
    mid = _tensor(tensors, adapter.mid) if adapter.mid else None
    scale = float(_tensor(tensors, adapter.alpha)) / adapter.rank if adapter.alpha else adapter.scale
    return Difference(down, up, mid, scale)


def _tensor(tensors: Tensors, name: str) -> Tensor:
    info = tensors.tensors[name]
    return torch.from_numpy(tensors.read(name)).view(STORED[info.dtype]).view(info.shape)
