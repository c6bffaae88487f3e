"""The trained networks as one checkpoint in the layout of Stable Diffusion 1, and the `.yaml` that says what shapes cannot."""

import os
from pathlib import Path

import torch
import yaml
from diffusers import AutoencoderKL, UNet2DConditionModel
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPTextModel

from modules.training import denoiser
from modules.training.grammar import UNKNOWN, VOCABULARY, vocabulary
from modules.training.layout import Weights, unet_keys, vae_keys

GUIDANCE = 3.0  # the CFG scale at which its pictures are nearest to real scenes and still clear: halos above, blurs below
SCALE_FACTOR = 0.18215


@torch.no_grad()
def with_normalised_latents(weights: Weights, shift: Tensor, scale: Tensor) -> Weights:
    """An autoencoder's weights whose latents times 0.18215 are (latents - shift) / scale of the given ones; `shift`, `scale` (4,)."""
    folded = dict(weights)
    unit = scale * SCALE_FACTOR  # (4,)
    weight, bias = weights["quant_conv.weight"].clone(), weights["quant_conv.bias"].clone()
    weight[:4] /= unit[:, None, None, None]
    bias[:4] = (bias[:4] - shift) / unit
    bias[4:] -= 2 * unit.log()  # the variance shrinks with the square
    folded["quant_conv.weight"], folded["quant_conv.bias"] = weight, bias
    weight, bias = weights["post_quant_conv.weight"], weights["post_quant_conv.bias"]
    folded["post_quant_conv.bias"] = bias + weight[:, :, 0, 0] @ shift
    folded["post_quant_conv.weight"] = weight * unit[None, :, None, None]
    return folded


def with_all_tokens(weights: Weights) -> Weights:
    """A text encoder's weights with CLIP's whole table of tokens: those outside the compact vocabulary get the unknown row."""
    name = next(key for key in weights if key.endswith("token_embedding.weight"))
    table = weights[name][UNKNOWN].repeat(VOCABULARY, 1)  # (49408, width)
    table[torch.tensor(vocabulary()[1:])] = weights[name][1:]
    return weights | {name: table}


def checkpoint(unet: UNet2DConditionModel, vae: AutoencoderKL, text: CLIPTextModel, shift: Tensor, scale: Tensor) -> Weights:
    """Every tensor of the checkpoint by its CompVis name, in float16."""
    first_stage = vae_keys(with_normalised_latents(vae.state_dict(), shift, scale), len(vae.config.block_out_channels))
    words = with_all_tokens(text.state_dict())
    named = {f"model.diffusion_model.{key}": tensor for key, tensor in unet_keys(unet.state_dict()).items()}
    named |= {f"first_stage_model.{key}": tensor for key, tensor in first_stage.items()}
    named |= {f"cond_stage_model.transformer.text_model.{key.removeprefix('text_model.')}": tensor for key, tensor in words.items()}
    return {key: tensor.detach().half().contiguous() for key, tensor in named.items()}


def description(unet: UNet2DConditionModel, vae: AutoencoderKL) -> dict[str, object]:
    """The `.yaml` beside the checkpoint, in CompVis's words; `norm_num_groups` and `defaults`, what to draw with, are ours."""
    base, widths = unet.config.block_out_channels[0], vae.config.block_out_channels
    attended = [2**level for level, kind in enumerate(unet.config.down_block_types) if "Attn" in kind]
    network = {
        "in_channels": 4, "out_channels": 4, "model_channels": base, "num_res_blocks": unet.config.layers_per_block,
        "attention_resolutions": attended, "channel_mult": [width // base for width in unet.config.block_out_channels],
        "num_heads": denoiser.HEADS, "transformer_depth": 1, "context_dim": unet.config.cross_attention_dim,
        "use_spatial_transformer": True, "legacy": False,
    }  # fmt: skip
    pixels = {
        "z_channels": 4, "resolution": 128, "in_channels": 3, "out_ch": 3, "ch": widths[0],
        "ch_mult": [width // widths[0] for width in widths], "num_res_blocks": vae.config.layers_per_block,
        "attn_resolutions": [], "norm_num_groups": vae.config.norm_num_groups,
    }  # fmt: skip
    params = {
        "parameterization": "v", "linear_start": denoiser.LINEAR_START, "linear_end": denoiser.LINEAR_END, "timesteps": denoiser.TIMESTEPS,
        "image_size": 16, "channels": 4, "scale_factor": SCALE_FACTOR, "unet_config": {"params": network},
        "first_stage_config": {"params": {"embed_dim": 4, "ddconfig": pixels}}, "cond_stage_config": {"params": {}},
    }  # fmt: skip
    return {"model": {"params": params}, "defaults": {"cfg_scale": GUIDANCE}}


def write(weights: Weights, words: dict[str, object], output: Path) -> None:
    """Both files, each whole or not at all."""
    output.parent.mkdir(parents=True, exist_ok=True)
    temporary = output.with_suffix(".part")
    save_file(weights, temporary, metadata={"format": "pt"})
    temporary.chmod(0o644)  # safetensors writes for the owner alone
    beside = output.with_suffix(".yaml")
    beside.with_suffix(".yaml.part").write_text(yaml.safe_dump(words, sort_keys=False))
    os.replace(beside.with_suffix(".yaml.part"), beside)
    os.replace(temporary, output)


def export(folder: Path, output: Path) -> None:
    """Write the checkpoint from what was trained below `folder`. Raises FileNotFoundError naming the step that is missing."""
    vae, text = denoiser.load_stage(folder)
    if not (folder / "denoiser.pt").exists():
        raise FileNotFoundError(f"{folder / 'denoiser.pt'} is missing: run `train denoiser` first")
    kept, _ = denoiser.load_cache(folder / "icons", folder)
    unet = denoiser.build()
    unet.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True)["networks"]["ema"])
    weights = checkpoint(unet, vae, text, kept.shift, kept.scale)
    write(weights, description(unet, vae), output)
    print(f"{output}: {len(weights)} tensors, {output.stat().st_size / 1e6:.1f} MB")
