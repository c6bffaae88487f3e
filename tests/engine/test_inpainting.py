"""Pictures that are changed: what must stay stays to the byte, what is painted over is drawn anew."""

import io
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image, ImageDraw

from modules.engine.run import run
from modules.engine.stop import CannotDraw
from modules.engine.studio import Studio
from modules.jobs.messages import Message, Picture, Preview, Progress
from modules.recipe import catalogue
from modules.recipe.catalogue import CROP, FILL_BORDERS, LATENT_RESIZE, NOT_MASKED, ONLY_MASKED, SAMPLERS, SOFT
from modules.recipe.fields import Recipe

Put = Callable[[Image.Image], str]


def photo(width: int = 72, height: int = 64, mode: str = "RGB") -> Image.Image:
    """Something with colours, edges and grain."""
    rng = numpy.random.default_rng(0)
    image = Image.effect_mandelbrot((width, height), (-2, -1.2, 0.8, 1.2), 40).convert("RGB")
    pixels = numpy.asarray(image).astype(int) * [1, 0.6, 0.3] + rng.integers(0, 40, (height, width, 3))
    return Image.fromarray(pixels.clip(0, 255).astype(numpy.uint8)).convert(mode)


def square(size: tuple[int, int], box: tuple[int, int, int, int], value: int = 255) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle((box[0], box[1], box[2] - 1, box[3] - 1), fill=value)
    return mask


@pytest.fixture
def put(studio: Studio) -> Put:
    def keep(image: Image.Image, **options: object) -> str:
        file = io.BytesIO()
        image.save(file, "PNG", **options)
        return studio.shelf.keep(file.getvalue())

    return keep


def changed(recipe: Recipe, studio: Studio) -> Image.Image:
    messages: list[Message] = []
    run(recipe, studio, messages.append, check=lambda: None)
    assert (messages[-1].width, messages[-1].height) == Image.open(io.BytesIO(messages[-1].png)).size
    return Image.open(io.BytesIO(messages[-1].png))


def differs(one: Image.Image, other: Image.Image) -> numpy.ndarray:
    """Where two pictures of one mode differ, (H, W)."""
    assert (one.mode, one.size) == (other.mode, other.size)
    return (numpy.asarray(one) != numpy.asarray(other)).any(axis=-1)


def beyond(mask: Image.Image, blur: int) -> numpy.ndarray:
    """Where neither the mask nor its blur reaches: further away than 2.5 deviations."""
    reach = int(2.5 * blur + 0.5)
    grown = numpy.pad(numpy.asarray(mask) > 0, reach)
    near = numpy.zeros(grown.shape, bool)
    for down in range(-reach, reach + 1):
        for across in range(-reach, reach + 1):
            near |= numpy.roll(grown, (down, across), (0, 1))
    return ~near[reach : near.shape[0] - reach, reach : near.shape[1] - reach]


@pytest.mark.parametrize("area", catalogue.INPAINT_AREAS)
@pytest.mark.parametrize("checkpoint", ["eps.safetensors", "inpainting.safetensors"])
@pytest.mark.parametrize("edge", catalogue.MASK_EDGES)
@pytest.mark.parametrize("blur", [0, 3])
def test_outside_the_mask_every_byte_stays(
    area: str, checkpoint: str, edge: str, blur: int, studio: Studio, recipe: Recipe, put: Put
) -> None:
    before, mask = photo(75, 61), square((75, 61), (21, 13, 44, 40), value=200)
    wanted = replace(recipe, checkpoint=checkpoint, init_image=put(before), mask=put(mask), inpaint_area=area, mask_edge=edge)
    wanted = replace(
        wanted, mask_blur=blur, masked_padding=8, width=75 if area != ONLY_MASKED else 64, height=61 if area != ONLY_MASKED else 64
    )
    different = differs(changed(wanted, studio), before)
    assert not (different & beyond(mask, blur)).any()
    assert different[20:34, 28:38].mean() > 0.9


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_every_sampler_keeps_and_changes(sampler: str, studio: Studio, recipe: Recipe, put: Put) -> None:
    before, mask = photo(), square((72, 64), (24, 16, 48, 40))
    wanted = replace(recipe, sampler=sampler, init_image=put(before), mask=put(mask), width=72, mask_blur=0)
    different = differs(changed(wanted, studio), before)
    assert not different[numpy.asarray(mask) == 0].any() and different[numpy.asarray(mask) > 0].mean() > 0.9


