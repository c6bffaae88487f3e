"""Pictures against those of diffusers' own pipeline, built from the same checkpoint by diffusers' own conversion, in float32."""

import io
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import torch
from diffusers import AutoencoderKL, DDIMScheduler, DPMSolverMultistepScheduler, EulerDiscreteScheduler, StableDiffusionPipeline
from diffusers.loaders.single_file_utils import (
    convert_ldm_clip_checkpoint,
    convert_ldm_unet_checkpoint,
    convert_ldm_vae_checkpoint,
    convert_open_clip_checkpoint,
)
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from instant_clip_tokenizer import Tokenizer
from PIL import Image
from safetensors.torch import load_file
from torch import Tensor
from transformers import CLIPTextConfig, CLIPTextModel

from modules.engine.families.sd1 import text_config, unet_config, vae_config
from modules.engine.run import run
from modules.engine.studio import Studio
from modules.model_manager.architecture import Architecture
from modules.recipe.fields import Recipe
from tests.checkpoints import SD2, SMALL

NOISE = {"beta_schedule": "scaled_linear", "beta_start": 0.00085, "beta_end": 0.012}  # as SD1's scheduler_config.json has it
V_AND_SD2 = ("v.safetensors", "sd2-eps.safetensors", "sd2-v.safetensors")
SCHEDULERS = {
    ("Euler", "Automatic"): (EulerDiscreteScheduler, {}),
    ("DDIM", "Automatic"): (DDIMScheduler, {"steps_offset": 1, "set_alpha_to_one": False, "clip_sample": False}),
    ("DPM++ 2M", "Karras"): (DPMSolverMultistepScheduler, {"use_karras_sigmas": True}),
}


def pipeline(path: Path, architecture: Architecture) -> StableDiffusionPipeline:
    state = load_file(path)
    unet, vae = (
        UNet2DConditionModel(**unet_config(architecture.unet), sample_size=64),
        AutoencoderKL(**vae_config(SMALL.vae), scaling_factor=0.18215),
    )
    unet.load_state_dict(convert_ldm_unet_checkpoint(dict(state), unet_config(architecture.unet)))
    vae.load_state_dict(convert_ldm_vae_checkpoint(dict(state), vae_config(SMALL.vae)))
    text = CLIPTextModel(CLIPTextConfig(**text_config(architecture.text)))
    converted = convert_open_clip_checkpoint(text, dict(state)) if architecture is SD2 else convert_ldm_clip_checkpoint(dict(state))
    converted = {key.removeprefix("text_model."): value for key, value in converted.items()}
    text.load_state_dict({key: converted[key] for key in text.state_dict()})
    parts = {"tokenizer": None, "safety_checker": None, "feature_extractor": None, "scheduler": EulerDiscreteScheduler(steps_offset=1)}
    drawn_by = StableDiffusionPipeline(
        unet=unet.float(), vae=vae.float(), text_encoder=text.float(), requires_safety_checker=False, **parts
    )
    drawn_by.set_progress_bar_config(disable=True)
    return drawn_by


def embedded(encoder: CLIPTextModel, prompt: str, padding: int) -> Tensor:
    ids = [49406, *Tokenizer().encode(prompt), 49407]
    return encoder(torch.tensor([ids + [padding] * (77 - len(ids))])).last_hidden_state


@pytest.mark.parametrize(
    ("file", "names"),
    [*(("eps.safetensors", names) for names in SCHEDULERS), *((file, ("Euler", "Automatic")) for file in V_AND_SD2)],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else value,
)
def test_the_picture_is_diffusers_picture(file: str, names: tuple[str, str], studio: Studio, recipe: Recipe, models: Path) -> None:
    architecture = SD2 if file.startswith("sd2") else SMALL
    prediction = "v_prediction" if file.endswith("v.safetensors") else "epsilon"
    wanted = replace(recipe, checkpoint=file, sampler=names[0], schedule=names[1], steps=20, cfg_scale=5.0, seed=11, width=72)
    messages = []
    run(wanted, studio, messages.append, check=lambda: None)
    ours = numpy.asarray(Image.open(io.BytesIO(messages[-1].png)), dtype=int)

    reference = pipeline(models / file, architecture)
    scheduler, own = SCHEDULERS[names]
    reference.scheduler = scheduler(**NOISE, **own, prediction_type=prediction)
    with torch.inference_mode():
        theirs = reference(
            prompt_embeds=embedded(reference.text_encoder, wanted.prompt, architecture.text.padding),
            negative_prompt_embeds=embedded(reference.text_encoder, wanted.negative_prompt, architecture.text.padding),
            num_inference_steps=20, guidance_scale=5.0, width=72, height=64,
            generator=torch.Generator("cpu").manual_seed(11), output_type="np",
        ).images[0]  # fmt: skip
    theirs = (theirs * 255).round().astype(int)
    assert theirs.std() > 10, "a flat picture would prove nothing"
    assert abs(ours - theirs).max() <= 2
