"""The key layout against the networks that will hold the tensors: diffusers' and transformers' own, through their own conversion."""

from dataclasses import replace

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from transformers import CLIPTextConfig, CLIPTextModel

from modules.model_manager.architecture import SD15, Architecture
from modules.model_manager.layout import TEXT, expected_tensors, text_tensors, unet_tensors, vae_tensors
from tests.checkpoints import SMALL

DEEP = replace(
    SMALL,
    unet=replace(SMALL.unet, channels=(32, 64, 64), layers=2, attention=(False, True, True), linear_projection=True, context=128),
    vae=replace(SMALL.vae, channels=(16, 48), layers=2, norm_groups=16, mid_attention=False, quant=False),
    text=replace(SMALL.text, width=128, heads=2, layers=3),
)
ARCHITECTURES = pytest.mark.parametrize("architecture", [SMALL, DEEP, SD15], ids=["small", "deep", "sd15"])


def on_meta(architecture: Architecture) -> dict[str, torch.Tensor]:
    return {name: torch.empty(shape, device="meta") for name, shape in expected_tensors(architecture).items()}


@ARCHITECTURES
def test_the_unet_is_the_one_diffusers_builds(architecture: Architecture) -> None:
    shape = architecture.unet
    config = {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": shape.channels,
        "layers_per_block": shape.layers,
        "cross_attention_dim": shape.context,
        "attention_head_dim": shape.heads,
        "use_linear_projection": shape.linear_projection,
        "down_block_types": ["CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attention],
        "up_block_types": ["CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.attention)],
    }
    with torch.device("meta"):
        network = UNet2DConditionModel(**config)
    converted = convert_ldm_unet_checkpoint(on_meta(architecture), {**config, "class_embed_type": None, "addition_embed_type": None})
    assert {name: tuple(t.shape) for name, t in converted.items()} == {name: tuple(t.shape) for name, t in network.state_dict().items()}


@ARCHITECTURES
def test_the_autoencoder_is_the_one_diffusers_builds(architecture: Architecture) -> None:
    shape = architecture.vae
    config = {
        "block_out_channels": shape.channels,
        "layers_per_block": shape.layers,
        "latent_channels": shape.latent_channels,
        "norm_num_groups": shape.norm_groups,
        "mid_block_add_attention": shape.mid_attention,
        "use_quant_conv": shape.quant,
        "use_post_quant_conv": shape.quant,
        "down_block_types": ["DownEncoderBlock2D"] * len(shape.channels),
        "up_block_types": ["UpDecoderBlock2D"] * len(shape.channels),
    }
    with torch.device("meta"):
        network = AutoencoderKL(**config)
    quant = {} if shape.quant else {name: torch.empty(1) for name in ("quant_conv", "post_quant_conv")}
    padding = {f"first_stage_model.{name}.{part}": tensor for name, tensor in quant.items() for part in ("weight", "bias")}
    converted = convert_ldm_vae_checkpoint({**on_meta(architecture), **padding}, config)
    found = {name: tuple(t.shape) for name, t in converted.items() if shape.quant or "quant" not in name}
    assert found == {name: tuple(t.shape) for name, t in network.state_dict().items()}


@ARCHITECTURES
def test_the_text_encoder_is_the_one_transformers_builds(architecture: Architecture) -> None:
    shape = architecture.text
    config = CLIPTextConfig(
        vocab_size=shape.vocabulary,
        hidden_size=shape.width,
        intermediate_size=shape.feed_forward,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        max_position_embeddings=shape.positions,
    )
    with torch.device("meta"):
        network = CLIPTextModel(config)
    found = {name.removeprefix(TEXT): tuple(t.shape) for name, t in on_meta(architecture).items() if name.startswith(TEXT)}
    assert found == {name.removeprefix("text_model."): tuple(t.shape) for name, t in network.state_dict().items()}


def test_sd15_has_as_many_tensors_as_the_released_file() -> None:
    assert (len(unet_tensors(SD15.unet)), len(vae_tensors(SD15.vae)), len(text_tensors(SD15.text))) == (686, 248, 196)
    parameters = sum(torch.Size(shape).numel() for shape in unet_tensors(SD15.unet).values())
    assert parameters == 859_520_964
