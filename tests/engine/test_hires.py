"""Hires fix: a picture drawn small, enlarged, and drawn again."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from modules.engine.enlarge import enlarged_latent
from modules.engine.run import run
from modules.engine.stop import Cancelled, CannotDraw
from modules.engine.studio import Studio
from modules.jobs.messages import Message, Picture, Preview, Progress
from modules.recipe.catalogue import LATENT_WAYS, PICTURE_WAYS, PLAIN_WAYS, SAMPLERS
from modules.recipe.fields import Recipe
from modules.recipe.plan import Size, steps_drawn
from tests.checkpoints import SMALL, write_checkpoint

NETWORK = "4x-Small"
ROOT = Path(__file__).parent.parent.parent


def messages_of(recipe: Recipe, studio: Studio, check: Callable[[], None] = lambda: None) -> list[Message]:
    messages: list[Message] = []
    run(recipe, studio, messages.append, check)
    return messages


def drawn(recipe: Recipe, studio: Studio) -> list[Image.Image]:
    return [Image.open(io.BytesIO(said.png)) for said in messages_of(recipe, studio) if isinstance(said, Picture)]


def pixels(recipe: Recipe, studio: Studio) -> numpy.ndarray:
    return numpy.asarray(drawn(recipe, studio)[0], dtype=int)


def kept(picture: Image.Image, studio: Studio) -> str:
    file = io.BytesIO()
    picture.save(file, "PNG")
    return studio.shelf.keep(file.getvalue())


def enlarged(picture: Image.Image, size: Size, way: str, studio: Studio) -> Image.Image:
    with torch.inference_mode():
        return studio.rack.enlarger(way, lambda: None).enlarged(picture, size, lambda: None)


@pytest.fixture
def twice(recipe: Recipe) -> Recipe:
    return replace(recipe, hires=True, hires_scale=1.5, denoising_strength=0.5)


@pytest.mark.parametrize(
    ("way", "options"),
    [
        ("Latent", {"mode": "bilinear", "align_corners": False}),
        ("Latent (antialiased)", {"mode": "bilinear", "antialias": True}),
        ("Latent (bicubic)", {"mode": "bicubic", "align_corners": False}),
        ("Latent (bicubic antialiased)", {"mode": "bicubic", "antialias": True}),
        ("Latent (nearest)", {"mode": "nearest"}),
        ("Latent (nearest-exact)", {"mode": "nearest-exact"}),
    ],
)
def test_latent_ways_are_torchs_interpolations(way: str, options: dict[str, object]) -> None:
    latent = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    for size in ((14, 18), (10, 13), (5, 6)):
        assert torch.equal(enlarged_latent(latent, size, LATENT_WAYS[way]), F.interpolate(latent, size[::-1], **options))


def test_each_latent_way_is_a_way_of_its_own() -> None:
    latent = torch.randn(1, 4, 9, 7, generator=torch.Generator().manual_seed(0))
    smaller = [enlarged_latent(latent, (5, 6), way) for way in LATENT_WAYS.values()]
    assert not any(torch.equal(one, other) for i, one in enumerate(smaller) for other in smaller[:i])


@pytest.mark.parametrize("way", PICTURE_WAYS)
def test_a_picture_becomes_larger_and_stays_the_same_picture(way: str, studio: Studio) -> None:
    picture = Image.linear_gradient("L").convert("RGB").resize((40, 24))
    larger = enlarged(picture, (100, 60), way, studio)
    assert larger.size == (100, 60)
    again = numpy.asarray(larger.resize(picture.size, Image.Resampling.BOX), dtype=int)
    assert abs(again - numpy.asarray(picture)).max() <= (12 if way == "Nearest" else 4)


@pytest.mark.parametrize("checkpoint", ["eps.safetensors", "v.safetensors", "inpainting.safetensors"])
@pytest.mark.parametrize("way", [*PLAIN_WAYS, NETWORK])
def test_every_way_draws_at_the_size_asked_for(way: str, checkpoint: str, studio: Studio, twice: Recipe) -> None:
    """The first size is what the parameters call Size; random weights give no picture to judge, but one that is not flat."""
    (picture,) = drawn(replace(twice, hires_upscaler=way, checkpoint=checkpoint, steps=2), studio)
    assert picture.size == (96, 96) and numpy.asarray(picture).std() > 3
    assert "Size: 64x64" in picture.text["parameters"] and "Hires upscale: 1.5" in picture.text["parameters"]


@pytest.mark.parametrize(
    ("asked", "size"),
    [
        ({"hires_scale": 1.3}, (80, 104)),
        ({"hires_width": 96}, (96, 120)),
        ({"hires_height": 120}, (96, 120)),
        ({"hires_width": 128, "hires_height": 80}, (128, 80)),
        ({"hires_width": 72, "hires_height": 160}, (72, 160)),
    ],
)
@pytest.mark.parametrize("way", ["Latent", "Lanczos"])
def test_sizes_and_crops(asked: dict[str, int], size: tuple[int, int], way: str, studio: Studio, twice: Recipe) -> None:
    recipe = replace(twice, **{"height": 80, "steps": 1, "hires_upscaler": way, **asked})
    assert drawn(recipe, studio)[0].size == size


def test_the_middle_is_kept_where_the_proportions_differ(studio: Studio, twice: Recipe) -> None:
    """At strength 0 nothing is drawn anew: a crop of the enlarged picture is what stays, up to what the autoencoder sees around it."""
    still = replace(twice, denoising_strength=0.0, hires_upscaler="Latent (nearest)")
    whole, part = (pixels(replace(still, hires_width=width, hires_height=256), studio) for width in (256, 128))
    assert part.shape == (256, 128, 3)
    gaps = [abs(part[:, 48:80] - whole[:, left + 48 : left + 80]).mean() for left in range(0, 129, 8)]
    assert gaps.index(min(gaps)) == 64 // 8 and min(gaps) < 0.5 * numpy.median(gaps)


@pytest.mark.parametrize("way", [*PICTURE_WAYS, NETWORK])
def test_the_second_pass_is_image_to_image_of_the_enlarged_first(way: str, studio: Studio, recipe: Recipe, twice: Recipe) -> None:
    """To the bit: the same seed's noise at the new size, and as many steps as are asked for, of a schedule that is twice as long."""
    sampled = replace(twice, hires_upscaler=way, hires_sampler="Euler a", hires_schedule="Karras", hires_steps=3, hires_prompt="a blue fox")
    first = enlarged(drawn(recipe, studio)[0], (96, 96), way, studio)
    again = replace(recipe, init_image=kept(first, studio), width=96, height=96, denoising_strength=0.5, steps=6, prompt="a blue fox")
    again = replace(again, sampler="Euler a", schedule="Karras")
    assert steps_drawn(again) == 3 and steps_drawn(sampled) == recipe.steps + 3
    assert (pixels(sampled, studio) == pixels(again, studio)).all()


