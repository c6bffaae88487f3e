"""What a Stable Diffusion 1 or 2 model is made of, in plain numbers: all that is needed to build its networks."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class UNetShape:
    """The denoiser. `channels` and `attention` have one entry a level, finest first; `context` is the text width it attends to.

    Attention has `heads` heads on every level, or heads of `head_width` channels where that is not 0. An inpainting model has
    `in_channels` of 9: the latent, the mask and the latent of the masked picture.
    """

    in_channels: int
    out_channels: int
    channels: tuple[int, ...]
    layers: int
    attention: tuple[bool, ...]
    context: int
    heads: int
    mid_attention: bool
    linear_projection: bool
    head_width: int = 0

    def heads_at(self, level: int) -> int:
        """Attention heads on a level."""
        return self.channels[level] // self.head_width if self.head_width else self.heads


@dataclass(frozen=True)
class VaeShape:
    """The autoencoder. `channels` has one entry a level, finest first; `quant` says whether it has quant_conv and post_quant_conv."""

    channels: tuple[int, ...]
    layers: int
    latent_channels: int
    norm_groups: int
    mid_attention: bool
    quant: bool

    @property
    def factor(self) -> int:
        """Pixels a latent cell is wide and high."""
        return 2 ** (len(self.channels) - 1)


@dataclass(frozen=True)
class TextShape:
    """The CLIP text encoder. `layers` are those that are read; a short prompt is filled up with the token `padding`."""

    width: int
    layers: int
    heads: int
    feed_forward: int
    vocabulary: int
    positions: int
    activation: Literal["quick_gelu", "gelu"] = "quick_gelu"
    padding: int = 49407


@dataclass(frozen=True)
class Architecture:
    """A whole checkpoint. `native_size` is the side of the pictures it was trained on, in pixels."""

    family: Literal["sd1", "sd2"]
    unet: UNetShape
    vae: VaeShape
    text: TextShape
    prediction: Literal["epsilon", "v"]
    scale_factor: float
    native_size: int

    @property
    def inpaints(self) -> bool:
        """Whether its denoiser was made for inpainting: it is shown a mask and the masked picture besides the latent."""
        return self.unet.in_channels == 2 * self.vae.latent_channels + 1


SD15 = Architecture(
    family="sd1",
    unet=UNetShape(
        in_channels=4,
        out_channels=4,
        channels=(320, 640, 1280, 1280),
        layers=2,
        attention=(True, True, True, False),
        context=768,
        heads=8,
        mid_attention=True,
        linear_projection=False,
    ),
    vae=VaeShape(channels=(128, 256, 512, 512), layers=2, latent_channels=4, norm_groups=32, mid_attention=True, quant=True),
    text=TextShape(width=768, layers=12, heads=12, feed_forward=3072, vocabulary=49408, positions=77),
    prediction="epsilon",
    scale_factor=0.18215,
    native_size=512,
)
