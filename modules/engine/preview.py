"""What a picture looks like while it is drawn: a linear map from latent to colours, fitted to the autoencoder at hand."""

import io
from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor

BLOCKS, BLOCK, MARGIN = 6, 3, 1  # blocks a side, latent cells a block, cells at its edges that its neighbours colour
LARGEST = 256  # pixels


def fit(decode: Callable[[Tensor], Tensor], channels: int) -> Tensor:
    """The least-squares map (channels + 1, 3) from a latent cell, and 1, to its colour in -1 to 1.

    Fitted to one small decoded latent of plain blocks, for a cell's colour in a picture is that of its neighbourhood.
    """
    colours = torch.randn((1, channels, BLOCKS, BLOCKS), generator=torch.Generator().manual_seed(0))
    latent = colours.repeat_interleave(BLOCK, dim=2).repeat_interleave(BLOCK, dim=3)
    picture = decode(latent).float().cpu()
    cells = torch.nn.functional.adaptive_avg_pool2d(picture, latent.shape[-2:])
    inside = cells.unfold(2, BLOCK, BLOCK).unfold(3, BLOCK, BLOCK)[..., MARGIN : BLOCK - MARGIN, MARGIN : BLOCK - MARGIN].mean((-1, -2))
    return torch.linalg.lstsq(_with_one(colours[0]), inside[0].flatten(1).T).solution


def jpeg(latent: Tensor, to_colours: Tensor, width: int, height: int) -> bytes:
    """A denoised latent (1, C, H, W) as a small JPEG with the proportions of the picture, `width` x `height`."""
    rows, columns = latent.shape[-2:]
    colours = (_with_one(latent[0].float().cpu()) @ to_colours).view(rows, columns, 3)
    pixels = colours.add(1).mul(127.5).clamp(0, 255).byte()
    scale = min(1, LARGEST / max(width, height))
    shown = Image.fromarray(pixels.numpy()).resize((max(1, round(width * scale)), max(1, round(height * scale))), Image.Resampling.BICUBIC)
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=80)
    return file.getvalue()


def _with_one(latent: Tensor) -> Tensor:
    """(C, H, W) -> (H W, C + 1): one row a cell, with a 1 for the constant."""
    cells = latent.flatten(1).T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
