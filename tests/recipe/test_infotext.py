"""A parameters text that is written and read again, and those of other programs."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from modules.recipe.catalogue import HIRES_SAMPLERS, HIRES_SCHEDULES, PLAIN_WAYS, SAMPLERS, SCHEDULES
from modules.recipe.fields import Recipe, checked
from modules.recipe.infotext import read, write

HIRES = Recipe(prompt="a fox", seed=1, hires=True, denoising_strength=0.5)


def recipe_of(text: str) -> Recipe:
    return Recipe(**{name: checked(name, value) for name, value in read(text).items()})


def said(recipe: Recipe) -> dict[str, str]:
    """The keys that a text has because of hires fix."""
    line = write(recipe, 1).splitlines()[-1]
    known = dict(pair.split(": ", 1) for pair in line.split(", "))
    return {key: value for key, value in known.items() if key.startswith(("Hires", "Denoising"))}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({}, {"Hires upscale": "2", "Hires upscaler": "Latent"}),
        ({"hires_scale": 1.55}, {"Hires upscale": "1.55", "Hires upscaler": "Latent"}),
        ({"hires_width": 1024, "hires_height": 768}, {"Hires resize": "1024x768", "Hires upscaler": "Latent"}),
        ({"hires_width": 1024, "hires_scale": 3.0}, {"Hires resize": "1024x0", "Hires upscaler": "Latent"}),
        ({"hires_steps": 12, "hires_upscaler": "Lanczos"}, {"Hires upscale": "2", "Hires steps": "12", "Hires upscaler": "Lanczos"}),
        (
            {"hires_sampler": "Euler a", "hires_schedule": "Karras"},
            {"Hires upscale": "2", "Hires upscaler": "Latent", "Hires sampler": "Euler a", "Hires schedule type": "Karras"},
        ),
        (
            {"hires_prompt": "a cat", "hires_negative_prompt": "dull"},
            {"Hires upscale": "2", "Hires upscaler": "Latent", "Hires prompt": "a cat", "Hires negative prompt": "dull"},
        ),
    ],
)
def test_the_second_pass_in_the_usual_keys(values: dict[str, object], wanted: dict[str, str]) -> None:
    assert said(replace(HIRES, **values)) == {"Denoising strength": "0.5", **wanted}
    assert said(replace(HIRES, hires=False, **values)) == {}


def test_an_option_of_the_second_sampler_alone_is_said_too() -> None:
    assert "Eta: 0.5" in write(replace(HIRES, sampler="DPM++ 2M", hires_sampler="Euler a", eta=0.5), 1)
    assert "Eta" not in write(replace(HIRES, sampler="DPM++ 2M", eta=0.5), 1)


texts = st.text(st.characters(exclude_categories=["C", "Z"]) | st.sampled_from(' ,:"\\()<>'), max_size=20).map(str.strip)


@given(
    *(texts, texts, texts, texts),
    st.fixed_dictionaries(
        {
            "sampler": st.sampled_from(list(SAMPLERS)),
            "schedule": st.sampled_from([name for name in SCHEDULES if name != "Automatic"]),
            "seed": st.integers(0, 2**63 - 1),
            "steps": st.integers(1, 150),
            "cfg_scale": st.floats(0, 30).map(lambda value: round(value, 2)),
            "clip_skip": st.integers(1, 12),
            "denoising_strength": st.floats(0, 1).map(lambda value: round(value, 2)),
            "hires_scale": st.integers(20, 160).map(lambda value: value / 20),
            "hires_steps": st.integers(0, 150),
            "hires_upscaler": st.sampled_from(list(PLAIN_WAYS)),
            "hires_sampler": st.sampled_from(list(HIRES_SAMPLERS)),
            "hires_schedule": st.sampled_from(list(HIRES_SCHEDULES)),
        }
    ),
    st.sampled_from([{}, {"hires_width": 1024}, {"hires_height": 640}, {"hires_width": 640, "hires_height": 1024}]),
)
def test_what_is_written_is_read(prompt: str, negative: str, again: str, without: str, chosen: dict[str, object], size: dict) -> None:
    recipe = Recipe(prompt=f"a{prompt}", negative_prompt=negative, hires=True, hires_prompt=again, hires_negative_prompt=without, **chosen)
    recipe = replace(recipe, **size, **({"hires_scale": 2.0} if size else {}))  # a factor has no say beside a size
    back = recipe_of(write(recipe, recipe.seed))
    assert back == recipe


def test_other_programs_texts() -> None:
    text = (
        "a fox\nin snow\nNegative prompt: blurry,\nugly\nSteps: 30, Sampler: DPM++ 2M Karras, CFG scale: 7, Seed: 12, Size: 512x768, "
        "Model hash: cc6cb27103, Model: v1-5, Denoising strength: 0.55, Clip skip: 2, Hires resize: 1024x1536, Hires steps: 15, "
        'Hires upscaler: R-ESRGAN 4x+, Lora hashes: "a: 01, b: 02", Version: v1.10.1\n'
    )
    assert read(text) == {
        **{"prompt": "a fox\nin snow", "negative_prompt": "blurry,\nugly", "steps": "30", "sampler": "DPM++ 2M", "schedule": "Karras"},
        **{"cfg_scale": "7", "seed": "12", "width": "512", "height": "768", "model_hash": "cc6cb27103", "checkpoint": "v1-5"},
        **{"denoising_strength": "0.55", "clip_skip": "2", "lora_hashes": "a: 01, b: 02", "hires": "True", "hires_width": "1024"},
        **{"hires_height": "1536", "hires_steps": "15", "hires_upscaler": "R-ESRGAN 4x+"},
    }
    assert read("Steps: 1, Sampler: Euler, Seed: 5")["hires"] == "False"
    assert read('x\nSteps: 1, Seed: 2, Hires prompt: "half')["hires_prompt"] == '"half'


@pytest.mark.parametrize("text", ["", "a fox", "a: b, c: d", "Steps: 20\na fox in the snow", "," * 10_000, "a" * 100_000, "a: " * 30_000])
def test_other_texts_ask_for_nothing(text: str) -> None:
    assert read(text) == {}


@given(st.text(max_size=200))
def test_no_text_is_an_error(text: str) -> None:
    read(f"x\nSteps: 1, Seed: 2, Size: 3x4, {text}")
