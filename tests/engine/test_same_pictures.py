"""Recipes of earlier versions draw the pictures that they drew then: those in `pictures/`, by the starter checkpoint."""

import io
from pathlib import Path

import numpy
import pytest
from PIL import Image

from modules.engine.run import run
from modules.engine.studio import Studio
from modules.recipe.fields import Recipe

ROOT = Path(__file__).parent.parent.parent
PICTURES = Path(__file__).parent / "pictures"
SAMPLERS = ("DPM++ 2M", "DPM++ SDE", "Euler a", "Euler", "Heun", "DDIM", "UniPC")
EARLIER = [
    *((sampler, "Automatic") for sampler in SAMPLERS),
    *(("Euler", schedule) for schedule in ("Karras", "Exponential", "SGM Uniform")),
    ("DDIM", "Karras"),
]


def earlier(sampler: str, schedule: str) -> Recipe:
    return Recipe(
        prompt="a red apple on the grass",
        negative_prompt="blurry",
        steps=7,
        sampler=sampler,
        schedule=schedule,
        cfg_scale=3.0,
        seed=11,
        width=64,
        height=72,
        checkpoint="starter.safetensors",
    )


def drawn(recipe: Recipe, studio: Studio) -> bytes:
    messages = []
    run(recipe, studio, messages.append, check=lambda: None)
    return messages[-1].png


@pytest.fixture(scope="module")
def starter(tmp_path_factory: pytest.TempPathFactory) -> Studio:
    return Studio([ROOT / "models" / "Stable-diffusion"], [], tmp_path_factory.mktemp("state"), device="cpu", precision="float32")


@pytest.mark.parametrize(("sampler", "schedule"), EARLIER)
def test_an_earlier_recipe_draws_its_picture(sampler: str, schedule: str, starter: Studio) -> None:
    """To the last bit on the machine that drew them; other CPUs' kernels round otherwise, by at most one of 255 levels."""
    before = numpy.asarray(Image.open(PICTURES / f"{sampler} {schedule}.png"), dtype=int)
    now = numpy.asarray(Image.open(io.BytesIO(drawn(earlier(sampler, schedule), starter))), dtype=int)
    assert before.std() > 20, "a flat picture would prove nothing"
    assert abs(before - now).max() <= 1
