"""`train`: make a checkpoint like the starter from nothing, one step after the other; what goes on from one is in tune.py."""

import argparse
from dataclasses import replace
from pathlib import Path

from modules.commands import tune
from modules.commands.options import fail
from modules.settings import PROGRAM
from modules.training.presets import PRESETS

STEPS = ("autoencoder", "clip", "denoiser", "export", "evaluate")
OUTPUT = PROGRAM / "models" / "Stable-diffusion" / "my-starter.safetensors"
TRAINING = PROGRAM / "training"
PREDICTIONS = {"v": "v", "eps": "epsilon"}

ABOUT = """\
the steps, in this order (all: the five that are not indented):
  autoencoder   pictures to small latents and back
  clip          a text encoder, trained against an image encoder
  denoiser      the U-Net, on latents and captions that are encoded once
    inpainting  the denoiser again, which is also told what to leave as it is
  export        what was trained as a checkpoint to draw with: --output, and beside it the inpainting one if there is one
  evaluate      figures of how well it draws, and a sheet of pictures

and from a checkpoint that is there:
  finetune      trains it further on a folder of pictures with captions
  lora          makes a LoRA for it from such a folder
  scenes        writes such a folder, of any emoji

Stopped or killed, the same command goes on where the last state was kept: every two minutes, in FOLDER/STEP.pt. FOLDER/STEP.png
shows how far it is, FOLDER/STEP.csv how the loss fell.

With a GPU it trains there. Several GPUs, or machines that share FOLDER: accelerate launch app.py train all
"""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser(
        "train",
        help="train a model like the starter, another checkpoint, or a LoRA",
        epilog=ABOUT,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument("--watched", action="store_const", const=True, help=argparse.SUPPRESS)  # by the server: see training/watched.py
    steps = parser.add_subparsers(dest="step", required=True, metavar="STEP", help="which one: see below, and STEP --help")
    for name in (*STEPS, "inpainting", "all"):
        _add_options(steps.add_parser(name, allow_abbrev=False))
    tune.add_parsers(steps)


def _add_options(parser: argparse.ArgumentParser) -> None:
    about = "how long and on what: starter is the recipe of the shipped model (4 hours), quick takes 15 minutes and knows 16 things"
    parser.add_argument("--preset", choices=PRESETS, default="starter", help=f"{about} (default: starter)")
    parser.add_argument("--minutes", type=tune.minutes, metavar="M", help="how long it trains, all steps together (default: the preset's)")
    parser.add_argument("--data", type=Path, metavar="DIR", help=f"pictures to train on instead of scenes of emoji: {tune.DATA}")
    parser.add_argument("--folder", type=Path, metavar="DIR", help="where the working state lies (default: training/PRESET)")
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"what export writes (default: {OUTPUT}, or called like DIR)")
    parser.add_argument("--threads", type=_threads, metavar="N", default=2, help="processor threads to use (default: 2)")
    parser.add_argument("--icons", type=Path, metavar="DIR", help=argparse.SUPPRESS)  # where the packages of emoji art lie
    kinds = "what keeps latents in bounds: a KL divergence or a codebook (default: kl; only kl can be drawn with)"
    parser.add_argument("--regulariser", choices=("kl", "vq"), help=f"autoencoder: {kinds}")
    parser.add_argument("--f", type=int, choices=(1, 2, 4, 8, 16, 32), help="autoencoder: pixels a latent is wide and high (default: 8)")
    parser.add_argument("--prediction", choices=PREDICTIONS, help="denoiser: predict v, or eps, the noise (default: v)")


def main(args: argparse.Namespace) -> int:
    if args.watched:
        from modules.training.watched import Watched

        args.watched = Watched(args.folder)  # before the slow imports: who watches may be gone meanwhile
    if args.step in tune.STEPS:
        return tune.main(args)
    import torch

    from modules.training import steps
    from modules.training.scenes import SIDE

    torch.set_num_threads(args.threads)
    name = args.data.absolute().name if args.data else "starter"
    try:
        data = tune.read_data(args.data, SIDE) if args.data else None
    except (OSError, RuntimeError) as error:
        return fail(str(error), 1)
    folder = args.folder or TRAINING / (f"{name}-{args.preset}" if data else args.preset)
    plan = steps.Plan(
        preset=PRESETS[args.preset],
        folder=folder,
        output=args.output or OUTPUT.with_name(f"my-{name}.safetensors"),
        icons=args.icons or folder / "icons",
        regulariser=args.regulariser,
        f=args.f,
        prediction=args.prediction and PREDICTIONS[args.prediction],
        data=data,
    )
    every = STEPS[:-1] if data else STEPS  # evaluate knows emoji only
    names = every if args.step == "all" else (args.step,)
    shares = [plan.preset.minutes.get(name, 0) for name in names]
    minutes = args.minutes or sum(shares)
    for number, name in enumerate(names):
        begin, end = (sum(shares[:count]) / (sum(shares) or 1) for count in (number, number + 1))
        report = args.watched and args.watched.report(name, begin, end, 60 * minutes * (1 - end))
        try:
            finished = steps.run(name, replace(plan, minutes=minutes * (end - begin)), report)
        except (OSError, RuntimeError) as error:
            return fail(" ".join(str(error).split()), 1)
        if not finished:
            return fail(f"{name} was stopped; the same command goes on from here", 130)
    return 0


def _threads(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number