@pytest.mark.parametrize("content", catalogue.MASKED_CONTENT)
def test_masked_content_is_what_drawing_begins_from(content: str, studio: Studio, recipe: Recipe, put: Put) -> None:
    """A white spot in a dark picture: at little strength it stays, unless something else was put in its place."""
    dark = Image.new("RGB", (64, 64), (40, 30, 20))
    dark.paste((255, 255, 255), (24, 24, 40, 40))
    mask = square((64, 64), (16, 16, 48, 48))
    wanted = replace(recipe, init_image=put(dark), mask=put(mask), masked_content=content, denoising_strength=0.3)
    results = {content: changed(wanted, studio), "original": changed(replace(wanted, masked_content="original"), studio)}
    same = not differs(results[content], results["original"]).any()
    assert same == (content == "original")


def test_the_other_side_of_the_mask_can_be_drawn(studio: Studio, recipe: Recipe, put: Put) -> None:
    before, mask = photo(), square((72, 64), (24, 16, 48, 40))
    wanted = replace(recipe, init_image=put(before), mask=put(mask), width=72, mask_blur=0, mask_mode=NOT_MASKED)
    different = differs(changed(wanted, studio), before)
    assert not different[numpy.asarray(mask) > 0].any() and different[numpy.asarray(mask) == 0].mean() > 0.9


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_strength_0_gives_the_picture_back(masked: bool, mode: str, studio: Studio, recipe: Recipe, put: Put) -> None:
    before = photo(75, 61, mode)
    mask = put(square((75, 61), (20, 20, 40, 40))) if masked else ""
    wanted = replace(recipe, init_image=put(before), mask=mask, width=75, height=61, denoising_strength=0)
    assert not differs(changed(wanted, studio), before).any()


def test_strength_1_without_a_mask_is_a_new_picture(studio: Studio, recipe: Recipe, put: Put) -> None:
    wanted = replace(recipe, init_image=put(photo(64, 64)), denoising_strength=1)
    assert not differs(changed(wanted, studio), changed(recipe, studio)).any()


def test_more_strength_changes_more(studio: Studio, recipe: Recipe, put: Put) -> None:
    """Random weights decode to something else than was encoded, so the measure is the picture that is hardly changed."""
    wanted = replace(recipe, init_image=put(photo(64, 64)), steps=10)
    least, *more = (
        numpy.asarray(changed(replace(wanted, denoising_strength=strength), studio)).astype(int) for strength in (0.1, 0.4, 0.9)
    )
    changes = [numpy.abs(picture - least).mean() for picture in more]
    assert 0 < changes[0] < changes[1]


def test_a_soft_mask_changes_by_degrees(studio: Studio, recipe: Recipe, put: Put) -> None:
    """Left half of the mask light grey, right half white: the grey half opens later and stays nearer to the old picture's latent."""
    before = photo(128, 64)
    mask = Image.new("L", (128, 64), 60)
    mask.paste(255, (64, 0, 128, 64))
    wanted = replace(recipe, init_image=put(before), mask=put(mask), width=128, mask_edge=SOFT, steps=12, denoising_strength=0.9)
    hard = numpy.asarray(changed(replace(wanted, mask_edge="Hard", mask=put(Image.new("L", (128, 64), 255))), studio)).astype(int)
    soft = numpy.asarray(changed(wanted, studio)).astype(int)
    gap = numpy.abs(soft - hard).mean(axis=(0, 2))
    assert gap[:48].mean() > 2 * gap[80:].mean()


@pytest.mark.parametrize("mode", catalogue.RESIZE_MODES)
def test_resize_modes_bring_the_picture_to_the_size(mode: str, studio: Studio, recipe: Recipe, put: Put) -> None:
    before = photo(100, 50)
    wanted = replace(recipe, init_image=put(before), resize_mode=mode, denoising_strength=0.0, width=64, height=64)
    kept = numpy.asarray(changed(wanted, studio)).astype(int)
    expected = {
        CROP: before.resize((64, 64), Image.Resampling.LANCZOS, box=(25, 0, 75, 50)),
        FILL_BORDERS: Image.fromarray(
            numpy.pad(numpy.asarray(before.resize((64, 32), Image.Resampling.LANCZOS)), ((16, 16), (0, 0), (0, 0)), mode="edge")
        ),
    }.get(mode, before.resize((64, 64), Image.Resampling.LANCZOS))
    assert (kept == numpy.asarray(expected)).all()
    drawn = changed(replace(wanted, denoising_strength=0.5), studio)
    assert drawn.size == (64, 64) and differs(drawn, Image.fromarray(kept.astype(numpy.uint8))).mean() > 0.9
    if mode == LATENT_RESIZE:
        assert differs(drawn, changed(replace(wanted, denoising_strength=0.5, resize_mode="Just resize"), studio)).any()


