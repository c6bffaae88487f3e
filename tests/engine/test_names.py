"""Our own names for a checkpoint's tensors against the list of all of them, and against diffusers' conversion of values."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from safetensors.torch import load_file
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from modules.engine.families.sd1 import text_config, unet_config, vae_config
from modules.engine.studio import Studio
from modules.model_manager.architecture import SD15, Architecture
from modules.model_manager.diffusers_names import text_name, unet_name, vae_name
from modules.model_manager.layout import VAE, expected_tensors
from tests.checkpoints import SMALL

DEEP = replace(
    SMALL,
    unet=replace(SMALL.unet, channels=(32, 64, 96), layers=3, attention=(False, True, True)),
    vae=replace(SMALL.vae, channels=(32, 64), layers=2, mid_attention=False, quant=False),
)


@pytest.mark.parametrize("architecture", [SD15, SMALL, DEEP], ids=["SD1.5", "small", "deep"])
def test_every_parameter_has_its_own_tensor_and_none_is_left(architecture: Architecture) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(architecture.unet)).state_dict()
        vae = AutoencoderKL(**vae_config(architecture.vae)).state_dict()
        text = CLIPTextModel(CLIPTextConfig(**text_config(architecture.text))).state_dict()
    names = [
        *((unet_name(key, architecture.unet), tensor) for key, tensor in unet.items()),
        *((VAE + vae_name(key, len(architecture.vae.channels)), tensor) for key, tensor in vae.items()),
        *((text_name(key), tensor) for key, tensor in text.items()),
    ]
    expected = expected_tensors(architecture)
    assert sorted(name for name, _ in names) == sorted(expected)
    for name, tensor in names:
        assert [extent for extent in tensor.shape if extent > 1] == [extent for extent in expected[name] if extent > 1]


def test_values_are_those_of_diffusers_own_conversion(studio: Studio, models: Path) -> None:
    family = studio.warm("eps.safetensors", "None", lambda fraction: None).family
    state = load_file(models / "eps.safetensors")
    pairs = [
        (family.unet, convert_ldm_unet_checkpoint(dict(state), unet_config(SMALL.unet))),
        (family.vae, convert_ldm_vae_checkpoint(dict(state), vae_config(SMALL.vae))),
        (family.text, {key.removeprefix("text_model."): value for key, value in convert_ldm_clip_checkpoint(dict(state)).items()}),
    ]
    for network, converted in pairs:
        ours = network.state_dict()
        assert ours.keys() == converted.keys()
        assert all(torch.equal(ours[key], converted[key].view(ours[key].shape)) for key in ours)
