"""Low-rank adaptation (Hu et al. 2021): small changes to some layers of a checkpoint, trained while the checkpoint itself stays as it is.

Files are written as kohya's scripts write them, so that every program reads them.
"""

import hashlib
import json
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from modules.engine.lora import text_layers, unet_layers
from modules.model_manager.hashes import sha256
from modules.training import base
from modules.training.base import Base, Descent
from modules.training.folder import Folder
from modules.training.loop import Trainer
from modules.training.written import write_model

ATTENTION = ("_attentions_",)
CONVOLUTIONS = ("_resnets_", "_downsamplers_", "_upsamplers_")


@dataclass(frozen=True)
class Shape:
    """How much can be learnt: the rank of each change, what its sum is weighed with (alpha / rank), and which layers change."""

    rank: int
    alpha: float
    convolutions: bool
    text: bool

    @property
    def about(self) -> dict[str, str]:
        return {name: str(value) for name, value in vars(self).items()}


class Change(nn.Module):
    """What is added to a layer's answer: alpha / rank times up(down(x)). Nothing at first, for `up` begins as zeros."""

    def __init__(self, layer: nn.Linear | nn.Conv2d, shape: Shape) -> None:
        super().__init__()
        if isinstance(layer, nn.Linear):
            self.down: nn.Module = nn.Linear(layer.in_features, shape.rank, bias=False)
            self.up: nn.Module = nn.Linear(shape.rank, layer.out_features, bias=False)
        else:
            self.down = nn.Conv2d(layer.in_channels, shape.rank, layer.kernel_size, layer.stride, layer.padding, bias=False)
            self.up = nn.Conv2d(shape.rank, layer.out_channels, 1, bias=False)
        nn.init.zeros_(self.up.weight)
        self.scale = shape.alpha / shape.rank

    def forward(self, x: Tensor) -> Tensor:
        return self.scale * self.up(self.down(x))


class Changed(nn.Module):
    """A layer with its change."""

    def __init__(self, layer: nn.Module, change: Change) -> None:
        super().__init__()
        self.layer, self.change = layer, change

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x) + self.change(x)


def changes(start: Base, shape: Shape) -> nn.ModuleDict:
    """Puts a change beside each layer of the base that may change; all of them, by kohya's names of the layers."""
    family, found = start.family, nn.ModuleDict()
    kinds = ATTENTION + CONVOLUTIONS * shape.convolutions
    wanted = {layer: name for name, layer in unet_layers(family.unet).items() if any(kind in name for kind in kinds)}
    if shape.text:
        wanted |= {layer: name for name, layer in text_layers(family.text).items()}
    for network in (family.unet, family.text):
        for parent in list(network.modules()):
            for place, layer in list(parent.named_children()):
                if layer in wanted:
                    found[wanted[layer]] = Change(layer, shape).to(layer.weight.device)
                    setattr(parent, place, Changed(layer, found[wanted[layer]]))
    return found


def trainer(name: str, start: Base, data: Folder, plan: Descent, about: Mapping[str, str], shape: Shape) -> Trainer:
    """Trains the changes of the base, which then has them."""
    torch.manual_seed(base.SEED)
    found = changes(start, shape)
    contexts = base.read_now(start.family) if shape.text else base.read_once(start.family)
    return base.trainer(name, start, data, plan, {"network": found}, contexts, start, {**about, **shape.about})


def rate_for(start: Base) -> float:
    """A peak rate that suits the network: the wider, the lower. 2.5e-3 for the starter, 1e-4 for Stable Diffusion 1.5."""
    return 2.5e-3 * (64 / start.family.architecture.unet.channels[0]) ** 2


def write(training: Trainer, start: Base, data: Folder, plan: Descent, shape: Shape, output: Path, hashes: Path) -> None:
    """Writes what was trained to `output`."""
    tensors = named(training.networks["network"], shape)
    write_model(tensors, described(tensors, start, data, plan, shape, output.stem, hashes), output)


def named(found: Mapping[str, Change], shape: Shape) -> dict[str, Tensor]:
    """The changes as kohya's scripts call and store them, in float16."""
    tensors = {}
    for name, change in found.items():
        tensors[f"{name}.lora_down.weight"] = change.down.weight
        tensors[f"{name}.lora_up.weight"] = change.up.weight
        tensors[f"{name}.alpha"] = torch.tensor(shape.alpha)
    return {name: tensor.detach().cpu().half().contiguous() for name, tensor in tensors.items()}


def described(
    tensors: Mapping[str, Tensor], start: Base, data: Folder, plan: Descent, shape: Shape, name: str, hashes: Path
) -> dict[str, str]:
    """The metadata that kohya's scripts write and other programs read."""
    tags = Counter(tag.strip() for number in data.trained for tag in data.captions[number].split(",") if tag.strip())
    side = data.squares.shape[1]
    facts = {
        "ss_output_name": name,
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(shape.rank),
        "ss_network_alpha": str(shape.alpha),
        "ss_base_model_version": "sd_v1",
        "ss_v2": "False",
        "ss_sd_model_name": start.found.name,
        "ss_new_sd_model_hash": sha256(start.found.path, hashes),
        "ss_resolution": f"({side}, {side})",
        "ss_num_train_images": str(len(data.trained)),
        "ss_steps": str(plan.steps),
        "ss_total_batch_size": str(plan.batch),
        "ss_learning_rate": str(plan.rate),
        "ss_tag_frequency": json.dumps({name: tags}),
        "sshs_model_hash": data_hash(tensors),
    }
    if shape.convolutions:
        facts["ss_network_args"] = json.dumps({"conv_dim": str(shape.rank), "conv_alpha": str(shape.alpha)})
    return facts


def data_hash(tensors: Mapping[str, Tensor]) -> str:
    """The SHA-256 of the tensors as a file holds them, without the header before them: the same whatever the metadata say."""
    file = safetensors.torch.save(dict(tensors))
    return hashlib.sha256(file[8 + int.from_bytes(file[:8], "little") :]).hexdigest()
