"""A checkpoint as it is looked at, checked and loaded alike: what it holds, and what that makes."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy

from modules.model_manager.architecture import Architecture
from modules.model_manager.canonical import with_ema
from modules.model_manager.config import DIFFUSION, read_config
from modules.model_manager.folder_checkpoint import folder_config, is_folder_checkpoint, read_folder
from modules.model_manager.headers import read_header
from modules.model_manager.layout import UNET
from modules.model_manager.recognise import recognise, usual_size
from modules.model_manager.stored import Header, TensorInfo
from modules.model_manager.tensors import open_tensors

V_SPREAD = 0.09
LAST_NORM = re.compile(re.escape(UNET) + r"output_blocks\.(\d+)\.1\.transformer_blocks\.0\.norm1\.bias")


def described(path: Path) -> tuple[Header, Architecture]:
    """What a checkpoint (a file, or a folder in diffusers' layout) holds, and its architecture. Raises Refused with a line for the user."""
    if is_folder_checkpoint(path):
        header, config = read_folder(path), folder_config(path)
    else:
        header, config = read_header(path), read_config(yaml_beside(path))
    if config.choice(DIFFUSION, "use_ema", "false", ("true", "True", "false", "False")).lower() == "true":
        header = with_ema(header)
    architecture = recognise(header, config)
    if architecture.family == "sd2" and not config.text(DIFFUSION, "parameterization") and _looks_like_v(path, header, architecture):
        size = config.whole(DIFFUSION, "image_size", usual_size("sd2", "v") // architecture.vae.factor or 1, 4096)
        architecture = replace(architecture, prediction="v", native_size=size * architecture.vae.factor)
    return header, architecture


def yaml_beside(path: Path) -> Path | None:
    """The configuration with the same stem, if there is one."""
    beside = Path(f"{path if path.is_dir() else path.with_suffix('')}.yaml")
    return beside if os.path.lexists(beside) else None


def _looks_like_v(path: Path, header: Header, architecture: Architecture) -> bool:
    """Whether a Stable Diffusion 2 predicts v, which nothing in its names tells: the biases of its last norm then spread wider.

    This is how ComfyUI tells them apart. Inpainting models predict the noise.
    """
    norms = [found for name in header.tensors if (found := LAST_NORM.fullmatch(name))]
    if architecture.unet.in_channels != architecture.unet.out_channels or not norms:
        return False
    last = max(norms, key=lambda found: int(found[1]))[0]
    with open_tensors(path, header) as tensors:
        return bool(_numbers(header.tensors[last], tensors.read(last)).std() > V_SPREAD)


def _numbers(tensor: TensorInfo, data: numpy.ndarray) -> numpy.ndarray:
    """The stored numbers as floats, formats that numpy lacks made of ones that it has."""
    match tensor.dtype:
        case "BF16":
            return (data.view(numpy.uint16).astype(numpy.uint32) << 16).view(numpy.float32)
        case "F8_E5M2":  # the upper half of a float16
            return (data.astype(numpy.uint16) << 8).view(numpy.float16).astype(numpy.float32)
        case "F8_E4M3":  # an exponent a bit shorter, and 8 less
            wide = data.astype(numpy.uint16)
            return ((wide & 0x80) << 8 | (wide & 0x7F) << 7).view(numpy.float16).astype(numpy.float32) * 256
    return data.view({"F16": numpy.float16, "F32": numpy.float32, "F64": numpy.float64}[tensor.dtype]).astype(numpy.float64)
