"""What the denoiser trains on: latents and encoded captions of many scenes, computed once and kept on disk."""

import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from modules.training.autoencoder import FirstStage, encode
from modules.training.clip import TextEncoder, encode_ids
from modules.training.loop import Report
from modules.training.sources import Example, Source
from modules.training.vocabulary import tokens

MOST_FOREIGN = 3
SMALLEST = 1e-4  # deviation of latents: a channel with less tells nothing
EMPTY = 8  # ways to ask for nothing: "" and words from outside the vocabulary


@dataclass(frozen=True)
class Shelf:
    """Pictures of one size. For inpainting `given` is the mask (1 = repaint) and the latents of the picture without what it hides."""

    mean: Tensor  # (N, C, h, w) float16, normalised to unit standard deviation a channel
    deviation: Tensor  # (N, C, h, w) float16, of the posterior, in the same unit
    context: Tensor  # (N, 77, width) bfloat16
    given: Tensor  # (N, 1 + C, h, w) float16; (N, 0, h, w) where the denoiser sees the noisy latents only

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Cache:
    """Everything a denoiser is trained with: `shelves` called simple, wide, and by the side of larger pictures ("256")."""

    shelves: dict[str, Shelf]
    empty: Tensor  # (EMPTY, 77, width) bfloat16
    shift: Tensor  # (C,) mean and standard deviation of the autoencoder's own latents
    scale: Tensor  # (C,)

    def state(self) -> dict[str, object]:
        """Plain containers of tensors, for torch.save."""
        return {**vars(self), "shelves": {name: vars(shelf) for name, shelf in self.shelves.items()}}

    @classmethod
    def of(cls, state: dict[str, object]) -> "Cache":
        return cls(**{**state, "shelves": {name: Shelf(**shelf) for name, shelf in state["shelves"].items()}})


@torch.no_grad()
def encode_texts(text: TextEncoder, captions: Sequence[list[int]], batch: int = 256) -> Tensor:
    """Token lists -> (N, 77, width) last hidden states, bfloat16."""
    return torch.cat([text(part).bfloat16().cpu() for part in encode_ids(captions).split(batch)])


@torch.no_grad()
def given_of(network: FirstStage, pictures: np.ndarray, masks: np.ndarray) -> Tensor:
    """Pictures (N, H, W, 3) uint8 and masks (N, H, W) bool -> what the denoiser is told, (N, 1 + C, H / f, W / f).

    As in Stable Diffusion the mask is sampled (nearest) at the latents' size and the masked picture is grey where it is hidden.
    """
    hidden = np.where(masks[..., None], np.uint8(127), pictures)
    latents, _ = encode(network, hidden)
    small = F.interpolate(torch.from_numpy(masks[:, None].astype(np.float32)), size=latents.shape[-2:])
    return torch.cat([small, latents], dim=1)


def shelf(
    network: FirstStage, text: TextEncoder, source: Source, examples: Iterator[Example], count: int, done: Callable[[int], None]
) -> Shelf:
    """Encode `count` examples of one size and say how many are `done`. Latents are not yet normalised."""
    means, deviations, given, words, batch = [], [], [], [], 32
    for start in range(0, count, batch):
        part = list(islice(examples, min(batch, count - start)))
        pictures = np.stack([example.picture for example in part])
        mean, deviation = encode(network, pictures)
        means.append(mean)
        deviations.append(deviation)
        hidden = [example.mask for example in part if example.mask is not None]
        given.append(given_of(network, pictures, np.stack(hidden)) if hidden else mean[:, :0])
        words += [example.words for example in part]
        done(start + len(part))
    rng = np.random.default_rng(len(words))
    ids = [source.vocabulary.with_noise(rng, tokens(line), MOST_FOREIGN * (number % 2)) for number, line in enumerate(words)]
    return Shelf(torch.cat(means), torch.cat(deviations), encode_texts(text, ids), torch.cat(given))


def cache(
    network: FirstStage,
    text: TextEncoder,
    source: Source,
    seed: int = 5,
    masked: bool = False,
    report: Report = lambda *_: None,
    unit: tuple[Tensor, Tensor] | None = None,
) -> Cache:
    """Latents and captions of as many examples of the source as it wants kept; `masked` for an inpainting denoiser.

    `unit` is another cache's (shift, scale), so that both speak of the same normalised latents.
    """
    rng = np.random.default_rng(seed)
    raw: dict[str, Shelf] = {}
    began, total, before = time.monotonic(), sum(source.counts.values()), 0
    for name, count in source.counts.items():

        def done(here: int, before: int = before) -> None:
            passed, fraction = time.monotonic() - began, (before + here) / total
            report(fraction, passed * (1 - fraction) / fraction, {}, None)

        raw[name] = shelf(network, text, source, source.examples(rng, name, masked), count, done)
        before += count
    shift, scale = unit or _unit(raw["wide"])
    nothing = [[], *(source.vocabulary.with_noise(rng, [], 20) for _ in range(EMPTY - 1))]
    return Cache({name: normalised(each, shift, scale) for name, each in raw.items()}, encode_texts(text, nothing), shift, scale)


def _unit(raw: Shelf) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of each channel; a channel that the autoencoder left to noise is measured by its noise."""
    deviation = torch.maximum(raw.mean.std(dim=(0, 2, 3)), raw.deviation.mean(dim=(0, 2, 3)))
    return raw.mean.mean(dim=(0, 2, 3)), deviation.clamp(min=SMALLEST)


def normalised(raw: Shelf, shift: Tensor, scale: Tensor) -> Shelf:
    """The shelf in float16 with latents of zero mean and unit standard deviation; `shift` and `scale` are (C,)."""
    shift, scale = shift[:, None, None], scale[:, None, None]
    given = raw.given
    if given.shape[1]:
        given = torch.cat([given[:, :1], (given[:, 1:] - shift) / scale], dim=1)
    return Shelf(((raw.mean - shift) / scale).half(), (raw.deviation / scale).half(), raw.context, given.half())
