"""A judge of pictures that has never seen a generator's: which things stand where, how large, in which colours, and before what.

It marks the middle of every thing ("Objects as Points", Zhou et al. 2019) and is trained from nothing on rendered scenes alone,
sound ones and spoilt ones (negatives.py): what has the right colours but is no thing is something, never the thing.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from torch.nn import functional as F

from modules.training import autoencoder
from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS, Thing
from modules.training.data import compose, sprite, to_signed
from modules.training.grammar import STYLES
from modules.training.hardware import accelerator, average_gradients
from modules.training.loop import Budget, Report, Trainer, apply_rate, generators, learning_rate, sheet, train
from modules.training.negatives import SPOILERS, spoil, spoil_latents
from modules.training.scenes import LARGE, NAMES, WIDE, Scene, Stage, scenes

CHANNELS = (32, 48, 96, 192, 256)  # at 1/2, 1/4 ... 1/32 of the picture
WIDTH = 128  # of the map
CELL = 8  # pixels of a picture to a cell of the map
BATCH = 32
PEAK_RATE = 4e-3
WARM_UP, DECAY_FROM = 50, 0.4
SPOILT, SPOILT_FROM = 0.45, 0.2  # the part of things that are spoilt, after this part of the budget; it rises until then
LESSONS = (*SPOILERS, "cut", "melted", "melted", "blended", "blended")  # the ways to spoil, the harder ones more often
THROUGH = 8  # one picture in so many goes through the autoencoder
LARGER, LARGER_FROM = 5, 0.6  # one batch in so many shows larger pictures, after this part of the budget
SHIFT = 4  # pixels by which pictures are moved off the scenes' grid
THERE = 0.5


@dataclass(frozen=True)
class Found:
    """Something in a picture. `thing` is None for what is none of the things. `size`, `x` and `y` (its middle) are pixels."""

    thing: int | None
    confidence: float
    colour: str  # the nearest of COLOURS, which means something for things that come in several
    size: float
    x: float
    y: float


@dataclass(frozen=True)
class Seen:
    """One picture: what stands in it, from left to right; `background` and `style` index BACKGROUNDS and grammar.STYLES."""

    things: tuple[Found, ...]
    background: int
    style: int


@dataclass(frozen=True)
class Maps:
    """What the network says of N pictures, logits but for `sizes` (log2 of pixels / 64) and `features`."""

    there: Tensor  # (N, h, w): something has its middle here
    sound: Tensor  # (N, h, w): it is a thing and not spoilt
    things: Tensor  # (N, things, h, w): which one
    colours: Tensor  # (N, 7, h, w)
    sizes: Tensor  # (N, h, w)
    background: Tensor  # (N, 10)
    style: Tensor  # (N, 3)
    features: Tensor  # (N, 128), for a Frechet distance


@dataclass(frozen=True)
class Labels:
    """What `Maps` should say; cells of a thing's middle weigh 1 together, and so do all cells with nothing."""

    there: Tensor  # (N, h, w), 0 or 1
    sound: Tensor  # (N, h, w), 0 or 1
    things: Tensor  # (N, h, w), -1 where there is no sound one
    weight: Tensor  # (N, h, w)
    colours: Tensor  # (N, h, w), -1 where there is none
    sizes: Tensor  # (N, h, w)
    background: Tensor  # (N,)
    style: Tensor  # (N,)


def _block(before: int, after: int, stride: int = 1) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(before, after, 3, stride, 1, bias=False), nn.BatchNorm2d(after), nn.SiLU())