def test_an_upscaler_that_is_not_there_any_more_is_named(studio: Studio, twice: Recipe) -> None:
    with pytest.raises(CannotDraw, match="no upscaler 4x-Old"):
        drawn(replace(twice, steps=1, hires_upscaler="4x-Old"), studio)


def test_strength_1_keeps_nothing_of_the_first(studio: Studio, recipe: Recipe, twice: Recipe) -> None:
    anew = pixels(replace(recipe, width=96, height=96), studio)
    assert (pixels(replace(twice, denoising_strength=1.0), studio) == anew).all()


def test_more_strength_changes_more(studio: Studio, twice: Recipe) -> None:
    none, *more = (pixels(replace(twice, steps=8, denoising_strength=strength), studio) for strength in (0.0, 0.1, 0.5, 0.9))
    changes = [abs(picture - none).mean() for picture in more]
    assert 0 < changes[0] < changes[1] < changes[2]


@pytest.mark.parametrize("sampler", [name for name in SAMPLERS if name != "DPM adaptive"])
def test_every_sampler_draws_a_second_time(sampler: str, studio: Studio, twice: Recipe) -> None:
    other = pixels(replace(twice, hires_sampler=sampler), studio)
    assert other.shape == (96, 96, 3) and other.std() > 3
    same = (other == pixels(replace(twice, sampler="Euler a"), studio)).all()
    assert not same


@pytest.mark.parametrize(
    "change",
    [
        {"hires_prompt": "a blue bird"},
        {"hires_negative_prompt": "sharp"},
        {"hires_steps": 7},
        {"hires_sampler": "Euler"},
        {"hires_schedule": "Exponential"},
        {"hires_upscaler": "Latent (bicubic)"},
        {"denoising_strength": 0.6},
    ],
)
def test_every_option_of_the_second_pass_has_a_say(change: dict[str, object], studio: Studio, recipe: Recipe, twice: Recipe) -> None:
    assert (pixels(replace(twice, **change), studio) != pixels(twice, studio)).any()
    off = replace(recipe, **{name: value for name, value in change.items() if name != "hires"})
    assert (pixels(off, studio) == pixels(recipe, studio)).all()


