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
from torch import Tensor, nn
from transformers import CLIPTextModel

from modules.training import autoencoder, clip
from modules.training.classes import THINGS
from modules.training.data import SIMPLE, Scene, draw, scenes_of, to_signed
from modules.training.grammar import asked, caption, compact, tokens, with_noise
from modules.training.helper import helped
from modules.training.loop import Budget, Trainer, apply_rate, follow, generators, learning_rate, save, sheet, train

CHANNELS = (64, 128, 256)
HEADS = 8
BATCH = 16
PEAK_RATE = 1e-3
WARM_UP = 150
DECAY_FROM = 0.35
EMA = 0.999
TIMESTEPS = 1000
LINEAR_START, LINEAR_END = 0.00085, 0.0120
GAMMA = 5.0  # of min-SNR (Hang et al. 2023)
DROPPED = 0.1
WORDINGS = 8  # captions kept for each thing on each background
EMPTY = 8  # ways to ask for nothing: "" and words from outside the vocabulary


def build(channels: tuple[int, ...] = CHANNELS, context: int = clip.WIDTH) -> UNet2DConditionModel:
    """A Stable Diffusion 1 U-Net, small: one layer a block, cross-attention everywhere but at the top. Ends of branches are zero."""
    deeper = len(channels) - 1
    network = UNet2DConditionModel(
        sample_size=16,
        in_channels=autoencoder.LATENT,
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
class Cache:
    """What the U-Net trains on, computed once."""

    mean: Tensor  # (N, 4, 16, 16) float16, normalised to unit standard deviation a channel
    deviation: Tensor  # (N, 4, 16, 16) float16, of the posterior, in the same unit
    subject: Tensor  # (N,) which thing on which background, indexes `context`
    context: Tensor  # (subjects, WORDINGS, 77, width) bfloat16
    empty: Tensor  # (EMPTY, 77, width) bfloat16
    shift: Tensor  # (4,) mean and standard deviation of the autoencoder's own latents
    scale: Tensor  # (4,)


@torch.no_grad()
def encode_scenes(network: AutoencoderKL, scenes: list[Scene], icons: Path, batch: int = 32) -> tuple[Tensor, Tensor]:
    """Means and standard deviations of the latents of every scene, as the autoencoder has them."""
    means, deviations = [], []
    for start in range(0, len(scenes), batch):
        pictures = to_signed(np.stack([draw(scene, icons) for scene in scenes[start : start + batch]]))
        posterior = network.encode(torch.from_numpy(pictures)).latent_dist
        means.append(posterior.mean)
        deviations.append(posterior.std)
    return torch.cat(means), torch.cat(deviations)


@torch.no_grad()
def encode_texts(text: CLIPTextModel, captions: list[list[int]], batch: int = 256) -> Tensor:
    """Token lists -> (N, 77, width) last hidden states, bfloat16."""
    ids = torch.from_numpy(compact(clip.encode_ids(captions).numpy()))
    return torch.cat([text(input_ids=part).last_hidden_state.bfloat16() for part in ids.split(batch)])


def cache(network: AutoencoderKL, text: CLIPTextModel, scenes: list[Scene], icons: Path, wordings: int = WORDINGS) -> Cache:
    mean, deviation = encode_scenes(network, scenes, icons)
    shift, scale = mean.mean(dim=(0, 2, 3)), mean.std(dim=(0, 2, 3))
    subjects = sorted({(scene.thing, scene.background) for scene in scenes})
    place = {subject: i for i, subject in enumerate(subjects)}
    rng = np.random.default_rng(0)
    captions = [
        with_noise(rng, tokens(caption(rng, *subject) if wording else asked(*subject)), 3 * (wording % 2))
        for subject in subjects
        for wording in range(wordings)
    ]
    context = encode_texts(text, captions)
    nothing = [[], *(with_noise(rng, [], 20) for _ in range(EMPTY - 1))]
    return Cache(
        mean=((mean - shift[:, None, None]) / scale[:, None, None]).half(),
        deviation=(deviation / scale[:, None, None]).half(),
        subject=torch.tensor([place[scene.thing, scene.background] for scene in scenes]),
        context=context.view(len(subjects), wordings, *context.shape[1:]),
        empty=encode_texts(text, nothing),
        shift=shift,
        scale=scale,
    )


def batch_of(kept: Cache, rng: np.random.Generator, noise: torch.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Latents drawn from their posteriors, (count, 4, 16, 16), and contexts, a tenth of them empty, (count, 77, width)."""
    chosen = torch.from_numpy(rng.integers(0, len(kept.mean), count))
    mean, deviation = kept.mean[chosen].float(), kept.deviation[chosen].float()
    latents = mean + deviation * torch.randn(mean.shape, generator=noise)
    wording = torch.from_numpy(rng.integers(0, kept.context.shape[1], count))
    context = kept.context[kept.subject[chosen], wording].float()
    dropped = torch.from_numpy(rng.random(count) < DROPPED)
    nothing = torch.from_numpy(rng.integers(0, len(kept.empty), count))
    context[dropped] = kept.empty[nothing[dropped]].float()
    return latents, context


def timesteps(noise: torch.Generator, count: int) -> Tensor:
    """One timestep from each of `count` equal strata of 0..999, in random order."""
    strata = torch.randperm(count, generator=noise) + torch.rand(count, generator=noise)
    return (strata * TIMESTEPS / count).long().clamp(max=TIMESTEPS - 1)


def loss(network: Callable[..., tuple[Tensor]], latents: Tensor, context: Tensor, t: Tensor, noise: Tensor, alpha: Tensor) -> Tensor:
    """Squared error of v = sqrt(alpha) noise - sqrt(1 - alpha) x0, weighted by min(SNR, 5) / (SNR + 1)."""
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    with torch.autocast("cpu", torch.bfloat16):
        shown = network(kept * latents + lost * noise, t, context, return_dict=False)[0]
    error = (shown.float() - (kept * noise - lost * latents)).pow(2).mean(dim=(1, 2, 3))
    snr = alpha[t] / (1 - alpha[t])
    return (error * snr.clamp(max=GAMMA) / (snr + 1)).mean()


@torch.no_grad()
def sample(network: UNet2DConditionModel, context: Tensor, empty: Tensor, noise: Tensor, steps: int = 20, guidance: float = 3.0) -> Tensor:
    """DDIM (Song et al. 2021) with guidance from `noise` (N, 4, 16, 16); the latents it ends in, normalised."""
    alpha, x = alphas(), noise
    times = torch.linspace(TIMESTEPS - 1, 0, steps).long()
    both = torch.cat([empty.expand_as(context), context])
    for i, t in enumerate(times):
        with torch.autocast("cpu", torch.bfloat16):
            v = network(torch.cat([x, x]), t.expand(2 * len(x)), both, return_dict=False)[0].float()
        without, wanted = v.chunk(2)
        v = without + guidance * (wanted - without)
        clean = alpha[t].sqrt() * x - (1 - alpha[t]).sqrt() * v
        rest = alpha[t].sqrt() * v + (1 - alpha[t]).sqrt() * x
        after = alpha[times[i + 1]] if i + 1 < steps else torch.tensor(1.0)
        x = after.sqrt() * clean + (1 - after).sqrt() * rest
    return x


def trainer(
    kept: Cache, show: Callable[[Tensor], Tensor], seed: int = 3, channels: tuple[int, ...] = CHANNELS, batch: int = BATCH
) -> Trainer:
    """`show` decodes normalised latents, for the sample grid."""
    torch.manual_seed(seed)
    network = build(channels, kept.context.shape[-1])
    ema = deepcopy(network).requires_grad_(False).eval()
    optimiser, update = updater(network, kept, seed, batch)

    def step(number: int, fraction: float) -> dict[str, float]:
        values = update(number, number, fraction)
        follow(ema, network, number, EMA)
        return values

    def picture() -> np.ndarray:
        each = len(kept.context) // len(THINGS)  # backgrounds of a thing
        shown = torch.arange(len(THINGS)) * each + torch.arange(len(THINGS)) % each
        noise = torch.randn((len(shown), 4, 16, 16), generator=torch.Generator().manual_seed(0))
        return sheet(show(sample(ema, kept.context[shown, 0].float(), kept.empty[:1].float(), noise)), 8)

    return Trainer("denoiser", {"network": network, "ema": ema}, optimiser, step, picture, batch)


Update = Callable[[int, int, float], dict[str, float]]


def updater(network: UNet2DConditionModel, kept: Cache, seed: int, batch: int) -> tuple[torch.optim.Optimizer, Update]:
    """An optimiser and its update(number, warm, fraction): one batch's descent, `warm` steps after the optimiser's start."""
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.99), weight_decay=1e-2, fused=True)
    alpha = alphas()

    def update(number: int, warm: int, fraction: float) -> dict[str, float]:
        rng, random = generators(seed, number)
        latents, context = batch_of(kept, rng, random, batch)
        rate = apply_rate(optimiser, PEAK_RATE, learning_rate(fraction, warm, WARM_UP, DECAY_FROM))
        noise = torch.randn(latents.shape, generator=random)
        total = loss(network, latents, context, timesteps(random, batch), noise, alpha)
        total.backward()
        nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        optimiser.zero_grad()
        return {"loss": float(total.detach()), "rate": rate}

    return optimiser, update


def load_stage(folder: Path) -> tuple[AutoencoderKL, CLIPTextModel]:
    """The trained autoencoder and text encoder below `folder`. Raises FileNotFoundError naming the step that is missing."""
    for name in ("autoencoder", "clip"):
        if not (folder / f"{name}.pt").exists():
            raise FileNotFoundError(f"{folder / name}.pt is missing: run `train {name}` first")
    network, text = autoencoder.build(), clip.Pair(clip.build())
    network.load_state_dict(torch.load(folder / "autoencoder.pt", weights_only=True)["networks"]["network"])
    text.load_state_dict(torch.load(folder / "clip.pt", weights_only=True)["networks"]["network"])
    return network.eval(), text.text.eval()


def load_cache(icons: Path, folder: Path) -> tuple[Cache, AutoencoderKL]:
    """The cache on disk, made if it is not there."""
    network, text = load_stage(folder)
    path = folder / "cache.pt"
    if not path.exists():
        save(vars(cache(network, text, list(scenes_of(SIMPLE)), icons)), path)
    return Cache(**torch.load(path, weights_only=True)), network


def decoder(network: AutoencoderKL, kept: Cache) -> Callable[[Tensor], Tensor]:
    """From normalised latents (N, 4, 16, 16) to pictures (N, 3, 128, 128)."""

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        return network.decode(latents * kept.scale[:, None, None] + kept.shift[:, None, None]).sample

    return decode


def run(icons: Path, folder: Path, budget: Budget) -> bool:
    kept, network = load_cache(icons, folder)
    training = trainer(kept, decoder(network, kept))
    training.restore(folder / "denoiser.pt")
    if torch.get_num_threads() == 1:
        return train(training, budget, folder)
    torch.set_num_threads(1)
    with helped(training, kept):
        return train(training, budget, folder)
