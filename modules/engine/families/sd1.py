"""Stable Diffusion 1 and 2 of any width and depth: from a checkpoint to the functions that sampling needs.

They differ in their text encoder alone, which the architecture describes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from modules.engine import text
from modules.engine.stop import CannotDraw
from modules.engine.strips import in_strips
from modules.engine.weights import Reader, fill
from modules.model_manager.architecture import Architecture, TextShape, UNetShape, VaeShape
from modules.model_manager.diffusers_names import text_name, unet_name, vae_name
from modules.model_manager.layout import VAE, expected_tensors, vae_tensors
from modules.recipe.prompt import Chunk
from modules.samplers.registry import Denoise
from modules.samplers.sigmas import SigmaTable, scaled_linear


@dataclass
class StableDiffusion1:
    """The networks of one checkpoint, ready to draw."""

    architecture: Architecture
    unet: UNet2DConditionModel
    vae: AutoencoderKL
    text: CLIPTextModel
    sigmas: SigmaTable

    def latent_shape(self, width: int, height: int) -> tuple[int, int, int]:
        """(C, H, W) of the latent of a picture of this size in pixels. CannotDraw for a size that the autoencoder does not divide."""
        factor = self.architecture.vae.factor
        if width % factor or height % factor:
            raise CannotDraw(f"Size: this checkpoint draws multiples of {factor} pixels only, {width}x{height} is none")
        return self.architecture.vae.latent_channels, height // factor, width // factor

    def encode(self, chunks: Sequence[Chunk], clip_skip: int) -> Tensor:
        """The conditioning of a prompt: (1, 77 x chunks, width)."""
        return text.encode(self.text, chunks, clip_skip, self.architecture.text.padding)

    def shown(self, image: Tensor, hole: Tensor) -> Tensor | None:
        """What an inpainting network is shown: (1, 1 + C, H, W), a mask and a latent; None for another network.

        `image` (1, 3, height, width) is the picture with 0 in the hole, `hole` (1, 1, height, width) is 1 there. A new picture is all hole.
        """
        if not self.architecture.inpaints:
            return None
        cells = F.max_pool2d(hole, self.architecture.vae.factor).to(self.unet.device)
        return torch.cat([cells, self.to_latent(image)], dim=1)

    def denoiser(self, conditionings: Sequence[Tensor], levels: SigmaTable, shown: Tensor | None = None) -> Denoise:
        """A denoise of one picture that answers for each conditioning in turn: (1, C, H, W) -> (len(conditionings), C, H, W), float32.

        Conditionings of one length go through the network together. `levels` says which training step a sigma is, `shown` is what an
        inpainting network sees besides.
        """
        together = len({conditioning.shape[1] for conditioning in conditionings}) == 1
        batches = [torch.cat(list(conditionings))] if together else list(conditionings)

        def denoise(x: Tensor, sigma: Tensor) -> Tensor:
            t = levels.told(sigma).float().to(x.device)
            scaled = x / (sigma**2 + 1).sqrt()
            scaled = (scaled if shown is None else torch.cat([scaled, shown], dim=1)).to(self.unet.dtype)
            outputs = [self.unet(scaled.repeat(len(batch), 1, 1, 1), t, batch).sample for batch in batches]
            keep, take = self._preconditioning(sigma)
            return keep * x.repeat(len(conditionings), 1, 1, 1) + take * torch.cat(outputs).float()

        return denoise

    def to_latent(self, image: Tensor) -> Tensor:
        """The latent (B, C, H, W) of a picture (B, 3, height, width) in -1 to 1, in float32: the middle of what the encoder allows."""
        encoded = self.vae.encode(image.to(self.vae.device, self.vae.dtype)).latent_dist.mode()
        return encoded.float() * self.architecture.scale_factor

    def to_image(self, latent: Tensor) -> Tensor:
        """The picture of a latent (B, C, H, W): (B, 3, height, width) in float32, -1 to 1 and a little beyond."""
        return self.vae.decode((latent / self.architecture.scale_factor).to(self.vae.device, self.vae.dtype)).sample.float()

    def _preconditioning(self, sigma: Tensor) -> tuple[Tensor | float, Tensor]:
        """(c_skip, c_out): x0 = c_skip x + c_out network (Karras et al. 2022, table 1; v: Salimans & Ho 2022)."""
        if self.architecture.prediction == "v":
            return 1 / (sigma**2 + 1), -sigma / (sigma**2 + 1).sqrt()
        return 1.0, -sigma


def load(architecture: Architecture, reader: Reader, dtype: torch.dtype, device: torch.device) -> StableDiffusion1:
    """The networks with the weights of a checkpoint that was recognised as `architecture`."""
    with torch.device("meta"):  # shapes only: the memory comes with the weights
        unet = UNet2DConditionModel(**unet_config(architecture.unet))
        encoder = CLIPTextModel(CLIPTextConfig(**text_config(architecture.text)))
    fill(encoder, text_name, reader, dtype, device, channels_last=False)
    encoder.embeddings.position_ids = torch.arange(architecture.text.positions, device=device)[None]
    in_strips(unet)
    fill(unet, lambda name: unet_name(name, architecture.unet), reader, dtype, device, channels_last=dtype == torch.bfloat16)
    vae = load_vae(architecture.vae, VAE, reader, dtype, device)
    return StableDiffusion1(architecture, unet, vae, encoder, scaled_linear())


def load_vae(shape: VaeShape, prefix: str, reader: Reader, dtype: torch.dtype, device: torch.device) -> AutoencoderKL:
    """An autoencoder, from a checkpoint or a file of its own: `prefix` stands before its tensors' names there."""
    dtype = vae_dtype(dtype)
    with torch.device("meta"):
        vae = AutoencoderKL(**vae_config(shape))
    fill(vae, lambda name: prefix + vae_name(name, len(shape.channels)), reader, dtype, device, channels_last=device.type == "cpu")
    in_strips(vae)
    return vae


