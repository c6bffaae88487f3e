"""From the first pass of hires fix to the second: what was drawn, made larger as a latent or as a picture."""

from collections.abc import Callable

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from modules.engine.canvas import Latents, pixels, tensor
from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.guides import require_finite
from modules.recipe.catalogue import LATENT_WAYS, LatentWay
from modules.recipe.fields import Recipe
from modules.recipe.plan import Size, enlargement

Enlarge = Callable[[Image.Image, Size, str], Image.Image]
"""(picture, size, the upscaler's name) -> the picture at this size."""


def second_start(recipe: Recipe, latent: Tensor, family: StableDiffusion1, enlarge: Enlarge) -> Latents:
    """What the second pass draws on: the `latent` (1, C, H, W) that the first one drew, larger, the part of it that is wanted.

    `enlarge` is for upscalers of pictures.
    """
    where, factor = enlargement(recipe), family.architecture.vae.factor
    if way := LATENT_WAYS.get(recipe.hires_upscaler):
        larger = enlarged_latent(latent, (where.size[0] // factor, where.size[1] // factor), way)
        left, top, (width, height) = where.part.left // factor, where.part.top // factor, where.part.size
        known = larger[..., top : top + height // factor, left : left + width // factor]
    else:
        image = family.to_image(latent)
        require_finite(image, "the VAE")
        picture = enlarge(pixels(image[0]), where.size, recipe.hires_upscaler)
        known = family.to_latent(tensor(picture.crop(where.part.corners), factor))
    return Latents(known, known)


def enlarged_latent(latent: Tensor, size: Size, way: LatentWay) -> Tensor:
    """The latent (B, C, H, W) with this many cells (across, down)."""
    return F.interpolate(latent, size[::-1], mode=way.mode, antialias=way.antialiased)