class Judge(nn.Module):
    """Pictures (N, 3, H, W) in [-1, 1], sides multiples of 8 -> Maps. Coarse levels are added to finer ones from the top down."""

    def __init__(self, things: int = len(THINGS), channels: Sequence[int] = CHANNELS) -> None:
        super().__init__()
        first, second, *deeper = channels
        self.start = nn.Sequential(nn.PixelUnshuffle(2), _block(12, first), _block(first, second, 2), _block(second, second))
        befores = (second, *deeper)
        self.down = nn.ModuleList(nn.Sequential(_block(a, b, 2), _block(b, b)) for a, b in zip(befores, deeper, strict=False))
        self.across = nn.ModuleList(nn.Conv2d(each, WIDTH, 1) for each in deeper)
        self.mix = _block(WIDTH, WIDTH)
        self.heads = (3, things, len(NAMES))
        self.mark = nn.Conv2d(WIDTH, sum(self.heads), 1)
        self.whole = nn.Linear(deeper[-1], len(BACKGROUNDS) + len(STYLES))

    def forward(self, pictures: Tensor) -> Maps:
        levels, x = [], self.start(pictures)
        for down in self.down:
            x = down(x)
            levels.append(x)
        whole = self.whole(x.mean(dim=(2, 3)))
        top = self.across[-1](x)
        for level, across in zip(levels[-2::-1], [*self.across][-2::-1], strict=True):
            top = across(level) + F.interpolate(top, size=level.shape[-2:])
        mixed = self.mix(top)  # (N, 128, H / 8, W / 8)
        single, things, colours = self.mark(mixed).float().split(self.heads, dim=1)
        background, style = whole.float().split((len(BACKGROUNDS), len(STYLES)), dim=1)
        there, sound, sizes = single.unbind(dim=1)
        return Maps(there, sound, things, colours, sizes, background, style, mixed.float().mean(dim=(2, 3)))


@torch.no_grad()
def look(judge: Judge, pictures: Tensor, batch: int = 32) -> Maps:
    """The maps of any number of pictures, (N, 3, H, W) in [-1, 1]."""
    parts = [judge(part.clamp(-1, 1)) for part in pictures.split(batch)]
    return Maps(**{name: torch.cat([getattr(part, name) for part in parts]) for name in Maps.__dataclass_fields__})


def seen(judge: Judge, pictures: Tensor, most: int = 2) -> list[Seen]:
    """What stands in each picture, (N, 3, H, W) in [-1, 1]: at most the `most` clearest things."""
    return read(look(judge, pictures), most)


def read(maps: Maps, most: int = 2) -> list[Seen]:
    """The things whose middles the maps mark, and the likeliest background and style."""
    there, sound = maps.there.sigmoid()[:, None], maps.sound.sigmoid()[:, None]
    chances = _smooth(torch.cat([there * sound * maps.things.softmax(dim=1), there * (1 - sound)], dim=1)).numpy()
    colours = _smooth(maps.colours).argmax(dim=1).numpy()
    pixels = (64 * 2**maps.sizes).numpy()
    wholes = zip(maps.background.argmax(dim=1).tolist(), maps.style.argmax(dim=1).tolist(), strict=True)
    each = zip(chances, colours, pixels, wholes, strict=True)
    return [Seen(_found(chance, colour, size, most), *whole) for chance, colour, size, whole in each]


def _smooth(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, 1, 1, count_include_pad=False)


def _found(chances: np.ndarray, colours: np.ndarray, sizes: np.ndarray, most: int) -> tuple[Found, ...]:
    """One picture's things, the surest picked first, then those that do not overlap it; sorted from left to right.

    `chances` (things + 1, h, w) of each thing and, last, of something that is none.
    """
    there, found = chances.sum(axis=0), []
    rows, columns = np.ogrid[: there.shape[0], : there.shape[1]]
    while len(found) < most and there.max() > THERE:
        y, x = (int(place) for place in np.unravel_index(there.argmax(), there.shape))
        *things, none = chances[:, y, x].tolist()
        known = sum(things) > none
        size = float(sizes[y, x])
        thing, confidence = (int(np.argmax(things)), max(things)) if known else (None, none)
        found.append(Found(thing, confidence, NAMES[colours[y, x]], size, CELL * (x + 0.5), CELL * (y + 0.5)))
        there[np.maximum(abs(rows - y), abs(columns - x)) * CELL < max(20, 0.35 * size)] = 0
    return tuple(sorted(found, key=lambda each: each.x))


def labels(chosen: Sequence[Scene], spoilt: Sequence[Sequence[bool]], shifts: np.ndarray) -> Labels:
    """The labels of scenes of one side, each moved by (x, y) pixels, of whose things some are spoilt."""
    count, cells = len(chosen), chosen[0].side // CELL
    middle = np.arange(cells) * CELL + CELL / 2
    there, sound, weight, sizes = np.zeros((4, count, cells, cells), np.float32)
    things, colours = np.full((2, count, cells, cells), -1)
    for number, scene in enumerate(chosen):
        for placed, bad in zip(scene.things, spoilt[number], strict=True):
            x, y = (corner + placed.size / 2 + shift for corner, shift in zip((placed.left, placed.top), shifts[number], strict=True))
            near = max(14, 0.2 * placed.size)
            inside = number, *np.ix_(abs(middle - y) < near, abs(middle - x) < near)
            there[inside], sound[inside], sizes[inside] = 1, not bad, np.log2(placed.size / 64)
            weight[inside] = 1 / there[inside].size
            things[inside] = -1 if bad else placed.thing
            colours[inside] = NAMES.index(placed.colour) if placed.colour and not bad and scene.style == 0 else -1
        empty = there[number] == 0
        weight[number, empty] = 1 / empty.sum()
    wholes = torch.tensor([(scene.background, scene.style) for scene in chosen])
    return Labels(*map(torch.from_numpy, (there, sound, things, weight, colours, sizes)), *wholes.unbind(dim=1))


