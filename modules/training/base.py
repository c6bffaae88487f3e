"""The checkpoint that training goes on from, what its networks make of a folder of pictures, and the descent on it.

Latents are encoded once, captions too where the text encoder stays as it is: a step is then nothing but the U-Net.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from diffusers.models.attention_processor import AttnProcessor
from instant_clip_tokenizer import Tokenizer
from torch import Tensor, nn

from modules.engine.families.sd1 import StableDiffusion1
from modules.engine.stop import CannotDraw
from modules.engine.studio import Studio
from modules.model_manager.choice import usable
from modules.model_manager.library import Checkpoint, scan
from modules.recipe.prompt import Chunk, Part, chunk
from modules.settings import Settings
from modules.training import denoiser
from modules.training.data import to_signed
from modules.training.files import Unusable
from modules.training.folder import Folder
from modules.training.hardware import accelerator
from modules.training.loop import Trainer, apply_rate, descend, generators, learning_rate, sheet

SEED = 6
WARM_UP = 20  # steps
DECAY_FROM = 0.5
GUIDANCE = 7.0  # the CFG scale of sample pictures, where the checkpoint recommends none
SHOWN = 4  # pictures of the sample grid
JUDGED = 16  # held-out pictures
LEVELS = 8  # of noise that each of them is judged at
LOOKS = 20  # how often the held-out loss is measured in a run


@dataclass(frozen=True)
class Base:
    """A checkpoint and its networks in float32, all of them frozen."""

    found: Checkpoint
    family: StableDiffusion1

    @property
    def guidance(self) -> float:
        return float(self.found.defaults.get("cfg_scale", GUIDANCE))


def found_base(wanted: str, settings: Settings) -> Checkpoint:
    """The checkpoint called `wanted`. Unusable says why there is none to train."""
    try:
        found = usable(scan(settings.checkpoint_roots, settings.hashes), wanted, settings.hashes)
    except LookupError as error:
        raise Unusable(str(error)) from error
    if found.family != "sd1":
        raise Unusable(f"{found.name} is of another family, {found.family}: training goes on from Stable Diffusion 1.x checkpoints")
    if found.architecture.unet.in_channels != found.architecture.unet.out_channels:
        raise Unusable(f"{found.name} is an inpainting model: name the one that it was made from")
    return found


def load_base(found: Checkpoint, settings: Settings) -> Base:
    """The checkpoint loaded as for drawing. Unusable says why it cannot be."""
    try:
        studio = Studio(settings.checkpoint_roots, [], settings.state, accelerator().device.type, "float32")
        family = studio.warm(found.name, "", lambda fraction: None).family
    except CannotDraw as error:
        raise Unusable(str(error)) from error
    for network in (family.unet, family.vae, family.text):
        network.to(accelerator().device)  # of several, this process's own
    return Base(found, family)


@dataclass(frozen=True)
class Encoded:
    """Pictures as the U-Net sees them, and their captions as the text encoder reads them; the last caption is the empty one."""

    mean: Tensor  # (N, C, h, w)
    deviation: Tensor  # (N, C, h, w), of the posterior
    words: tuple[Chunk, ...]  # N + 1

    def __len__(self) -> int:
        return len(self.mean)


@torch.no_grad()
def encoded(family: StableDiffusion1, data: Folder, numbers: np.ndarray) -> Encoded:
    """The pictures of these numbers. Captions are cut after 75 tokens."""
    side = data.squares.shape[1]
    means = [torch.empty(0, *family.latent_shape(side, side), device=family.vae.device)]
    deviations, at_once = list(means), max(1, 16 * 128**2 // side**2)
    for start in range(0, len(numbers), at_once):
        seen = torch.from_numpy(to_signed(data.squares[numbers[start : start + at_once]]))
        posterior = family.vae.encode(seen.to(family.vae.device)).latent_dist
        means.append(posterior.mean * family.architecture.scale_factor)
        deviations.append(posterior.std * family.architecture.scale_factor)
    tokenizer = Tokenizer()
    captions = [*(data.captions[number] for number in numbers), ""]
    words = tuple(chunk([Part(caption, 1.0)], tokenizer.encode)[0] for caption in captions)
    return Encoded(torch.cat(means), torch.cat(deviations), words)


Contexts = Callable[[Encoded, Sequence[int]], Tensor]
"""What the U-Net attends to for captions of these numbers, (B, 77, width)."""


def read_now(family: StableDiffusion1) -> Contexts:
    """Contexts from a text encoder that is trained too."""
    return lambda seen, numbers: _contexts(family, [seen.words[number] for number in numbers])


def read_once(family: StableDiffusion1) -> Contexts:
    """Contexts from a text encoder that stays as it is: each caption is read once."""
    known: dict[Chunk, Tensor] = {}

    @torch.no_grad()
    def contexts(seen: Encoded, numbers: Sequence[int]) -> Tensor:
        wanted = [seen.words[number] for number in numbers]
        unread = [words for words in dict.fromkeys(wanted) if words not in known]
        known.update(zip(unread, _contexts(family, unread) if unread else (), strict=True))
        return torch.stack([known[words] for words in wanted])

    return contexts


def _contexts(family: StableDiffusion1, words: Sequence[Chunk]) -> Tensor:
    return family.encode(words, 1)[0].unflatten(0, (len(words), -1))


@dataclass(frozen=True)
class Descent:
    """How to train: `steps` updates with `batch` pictures each, at most `rate` each."""

    rate: float
    steps: int
    batch: int


def trainer(
    name: str,
    base: Base,
    data: Folder,
    plan: Descent,
    networks: dict[str, nn.Module],
    contexts: Contexts,
    shown: Base,
    about: Mapping[str, str],
    after: Callable[[int], None] = lambda number: None,
) -> Trainer:
    """Trains `networks["network"]`, the base's U-Net or something in its networks; `after` is called after each update.

    `shown` is the base as it will be kept: it draws the sample pictures and is judged by the held-out ones. `about` is what a run
    cannot change half-way.
    """
    seen = encoded(base.family, data, data.trained)
    held = encoded(base.family, data, data.held_out[:JUDGED])
    if base.family.unet.device.type == "cpu":
        base.family.unet.set_attn_processor(AttnProcessor())  # plain products: backwards, the fused kernel is slower there
    optimiser = torch.optim.AdamW(networks["network"].parameters(), plan.rate, (0.9, 0.99), weight_decay=1e-2, fused=True)
    judged: dict[int, dict[str, float]] = {}

    def step(number: int, fraction: float) -> dict[str, float]:
        look = int(fraction * LOOKS)
        if look not in judged:
            judged.clear()
            judged[look] = {"held_out": held_out_loss(shown, held, contexts)} if len(held) else {}
        rate = apply_rate(optimiser, plan.rate, learning_rate(fraction, number, WARM_UP, DECAY_FROM))
        total = _loss(base, seen, contexts, number, plan.batch)
        descend(total, networks["network"], optimiser)
        after(number)
        return {"loss": float(total.detach()), **judged[look], "rate": rate}

    return Trainer(name, networks, optimiser, step, lambda: drawn(shown, held if len(held) else seen, contexts), plan.batch, about)


def _loss(base: Base, seen: Encoded, contexts: Contexts, number: int, batch: int) -> Tensor:
    """The loss of one update's batch."""
    rng, random = generators(SEED, number)
    device = base.family.unet.device
    chosen = rng.integers(0, len(seen), batch)
    words = np.where(rng.random(batch) < denoiser.DROPPED, len(seen), chosen)
    mean, deviation = seen.mean[chosen], seen.deviation[chosen]
    latents = mean + deviation * torch.randn(mean.shape, generator=random).to(device)
    noise, t = torch.randn(mean.shape, generator=random).to(device), denoiser.timesteps(random, batch).to(device)
    return _denoising(base, latents, contexts(seen, words), t, noise)


