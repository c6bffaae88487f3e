"""Today's names for a file's tensors, whatever its writer called them: a CompVis checkpoint's, with transformers' for the text encoder."""

import math
import re
from collections.abc import Iterator
from dataclasses import replace

from modules.model_manager.diffusers_names import vae_name
from modules.model_manager.layout import TEXT, UNET
from modules.model_manager.stored import ITEM_SIZE, Header, Refused, TensorInfo, shown

Tensors = dict[str, TensorInfo]
Named = Iterator[tuple[str, TensorInfo]]

OLD_TEXT_ENCODER = "cond_stage_model.transformer."
TEXT_ENCODER_PARTS = ("embeddings.", "encoder.", "final_layer_norm.")
OPEN_CLIP = "cond_stage_model.model."
RESBLOCK = re.compile(r"transformer\.resblocks\.(\d{1,3})\.(.+?)[._](weight|bias)")
FUSED = "attn.in_proj"
OPEN_CLIP_TOP = {
    "token_embedding.weight": "embeddings.token_embedding.weight",
    "positional_embedding": "embeddings.position_embedding.weight",
    "ln_final.weight": "final_layer_norm.weight",
    "ln_final.bias": "final_layer_norm.bias",
}
OPEN_CLIP_BLOCK = {
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "attn.out_proj": "self_attn.out_proj",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
EMA = "model_ema."
UP_BLOCK = re.compile(r"decoder\.up_blocks\.(\d)\.")


def canonical(tensors: Tensors) -> Tensors:
    """The tensors under their canonical names. Raises Refused when two would share one."""
    renamed: Tensors = {}
    for new, tensor in _with_diffusers_vae(_with_open_clip(_with_old_text_encoder(tensors))):
        if new in renamed:
            raise Refused(f"damaged: it holds {shown(new)} twice, under an old and a new name")
        renamed[new] = tensor
    return renamed


def has_open_clip(tensors: Tensors) -> bool:
    """Whether the text encoder came from OpenCLIP: of its own names those of the last layer stay, which Stable Diffusion 2 leaves out."""
    return any(name.startswith(OPEN_CLIP) for name in tensors)


def with_ema(header: Header) -> Header:
    """The denoiser's weights replaced by their moving averages, which training keeps as `model_ema.diffusion_modelinput_blocks00weight`."""
    tensors = dict(header.tensors)
    for name in [name for name in tensors if name.startswith(UNET)]:
        average = EMA + name.removeprefix("model.").replace(".", "")
        if average not in tensors:
            raise Refused(f"use_ema is asked for in its .yaml, it holds no averages of {shown(name)}: set use_ema: false")
        tensors[name] = tensors[average]
    return replace(header, tensors=tensors)


def _with_old_text_encoder(tensors: Tensors) -> Named:
    """transformers before 4.0 wrote its tensors without `text_model.`"""
    for name, tensor in tensors.items():
        rest = name.removeprefix(OLD_TEXT_ENCODER)
        yield (TEXT + rest if rest != name and rest.startswith(TEXT_ENCODER_PARTS) else name), tensor


def _with_open_clip(named: Named) -> Named:
    """OpenCLIP's text encoder under CLIP's names, but its last layer: Stable Diffusion 2 reads the last but one."""
    tensors = dict(named)
    blocks = [RESBLOCK.match(name.removeprefix(OPEN_CLIP)) for name in tensors if name.startswith(OPEN_CLIP)]
    last = max((int(block[1]) for block in blocks if block), default=0)
    for name, tensor in tensors.items():
        rest = name.removeprefix(OPEN_CLIP)
        block = RESBLOCK.fullmatch(rest)
        if rest in OPEN_CLIP_TOP and rest != name:
            yield TEXT + OPEN_CLIP_TOP[rest], tensor
        elif rest != name and block and int(block[1]) < last:
            yield from _split(f"{TEXT}encoder.layers.{int(block[1])}", block[2], block[3], tensor, name)
        else:
            yield name, tensor


def _split(layer: str, part: str, parameter: str, tensor: TensorInfo, name: str) -> Named:
    """One tensor of a layer; the fused projection of attention as its three parts, which are views into it."""
    if part in OPEN_CLIP_BLOCK:
        yield f"{layer}.{OPEN_CLIP_BLOCK[part]}.{parameter}", tensor
    elif part == FUSED and tensor.shape and tensor.shape[0] % 3 == 0:
        rows = tensor.shape[0] // 3
        row = (tensor.strides[0] if tensor.strides else math.prod(tensor.shape[1:])) * ITEM_SIZE[tensor.dtype]
        for index, projection in enumerate(("q_proj", "k_proj", "v_proj")):
            view = replace(tensor, shape=(rows, *tensor.shape[1:]), start=tensor.start + index * rows * row)
            yield f"{layer}.self_attn.{projection}.{parameter}", view
    else:
        yield name, tensor


def _with_diffusers_vae(named: Named) -> Named:
    """A VAE alone in a file, as diffusers names its parts, under the names of such files by CompVis."""
    tensors = dict(named)
    if "decoder.mid_block.resnets.0.conv1.weight" not in tensors:
        yield from tensors.items()
        return
    levels = len({found[1] for name in tensors if (found := UP_BLOCK.match(name))})
    for name, tensor in tensors.items():
        known = UP_BLOCK.match(name) or "up_blocks." not in name
        yield vae_name(name, levels) if known else name, tensor
