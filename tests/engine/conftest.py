from dataclasses import replace
from pathlib import Path

import pytest

from modules.engine.studio import Studio
from modules.recipe.fields import Recipe
from tests.checkpoints import INPAINTING, SD2, SMALL, write_checkpoint, write_open_clip
from tests.upscalers import COMPACT, random_weights, write_upscaler

V_MODEL = replace(SMALL, prediction="v")


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with small checkpoints: eps.safetensors and v.safetensors, the same two of Stable Diffusion 2, and one for inpainting."""
    folder = tmp_path_factory.mktemp("models")
    write_checkpoint(folder / "eps.safetensors", SMALL, seed=1)
    write_checkpoint(folder / "v.safetensors", V_MODEL, seed=2, dtype="float16")
    write_open_clip(folder / "sd2-eps.safetensors", SD2, seed=3)
    write_open_clip(folder / "sd2-v.safetensors", replace(SD2, prediction="v"), seed=4, dtype="float16")
    write_checkpoint(folder / "inpainting.safetensors", INPAINTING, seed=5)
    return folder


@pytest.fixture(scope="session")
def studio(models: Path, tmp_path_factory: pytest.TempPathFactory) -> Studio:
    """A float32 studio over `models` and an upscaler, 4x-Small, shared: each test asks for the checkpoint that it needs."""
    state, upscalers = tmp_path_factory.mktemp("state"), tmp_path_factory.mktemp("ESRGAN")
    write_upscaler(upscalers / "4x-Small.pth", random_weights(COMPACT))
    return Studio([models], [], state, device="cpu", precision="float32", upscaler_roots=[upscalers])


@pytest.fixture
def recipe() -> Recipe:
    """A small picture of the first checkpoint."""
    return Recipe(prompt="a red fox", negative_prompt="blurry", seed=7, steps=4, width=64, height=64, checkpoint="eps.safetensors")