def loss(maps: Maps, wanted: Labels) -> tuple[Tensor, dict[str, float]]:
    """Cross-entropies of all that the maps say and the error of sizes; with the part of things that are named and found sound rightly."""

    def mean(losses: Tensor, cells: Tensor | float = 1.0) -> Tensor:
        return (losses * wanted.weight * cells).sum() / len(wanted.background)

    parts = {
        "there": mean(F.binary_cross_entropy_with_logits(maps.there, wanted.there, reduction="none")),
        "sound": 1.5 * mean(F.binary_cross_entropy_with_logits(maps.sound, wanted.sound, reduction="none"), wanted.there),
        "things": mean(F.cross_entropy(maps.things, wanted.things, ignore_index=-1, reduction="none")),
        "colours": 0.5 * mean(F.cross_entropy(maps.colours, wanted.colours, ignore_index=-1, reduction="none")),
        "sizes": 0.5 * mean((maps.sizes - wanted.sizes).abs(), wanted.there),
        "wholes": 0.5 * F.cross_entropy(maps.background, wanted.background) + 0.25 * F.cross_entropy(maps.style, wanted.style),
    }
    named = wanted.weight * (wanted.things >= 0)
    right = (named * (maps.things.argmax(dim=1) == wanted.things)).sum() / named.sum()
    judged = wanted.weight * wanted.there
    sound = (judged * ((maps.sound > 0) == (wanted.sound > 0))).sum() / judged.sum()
    total = sum(parts.values())
    values = {"loss": total, **parts, "named": right, "told": sound}
    return total, {name: float(value.detach()) for name, value in values.items()}


@torch.no_grad()
def reconstructed(vae: AutoencoderKL, pictures: np.ndarray, change: Callable[[Tensor], None] = lambda latents: None) -> Tensor:
    """Pictures (N, H, W, 3) uint8 as the autoencoder gives them back, (N, 3, H, W); `change` may edit the latents (N, C, h, w)."""
    latents, _ = autoencoder.encode(vae, pictures)
    change(latents)
    with accelerator().autocast():
        return vae.decode(latents).sample.float().clamp(-1, 1)


