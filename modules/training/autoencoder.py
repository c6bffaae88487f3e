"""The first stage: an autoencoder, f x f pixels to a few numbers (Rombach et al. 2022, section 3.1).

Either of the paper's regularisers: a small KL divergence to a unit normal, or a codebook (van den Oord et al. 2017). It starts
as a linear map instead of random noise: f x f means as latents, bilinear enlargement back. That start is worth more than a
thousand steps of training.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderKL, VQModel
from torch import Tensor, nn
from torch.nn import functional as F

from modules.training.data import to_signed
from modules.training.files import Unusable, load, load_networks, weights_of
from modules.training.hardware import accelerator
from modules.training.loop import Budget, Report, Trainer, apply_rate, descend, generators, learning_rate, sheet, train
from modules.training.sources import Source

Regulariser = Literal["kl", "vq"]
FirstStage = AutoencoderKL | VQModel

CHANNELS = (24, 48, 72, 96)
LATENT = 4
LEVELS = (24, 48, 72, 96, 96, 96)  # channels where f is 1, 2, 4, 8, 16, 32
# By f: the channels of a latent, and for the second the entries of the codebook (table 8 of the paper; f = 1, which it lacks, has RGB).
KL = {1: 3, 2: 2, 4: 3, 8: 4, 16: 16, 32: 64}
VQ = {1: (3, 2048), 2: (2, 2048), 4: (3, 8192), 8: (4, 16384), 16: (8, 16384), 32: (16, 16384)}
LUMA_AND_CHROMA = ((0.577, 0.577, 0.577), (0.707, 0.0, -0.707))  # what two channels tell of a colour
CONSTANT = 4.0
PEAK_RATES = {"kl": 1e-3, "vq": 4e-4}  # the codes have to keep up with the latents
APART = 0.6  # noise on the first codes, in standard deviations of the latents: channels that tell nothing yet need codes too
KL_WEIGHT = 5e-4
COMMITMENT = 0.25  # of an encoder to its codes; the codes' own loss has weight 1
ROUGHNESS = 0.08  # noise on latents, in their standard deviations: the decoder has to bear what a denoiser leaves
CROP, BATCH = 64, 16
WHOLE_FROM = 0.75  # the part of the budget after which whole pictures replace crops


class Shape(NamedTuple):
    """What an autoencoder is made of, as `build` takes it."""

    channels: tuple[int, ...] = CHANNELS
    latent: int = LATENT
    codes: int = 0

    @property
    def f(self) -> int:
        """Pixels a latent cell is wide and high."""
        return 2 ** (len(self.channels) - 1)

    @property
    def regulariser(self) -> Regulariser:
        return "vq" if self.codes else "kl"

    @classmethod
    def named(cls, regulariser: Regulariser, f: int) -> "Shape":
        """As the paper sizes latents."""
        channels = LEVELS[: f.bit_length()]
        return cls(channels, KL[f]) if regulariser == "kl" else cls(channels, *VQ[f])

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "Shape":
        """The shape of a network that has these weights. Raises KeyError or IndexError for weights of something else."""
        levels = len({name.split(".")[2] for name in weights if name.startswith("encoder.down_blocks.")})
        channels = tuple(len(weights[f"encoder.down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(levels))
        return cls(channels, weights["decoder.conv_in.weight"].shape[1], len(weights.get("quantize.embedding.weight", ())))


def build(channels: tuple[int, ...] = CHANNELS, latent: int = LATENT, codes: int = 0) -> FirstStage:
    """The network with diffusers' default weights: each level of `channels` after the first halves the picture. `codes` is the size of the
    codebook, 0 for a KL autoencoder. One norm group: the linear start needs the constants in every group.
    """
    shape = {
        "in_channels": 3,
        "out_channels": 3,
        "down_block_types": ("DownEncoderBlock2D",) * len(channels),
        "up_block_types": ("UpDecoderBlock2D",) * len(channels),
        "block_out_channels": channels,
        "layers_per_block": 1,
        "latent_channels": latent,
        "norm_num_groups": 1,
        "mid_block_add_attention": False,
        "sample_size": 128,
    }
    if not codes:
        return AutoencoderKL(**shape)
    network = VQModel(**shape, num_vq_embeddings=codes)
    network.quantize.beta, network.quantize.legacy = COMMITMENT, False  # diffusers' old way weights the wrong term
    return network


@torch.no_grad()
def start_linear(network: FirstStage) -> None:
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
    latent = network.config.latent_channels
    colour = torch.eye(3) if latent >= 3 else torch.tensor(LUMA_AND_CHROMA)[:latent]
    _spread(network.encoder.conv_in, torch.eye(3))
    _gather(network.encoder, colour)
    _spread(network.decoder.conv_in, colour.T)
    _gather(network.decoder, torch.eye(3))
    if isinstance(network, AutoencoderKL):
        network.encoder.conv_out.bias[latent:] = -5.0  # log variance
    for mix in (network.quant_conv, network.post_quant_conv):
        nn.init.dirac_(mix.weight)
        nn.init.zeros_(mix.bias)


@torch.no_grad()
def start_codebook(network: VQModel, pictures: np.ndarray, noise: torch.Generator) -> None:
    """Make latents of these pictures (N, H, W, 3) uint8 the codes, so that all of them are near something from the start."""
    latents = encode(network, pictures)[0].transpose(0, 1).flatten(1).T  # (N h w, C)
    codes = network.quantize.embedding.weight
    chosen = torch.randint(len(latents), (len(codes),), generator=noise)
    codes.copy_(latents[chosen] + APART * latents.std() * torch.randn(codes.shape, generator=noise))


def _carry(conv: nn.Conv2d, kernel: Tensor | None = None) -> None:
    """The trunk's eight channels pass through, blurred by `kernel`; the other channels get a little noise to start from."""
    nn.init.normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    conv.weight[:8] = 0
    side = conv.kernel_size[0]
    kernel = kernel if kernel is not None else F.pad(torch.ones(1, 1), (side // 2,) * 4)
    for channel in range(8):
        conv.weight[channel, channel] = kernel


def _spread(conv: nn.Conv2d, colour: Tensor) -> None:
    """x = `colour` (3, n) times the first n inputs -> x, -x and the constants."""
    nn.init.normal_(conv.weight, std=0.02)
    nn.init.zeros_(conv.bias)
    conv.weight[:8] = 0
    conv.weight[:3, : colour.shape[1], 1, 1] = colour
    conv.weight[3:6, : colour.shape[1], 1, 1] = -colour
    conv.bias[6], conv.bias[7] = CONSTANT, -CONSTANT


def _gather(half: nn.Module, colour: Tensor) -> None:
    """Undo the last normalisation and activation: `colour` (n, 3) times x of the trunk, as the first n outputs."""
    channels = half.conv_norm_out.num_channels
    nn.init.constant_(half.conv_norm_out.weight, (2 * CONSTANT**2 / channels + 2 / channels) ** 0.5)
    nn.init.normal_(half.conv_out.weight, std=1e-3)
    nn.init.zeros_(half.conv_out.bias)
    half.conv_out.weight[:, :8] = 0
    half.conv_out.weight[: len(colour), :3, 1, 1] = colour
    half.conv_out.weight[: len(colour), 3:6, 1, 1] = -colour


def loss(pictures: Tensor, shown: Tensor) -> tuple[Tensor, float]:
    """L1 + MSE + half the L1 of differences between neighbours (edges), all means; and the PSNR in dB."""
    error = shown - pictures  # (B, 3, H, W)
    across, down = error.diff(dim=3).abs().mean(), error.diff(dim=2).abs().mean()
    square = error.pow(2).mean()
    return error.abs().mean() + square + 0.5 * (across + down), 10 * float(torch.log10(4 / square.detach()))


def passed(network: FirstStage, seen: Tensor, noise: torch.Generator) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Pictures as the network shows them again (B, 3, H, W), what its regulariser costs, and that cost for the log.

    For a codebook the cost is |sg(z) - e|^2 + 0.25 |z - sg(e)|^2, means.
    """
    if isinstance(network, VQModel):
        with accelerator().autocast():
            latents = network.encode(seen).latents
        codes, cost, _ = network.quantize(latents.float())
        with accelerator().autocast():
            shown = network.decode(codes, force_not_quantize=True).sample
        return shown.float(), cost, {"codebook": float(cost.detach())}
    with accelerator().autocast():
        posterior = network.encode(seen).latent_dist
        blur = posterior.std + ROUGHNESS * posterior.mean.detach().std()
        latents = posterior.mean + blur * torch.randn(posterior.mean.shape, generator=noise).to(seen.device)
        shown = network.decode(latents).sample
    mean, log_variance = posterior.mean.float(), posterior.logvar.float()
    divergence = 0.5 * (mean.pow(2) + log_variance.exp() - 1 - log_variance).mean()
    return shown.float(), KL_WEIGHT * divergence, {"kl": float(divergence.detach())}


@torch.no_grad()
def encode(network: FirstStage, pictures: np.ndarray) -> tuple[Tensor, Tensor]:
    """(N, H, W, 3) uint8 -> means and standard deviations of their latents, (N, C, H / f, W / f) float32, on the CPU.

    Latents of a codebook are taken before it (as in the paper, decoding looks the codes up) and deviate by nothing.
    """
    seen = torch.from_numpy(to_signed(pictures)).to(network.device)
    with accelerator().autocast():
        encoded = network.encode(seen)
    if isinstance(network, VQModel):
        return encoded.latents.float().cpu(), torch.zeros(encoded.latents.shape)
    return encoded.latent_dist.mean.float().cpu(), encoded.latent_dist.std.float().cpu()


def trainer(
    source: Source, seed: int = 1, channels: tuple[int, ...] = CHANNELS, batch: int = BATCH, latent: int = LATENT, codes: int = 0
) -> Trainer:
    torch.manual_seed(seed)
    peak = PEAK_RATES[Shape(channels, latent, codes).regulariser]
    network = build(channels, latent, codes).to(memory_format=torch.channels_last)
    start_linear(network)
    held_out = source.pictures(generators(seed + 1, 0)[0], 32)
    if codes:
        start_codebook(network, held_out, torch.Generator().manual_seed(seed))
    network.to(accelerator().device)
    optimiser = torch.optim.AdamW(network.parameters(), peak, (0.9, 0.99), weight_decay=1e-4, fused=True)

    def step(number: int, fraction: float) -> dict[str, float]:
        rng, noise = generators(seed, number)
        whole = fraction > WHOLE_FROM
        seen = torch.from_numpy(to_signed(source.pictures(rng, batch // (4 if whole else 2))))
        if not whole:  # two crops of each picture
            corners = rng.integers(0, 128 - CROP + 1, (2, 2))
            seen = torch.cat([seen[:, :, top : top + CROP, left : left + CROP] for top, left in corners])
        rate = apply_rate(optimiser, peak, learning_rate(fraction, number, 100, 0.5))
        seen = seen.to(accelerator().device)
        shown, cost, values = passed(network, seen, noise)
        distance, decibel = loss(seen, shown)
        total = distance + cost
        descend(total, network, optimiser)
        return {"loss": float(total.detach()), "psnr": decibel, **values, "rate": rate}

    @torch.no_grad()
    def picture() -> np.ndarray:
        shown = network.decode(encode(network, held_out)[0].to(network.device)).sample.cpu()
        return sheet(torch.stack([torch.from_numpy(to_signed(held_out)), shown], 1).flatten(0, 1), 8)

    return Trainer("autoencoder", {"network": network}, optimiser, step, picture, batch)


def load_stage(path: Path) -> FirstStage:
    """The trained network in a state, whatever its shape. Raises Unusable."""
    state = load(path)
    try:
        network = build(*Shape.of(weights_of(state, "network", path)))
    except (KeyError, IndexError) as error:
        raise Unusable(f"{path} holds no autoencoder: move it away to begin again") from error
    load_networks({"network": network}, state, path)
    return network.eval()


def run(
    source: Source, folder: Path, budget: Budget, report: Report | None = None, regulariser: Regulariser | None = None, f: int | None = None
) -> bool:
    """`regulariser` and `f` are for a new autoencoder (without them kl and 8); one that is there goes on as it is. Raises Unusable
    where they ask for another one than that.
    """
    path = folder / "autoencoder.pt"
    shape = Shape.of(load_stage(path).state_dict()) if path.exists() else Shape.named(regulariser or "kl", f or 8)
    if (regulariser or shape.regulariser, f or shape.f) != (shape.regulariser, shape.f):
        raise Unusable(f"{path} was trained with --regulariser {shape.regulariser} --f {shape.f}: go on so, or choose another --folder")
    return train(trainer(source, **shape._asdict()), budget, folder, report=report)
