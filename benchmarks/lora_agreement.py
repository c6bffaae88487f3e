"""Does a LoRA made from 20 scenes of an emoji that the starter has never seen make it draw that emoji?

    python benchmarks/lora_agreement.py --thing snail --work /tmp/snail -- --rank 8

Writes the scenes, trains the LoRA (what stands behind -- goes to `train lora`) and a judge that knows the thing beside all others,
draws 40 prompts for the thing and 40 for others, each with and without the LoRA, and prints in how many the judge sees what was
asked for. Everything stays in --work: what is there already is not made again.
"""

import argparse
import io
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

sys.path.insert(0, str(Path(__file__).parents[1]))

import app
from modules.engine.run import run
from modules.engine.studio import Studio
from modules.jobs.messages import Message, Picture
from modules.recipe.fields import Recipe
from modules.settings import PROGRAM, Settings
from modules.training import judge
from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS, Thing
from modules.training.data import to_signed
from modules.training.grammar import article
from modules.training.loop import Budget, sheet
from modules.training.samples import thing_called

COUNT = 40
SIDE = 128


def prompts(things: Sequence[Thing]) -> list[str]:
    """COUNT plain prompts, the things and all places in turn."""
    places = [BACKGROUNDS[(number + number // len(BACKGROUNDS)) % len(BACKGROUNDS)].phrases[0] for number in range(COUNT)]
    return [f"{article(things[number % len(things)].name)} {place}" for number, place in enumerate(places)]


def drawn(studio: Studio, wanted: Sequence[str], guidance: float, ending: str) -> Tensor:
    """A picture of each prompt in 20 steps, (N, 3, SIDE, SIDE) in [-1, 1]."""
    found: list[np.ndarray] = []

    def keep(message: Message) -> None:
        if isinstance(message, Picture):
            found.append(np.asarray(Image.open(io.BytesIO(message.png)).convert("RGB")))

    for seed, prompt in enumerate(wanted):
        recipe = Recipe(
            prompt=prompt + ending, seed=seed, steps=20, cfg_scale=guidance, width=SIDE, height=SIDE, checkpoint="starter.safetensors"
        )
        run(recipe, studio, keep, check=lambda: None)
    return torch.from_numpy(to_signed(np.stack(found)))


def agreement(network: judge.Judge, pictures: Tensor, numbers: Sequence[int]) -> float:
    """The part of pictures in which the clearest thing is the one of these numbers."""
    seen = judge.seen(network, pictures, most=1)
    return float(np.mean([[found.thing for found in each.things] == [number] for each, number in zip(seen, numbers, strict=True)]))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--thing", default="snail")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--icons", type=Path, default=PROGRAM / "training" / "icons")
    parser.add_argument("--judge-steps", type=int, default=600)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("training", nargs="*", help="options of `train lora`")
    args = parser.parse_args()

    thing = thing_called(args.thing, args.icons)
    things = (*THINGS, thing)
    scenes, output = args.work / args.thing, args.work / "models" / "Lora" / f"{args.thing}.safetensors"
    if not scenes.exists():
        app.main(["train", "scenes", "--thing", args.thing, "--output", str(scenes), "--icons", str(args.icons)])
    places = ["--data", str(scenes), "--output", str(output), "--folder", str(args.work / "training")]
    began = time.process_time()
    if code := app.main(["train", "lora", *places, *args.training]):
        raise SystemExit(code)
    print(f"trained in {(time.process_time() - began) / 60:.1f} CPU minutes, loading and sample pictures included")

    judge.run(judge.Studies(args.icons, things), args.work / "judge", Budget(args.judge_steps))
    network = judge.load(args.work / "judge", things)
    studio = Studio.of(Settings(data_dir=args.work, ckpt_dir=PROGRAM / "models" / "Stable-diffusion"))
    for kind, asked in (("the thing", (thing,)), ("others", THINGS)):
        numbers = [things.index(asked[number % len(asked)]) for number in range(COUNT)]
        for name, ending in (("before", ""), ("after", f" <lora:{args.thing}:1>")):
            pictures = drawn(studio, prompts(asked), args.guidance, ending)
            Image.fromarray(sheet(pictures, 8)).save(args.work / f"{kind.split()[-1]}-{name}.png")
            print(f"{kind}, {name}: {agreement(network, pictures, numbers):.0%} of {COUNT}", flush=True)


if __name__ == "__main__":
    main()
