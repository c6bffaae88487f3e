"""The U-Net: eps- or v-prediction (Salimans & Ho 2022, appendix D) on cached latents, with Stable Diffusion's noise schedule.

Latents are encoded once and kept, captions likewise: a step is nothing but the U-Net.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor
from torch import Tensor, nn

from modules.training import autoencoder, clip
from modules.training.autoencoder import FirstStage
from modules.training.clip import TextEncoder
from modules.training.files import Unusable, load, load_networks, needed, save, weights_of
from modules.training.hardware import accelerator
from modules.training.helper import helped
from modules.training.latents import Cache, Shelf, cache
from modules.training.loop import Budget, Report, Trainer, apply_rate, descend, follow, generators, learning_rate, sheet, terminal, train
from modules.training.sources import Source

Prediction = Literal["v", "epsilon"]
"""What a network answers: v, or the noise."""

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
LARGER_FROM, LARGER_SHARE = 0.6, 0.45  # the part after which this share of batches is of larger pictures
SHOWN = 24  # pictures of the sample grid


@dataclass(frozen=True)
class Course:
    """How a denoiser is taught: what it predicts, where in the curriculum (0 to 1) it begins, and how fast."""

    prediction: Prediction = "v"
    begins: float = 0.0
    peak: float = PEAK_RATE
    batch: int = BATCH


COURSE = Course()


def build(
    channels: tuple[int, ...] = CHANNELS, context: int = clip.WIDTH, latent: int = autoencoder.LATENT, given: int = 0
) -> UNet2DConditionModel:
    """A Stable Diffusion 1 U-Net, small: one layer a block, cross-attention everywhere but at the top. Ends of branches are zero.

    It sees `latent` channels of noisy latents, which it predicts, and `given` more that it is told.
    """
    deeper = len(channels) - 1
    network = UNet2DConditionModel(
        sample_size=16,
        in_channels=latent + given,
        out_channels=latent,
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

    latents: Tensor  # (B, C, h, w), drawn from their posteriors
    context: Tensor  # (B, 77, width), a tenth of them empty
    given: Tensor  # (B, 0 or 1 + C, h, w)

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.latents.to(device), self.context.to(device), self.given.to(device))


def shelf_for(kept: Cache, rng: np.random.Generator, stage: float) -> Shelf:
    """The curriculum: one large thing at first, then everything, towards the end larger pictures among it. `stage` is 0 to 1.

    What the cache has no shelf for is left out.
    """
    if stage < SIMPLE_UNTIL and "simple" in kept.shelves:
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


def loss(
    network: Callable[..., tuple[Tensor]], seen: Batch, t: Tensor, noise: Tensor, alpha: Tensor, prediction: Prediction = "v"
) -> Tensor:
    """Squared error of v = sqrt(alpha) noise - sqrt(1 - alpha) x0 or of the noise, weighted so that of x0 it is weighed by min(SNR, 5)."""
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    noisy = torch.cat([kept * seen.latents + lost * noise, seen.given], dim=1)
    with accelerator().autocast():
        shown = network(noisy, t, seen.context, return_dict=False)[0]
    target = kept * noise - lost * seen.latents if prediction == "v" else noise
    error = (shown.float() - target).pow(2).mean(dim=(1, 2, 3))
    snr = alpha[t] / (1 - alpha[t])
    return (error * snr.clamp(max=GAMMA) / (snr + 1 if prediction == "v" else snr)).mean()


@torch.no_grad()
def sample(
    network: UNet2DConditionModel,
    context: Tensor,
    empty: Tensor,
    noise: Tensor,
    given: Tensor,
    steps: int = 20,
    guidance: float = 3.0,
    prediction: Prediction = "v",
) -> Tensor:
    """DDIM (Song et al. 2021) with guidance from `noise` (N, C, h, w), on its device; the latents it ends in, normalised."""
    alpha, x = alphas().to(noise.device), noise
    times = torch.linspace(TIMESTEPS - 1, 0, steps, device=noise.device).long()
    both = torch.cat([empty.expand_as(context), context])
    for i, t in enumerate(times):
        with accelerator().autocast():
            noisy = torch.cat([x, given], dim=1)
            answers = network(torch.cat([noisy, noisy]), t.expand(2 * len(x)), both, return_dict=False)[0].float()
        without, wanted = answers.chunk(2)
        answer = without + guidance * (wanted - without)
        kept, lost = alpha[t].sqrt(), (1 - alpha[t]).sqrt()
        rest = kept * answer + lost * x if prediction == "v" else answer
        clean = (x - lost * rest) / kept
        after = alpha[times[i + 1]] if i + 1 < steps else torch.ones_like(alpha[0])
        x = after.sqrt() * clean + (1 - after).sqrt() * rest
    return x


def trainer(
    kept: Cache,
    show: Callable[[Tensor], Tensor],
    seed: int = 3,
    channels: tuple[int, ...] = CHANNELS,
    course: Course = COURSE,
    name: str = "denoiser",
) -> Trainer:
    """`show` decodes normalised latents, for the sample grid."""
    torch.manual_seed(seed)
    first, device = kept.shelves["wide"], accelerator().device
    network = build(channels, kept.empty.shape[-1], len(kept.shift), first.given.shape[1]).to(device)
    ema = deepcopy(network).requires_grad_(False).eval()
    optimiser, update = updater(network, kept, seed, course)

    def step(number: int, fraction: float) -> dict[str, float]:
        values = update(number, number, fraction)
        follow(ema, network, number, EMA)
        return values

    def picture() -> np.ndarray:
        noise = torch.randn((SHOWN, *first.mean.shape[1:]), generator=torch.Generator().manual_seed(0))
        told = (first.context[:SHOWN].float(), kept.empty[:1].float(), noise[: len(first)], first.given[:SHOWN].float())
        drawn = sample(ema, *(tensor.to(device) for tensor in told), prediction=course.prediction)
        return sheet(show(drawn), 8)

    about = {"prediction": course.prediction}
    return Trainer(name, {"network": network, "ema": ema}, optimiser, step, picture, course.batch, about)


Update = Callable[[int, int, float], dict[str, float]]


def updater(network: UNet2DConditionModel, kept: Cache, seed: int, course: Course) -> tuple[torch.optim.Optimizer, Update]:
    """An optimiser and its update(number, warm, fraction): one batch's descent, `warm` steps after the optimiser's start."""
    optimiser = torch.optim.AdamW(network.parameters(), course.peak, (0.9, 0.99), weight_decay=1e-2, fused=True)
    device = network.device
    if device.type == "cpu":
        network.set_attn_processor(AttnProcessor())  # plain products: the fused kernel's backward pass takes a quarter of a step there
    alpha = alphas().to(device)

    def update(number: int, warm: int, fraction: float) -> dict[str, float]:
        rng, random = generators(seed, number)
        shelf = shelf_for(kept, rng, course.begins + (1 - course.begins) * fraction)
        seen = batch_of(kept, shelf, rng, random, course.batch)
        rate = apply_rate(optimiser, course.peak, learning_rate(fraction, warm, WARM_UP, DECAY_FROM))
        noise = torch.randn(seen.latents.shape, generator=random)
        t = timesteps(random, len(seen.latents))
        total = loss(network, seen.to(device), t.to(device), noise.to(device), alpha, course.prediction)
        descend(total, network, optimiser)
        return {"loss": float(total.detach()), "rate": rate}

    return optimiser, update


def load_stage(folder: Path) -> tuple[FirstStage, TextEncoder]:
    """The trained autoencoder and text encoder below `folder`. Raises FileNotFoundError naming the step that is missing, and Unusable."""
    network, path = autoencoder.load_stage(needed(folder, "autoencoder")), needed(folder, "clip")
    words = weights_of(load(path), "network", path)
    try:
        text = TextEncoder.of({name.removeprefix("text."): weight for name, weight in words.items() if name.startswith("text.")})
    except (KeyError, ValueError, RuntimeError) as error:
        raise Unusable(f"{path} holds no text encoder: move it away to begin again") from error
    return network, text.eval()


def load_denoiser(path: Path) -> tuple[UNet2DConditionModel, Prediction]:
    """The averaged network in a state, whatever its shape, and what it predicts. Raises Unusable."""
    state = load(path, mmap=True)
    weights = weights_of(state, "ema", path)
    try:
        levels = len({name.split(".")[1] for name in weights if name.startswith("down_blocks.")})
        channels = tuple(len(weights[f"down_blocks.{level}.resnets.0.conv1.weight"]) for level in range(levels))
        context = next(weight.shape[1] for name, weight in weights.items() if name.endswith("attn2.to_k.weight"))
        latent, inputs = len(weights["conv_out.weight"]), weights["conv_in.weight"].shape[1]
    except (KeyError, IndexError, StopIteration) as error:
        raise Unusable(f"{path} holds no denoiser: move it away to begin again") from error
    network = build(channels, context, latent, inputs - latent)
    load_networks({"ema": network}, state, path)
    return network.eval(), state.get("about", {}).get("prediction", "v")


def load_cache(source: Source, folder: Path, report: Report | None = None, masked: bool = False) -> tuple[Cache, FirstStage]:
    """The cache on disk, made if it is not there; the `masked` one, for inpainting, in the units of the other."""
    path = folder / ("cache-inpainting.pt" if masked else "cache.pt")
    other = load_cache(source, folder, report)[0] if masked else None
    network, text = load_stage(folder)
    with accelerator().main_process_first():
        if not path.exists():
            device, tell = accelerator().device, report or terminal("encoding")
            unit = (other.shift, other.scale) if other else None
            save(cache(network.to(device), text.to(device), source, masked=masked, report=tell, unit=unit).state(), path)
    try:
        return Cache.of(load(path, mmap=True)), network.cpu()
    except (TypeError, KeyError, AttributeError) as error:
        raise Unusable(f"{path} is no cache of latents: remove it, and it is made again") from error


def decoder(network: FirstStage, kept: Cache) -> Callable[[Tensor], Tensor]:
    """From normalised latents (N, C, h, w) on any device to pictures (N, 3, f h, f w) on the CPU."""

    @torch.no_grad()
    def decode(latents: Tensor) -> Tensor:
        own = latents.to(network.device)
        return network.decode(own * kept.scale[:, None, None].to(own) + kept.shift[:, None, None].to(own)).sample.cpu()

    return decode


def run(source: Source, folder: Path, budget: Budget, report: Report | None = None, prediction: Prediction | None = None) -> bool:
    """`prediction` is for a new denoiser (without it v); one that is there goes on as it was. The time to encode counts."""
    began = time.monotonic()
    kept, network = load_cache(source, folder, report)
    path = folder / "denoiser.pt"
    course = Course(prediction or (load_denoiser(path)[1] if path.exists() else "v"))
    training = trainer(kept, decoder(network, kept), course=course)
    training.seconds = time.monotonic() - began
    return teach(training, kept, course, budget, folder, report)


def teach(training: Trainer, kept: Cache, course: Course, budget: Budget, folder: Path, report: Report | None) -> bool:
    """`train`, with a helper where two threads of one process may be used: see helper.py."""
    threads, machine = torch.get_num_threads(), accelerator()
    if threads == 1 or machine.device.type != "cpu" or machine.num_processes > 1:
        return train(training, budget, folder, report=report)
    training.restore(folder / f"{training.name}.pt")
    torch.set_num_threads(1)
    try:
        with helped(training, kept, course):
            return train(training, budget, folder, report=report)
    finally:
        torch.set_num_threads(threads)
