"""The exported file, read back through diffusers' own conversion, computes what was trained."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file
from transformers import CLIPTextModel

from modules.training import autoencoder, clip, denoiser
from modules.training.clip import TextEncoder
from modules.training.export import SCALE_FACTOR, checkpoint, description, write
from modules.training.vocabulary import SIZE, Vocabulary, padded, tokens


def scrambled(network: torch.nn.Module) -> torch.nn.Module:
    """Weights that float16 holds exactly, none of them zero, so that every tensor has to arrive in its place."""
    torch.manual_seed(4)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_((parameter + 0.02 * torch.randn(parameter.shape)).half().float())
    return network.eval()


@pytest.fixture(scope="module")
def networks() -> tuple[UNet2DConditionModel, AutoencoderKL, TextEncoder]:
    unet, text = denoiser.build((32, 64, 64), context=64), TextEncoder(Vocabulary.of(["a fox in the snow"]), 64, 2)
    return (
        scrambled(unet),
        scrambled(autoencoder.build((8, 16, 16, 24))),
        scrambled(text),
    )


SHIFT, SCALE = torch.tensor([0.5, -0.25, 0.0, 1.0]), torch.tensor([2.0, 1.0, 0.5, 0.75])


@pytest.fixture(scope="module")
def stored(networks: tuple[UNet2DConditionModel, AutoencoderKL, TextEncoder], tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("export") / "tiny.safetensors"
    unet, vae, text = networks
    write(checkpoint(unet, vae, text, SHIFT, SCALE), description(unet, vae), output)
    return output


def test_unet_comes_back_equal(networks: tuple, stored: Path) -> None:
    unet = networks[0]
    config = {"layers_per_block": 1, "class_embed_type": None, "addition_embed_type": None, "num_class_embeds": None}
    weights = {key: tensor.float() for key, tensor in load_file(stored).items()}
    back = denoiser.build((32, 64, 64), context=64).eval()
    back.load_state_dict(convert_ldm_unet_checkpoint(weights, config))
    x, t, context = torch.randn(2, 4, 16, 16), torch.tensor([3, 800]), torch.randn(2, 77, 64)
    torch.testing.assert_close(back(x, t, context).sample, unet(x, t, context).sample)


def test_autoencoder_comes_back_with_normalised_latents(networks: tuple, stored: Path) -> None:
    vae = networks[1]
    back = autoencoder.build((8, 16, 16, 24)).eval()
    back.load_state_dict(
        convert_ldm_vae_checkpoint(
            load_file(stored), {"down_block_types": vae.config.down_block_types, "up_block_types": vae.config.up_block_types}
        )
    )
    picture = torch.rand(1, 3, 32, 32) * 2 - 1
    before, after = vae.encode(picture).latent_dist, back.encode(picture).latent_dist
    shift, scale = SHIFT[:, None, None], SCALE[:, None, None]
    torch.testing.assert_close(after.mean * SCALE_FACTOR, (before.mean - shift) / scale, atol=2e-3, rtol=2e-3)
    torch.testing.assert_close(after.std * SCALE_FACTOR, before.std / scale, atol=2e-3, rtol=5e-3)
    torch.testing.assert_close(back.decode(after.mean).sample, vae.decode(before.mean).sample, atol=5e-3, rtol=5e-3)


def test_text_encoder_comes_back_with_clip_ids(networks: tuple, stored: Path) -> None:
    text = networks[2]
    weights = convert_ldm_clip_checkpoint({key: tensor.float() for key, tensor in load_file(stored).items()})
    back = CLIPTextModel(clip.text_config(SIZE, 64, 2)).eval()
    back.load_state_dict({key.removeprefix("text_model."): tensor for key, tensor in weights.items()})
    ids = torch.tensor([padded(tokens("a fox in the snow, zeppelin masterpiece")), padded([])])
    torch.testing.assert_close(back(input_ids=ids).last_hidden_state, text(ids))


def test_description_states_what_shapes_cannot(networks: tuple) -> None:
    params = description(networks[0], networks[1])["model"]["params"]
    assert params["parameterization"] == "v"
    assert params["unet_config"]["params"]["attention_resolutions"] == [2, 4]
    assert params["unet_config"]["params"]["channel_mult"] == [1, 2, 2]
    assert params["first_stage_config"]["params"]["ddconfig"]["ch_mult"] == [1, 2, 2, 3]
    assert params["first_stage_config"]["params"]["ddconfig"]["norm_num_groups"] == 1
