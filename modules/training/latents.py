"""What the denoiser trains on: latents and encoded captions of many scenes, computed once and kept on disk."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor
from torch.nn import functional as F

from modules.training.autoencoder import encode
from modules.training.clip import TextEncoder, encode_ids
from modules.training.sources import Example, Source
from modules.training.vocabulary import tokens

MOST_FOREIGN = 3
EMPTY = 8  # ways to ask for nothing: "" and words from outside the vocabulary

Progress = Callable[[float], None]
"""Told the fraction that is done."""


@dataclass(frozen=True)
class Shelf:
    """Pictures of one size. For inpainting `given` is the mask (1 = repaint) and the latents of the picture without what it hides."""

    mean: Tensor  # (N, 4, h, w) float16, normalised to unit standard deviation a channel
    deviation: Tensor  # (N, 4, h, w) float16, of the posterior, in the same unit
    context: Tensor  # (N, 77, width) bfloat16
    given: Tensor  # (N, 5, h, w) float16; (N, 0, h, w) where the denoiser sees the noisy latents only

    def __len__(self) -> int:
        return len(self.mean)


@dataclass(frozen=True)
class Cache:
    """Everything a denoiser is trained with: `shelves` called simple, wide, and by the side of larger pictures ("256")."""

    shelves: dict[str, Shelf]
    empty: Tensor  # (EMPTY, 77, width) bfloat16
    shift: Tensor  # (4,) mean and standard deviation of the autoencoder's own latents
    scale: Tensor  # (4,)

    def state(self) -> dict[str, object]:
        """Plain containers of tensors, for torch.save."""
        return {**vars(self), "shelves": {name: vars(shelf) for name, shelf in self.shelves.items()}}

    @classmethod
    def of(cls, state: dict[str, object]) -> "Cache":
        return cls(**{**state, "shelves": {name: Shelf(**shelf) for name, shelf in state["shelves"].items()}})


@torch.no_grad()
def encode_texts(text: TextEncoder, captions: Sequence[list[int]], batch: int = 256) -> Tensor:
    """Token lists -> (N, 77, width) last hidden states, bfloat16."""
    return torch.cat([text(part).bfloat16() for part in encode_ids(captions).split(batch)])


@torch.no_grad()
def given_of(network: AutoencoderKL, pictures: np.ndarray, masks: np.ndarray) -> Tensor:
    """Pictures (N, H, W, 3) uint8 and masks (N, H, W) bool -> what the denoiser is told, (N, 1 + 4, H / 8, W / 8).

    As in Stable Diffusion the mask is sampled (nearest) at the latents' size and the masked picture is grey where it is hidden.
    """
    hidden = np.where(masks[..., None], np.uint8(127), pictures)
    latents, _ = encode(network, hidden)
    small = F.interpolate(torch.from_numpy(masks[:, None].astype(np.float32)), size=latents.shape[-2:])
    return torch.cat([small, latents], dim=1)


def shelf(network: AutoencoderKL, text: TextEncoder, source: Source, examples: Iterator[Example], count: int, report: Progress) -> Shelf:
    """Encode `count` examples of one size. Latents are not yet normalised."""
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
        report((start + len(part)) / count)
    rng = np.random.default_rng(len(words))
    ids = [source.vocabulary.with_noise(rng, tokens(line), MOST_FOREIGN * (number % 2)) for number, line in enumerate(words)]
    return Shelf(torch.cat(means), torch.cat(deviations), encode_texts(text, ids), torch.cat(given))


def cache(
    network: AutoencoderKL, text: TextEncoder, source: Source, seed: int = 5, masked: bool = False, report: Progress = lambda fraction: None
) -> Cache:
    """Latents and captions of as many examples of the source as it wants kept; `masked` for an inpainting denoiser."""
    rng = np.random.default_rng(seed)
    raw, done = {}, 0
    for name, count in source.counts.items():
        share, before = count / sum(source.counts.values()), done / sum(source.counts.values())
        examples = source.examples(rng, name, masked)
        raw[name] = shelf(network, text, source, examples, count, lambda f, b=before, s=share: report(b + s * f))
        done += count
    shift, scale = raw["wide"].mean.mean(dim=(0, 2, 3)), raw["wide"].mean.std(dim=(0, 2, 3))
    nothing = [[], *(source.vocabulary.with_noise(rng, [], 20) for _ in range(EMPTY - 1))]
    return Cache({name: normalised(each, shift, scale) for name, each in raw.items()}, encode_texts(text, nothing), shift, scale)


def normalised(raw: Shelf, shift: Tensor, scale: Tensor) -> Shelf:
    """The shelf in float16 with latents of zero mean and unit standard deviation; `shift` and `scale` are (4,)."""
    shift, scale = shift[:, None, None], scale[:, None, None]
    given = raw.given
    if given.shape[1]:
        given = torch.cat([given[:, :1], (given[:, 1:] - shift) / scale], dim=1)
    return Shelf(((raw.mean - shift) / scale).half(), (raw.deviation / scale).half(), raw.context, given.half())
