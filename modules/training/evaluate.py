"""How good the starter is: pictures it draws, judged by the image encoder that was trained beside its text encoder.

The judge accepts colour and outline, so it flatters: a contact sheet for the eye belongs to every figure.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from diffusers import UNet2DConditionModel
from PIL import Image
from torch import Tensor
from transformers import CLIPTextModel

from modules.training import clip, denoiser
from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS
from modules.training.data import SIMPLE, Scene, draw, scenes_of, to_signed
from modules.training.grammar import asked, tokens
from modules.training.loop import sheet


@dataclass(frozen=True)
class Agreement:
    """The part of pictures in which the judge sees the thing, the background, and (`nearest`, dB) how near each is to a real scene."""

    thing: float
    background: float
    nearest: float
    weakest: tuple[str, ...]


def subjects(rounds: int) -> list[tuple[int, int]]:
    """Every thing `rounds` times, each time on another background."""
    return [(thing, (thing + 3 * turn) % len(BACKGROUNDS)) for turn in range(rounds) for thing in range(len(THINGS))]


def pictures(
    unet: UNet2DConditionModel,
    text: CLIPTextModel,
    decode: Callable[[Tensor], Tensor],
    asked_for: list[tuple[int, int]],
    guidance: float,
    seed: int = 0,
) -> Tensor:
    """One picture for each (thing, background), (N, 3, 128, 128) in [-1, 1]."""
    context = denoiser.encode_texts(text, [[], *(tokens(asked(*subject)) for subject in asked_for)]).float()
    drawn = []
    for start in range(0, len(asked_for), 20):
        part = context[1 + start : 21 + start]
        noise = torch.randn((len(part), 4, 16, 16), generator=torch.Generator().manual_seed(seed + start))
        drawn.append(decode(denoiser.sample(unet, part, context[:1], noise, guidance=guidance)))
    return torch.cat(drawn)


@torch.no_grad()
def judge(pair: clip.Pair, drawn: Tensor, asked_for: list[tuple[int, int]], icons: Path) -> Agreement:
    """Which thing and which background the judge sees, choosing among all of them; and the distance to the nearest scene asked for."""
    every = [(thing, background) for thing in range(len(THINGS)) for background in range(len(BACKGROUNDS))]
    texts = pair.of_text(clip.encode_ids([tokens(asked(*subject)) for subject in every]))
    seen = [every[i] for i in (pair.of_picture(drawn) @ texts.T).argmax(dim=1).tolist()]
    right = [saw[0] == wanted[0] for saw, wanted in zip(seen, asked_for, strict=True)]
    weak = {THINGS[wanted[0]].name for wanted, good in zip(asked_for, right, strict=True) if not good}
    scenes: dict[tuple[int, int], list[Scene]] = {}
    for scene in scenes_of(SIMPLE):
        scenes.setdefault((scene.thing, scene.background), []).append(scene)
    near = [nearest(picture, scenes[wanted], icons) for picture, wanted in zip(drawn, asked_for, strict=True)]
    backgrounds = [saw[1] == wanted[1] for saw, wanted in zip(seen, asked_for, strict=True)]
    return Agreement(float(np.mean(right)), float(np.mean(backgrounds)), float(np.mean(near)), tuple(sorted(weak)))


def nearest(picture: Tensor, scenes: list[Scene], icons: Path) -> float:
    """PSNR in dB to the most similar of the scenes."""
    real = torch.from_numpy(to_signed(np.stack([draw(scene, icons) for scene in scenes])))
    return float((10 * torch.log10(4 / (real - picture.clamp(-1, 1)).pow(2).mean(dim=(1, 2, 3)))).max())


@torch.no_grad()
def evaluate(folder: Path, output: Path, guidance: float = 3.0, rounds: int = 2) -> Agreement:
    """Judge the denoiser below `folder` and save a contact sheet, one picture of each thing."""
    vae, text = denoiser.load_stage(folder)
    kept, _ = denoiser.load_cache(folder / "icons", folder)
    pair = clip.Pair(clip.build())
    pair.load_state_dict(torch.load(folder / "clip.pt", weights_only=True)["networks"]["network"])
    unet = denoiser.build().eval()
    unet.load_state_dict(torch.load(folder / "denoiser.pt", weights_only=True)["networks"]["ema"])
    asked_for = subjects(rounds)
    drawn = pictures(unet, text, denoiser.decoder(vae, kept), asked_for, guidance)
    Image.fromarray(sheet(drawn[: len(THINGS)], 8)).save(output)
    return judge(pair.eval(), drawn, asked_for, folder / "icons")
