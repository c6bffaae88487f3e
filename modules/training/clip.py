"""The starter's text encoder, trained against an image encoder on pairs of scene and caption (CLIP, Radford et al. 2021).

The image encoder serves this training only.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPTextConfig, CLIPTextModel

from modules.training.data import to_signed
from modules.training.hardware import accelerator
from modules.training.loop import Budget, Report, Trainer, apply_rate, descend, generators, learning_rate, sheet, train
from modules.training.sources import Source
from modules.training.vocabulary import END, LENGTH, Vocabulary, padded, tokens

WIDTH, LAYERS = 192, 3
BATCH = 128
PEAK_RATE = 1e-3
MOST_FOREIGN = 8
SHOWN = 24  # scenes of the sample picture, half of them differing from another in one thing


def text_config(rows: int, width: int = WIDTH, layers: int = LAYERS) -> CLIPTextConfig:
    """Stable Diffusion 1's text encoder, smaller: heads of 64, quick GELU, 77 positions."""
    return CLIPTextConfig(
        vocab_size=rows,
        hidden_size=width,
        intermediate_size=4 * width,
        num_hidden_layers=layers,
        num_attention_heads=width // 64,
        max_position_embeddings=LENGTH,
        hidden_act="quick_gelu",
        projection_dim=width,
        bos_token_id=rows - 2,
        eos_token_id=rows - 1,
        pad_token_id=rows - 1,
    )


class TextEncoder(nn.Module):
    """CLIP's text encoder on the rows of a vocabulary, which it carries among its weights."""

    def __init__(self, vocabulary: Vocabulary, width: int = WIDTH, layers: int = LAYERS) -> None:
        super().__init__()
        self.clip = CLIPTextModel(text_config(len(vocabulary), width, layers))
        self.register_buffer("vocabulary", torch.tensor(vocabulary.ids))
        self.known = vocabulary

    @classmethod
    def of(cls, weights: Mapping[str, Tensor]) -> "TextEncoder":
        """The encoder that has these weights."""
        rows, width = weights["clip.embeddings.token_embedding.weight"].shape
        layers = len({name.split(".")[3] for name in weights if ".layers." in name})
        vocabulary = Vocabulary(tuple(weights["vocabulary"].tolist()))
        encoder = cls(vocabulary, width, layers)
        encoder.load_state_dict(weights)
        return encoder

    def forward(self, ids: Tensor) -> Tensor:
        """CLIP ids (N, 77), on the CPU -> last hidden states (N, 77, width)."""
        rows = torch.from_numpy(self.known.rows(ids.numpy()))
        return self.clip(input_ids=rows.to(self.vocabulary.device)).last_hidden_state


class ImageEncoder(nn.Module):
    """Pictures (N, 3, 128, 128) in [-1, 1] -> (N, width). Plain strided convolutions on 64 x 64 pixels."""

    def __init__(self, width: int = WIDTH) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.AvgPool2d(2)]
        before = 3
        for channels in (32, 64, 128, 192):
            layers += [nn.Conv2d(before, channels, 3, 2, 1), nn.GroupNorm(8, channels), nn.SiLU()]
            layers += [nn.Conv2d(channels, channels, 3, 1, 1), nn.GroupNorm(8, channels), nn.SiLU()]
            before = channels
        self.body = nn.Sequential(*layers, nn.Flatten())
        self.head = nn.Linear(before * 16, width)

    def forward(self, pictures: Tensor) -> Tensor:
        return self.head(self.body(pictures.to(self.head.weight.device)))


class Pair(nn.Module):
    """Both encoders into one space, and the scale of their similarities (as a logarithm)."""

    def __init__(self, text: TextEncoder, width: int = WIDTH) -> None:
        super().__init__()
        self.text, self.image = text, ImageEncoder(width)
        self.project = nn.Linear(width, width, bias=False)
        self.log_scale = nn.Parameter(torch.tensor(1 / 0.07).log())

    def of_text(self, ids: Tensor) -> Tensor:
        """CLIP ids (N, 77) -> unit vectors (N, width), read at the first end token."""
        states = self.text(ids)  # (N, 77, width)
        end = (ids == END).int().argmax(dim=1)
        return F.normalize(self.project(states[torch.arange(len(ids)), end]), dim=-1)

    def of_picture(self, pictures: Tensor) -> Tensor:
        return F.normalize(self.image(pictures), dim=-1)


def contrast(text: Tensor, image: Tensor, scale: Tensor, labels: Tensor) -> Tensor:
    """CLIP's loss, the mean of both cross-entropies; pairs with the same label are all right answers, in equal parts."""
    logits = scale * text @ image.T  # (N, N)
    same = (labels[:, None] == labels).float()
    target = same / same.sum(dim=1, keepdim=True)
    return (F.cross_entropy(logits, target) + F.cross_entropy(logits.T, target)) / 2


def encode_ids(texts: Sequence[list[int]]) -> Tensor:
    return torch.tensor([padded(ids) for ids in texts])


def batch_of(source: Source, rng: np.random.Generator, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Pictures (N, 3, 128, 128), CLIP ids (N, 77) with words from outside mixed into half, and what each shows (N)."""
    seen = source.pairs(rng, count)
    pictures = torch.from_numpy(to_signed(np.stack([example.picture for example in seen])))
    texts = [source.vocabulary.with_noise(rng, tokens(example.words), MOST_FOREIGN * (i % 2)) for i, example in enumerate(seen)]
    return pictures, encode_ids(texts), torch.tensor([example.meaning for example in seen])


def trainer(source: Source, seed: int = 2, width: int = WIDTH, layers: int = LAYERS, batch: int = BATCH) -> Trainer:
    torch.manual_seed(seed)
    network = Pair(TextEncoder(source.vocabulary, width, layers), width).to(accelerator().device)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.98), weight_decay=1e-2, fused=True)

    def step(number: int, fraction: float) -> dict[str, float]:
        rng, noise = generators(seed, number)
        pictures, ids, labels = batch_of(source, rng, batch)
        pictures = pictures + 0.1 * torch.rand(batch, 1, 1, 1, generator=noise) * torch.randn(pictures.shape, generator=noise)
        rate = apply_rate(optimiser, PEAK_RATE, learning_rate(fraction, number, 50, 0.4))
        with accelerator().autocast():
            text, image = network.of_text(ids), network.of_picture(pictures)
        labels = labels.to(text.device)
        total = contrast(text.float(), image.float(), network.log_scale.exp(), labels)
        descend(total, network, optimiser)
        with torch.no_grad():
            network.log_scale.clamp_(max=np.log(100))
        right = (labels[(text @ image.T).argmax(dim=1)] == labels).float().mean()
        return {"loss": float(total.detach()), "retrieved": float(right), "rate": rate}

    @torch.no_grad()
    def picture() -> np.ndarray:
        """Scenes, and below each what its caption finds among them."""
        pictures, ids, _ = batch_of(source, generators(seed + 1, 0)[0], SHOWN)
        found = (network.of_text(ids) @ network.of_picture(pictures).T).argmax(dim=1).cpu()
        return sheet(torch.cat([pictures, pictures[found]]).unflatten(0, (2, -1, 8)).transpose(0, 1).flatten(0, 2), 8)

    return Trainer("clip", {"network": network}, optimiser, step, picture, batch)


def run(source: Source, folder: Path, budget: Budget, report: Report | None = None) -> bool:
    return train(trainer(source), budget, folder, report=report)
