"""The starter's U-Net: v-prediction (Salimans & Ho 2022, appendix D) on cached latents, with Stable Diffusion's noise schedule.

Latents are encoded once and kept, captions likewise: a step is nothing but the U-Net.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL, UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from modules.training import autoencoder, clip
from modules.training.clip import TextEncoder
from modules.training.helper import helped
from modules.training.latents import Cache, Shelf, cache
from modules.training.loop import Budget, Trainer, apply_rate, bar, follow, generators, learning_rate, save, sheet, train
from modules.training.sources import Source

CHANNELS = (64, 128, 256)
HEADS = 8
BATCH = 16
PEAK_RATE = 1e-3
WARM_UP = 150
DECAY_FROM = 0.65
EMA = 0.999
TIMESTEPS = 1000
LINEAR_START, LINEAR_END = 0.00085, 0.0120
GAMMA = 5.0  # of min-SNR (Hang et al. 2023)
DROPPED = 0.1
SIMPLE_UNTIL = 0.375  # the part of the curriculum that shows one large thing
LARGER_FROM, LARGER_SHARE = 0.6, 0.3  # the part after which this share of batches is of larger pictures
SHOWN = 24  # pictures of the sample grid


def build(channels: tuple[int, ...] = CHANNELS, context: int = clip.WIDTH, inputs: int = autoencoder.LATENT) -> UNet2DConditionModel:
    """A Stable Diffusion 1 U-Net, small: one layer a block, cross-attention everywhere but at the top. Ends of branches are zero."""
    deeper = len(channels) - 1
    network = UNet2DConditionModel(
        sample_size=16,
        in_channels=inputs,
        out_channels=autoencoder.LATENT,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * (deeper - 1), "CrossAttnDownBlock2D"),
        up_block_types=("CrossAttnUpBlock2D", *("CrossAttnUpBlock2D",) * (deeper - 1), "UpBlock2D"),
        block_out_channels=channels,
        layers_per_block=1,
        cross_attention_dim=context,
        attention_head_dim=HEADS,
        norm_num_groups=32,
    )
    for name, module in network.named_modules():
        if name.endswith(("conv2", "proj_out")) or name == "conv_out":
            nn.init.zeros_(module.weight)
            nn.init.zeros_(module.bias)
    return network


def alphas() -> Tensor:
    """The cumulative product of 1 - beta for each of the 1000 timesteps, Stable Diffusion's scaled-linear schedule."""
    betas = torch.linspace(LINEAR_START**0.5, LINEAR_END**0.5, TIMESTEPS, dtype=torch.float64) ** 2
    return (1 - betas).cumprod(dim=0).float()


@dataclass(frozen=True)
class Batch:
    """What one update sees."""

    latents: Tensor  # (B, 4, h, w), drawn from their posteriors
    context: Tensor  # (B, 77, width), a tenth of them empty
    given: Tensor  # (B, 0 or 5, h, w)


def shelf_for(kept: Cache, rng: np.random.Generator, stage: float) -> Shelf:
    """The curriculum: one large thing at first, then everything, towards the end larger pictures among it. `stage` is 0 to 1."""
    if stage < SIMPLE_UNTIL:
        return kept.shelves["simple"]
    larger = [name for name in kept.shelves if name not in ("simple", "wide")]
    if larger and stage > LARGER_FROM and rng.random() < LARGER_SHARE:
        return kept.shelves[larger[rng.integers(len(larger))]]
    return kept.shelves["wide"]