@dataclass(frozen=True)
class Studies:
    """What a judge learns from: `things` are what it tells apart; the autoencoder, where there is one, gives its failures."""

    icons: Path
    things: tuple[Thing, ...] = THINGS
    vae: AutoencoderKL | None = None

    def batch(self, rng: np.random.Generator, stage: Stage, count: int, share: float = SPOILT) -> tuple[Tensor, Labels]:
        """Pictures of scenes of one side, (count, 3, side, side), of whose things this share is spoilt."""
        chosen = scenes(rng, stage, count, things=self.things)
        spoilt = [rng.random(len(scene.things)) < share for scene in chosen]
        passed = count // THROUGH if self.vae else 0
        drawn = [
            self.draw(rng, scene, [flag and number >= passed for flag in flags])
            for number, (scene, flags) in enumerate(zip(chosen, spoilt, strict=True))
        ]
        pictures = torch.from_numpy(to_signed(np.stack(drawn)))
        if passed:
            pictures[:passed] = self.passed(rng, chosen[:passed], spoilt[:passed], np.stack(drawn[:passed]))
        shifts = rng.integers(-SHIFT, SHIFT + 1, (count, 2))
        return moved(pictures, shifts), labels(chosen, spoilt, shifts)

    def draw(self, rng: np.random.Generator, scene: Scene, spoilt: Sequence[bool], kind: str = "") -> np.ndarray:
        """The scene with some of its things spoilt, in a random way or in one of SPOILERS; (side, side, 3) uint8."""
        sprites = [sprite(self.things[placed.thing], placed.colour, placed.size, self.icons) for placed in scene.things]
        for number, placed in enumerate(scene.things):
            if spoilt[number]:
                other = self.things[(placed.thing + rng.integers(1, len(self.things))) % len(self.things)]
                how = kind or LESSONS[rng.integers(len(LESSONS))]
                sprites[number] = spoil(rng, how, sprites[number], sprite(other, other.colour, placed.size, self.icons))
        return compose(scene, sprites)

    def passed(self, rng: np.random.Generator, chosen: Sequence[Scene], spoilt: Sequence[Sequence[bool]], drawn: np.ndarray) -> Tensor:
        """Pictures of scenes through the autoencoder: a little roughened, as a denoiser leaves them, and with some things spoilt."""

        def change(latents: Tensor) -> None:
            spread = latents.std(dim=(0, 2, 3))
            rough = torch.from_numpy(rng.standard_normal(latents.shape).astype(np.float32)) * spread[:, None, None]
            latents += rough * torch.from_numpy(rng.random((len(latents), 1, 1, 1)).astype(np.float32)) * autoencoder.ROUGHNESS
            for inner, scene, flags in zip(latents, chosen, spoilt, strict=True):
                bad = [placed for placed, flag in zip(scene.things, flags, strict=True) if flag]
                spoil_latents(rng, inner, bad, scene.side // latents.shape[-1], spread)

        return reconstructed(self.vae, drawn, change)


def moved(pictures: Tensor, shifts: np.ndarray) -> Tensor:
    """Each picture (N, 3, H, W) moved by its (x, y) pixels, at most SHIFT; edges are repeated."""
    height, width = pictures.shape[-2:]
    padded = F.pad(pictures, (SHIFT,) * 4, mode="replicate")
    corners = (SHIFT - shifts).tolist()
    return torch.stack([picture[:, y : y + height, x : x + width] for picture, (x, y) in zip(padded, corners, strict=True)])


def roughened(pictures: Tensor, noise: torch.Generator) -> Tensor:
    """With slightly other brightness, contrast and tint, and grain: no judgement may hang on an exact colour."""
    gain, tint, grain = (torch.randn(len(pictures), 3, 1, 1, generator=noise) for _ in range(3))
    roughness = 0.03 * grain[:, :1].abs() * torch.randn(pictures.shape, generator=noise)
    return (pictures * (1 + 0.05 * gain) + 0.03 * tint + roughness).clamp(-1, 1)


def trainer(studies: Studies, seed: int = 6, channels: Sequence[int] = CHANNELS, batch: int = BATCH) -> Trainer:
    torch.manual_seed(seed)
    network = Judge(len(studies.things), channels).to(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(network.parameters(), PEAK_RATE, (0.9, 0.99), weight_decay=1e-2, fused=True)

    def step(number: int, fraction: float) -> dict[str, float]:
        rng, noise = generators(seed, number)
        larger = fraction > LARGER_FROM and number % LARGER == 0
        stage = replace(LARGE, sides=(int(rng.choice(LARGE.sides)),)) if larger else WIDE
        share = SPOILT * min(1.0, fraction / SPOILT_FROM)
        pictures, wanted = studies.batch(rng, stage, batch // 4 if larger else batch, share)
        rate = apply_rate(optimiser, PEAK_RATE, learning_rate(fraction, number, WARM_UP, DECAY_FROM))
        network.train()
        with accelerator().autocast():
            maps = network(roughened(pictures, noise).contiguous(memory_format=torch.channels_last))
        total, values = loss(maps, wanted)
        total.backward()
        average_gradients(network)
        optimiser.step()
        optimiser.zero_grad()
        return values | {"rate": rate}

    def picture() -> np.ndarray:
        return sheet(studies.batch(generators(seed, 0)[0], WIDE, BATCH)[0], 8)

    return Trainer("judge", {"network": network}, optimiser, step, picture, batch)


def load(folder: Path, things: Sequence[Thing] = THINGS) -> Judge:
    """The judge trained below `folder` for these things. Raises RuntimeError if it was trained for others."""
    weights = torch.load(folder / "judge.pt", weights_only=True)["networks"]["network"]
    judge = Judge(len(things))
    if weights["mark.weight"].shape != judge.mark.weight.shape:
        raise RuntimeError(f"{folder / 'judge.pt'} knows other things than the {len(things)} to be judged: train it in another folder")
    judge.load_state_dict(weights)
    return judge.eval()


def run(studies: Studies, folder: Path, budget: Budget, report: Report | None = None) -> bool:
    return train(trainer(studies), budget, folder, report=report)
