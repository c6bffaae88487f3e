"""What a picture looks like while it is drawn: a linear map from latent to colours, fitted to the autoencoder at hand."""

import io

import torch
from PIL import Image
from torch import Tensor

BLOCKS, BLOCK = 6, 3  # blocks a side, latent cells a block
LARGEST = 256  # pixels


def sample(channels: int) -> Tensor:
    """A small random latent (1, channels, H, W) of plain blocks: a cell's colour in a picture is that of its neighbourhood."""
    colours = torch.randn((1, channels, BLOCKS, BLOCKS), generator=torch.Generator().manual_seed(0))
    return colours.repeat_interleave(BLOCK, dim=2).repeat_interleave(BLOCK, dim=3)


def fit(latent: Tensor, decoded: Tensor) -> Tensor:
    """The least-squares map (channels + 1, 3) from a latent cell, and 1, to its colour in -1 to 1, for `sample` and its picture."""
    cells = torch.nn.functional.adaptive_avg_pool2d(decoded.float().cpu(), latent.shape[-2:])
    middle = slice(BLOCK // 2, None, BLOCK)  # of each block: the other cells are coloured by the neighbours too
    return torch.linalg.lstsq(_with_one(latent[0, :, middle, middle]), cells[0, :, middle, middle].flatten(1).T).solution


def glimpse(latent: Tensor, to_colours: Tensor, size: tuple[int, int]) -> Image.Image:
    """A denoised latent (1, C, H, W) as a small picture with the proportions of `size` (width, height)."""
    rows, columns = latent.shape[-2:]
    colours = (_with_one(latent[0].float().cpu()) @ to_colours).view(rows, columns, 3)
    pixels = colours.add(1).mul(127.5).clamp(0, 255).byte()
    scale = min(1, LARGEST / max(size))
    small = max(1, round(size[0] * scale)), max(1, round(size[1] * scale))
    return Image.fromarray(pixels.numpy()).resize(small, Image.Resampling.BICUBIC)


def jpeg(shown: Image.Image) -> bytes:
    file = io.BytesIO()
    shown.save(file, "JPEG", quality=80)
    return file.getvalue()


def _with_one(latent: Tensor) -> Tensor:
    """(C, H, W) -> (H W, C + 1): one row a cell, with a 1 for the constant."""
    cells = latent.flatten(1).T
    return torch.cat([cells, torch.ones(len(cells), 1)], dim=1)
