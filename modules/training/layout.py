"""The names of CompVis's checkpoints (ldm/modules/diffusionmodules) for the weights of diffusers' and transformers' networks."""

import re

from torch import Tensor

Weights = dict[str, Tensor]

RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}


def unet_keys(weights: Weights, layers: int = 1) -> Weights:
    """A UNet2DConditionModel's weights under the names of CompVis's UNetModel."""
    attended = {int(key.split(".")[1]) for key in weights if re.match(r"up_blocks\.\d+\.attentions", key)}
    return {_unet_key(key, layers, attended): tensor for key, tensor in weights.items()}


def _unet_key(key: str, layers: int, attended: set[int]) -> str:
    ends = {"conv_in": "input_blocks.0.0", "conv_norm_out": "out.0", "conv_out": "out.2"}
    ends |= {"time_embedding.linear_1": "time_embed.0", "time_embedding.linear_2": "time_embed.2"}
    module, leaf = key.rsplit(".", 1)
    if module in ends:
        return f"{ends[module]}.{leaf}"
    block, rest = key.split(".", 1)
    if block == "mid_block":
        kind, index, inner = rest.split(".", 2)
        return f"middle_block.{1 if kind == 'attentions' else 2 * int(index)}.{_inner(kind, inner)}"
    level, kind, index, inner = rest.split(".", 3)
    if block == "down_blocks":
        first = 1 + int(level) * (layers + 1)
        if kind == "downsamplers":
            return f"input_blocks.{first + layers}.0.op.{leaf}"
        return f"input_blocks.{first + int(index)}.{int(kind == 'attentions')}.{_inner(kind, inner)}"
    first = int(level) * (layers + 1)
    if kind == "upsamplers":
        return f"output_blocks.{first + layers}.{1 + (int(level) in attended)}.{inner}"
    return f"output_blocks.{first + int(index)}.{int(kind == 'attentions')}.{_inner(kind, inner)}"


def _inner(kind: str, inner: str) -> str:
    if kind == "attentions":
        return inner
    part, leaf = inner.rsplit(".", 1)
    return f"{RESNET[part]}.{leaf}"


def vae_keys(weights: Weights, levels: int) -> Weights:
    """An AutoencoderKL's weights (no attention in its middle) under the names of CompVis's AutoencoderKL."""
    return {_vae_key(key, levels): tensor for key, tensor in weights.items()}


def _vae_key(key: str, levels: int) -> str:
    key = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", key)
    key = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", key)
    key = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", key)
    key = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", key)
    key = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", key)
    return key.replace("conv_shortcut", "nin_shortcut").replace("conv_norm_out", "norm_out")
