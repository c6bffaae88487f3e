"""Changed pictures against those of diffusers' own pipelines, built from the same checkpoint by diffusers' own conversion, in float32."""

import io
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from diffusers import StableDiffusionImg2ImgPipeline, StableDiffusionInpaintPipeline
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from PIL import Image

from modules.engine.run import run
from modules.engine.studio import Studio
from modules.recipe.fields import Recipe
from tests.checkpoints import INPAINTING, SMALL
from tests.engine.test_inpainting import photo, square
from tests.engine.test_reference import NOISE, SCHEDULERS, embedded, pipeline

PADDING = SMALL.text.padding
MASK_BOX = (16, 16, 48, 40)  # whole latent cells: there is one way to bring it to their size


@pytest.fixture(autouse=True)
def middle_of_the_encoding(monkeypatch: pytest.MonkeyPatch) -> None:
    """The pipelines draw their latents at random around the middle that we take."""
    monkeypatch.setattr(DiagonalGaussianDistribution, "sample", lambda self, generator=None: self.mode())


@pytest.mark.parametrize("sampler", ["Euler", "DDIM"])
@pytest.mark.parametrize(
    ("file", "masked", "strength"),
    [
        ("eps.safetensors", False, 0.6),
        *((file, True, strength) for file in ("eps.safetensors", "inpainting.safetensors") for strength in (0.6, 1.0)),
    ],
)
def test_the_picture_is_diffusers_picture(
    sampler: str, file: str, masked: bool, strength: float, studio: Studio, recipe: Recipe, models: Path
) -> None:
    before, mask = photo(), square((72, 64), MASK_BOX)
    ids = [_kept(studio, before), _kept(studio, mask) if masked else ""]
    wanted = replace(recipe, checkpoint=file, sampler=sampler, steps=10, cfg_scale=5.0, seed=11, width=72, mask_blur=0)
    wanted = replace(wanted, init_image=ids[0], mask=ids[1], denoising_strength=strength)
    messages = []
    run(wanted, studio, messages.append, check=lambda: None)
    ours = numpy.asarray(Image.open(io.BytesIO(messages[-1].png)), dtype=int)

    reference = pipeline(models / file, INPAINTING if file == "inpainting.safetensors" else SMALL)
    kind = StableDiffusionInpaintPipeline if masked else StableDiffusionImg2ImgPipeline
    reference = kind(**reference.components, requires_safety_checker=False)
    reference.set_progress_bar_config(disable=True)
    scheduler, own = SCHEDULERS[sampler, "Automatic"]
    reference.scheduler = scheduler(**NOISE, **own)
    with torch.inference_mode():
        theirs = reference(
            prompt_embeds=embedded(reference.text_encoder, wanted.prompt, PADDING),
            negative_prompt_embeds=embedded(reference.text_encoder, wanted.negative_prompt, PADDING),
            image=before, strength=strength, num_inference_steps=10, guidance_scale=5.0,
            generator=torch.Generator("cpu").manual_seed(11), output_type="np",
            **({"mask_image": mask, "width": 72, "height": 64} if masked else {}),
        ).images[0]  # fmt: skip
    theirs = (theirs * 255).round().astype(int)
    there = numpy.asarray(mask) > 0 if masked else numpy.ones((64, 72), bool)
    assert theirs[there].std() > 10, "a flat picture would prove nothing"
    assert abs(ours - theirs)[there].max() <= 2


def _kept(studio: Studio, image: Image.Image) -> str:
    file = io.BytesIO()
    image.save(file, "PNG")
    return studio.shelf.keep(file.getvalue())
