"""A folder as diffusers itself saves it draws the picture of the file that it was made from."""

import io
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from modules.engine.studio import Studio
from modules.model_manager.check import check_file
from modules.model_manager.hashes import known_hash, short_hash
from modules.model_manager.library import scan
from modules.recipe.fields import Recipe
from tests.checkpoints import SD2, SMALL
from tests.engine.test_reference import NOISE, pipeline
from tests.engine.test_studio import only_picture


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


@pytest.mark.parametrize(
    ("file", "how"),
    [
        ("eps.safetensors", {}),
        ("eps.safetensors", {"max_shard_size": "1MB"}),
        ("sd2-v.safetensors", {"safe_serialization": False}),
        ("sd2-v.safetensors", {"variant": "fp16"}),
    ],
    ids=str,
)
def test_a_folder_by_diffusers_draws_what_its_file_draws(
    file: str, how: dict[str, object], studio: Studio, models: Path, recipe: Recipe, tmp_path: Path
) -> None:
    from diffusers import DDIMScheduler

    made = pipeline(models / file, SD2 if file.startswith("sd2") else SMALL)
    made.scheduler = DDIMScheduler(**NOISE, prediction_type="v_prediction" if file.endswith("v.safetensors") else "epsilon")
    made.unet.register_to_config(sample_size=8)
    made.save_pretrained(tmp_path / "models" / "folder", **how)
    (found,) = scan([tmp_path / "models"])
    assert (found.name, found.reason, found.native_size) == ("folder", "", 64)
    assert found.size_bytes > 10e6
    assert check_file(found.path).startswith("usable")

    own = Studio([tmp_path / "models"], [], tmp_path / "state", "cpu", "float32")
    ours, theirs = (only_picture(replace(recipe, checkpoint=name), by)[0] for name, by in (("folder", own), (file, studio)))
    assert pixels(ours) == pixels(theirs)


def test_the_hash_of_a_folder_changes_with_any_of_its_files(models: Path, tmp_path: Path) -> None:
    folder, store = tmp_path / "folder", tmp_path / "hashes.sqlite3"
    pipeline(models / "eps.safetensors", SMALL).save_pretrained(folder)
    first = short_hash(folder, store)
    assert (known_hash(folder, store) or "").startswith(first)
    (folder / "vae" / "config.json").write_text((folder / "vae" / "config.json").read_text() + "\n")
    assert known_hash(folder, store) is None
    assert short_hash(folder, store) != first
