"""The picture that is changed: what of it the networks see, and how what they draw is put back without touching the rest."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy
import torch
import torch.nn.functional as F
from PIL import Image
from scipy.ndimage import gaussian_filter
from torch import Tensor

from modules.engine import fills
from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.stop import CannotDraw
from modules.incoming.reader import BadPicture
from modules.incoming.shelf import Shelf
from modules.recipe.catalogue import FILL, LATENT_NOISE, LATENT_RESIZE, NOT_MASKED, ORIGINAL, SOFT
from modules.recipe.fields import Recipe
from modules.recipe.plan import Box, Plan, finished_size, fitted, padded, plan, scaled_into
from modules.samplers.sigmas import SigmaTable

REACH = 2.5  # deviations of the mask's blur beyond which it is cut off
PREVIEW = 512  # pixels
WHITE = (255, 255, 255)


@dataclass(frozen=True)
class Canvas:
    """A picture to change, at the size of the finished one.

    `source` is the picture at its own size. `mask` ("L", white is drawn anew) and `weight` (H, W of the plan's part; 0 to 1, how much of
    the drawn replaces the old) are None where all of the picture is drawn anew.
    """

    source: Image.Image
    picture: Image.Image
    profile: bytes | None
    plan: Plan
    mask: Image.Image | None
    weight: numpy.ndarray | None

    def pasted(self, drawn: Image.Image) -> Image.Image:
        """The finished picture: `drawn` (at the plan's size) in its place. Where the weight is 0, every byte is as it was."""
        part = self.plan.part
        drawn = drawn.resize(part.size, Image.Resampling.LANCZOS)  # of the same size it stays as it is
        if self.weight is not None:
            drawn = _mixed(self.picture.crop(part.corners), drawn, self.weight)
        elif self.picture.mode == "RGBA":
            drawn.putalpha(self.picture.getchannel("A"))
        finished = self.picture.copy()
        finished.paste(drawn, part.corners[:2])
        return finished

    @cached_property
    def _small(self) -> Image.Image:
        """The picture as previews show it."""
        size = scaled_into(self.picture.size, (min(PREVIEW, self.picture.width), min(PREVIEW, self.picture.height)))
        return self.picture.resize(size, Image.Resampling.BILINEAR, reducing_gap=2).convert("RGB")

    def in_place(self, glimpse: Image.Image) -> Image.Image:
        """A small picture of how it will look, with `glimpse` for what is being drawn."""
        small = self._small.copy()
        scale = small.width / self.picture.width
        left, top, right, bottom = (round(edge * scale) for edge in self.plan.part.corners)
        box = (left, top, max(right, left + 1), max(bottom, top + 1))
        size = (box[2] - box[0], box[3] - box[1])
        shown = Image.fromarray((self.weight * 255).astype(numpy.uint8)).resize(size) if self.weight is not None else None
        small.paste(glimpse.resize(size), box, shown)
        return small


def read_canvas(recipe: Recipe, shelf: Shelf) -> Canvas | None:
    """The canvas that a recipe names, None for a new picture. CannotDraw if what it names cannot be had."""
    if not recipe.init_image:
        return None
    try:
        incoming = shelf.picture(recipe.init_image)
        mask = shelf.mask(recipe.mask).resize(incoming.image.size, Image.Resampling.BILINEAR) if recipe.mask else None
    except (LookupError, BadPicture) as error:
        raise CannotDraw(f"the picture to change cannot be used: {error}") from error
    size = finished_size(recipe, incoming.image.size)
    picture = resized(incoming.image, recipe.resize_mode, size)
    mask = mask and resized(mask, recipe.resize_mode, size)
    if mask and recipe.mask_mode == NOT_MASKED:
        mask = mask.point([255 - value for value in range(256)])
    lightest = 0 if recipe.mask_edge == SOFT else 127
    painted = mask and mask.point([255 * (value > lightest) for value in range(256)])
    if painted and not painted.getbbox():
        raise CannotDraw("Mask: it is empty; paint over what should be drawn anew")
    if not painted:
        return Canvas(incoming.image, picture, incoming.profile, plan(recipe, size, Box(0, 0, *size)), None, None)
    reach = int(REACH * recipe.mask_blur + 0.5)
    where = plan(recipe, size, Box(*painted.getbbox()).grown(reach, size))
    weight = faded(painted.crop(where.part.corners), recipe.mask_blur)
    return Canvas(incoming.image, picture, incoming.profile, where, mask if recipe.mask_edge == SOFT else painted, weight)


def resized(image: Image.Image, mode: str, size: tuple[int, int]) -> Image.Image:
    """The image at this size, in a resize mode. Borders that the image does not fill show its outermost pixels."""
    if image.size == size:
        return image
    shown, place = fitted(mode, image.size, size)
    sharp = Image.Resampling.BILINEAR if image.mode == "L" else Image.Resampling.LANCZOS  # which would ring around a mask
    fills_it = image.resize(place.size, sharp, box=shown.corners)
    if place.size == size:
        return fills_it
    pixels = numpy.asarray(fills_it)
    margins = ((place.top, size[1] - place.bottom), (place.left, size[0] - place.right), (0, 0))
    return Image.fromarray(numpy.pad(pixels, margins[: pixels.ndim], mode="edge"))


def faded(painted: Image.Image, blur: int) -> numpy.ndarray:
    """How much of the drawn is seen at each pixel, 0 to 1: all of it under the mask, then less and less, nothing beyond its blur."""
    hard = numpy.asarray(painted, numpy.float32) / 255
    return numpy.minimum(2 * gaussian_filter(hard, blur, truncate=REACH, mode="nearest"), 1) if blur else hard


def _mixed(old: Image.Image, new: Image.Image, weight: numpy.ndarray) -> Image.Image:
    """`old` with as much of `new` as the weight says. What is drawn is opaque."""
    before, after = (numpy.asarray(image, numpy.float32) for image in (old, new.convert(old.mode)))
    return Image.fromarray((before + weight[..., None] * (after - before)).round().astype(numpy.uint8))


@dataclass(frozen=True)
class Latents:
    """What drawing needs of a canvas, as tensors (1, C, h, w).

    `known` is the old picture, `begin` what drawing begins from; `noisy` is 1 where unit noise is added to that besides the usual
    ("latent noise"). `mask` says how much each cell may change, 0 to 1, `soft` whether it does by degrees.
    """

    known: Tensor
    begin: Tensor
    noisy: Tensor | float = 0.0
    mask: Tensor | None = None
    soft: bool = False

    def mask_at(self, table: SigmaTable, first: Tensor) -> Callable[[Tensor], Tensor]:
        """The mask for each sigma below the `first`: a soft one opens step by step (Levin & Fried 2023, "Differential Diffusion")."""
        if not self.soft:
            return lambda sigma: self.mask
        return lambda sigma: (self.mask >= (table.t_of(sigma) / table.t_of(first)).to(self.mask)).to(self.mask.dtype)


def encoded(recipe: Recipe, canvas: Canvas, family: StableDiffusion1) -> tuple[Latents, Tensor | None]:
    """The canvas as this family of models sees it, and what an inpainting network is shown besides."""
    factor, drawn, part = family.architecture.vae.factor, canvas.plan.drawn, canvas.plan.part.corners
    image = tensor(canvas.picture.crop(part).resize(drawn, Image.Resampling.LANCZOS), factor)
    known = family.to_latent(image)
    if recipe.resize_mode == LATENT_RESIZE and canvas.source.size != canvas.picture.size:
        known = F.interpolate(family.to_latent(tensor(canvas.source, factor)), known.shape[-2:], mode="bilinear")
    if canvas.mask is None:
        return Latents(known, known), family.shown(torch.zeros_like(image), torch.ones_like(image[:, :1]))
    soft = recipe.mask_edge == SOFT
    mask = _plane(canvas.mask.crop(part).resize(drawn, Image.Resampling.BILINEAR), factor)
    hole = mask > (0 if soft else 0.5)
    cells = (F.avg_pool2d(mask, factor) if soft else F.max_pool2d(hole.float(), factor)).to(known)
    anew = (cells > 0).to(known)
    begin = known
    if recipe.masked_content == FILL:
        begin = known.lerp(family.to_latent(fills.smooth(image, hole)), anew)
    elif recipe.masked_content != ORIGINAL:
        begin = known * (1 - anew)
    noisy = anew if recipe.masked_content == LATENT_NOISE else 0.0
    return Latents(known, begin, noisy, cells, soft), family.shown(image * ~hole, hole.float())


def blank(recipe: Recipe, family: StableDiffusion1) -> Tensor | None:
    """What an inpainting network is shown for a new picture: all of it is hole."""
    size = recipe.height, recipe.width
    return family.shown(torch.zeros(1, 3, *size), torch.ones(1, 1, *size))


def tensor(image: Image.Image, factor: int) -> Tensor:
    """(1, 3, H, W) in -1 to 1, each side a multiple of `factor`: what is added continues the edge. Transparent parts are white."""
    if image.mode == "RGBA":
        opaque = Image.new("RGB", image.size, WHITE)
        opaque.paste(image, mask=image.getchannel("A"))
        image = opaque
    return _padded(torch.from_numpy(numpy.array(image)).permute(2, 0, 1)[None].float() / 127.5 - 1, factor)


def pixels(image: Tensor) -> Image.Image:
    """An image (3, H, W) in -1 to 1 as a picture."""
    return Image.fromarray(image.cpu().add(1).div(2).clamp(0, 1).mul(255).round().byte().permute(1, 2, 0).numpy())


def _plane(mask: Image.Image, factor: int) -> Tensor:
    """(1, 1, H, W) in 0 to 1, padded likewise."""
    return _padded(torch.from_numpy(numpy.array(mask))[None, None].float() / 255, factor)


def _padded(pixels: Tensor, factor: int) -> Tensor:
    height, width = pixels.shape[-2:]
    right, bottom = (new - old for new, old in zip(padded((width, height), factor), (width, height), strict=True))
    return F.pad(pixels, (0, right, 0, bottom), mode="replicate")