def _denoising(base: Base, latents: Tensor, context: Tensor, t: Tensor, noise: Tensor) -> Tensor:
    batch = denoiser.Batch(latents, context, latents[:, :0])
    alpha = denoiser.alphas().to(latents.device)
    return denoiser.loss(base.family.unet, batch, t, noise, alpha, base.family.architecture.prediction)


@torch.no_grad()
def held_out_loss(base: Base, held: Encoded, contexts: Contexts) -> float:
    """The mean loss of pictures that nothing trains on, at the same noise every time."""
    random = torch.Generator().manual_seed(SEED)
    losses = []
    for number in range(len(held)):
        latents = held.mean[number].expand(LEVELS, -1, -1, -1)
        noise = torch.randn(latents.shape, generator=random).to(latents.device)
        t = denoiser.timesteps(random, LEVELS).to(latents.device)
        losses.append(float(_denoising(base, latents, contexts(held, [number] * LEVELS), t, noise)))
    return float(np.mean(losses))


@torch.no_grad()
def drawn(base: Base, seen: Encoded, contexts: Contexts) -> np.ndarray:
    """What the first captions ask for, in one row, (side, columns x side, 3) uint8."""
    family, count = base.family, min(SHOWN, len(seen))
    noise = torch.randn(seen.mean[:count].shape, generator=torch.Generator().manual_seed(0)).to(seen.mean.device)
    context, empty = contexts(seen, range(count)), contexts(seen, [len(seen)])
    prediction = family.architecture.prediction
    latents = denoiser.sample(family.unet, context, empty, noise, noise[:, :0], guidance=base.guidance, prediction=prediction)
    return sheet(torch.cat([family.to_image(latent[None]) for latent in latents]).cpu(), count)