def vae_dtype(dtype: torch.dtype) -> torch.dtype:
    """The autoencoder's number format beside a denoiser in `dtype`: float16 overflows in it."""
    return torch.float32 if dtype == torch.float16 else dtype


def size(architecture: Architecture, dtype: torch.dtype) -> int:
    """Bytes that the networks' weights fill, loaded in this number format."""
    vae = sum(math.prod(shape) for shape in vae_tensors(architecture.vae).values())
    everything = sum(math.prod(shape) for shape in expected_tensors(architecture).values())
    return (everything - vae) * dtype.itemsize + vae * vae_dtype(dtype).itemsize


def unet_config(shape: UNetShape) -> dict[str, object]:
    """The arguments of diffusers' UNet2DConditionModel. Its `attention_head_dim` has meant the number of heads since SD1."""
    return {
        "in_channels": shape.in_channels,
        "out_channels": shape.out_channels,
        "block_out_channels": shape.channels,
        "down_block_types": tuple("CrossAttnDownBlock2D" if attends else "DownBlock2D" for attends in shape.attention),
        "up_block_types": tuple("CrossAttnUpBlock2D" if attends else "UpBlock2D" for attends in reversed(shape.attention)),
        "layers_per_block": shape.layers,
        "cross_attention_dim": shape.context,
        "attention_head_dim": tuple(shape.heads_at(level) for level in range(len(shape.channels))),
        "use_linear_projection": shape.linear_projection,
    }


def vae_config(shape: VaeShape) -> dict[str, object]:
    """The arguments of diffusers' AutoencoderKL."""
    levels = len(shape.channels)
    return {
        "block_out_channels": shape.channels,
        "down_block_types": ("DownEncoderBlock2D",) * levels,
        "up_block_types": ("UpDecoderBlock2D",) * levels,
        "layers_per_block": shape.layers,
        "latent_channels": shape.latent_channels,
        "norm_num_groups": shape.norm_groups,
        "mid_block_add_attention": shape.mid_attention,
        "use_quant_conv": shape.quant,
        "use_post_quant_conv": shape.quant,
    }


def text_config(shape: TextShape) -> dict[str, object]:
    """The arguments of transformers' CLIPTextConfig."""
    return {
        "vocab_size": shape.vocabulary,
        "hidden_size": shape.width,
        "intermediate_size": shape.feed_forward,
        "num_hidden_layers": shape.layers,
        "num_attention_heads": shape.heads,
        "hidden_act": shape.activation,
        "max_position_embeddings": shape.positions,
    }
