import os
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch

from modules.engine.run import run
from modules.engine.stop import CannotDraw
from modules.engine.studio import Studio
from modules.jobs.messages import Message, Picture
from modules.model_manager.layout import VAE, vae_tensors
from modules.recipe.fields import Recipe
from tests.checkpoints import SMALL, random_weights, write_checkpoint, write_safetensors


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    write_checkpoint(tmp_path / "eps.safetensors", SMALL, seed=1)
    return tmp_path


@pytest.fixture
def own(folder: Path) -> Studio:
    return Studio([folder], [folder / "VAE"], folder / "state", "cpu", "float32")


def write_vae(path: Path, seed: int) -> None:
    shapes = vae_tensors(SMALL.vae)
    weights = ((name.removeprefix(VAE), values) for name, values in random_weights(SMALL, seed) if name.startswith(VAE))
    path.parent.mkdir(exist_ok=True)
    write_safetensors(path, shapes, "float32", weights)


def only_picture(recipe: Recipe, studio: Studio) -> tuple[bytes, dict[str, object]]:
    messages: list[Message] = []
    facts = run(recipe, studio, messages.append, check=lambda: None)
    return next(message.png for message in messages if isinstance(message, Picture)), facts


def no_report(fraction: float) -> None:
    pass


def test_what_is_warm_is_not_loaded_again(own: Studio) -> None:
    fractions: list[float] = []
    first = own.warm("eps.safetensors", "Automatic", fractions.append)
    assert fractions == sorted(fractions)
    assert fractions[0] == 0
    assert 0.9 < fractions[-1] < 1
    assert own.warm("eps", "None", fractions.append) is first
    assert fractions.count(0) == 1


def test_a_changed_file_is_loaded_again(own: Studio, folder: Path) -> None:
    first = own.warm("eps.safetensors", "None", no_report).family.unet.conv_in.weight
    write_checkpoint(folder / "new", SMALL, seed=2)
    os.replace(folder / "new", folder / "eps.safetensors")
    assert not torch.equal(own.warm("eps.safetensors", "None", no_report).family.unet.conv_in.weight, first)


def test_a_vae_of_its_own_decodes_and_the_checkpoints_comes_back(own: Studio, folder: Path, recipe: Recipe) -> None:
    plain, facts = only_picture(recipe, own)
    assert facts["vae"] == "the checkpoint's own"
    write_vae(folder / "VAE" / "other.safetensors", seed=9)
    other, facts = only_picture(replace(recipe, vae="other.safetensors"), own)
    assert facts["vae"] == "other.safetensors"
    assert other != plain
    assert only_picture(recipe, own)[0] == plain


def test_automatic_finds_a_vae_named_like_the_checkpoint(own: Studio, folder: Path, recipe: Recipe) -> None:
    write_vae(folder / "eps.vae.safetensors", seed=9)
    assert only_picture(recipe, own)[1]["vae"] == "eps.vae.safetensors"
    assert only_picture(replace(recipe, vae="None"), own)[1]["vae"] == "the checkpoint's own"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"checkpoint": "epps"}, "did you mean eps.safetensors"),
        ({"checkpoint": "broken.safetensors"}, "broken.safetensors cannot be used"),
        ({"vae": "nothing.pt"}, "nothing.pt"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(change: dict[str, str], reason: str, own: Studio, folder: Path, recipe: Recipe) -> None:
    (folder / "broken.safetensors").write_bytes(b"\0" * 100)
    with pytest.raises(CannotDraw, match=reason) as failure:
        only_picture(replace(recipe, **change), own)
    assert "\n" not in str(failure.value)


def test_prompts_are_encoded_once_and_the_oldest_forgotten(own: Studio) -> None:
    warm = own.warm("eps.safetensors", "None", no_report)
    with torch.inference_mode():
        first = own.encoded(warm, "a fox", 1)
        assert own.encoded(warm, "a fox", 1) is first
        assert own.encoded(warm, "a fox", 2) is not first
        for i in range(100):
            own.encoded(warm, f"fox {i}", 1)
    assert len(warm.encodings) == 64
    assert ("a fox", 1, ()) not in warm.encodings


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_other_number_formats_draw_nearly_the_same(precision: str, own: Studio, folder: Path, recipe: Recipe) -> None:
    from io import BytesIO

    from PIL import Image

    coarse = Studio([folder], [], folder / "state", "cpu", precision)
    pictures = [numpy.asarray(Image.open(BytesIO(only_picture(recipe, studio)[0])), dtype=float) for studio in (own, coarse)]
    difference = abs(pictures[0] - pictures[1])
    assert only_picture(recipe, coarse)[0] == only_picture(recipe, coarse)[0]
    assert 0 < difference.mean() < 4
    assert coarse.warm("eps.safetensors", "None", no_report).family.unet.dtype == getattr(torch, precision)


def test_a_device_that_is_not_there_is_refused(folder: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has a CUDA device")
    with pytest.raises(CannotDraw, match="--device cuda"):
        Studio([folder], [], folder, "cuda")
