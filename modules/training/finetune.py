"""Trains the U-Net of a checkpoint further on pictures with captions; its text encoder and autoencoder stay as they are."""

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import torch
import yaml
from torch import Tensor

from modules.model_manager.canonical import EMA as SHADOW
from modules.model_manager.diffusers_names import unet_name
from modules.model_manager.folder_checkpoint import folder_config, is_folder_checkpoint
from modules.model_manager.reading import described, yaml_beside
from modules.model_manager.tensors import open_tensors
from modules.training import base
from modules.training.base import Base, Descent
from modules.training.folder import Folder
from modules.training.loop import Trainer, follow
from modules.training.written import write_model

EMA = 0.999
DTYPES = {
    "BOOL": torch.bool, "U8": torch.uint8, "I8": torch.int8, "I16": torch.int16, "U16": torch.uint16, "I32": torch.int32,
    "U32": torch.uint32, "I64": torch.int64, "U64": torch.uint64, "F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32,
    "F64": torch.float64, "C64": torch.complex64,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2, "F8_E8M0": torch.float8_e8m0fnu,
}  # fmt: skip


def trainer(name: str, start: Base, data: Folder, plan: Descent, about: Mapping[str, str]) -> Trainer:
    """Trains the base's own U-Net, and keeps an average of it over the last updates: that is what the result is."""
    unet = start.family.unet.requires_grad_(True)
    average = deepcopy(unet).requires_grad_(False)
    shown = replace(start, family=replace(start.family, unet=average))

    def after(number: int) -> None:
        follow(average, unet, number, EMA)

    return base.trainer(name, start, data, plan, {"network": unet, "ema": average}, base.read_once(start.family), shown, about, after)


def rate_for(start: Base) -> float:
    """A peak rate that suits the network: the wider, the lower. 1e-4 for the starter, 2e-5 for Stable Diffusion 1.5."""
    return 1e-4 * 64 / start.family.architecture.unet.channels[0]


def write(training: Trainer, start: Base, data: Folder, output: Path) -> None:
    """Writes what was trained to `output`: the checkpoint it began from, with this U-Net in it. The `.yaml` beside it comes along."""
    about = {"easel_from": start.found.name, "easel_steps": str(training.done), "easel_pictures": str(len(data.trained))}
    tensors = exchanged(start, training.networks["ema"].state_dict())
    write_model(tensors, about, output, description(start.found.path))


def description(path: Path) -> bytes | None:
    """What a `.yaml` has to say about a checkpoint, if it has to say anything."""
    if is_folder_checkpoint(path):
        return yaml.safe_dump(folder_config(path).values).encode()
    beside = yaml_beside(path)
    return beside.read_bytes() if beside else None


def exchanged(start: Base, unet: dict[str, Tensor]) -> dict[str, Tensor]:
    """Every tensor of the checkpoint under its name and in its number format, with these weights for its U-Net's and their averages."""
    header, architecture = described(start.found.path)
    trained = {unet_name(name, architecture.unet): tensor for name, tensor in unet.items()}
    trained |= {SHADOW + name.removeprefix("model.").replace(".", ""): tensor for name, tensor in trained.items()}
    tensors = {}
    with open_tensors(start.found.path, header) as stored:
        for name, info in header.tensors.items():
            if name in trained:
                eight_bits = info.dtype.startswith("F8")  # too coarse to hold what a few steps change
                dtype = torch.float16 if eight_bits else DTYPES[info.dtype]
                tensors[name] = trained[name].cpu().to(dtype).contiguous()
            else:
                tensors[name] = torch.from_numpy(stored.read(name)).view(DTYPES[info.dtype]).view(info.shape)
    return tensors