def test_what_is_said_twice_is_the_same_as_nothing(studio: Studio, twice: Recipe) -> None:
    said = {"hires_prompt": twice.prompt, "hires_negative_prompt": twice.negative_prompt, "hires_steps": twice.steps}
    assert (pixels(replace(twice, **said, hires_sampler=twice.sampler), studio) == pixels(twice, studio)).all()


@pytest.mark.parametrize("options", [{}, {"hires_sampler": "DPM++ SDE"}, {"hires_upscaler": "Bicubic", "hires_sampler": "Euler a"}])
def test_picture_i_is_what_its_seed_draws_alone(options: dict[str, object], studio: Studio, twice: Recipe) -> None:
    recipe = replace(twice, steps=2, **options)
    together = drawn(replace(recipe, batch_size=2, batch_count=2), studio)
    alone = [drawn(replace(recipe, seed=seed), studio)[0] for seed in (7, 8, 9, 10)]
    assert [picture.tobytes() for picture in together] == [picture.tobytes() for picture in alone]
    assert [picture.text for picture in together] == [picture.text for picture in alone]


def test_progress_counts_over_both_and_previews_show_both(studio: Studio, twice: Recipe) -> None:
    recipe = replace(twice, steps=3, hires_steps=5, batch_count=2)
    messages = messages_of(recipe, studio)
    told = [said for said in messages if isinstance(said, Progress)]
    places = [said.picture * 8 + said.step for said in told]
    assert places == sorted(places) and {said.steps for said in told} == {8}
    assert {said.step for said in told if said.phase == "draw"} == set(range(8))
    assert {said.step for said in told if said.phase == "enlarge"} == {3}
    last = next(said for said in told if (said.picture, said.phase, said.step) == (0, "draw", 4))
    assert last.seconds_left > 0 and any(isinstance(said, Preview) for said in messages)


def test_cancel_acts_in_the_second_pass(studio: Studio, twice: Recipe) -> None:
    messages: list[Message] = []

    def check() -> None:
        if messages and isinstance(messages[-1], Progress) and messages[-1].step > twice.steps:
            raise Cancelled

    with pytest.raises(Cancelled):
        run(twice, studio, messages.append, check)
    assert messages[-1].step == twice.steps + 1 and not any(isinstance(said, Picture) for said in messages)


def test_a_size_that_the_autoencoder_does_not_divide_is_refused_before_anything_is_drawn(tmp_path: Path, twice: Recipe) -> None:
    write_checkpoint(tmp_path / "eps.safetensors", replace(SMALL, vae=replace(SMALL.vae, channels=(32, 32, 32, 32, 64))))
    studio = Studio([tmp_path], [], tmp_path, "cpu", "float32")
    messages: list[Message] = []
    with pytest.raises(CannotDraw, match="multiples of 16 pixels only, 88x88"):
        run(replace(twice, hires_width=88), studio, messages.append, check=lambda: None)
    assert not any(isinstance(said, Progress) and said.phase == "draw" for said in messages)
    assert drawn(replace(twice, hires_width=96, hires_height=80), studio)[0].size == (96, 80)


def test_the_starter_adds_detail_to_the_picture_that_it_drew(tmp_path: Path) -> None:
    """The enlarged picture is still the first one; and the same each time."""
    starter = Studio([ROOT / "models" / "Stable-diffusion"], [], tmp_path, device="cpu", precision="float32")
    once = Recipe(prompt="a red apple", seed=11, steps=8, cfg_scale=3.0, width=128, height=128, checkpoint="starter.safetensors")
    recipe = replace(once, hires=True, hires_upscaler="Lanczos", denoising_strength=0.3)
    small, large = drawn(once, starter)[0], drawn(recipe, starter)[0]
    assert large.size == (256, 256) and large.tobytes() == drawn(recipe, starter)[0].tobytes()
    again = numpy.asarray(large.resize((128, 128), Image.Resampling.BOX), dtype=int)
    other = numpy.asarray(drawn(replace(once, prompt="a fox in the snow"), starter)[0], dtype=int)
    before = numpy.asarray(small, dtype=int)
    assert abs(again - before).mean() < 0.5 * abs(other - before).mean()
