"""The exported file, read back through diffusers' own conversion, computes what was trained."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.loaders.single_file_utils import convert_ldm_clip_checkpoint, convert_ldm_unet_checkpoint, convert_ldm_vae_checkpoint
from safetensors.torch import load_file, save_file
from transformers import CLIPTextModel

from modules.model_manager.reading import described
from modules.model_manager.stored import Refused
from modules.training import autoencoder, clip, denoiser
from modules.training.autoencoder import Shape
from modules.training.clip import TextEncoder
from modules.training.export import SCALE_FACTOR, checkpoint, description, export, write
from modules.training.files import Unusable, save
from modules.training.latents import Cache
from modules.training.sources import Emoji
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


def trained(folder: Path, unet: UNet2DConditionModel, vae: torch.nn.Module, text: TextEncoder, latent: int, **more: object) -> None:
    """A folder as training leaves it."""
    save({"networks": {"network": vae.state_dict()}}, folder / "autoencoder.pt")
    save({"networks": {"network": {f"text.{name}": weight for name, weight in text.state_dict().items()}}}, folder / "clip.pt")
    save({"networks": {"ema": unet.state_dict()}, **more}, folder / "denoiser.pt")
    save(Cache({}, torch.zeros(8, 77, 64), torch.zeros(latent), torch.ones(latent)).state(), folder / "cache.pt")


def test_what_was_trained_is_exported_with_what_it_predicts(networks: tuple, tmp_path: Path) -> None:
    unet, vae, text = networks
    trained(tmp_path, unet, vae, text, 4, about={"prediction": "epsilon"})
    output = tmp_path / "models" / "mine.safetensors"
    export(Emoji(tmp_path / "icons"), tmp_path, output)
    architecture = described(output)[1]
    assert (architecture.prediction, architecture.native_size, architecture.unet.in_channels) == ("epsilon", 128, 4)
    assert sorted(path.name for path in output.parent.iterdir()) == ["mine.safetensors", "mine.yaml"]
    export(Emoji(tmp_path / "icons"), tmp_path, output)  # over one of its own


def test_the_inpainting_model_is_written_beside_it(networks: tuple, tmp_path: Path) -> None:
    unet, vae, text = networks
    trained(tmp_path, unet, vae, text, 4)
    save({"networks": {"ema": scrambled(denoiser.build((32, 64, 64), 64, given=5)).state_dict()}}, tmp_path / "inpainting.pt")
    save(torch.load(tmp_path / "cache.pt", weights_only=True), tmp_path / "cache-inpainting.pt")
    export(Emoji(tmp_path / "icons"), tmp_path, tmp_path / "mine.safetensors")
    architecture = described(tmp_path / "mine-inpainting.safetensors")[1]
    assert architecture.unet.in_channels == 9 and architecture.unet.out_channels == 4
    assert described(tmp_path / "mine.safetensors")[1].unet.in_channels == 4


def test_latents_of_another_factor_are_exported(networks: tuple, tmp_path: Path) -> None:
    vae = scrambled(autoencoder.build((8, 8, 16, 16, 16), 16))
    trained(tmp_path, scrambled(denoiser.build((32, 64, 64), 64, latent=16)), vae, networks[2], 16)
    export(Emoji(tmp_path / "icons"), tmp_path, tmp_path / "mine.safetensors")
    architecture = described(tmp_path / "mine.safetensors")[1]
    assert (architecture.vae.factor, architecture.vae.latent_channels, architecture.native_size) == (16, 16, 128)


def test_what_cannot_be_drawn_is_kept_and_not_written(networks: tuple, tmp_path: Path) -> None:
    trained(tmp_path, networks[0], autoencoder.build(*Shape.named("vq", 8)._replace(channels=(8,) * 4, codes=16)), networks[2], 4)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(Unusable, match=f"vector-quantised. What was trained stays in {tmp_path}$"):
        export(Emoji(tmp_path / "icons"), tmp_path, tmp_path / "mine.safetensors")
    assert sorted(tmp_path.iterdir()) == before
    unet, vae, text = networks
    with pytest.raises(Refused):
        write({"something": torch.zeros(3)}, description(unet, vae), tmp_path / "mine.safetensors")
    assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize("name", ["theirs.safetensors", "theirs.yaml"])
def test_no_file_from_elsewhere_is_replaced(name: str, networks: tuple, tmp_path: Path) -> None:
    unet, vae, text = networks
    save_file({"weight": torch.ones(2)}, tmp_path / "theirs.safetensors") if name.endswith("s") else (tmp_path / name).write_text("a: b")
    before = (tmp_path / name).read_bytes()
    with pytest.raises(Unusable, match=f"{name} is there already"):
        write(checkpoint(unet, vae, text, SHIFT, SCALE), description(unet, vae), tmp_path / "theirs.safetensors")
    assert (tmp_path / name).read_bytes() == before and len(list(tmp_path.iterdir())) == 1
    with pytest.raises(Unusable, match="is a .safetensors"):
        write({}, {}, tmp_path / "file.ckpt")