def batch_of(kept: Cache, shelf: Shelf, rng: np.random.Generator, noise: torch.Generator, count: int) -> Batch:
    """`count` pictures of the native size, or as many fewer of a larger size as cost the same."""
    count = max(1, count * kept.shelves["wide"].mean[0].numel() // shelf.mean[0].numel())
    chosen = torch.from_numpy(rng.integers(0, len(shelf), count))
    mean, deviation = shelf.mean[chosen].float(), shelf.deviation[chosen].float()
    latents = mean + deviation * torch.randn(mean.shape, generator=noise)
    context = shelf.context[chosen].float()
    dropped = torch.from_numpy(rng.random(count) < DROPPED)
    nothing = torch.from_numpy(rng.integers(0, len(kept.empty), count))
    context[dropped] = kept.empty[nothing[dropped]].float()
    return Batch(latents, context, shelf.given[chosen].float())


def timesteps(noise: torch.Generator, count: int) -> Tensor:
    """One timestep from each of `count` equal strata of 0..999, in random order."""
    strata = torch.randperm(count, generator=noise) + torch.rand(count, generator=noise)
    return (strata * TIMESTEPS / count).long().clamp(max=TIMESTEPS - 1)


def loss(network: Callable[..., tuple[Tensor]], seen: Batch, t: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Squared error of v = sqrt(alpha) noise - sqrt(1 - alpha) x0, weighted by min(SNR, 5) / (SNR + 1)."""
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    noisy = torch.cat([kept * seen.latents + lost * noise, seen.given], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        shown = network(noisy, t, seen.context, return_dict=False)[0]
    error = (shown.float() - (kept * noise - lost * seen.latents)).pow(2).mean(dim=(1, 2, 3))
    snr = alpha[t] / (1 - alpha[t])
    return (error * snr.clamp(max=GAMMA) / (snr + 1)).mean()


@torch.no_grad()
def sample(
    network: UNet2DConditionModel, context: Tensor, empty: Tensor, noise: Tensor, given: Tensor, steps: int = 20, guidance: float = 3.0
) -> Tensor:
    """DDIM (Song et al. 2021) with guidance from `noise` (N, 4, h, w); the latents it ends in, normalised."""
    alpha, x = alphas(), noise
    times = torch.linspace(TIMESTEPS - 1, 0, steps).long()
    both = torch.cat([empty.expand_as(context), context])
    for i, t in enumerate(times):
        with torch.autocast("cpu", torch.bfloat16):
            noisy = torch.cat([x, given], dim=1)
            v = network(torch.cat([noisy, noisy]), t.expand(2 * len(x)), both, return_dict=False)[0].float()
        without, wanted = v.chunk(2)
        v = without + guidance * (wanted - without)
        clean = alpha[t].sqrt() * x - (1 - alpha[t]).sqrt() * v
        rest = alpha[t].sqrt() * v + (1 - alpha[t]).sqrt() * x
        after = alpha[times[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        x = after.sqrt() * clean + (1 - after).sqrt() * rest
    return x


def trainer(
    kept: Cache,
    show: Callable[[Tensor], Tensor],
    seed: int = 3,
    channels: tuple[int, ...] = CHANNELS,
    batch: int = BATCH,
    begins: float = 0.0,
) -> Trainer:
    """`show` decodes normalised latents, for the sample grid; `begins` is where in the curriculum (0 to 1) training begins."""
    torch.manual_seed(seed)
    network = build(channels, kept.empty.shape[-1], autoencoder.LATENT + kept.shelves["wide"].given.shape[1])
    ema = deepcopy(network).requires_grad_(False).eval()
    optimiser, update = updater(network, kept, seed, batch, begins)

    def step(number: int, fraction: float) -> dict[str, float]:
        values = update(number, number, fraction)
        follow(ema, network, number, EMA)
        return values

    def picture() -> np.ndarray:
        first = kept.shelves["wide"]
        noise = torch.randn((SHOWN, *first.mean.shape[1:]), generator=torch.Generator().manual_seed(0))
        drawn = sample(ema, first.context[:SHOWN].float(), kept.empty[:1].float(), noise, first.given[:SHOWN].float())
        return sheet(show(drawn), 8)

    return Trainer("denoiser", {"network": network, "ema": ema}, optimiser, step, picture, batch)


Update = Callable[[int, int, float], dict[str, float]]


def updater(network: UNet2DConditionModel, kept: Cache, seed: int, batch: int, begins: float) -> tuple[torch.optim.Optimizer, Update]:
    """An optimiser and its update(number, warm, fraction): one batch's descent, `warm` steps after the optimiser's start."""
    network.set_attn_processor(AttnProcessor())  # plain products: the fused kernel's backward pass took a quarter of a step on the CPU
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.99), weight_decay=1e-2, fused=True)
    alpha = alphas()

    def update(number: int, warm: int, fraction: float) -> dict[str, float]:
        rng, random = generators(seed, number)
        shelf = shelf_for(kept, rng, begins + (1 - begins) * fraction)
        seen = batch_of(kept, shelf, rng, random, batch)
        rate = apply_rate(optimiser, PEAK_RATE, learning_rate(fraction, warm, WARM_UP, DECAY_FROM))
        noise = torch.randn(seen.latents.shape, generator=random)
        total = loss(network, seen, timesteps(random, len(seen.latents)), noise, alpha)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return {"loss": float(total.detach()), "rate": rate}

    return optimiser, update


def load_stage(folder: Path) -> tuple[AutoencoderKL, TextEncoder]:
    """The trained autoencoder and text encoder below `folder`. Raises FileNotFoundError naming the step that is missing."""
    for name in ("autoencoder", "clip"):
        if not (folder / f"{name}.pt").exists():
            raise FileNotFoundError(f"{folder / name}.pt is missing: run `train {name}` first")
    network = autoencoder.build()
    network.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["networks"]["network"])
    words = torch.load(folder / "clip.pt", weights_only=True)["networks"]["network"]
    text = TextEncoder.of({name.removeprefix("text."): weight for name, weight in words.items() if name.startswith("text.")})
    return network.eval(), text.eval()


def load_cache(source: Source, folder: Path) -> tuple[Cache, AutoencoderKL]:
    """The cache on disk, made if it is not there."""
    network, text = load_stage(folder)
    path = folder / "cache.pt"
    if not path.exists():
        save(cache(network, text, source, report=bar("encoding scenes")).state(), path)
    return Cache.of(torch.load(path, weights_only=True, mmap=True)), network


def decoder(network: AutoencoderKL, kept: Cache) -> Callable[[Tensor], Tensor]:
    """From normalised latents (N, 4, 16, 16) to pictures (N, 3, 128, 128)."""

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return network.decode(latents * kept.scale[:, None, None] + kept.shift[:, None, None]).sample

    return decode


def run(source: Source, folder: Path, budget: Budget) -> bool:
    kept, network = load_cache(source, folder)
    training = trainer(kept, decoder(network, kept))
    training.restore(folder / "denoiser.pt")
    if torch.get_num_threads() == 1:
        return train(training, budget, folder)
    torch.set_num_threads(1)
    with helped(training, kept):
        return train(training, budget, folder)
