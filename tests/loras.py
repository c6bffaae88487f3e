"""Small random LoRA files, for the tests of every room."""

from collections.abc import Iterable
from pathlib import Path

import numpy
import safetensors.numpy

from modules.model_manager.architecture import Architecture
from modules.model_manager.lora_names import layers_of
from tests.checkpoints import SMALL

Weights = dict[str, numpy.ndarray]
Shape = tuple[int, ...]

TO_K = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
PROJ_IN = "lora_unet_mid_block_attentions_0_proj_in"
CONV = "lora_unet_mid_block_resnets_0_conv1"
Q_PROJ = "lora_te_text_model_encoder_layers_0_self_attn_q_proj"
USUAL = (TO_K, PROJ_IN, CONV, Q_PROJ)


def shape_of(layer: str, architecture: Architecture = SMALL) -> Shape:
    return layers_of(architecture)[layer][1]


def parts(shape: Shape, rank: int, seed: int, size: float = 0.3) -> tuple[numpy.ndarray, numpy.ndarray]:
    """Down and up for a weight of this shape."""
    rng = numpy.random.default_rng(seed)
    down = rng.standard_normal((rank, *shape[1:]), dtype=numpy.float32) * size
    return down, rng.standard_normal((shape[0], rank, *[1] * len(shape[2:])), dtype=numpy.float32) * size


def weights(layers: Iterable[str] = USUAL, rank: int = 2, alpha: float = 1.0, architecture: Architecture = SMALL) -> Weights:
    """A LoRA of these layers, as kohya's scripts write it."""
    tensors = {}
    for seed, layer in enumerate(layers):
        down, up = parts(shape_of(layer, architecture), rank, seed)
        tensors |= {f"{layer}.lora_down.weight": down, f"{layer}.lora_up.weight": up, f"{layer}.alpha": numpy.float32(alpha)}
    return {name: numpy.asarray(values) for name, values in tensors.items()}


def write_lora(path: Path, tensors: Weights | None = None, **metadata: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(weights() if tensors is None else tensors, path, metadata or None)
    return path