def test_only_masked_draws_the_part_at_full_size_and_leaves_a_large_picture_alone(studio: Studio, recipe: Recipe, put: Put) -> None:
    before = photo(1000, 700).resize((2000, 1400))
    mask = square((2000, 1400), (1500, 900, 1540, 940))
    messages: list[Message] = []
    wanted = replace(recipe, init_image=put(before), mask=put(mask), inpaint_area=ONLY_MASKED, masked_padding=12, mask_blur=2)
    run(wanted, studio, messages.append, check=lambda: None)
    after = Image.open(io.BytesIO(messages[-1].png))
    different = numpy.argwhere(differs(after, before))
    assert after.size == (2000, 1400)
    assert (different.min(axis=0) >= [895, 1495]).all() and (different.max(axis=0) <= [944, 1544]).all() and len(different) > 1200
    preview = next(message for message in messages if isinstance(message, Preview))
    assert Image.open(io.BytesIO(preview.jpeg)).size == (512, 358)


def test_a_mask_at_the_edge_of_the_picture_is_no_trouble(studio: Studio, recipe: Recipe, put: Put) -> None:
    before = photo(75, 61)
    for box in ((0, 0, 10, 61), (70, 55, 75, 61), (0, 0, 75, 61), (74, 0, 75, 1)):
        for area in catalogue.INPAINT_AREAS:
            mask = square((75, 61), box)
            size = (75, 61) if area != ONLY_MASKED else (64, 64)
            wanted = replace(
                recipe, init_image=put(before), mask=put(mask), inpaint_area=area, mask_blur=1, width=size[0], height=size[1], steps=2
            )
            different = differs(changed(wanted, studio), before)
            assert not (different & beyond(mask, 1)).any() and different[numpy.asarray(mask) > 0].any()


def test_profile_and_transparency_are_kept_and_what_is_drawn_is_opaque(studio: Studio, recipe: Recipe, put: Put) -> None:
    from PIL import ImageCms

    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    before = photo(64, 64, "RGBA")
    before.putalpha(square((64, 64), (0, 0, 40, 64)))
    mask = square((64, 64), (16, 16, 48, 48))
    wanted = replace(recipe, init_image=put(before, icc_profile=profile), mask=put(mask), mask_blur=0)
    after = changed(wanted, studio)
    assert after.info["icc_profile"] == profile
    assert not differs(after, before)[numpy.asarray(mask) == 0].any()
    assert (numpy.asarray(after.getchannel("A"))[16:48, 16:48] == 255).all()
    whole = changed(replace(wanted, mask=""), studio)
    assert whole.getchannel("A").tobytes() == before.getchannel("A").tobytes()


def test_what_cannot_be_changed_is_said(studio: Studio, recipe: Recipe, put: Put) -> None:
    with pytest.raises(CannotDraw, match="choose it again"):
        changed(replace(recipe, init_image="0" * 64), studio)
    with pytest.raises(CannotDraw, match="empty"):
        changed(replace(recipe, init_image=put(photo(64, 64)), mask=put(Image.new("L", (64, 64)))), studio)


def test_progress_counts_the_steps_that_are_drawn(studio: Studio, recipe: Recipe, put: Put) -> None:
    messages: list[Message] = []
    facts = run(
        replace(recipe, init_image=put(photo(64, 64)), steps=10, denoising_strength=0.35), studio, messages.append, check=lambda: None
    )
    progress = [message for message in messages if isinstance(message, Progress)]
    assert {message.steps for message in progress} == {3} and max(message.step for message in progress) == 3
    assert facts["way"] == "the whole picture"
    assert "Denoising strength: 0.35" in next(message for message in messages if isinstance(message, Picture)).infotext


def test_an_inpainting_checkpoint_draws_new_pictures_too(studio: Studio, recipe: Recipe, models: Path) -> None:
    picture = changed(replace(recipe, checkpoint="inpainting.safetensors"), studio)
    assert numpy.asarray(picture).std() > 3
