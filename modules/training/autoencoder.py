"""The starter's first stage: a KL autoencoder, 8 x 8 pixels to 4 numbers (Rombach et al. 2022, section 3.1).

It starts as a linear map instead of random noise: 8 x 8 means as latents, bilinear enlargement back. That start is worth more
than a thousand steps of training.
"""

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from modules.training.data import to_signed
from modules.training.loop import Budget, Trainer, apply_rate, generators, learning_rate, sheet, train
from modules.training.sources import Source

CHANNELS = (24, 48, 72, 96)
LATENT = 4
CONSTANT = 4.0
PEAK_RATE = 1e-3
KL_WEIGHT = 5e-4
ROUGHNESS = 0.08  # noise on latents, in their standard deviations: the decoder has to bear what a denoiser leaves
CROP, BATCH = 64, 16
WHOLE_FROM = 0.75  # the part of the budget after which whole pictures replace crops


def build(channels: tuple[int, ...] = CHANNELS) -> AutoencoderKL:
    """The network with diffusers' default weights. One norm group: the linear start needs the constants in every group."""
    return AutoencoderKL(
        in_channels=3,
        out_channels=3,
        down_block_types=("DownEncoderBlock2D",) * len(channels),
        up_block_types=("UpDecoderBlock2D",) * len(channels),
        block_out_channels=channels,
        layers_per_block=1,
        latent_channels=LATENT,
        norm_num_groups=1,
        mid_block_add_attention=False,
        sample_size=128,
    )


@torch.no_grad()
def start_linear(network: AutoencoderKL) -> None:
    """Set the weights so that the network is, up to rounding, a linear patch transform.

    Its trunk carries x, -x (RGB) and two constants: the constants keep the normalisation from depending on the picture, and
    silu(x) - silu(-x) = x makes the activation before the last convolution exact. Residual branches end in zeros.
    """
    for module in network.modules():
        if type(module).__name__ == "ResnetBlock2D":
            nn.init.zeros_(module.conv2.weight)
            nn.init.zeros_(module.conv2.bias)
            if module.conv_shortcut is not None:
                _carry(module.conv_shortcut)
        elif type(module).__name__ == "Downsample2D":
            _carry(module.conv, torch.tensor([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]) / 4)
        elif type(module).__name__ == "Upsample2D":
            edge = torch.tensor([1.0, 2, 1]) / 4
            _carry(module.conv, edge[:, None] * edge)
    _spread(network.encoder.conv_in)
    _gather(network.encoder)
    _spread(network.decoder.conv_in)
    _gather(network.decoder)
    network.encoder.conv_out.bias[LATENT:] = -5.0  # log variance
    for mix in (network.quant_conv, network.post_quant_conv):
        nn.init.dirac_(mix.weight)
        nn.init.zeros_(mix.bias)


def _carry(conv: nn.Conv2d, kernel: Tensor | None = None) -> None:
    """The trunk's eight channels pass through, blurred by `kernel`; the other channels get a little noise to start from."""
    nn.init.normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    conv.weight[:8] = 0
    side = conv.kernel_size[0]
    kernel = kernel if kernel is not None else F.pad(torch.ones(1, 1), (side // 2,) * 4)
    for channel in range(8):
        conv.weight[channel, channel] = kernel


def _spread(conv: nn.Conv2d) -> None:
    """The first three inputs -> x, -x and the constants."""
    nn.init.normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    conv.weight[:8] = 0
    for channel in range(3):
        conv.weight[channel, channel, 1, 1] = 1
        conv.weight[channel + 3, channel, 1, 1] = -1
    conv.bias[6], conv.bias[7] = CONSTANT, -CONSTANT


def _gather(half: nn.Module) -> None:
    """Undo the last normalisation and activation: x again from the trunk, as the first three outputs."""
    channels = half.conv_norm_out.num_channels
    nn.init.constant_(half.conv_norm_out.weight, (2 * CONSTANT**2 / channels + 2 / channels) ** 0.5)
    nn.init.normal_(half.conv_out.weight, std=1e-3)
    nn.init.zeros_(half.conv_out.bias)
    half.conv_out.weight[:, :8] = 0
    for channel in range(3):
        half.conv_out.weight[channel, channel, 1, 1] = 1
        half.conv_out.weight[channel, channel + 3, 1, 1] = -1


def loss(pictures: Tensor, shown: Tensor, mean: Tensor, log_variance: Tensor) -> tuple[Tensor, dict[str, float]]:
    """L1 + MSE + half the L1 of differences between neighbours (edges) + the KL divergence to a unit normal, all means."""
    error = shown - pictures  # (B, 3, H, W)
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    square = error.pow(2).mean()
    divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    total = error.abs().mean() + square + 0.5 * (across + down) + KL_WEIGHT * divergence
    decibel = 10 * float(torch.log10(4 / square.detach()))
    return total, {"loss": float(total.detach()), "psnr": decibel, "kl": float(divergence.detach())}


@torch.no_grad()
def encode(network: AutoencoderKL, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) uint8 -> means and standard deviations of their latents, (N, 4, H / 8, W / 8) float32."""
    with torch.autocast("cpu", torch.bfloat16):
        posterior = network.encode(torch.from_numpy(to_signed(pictures))).latent_dist
    return posterior.mean.float(), posterior.std.float()


def trainer(source: Source, seed: int = 1, channels: tuple[int, ...] = CHANNELS, batch: int = BATCH) -> Trainer:
    torch.manual_seed(seed)
    network = build(channels).to(memory_format=torch.channels_last)
    start_linear(network)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.99), weight_decay=1e-4, fused=True)
    held_out = torch.from_numpy(to_signed(source.pictures(generators(seed + 1, 0)[0], 32)))

    def step(number: int, fraction: float) -> dict[str, float]:
        rng, noise = generators(seed, number)
        whole = fraction > WHOLE_FROM
        seen = torch.from_numpy(to_signed(source.pictures(rng, batch // (4 if whole else 2))))
        if not whole:  # two crops of each picture
            corners = rng.integers(0, 128 - CROP + 1, (2, 2))
            seen = torch.cat([seen[:, :, top : top + CROP, left : left + CROP] for top, left in corners])
        rate = apply_rate(optimiser, PEAK_RATE, learning_rate(fraction, number, 100, 0.5))
        with torch.autocast("cpu", torch.bfloat16):
            posterior = network.encode(seen).latent_dist
            blur = posterior.std + ROUGHNESS * posterior.mean.detach().std()
            latents = posterior.mean + blur * torch.randn(posterior.mean.shape, generator=noise)
            shown = network.decode(latents).sample
        total, values = loss(seen, shown.float(), posterior.mean.float(), posterior.logvar.float())
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return values | {"rate": rate}

    @torch.no_grad()
    def picture() -> np.ndarray:
        shown = network.decode(network.encode(held_out).latent_dist.mean).sample
        print(f"autoencoder held-out {10 * float(torch.log10(4 / (shown - held_out).pow(2).mean(dim=(1, 2, 3))).mean()):.2f} dB")
        return sheet(torch.stack([held_out, shown], 1).flatten(0, 1), 8)

    return Trainer("autoencoder", {"network": network}, optimiser, step, picture, batch)


def run(source: Source, folder: Path, budget: Budget) -> bool:
    return train(trainer(source), budget, folder)
