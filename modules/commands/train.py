"""`train`: make the starter checkpoint again, one step after the other."""

import argparse
from pathlib import Path

from modules.commands.options import fail
from modules.settings import PROGRAM

STEPS = ("autoencoder", "clip", "denoiser", "export", "evaluate")
STARTER = PROGRAM / "models" / "Stable-diffusion" / "starter.safetensors"


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("train", help="train, export and judge the starter model", allow_abbrev=False)
    parser.add_argument("step", choices=(*STEPS, "all"), help="which step; each goes on where it was stopped")
    parser.add_argument("--minutes", type=float, help="how long the step trains in all (default: what the starter had)")
    parser.add_argument("--folder", type=Path, default=PROGRAM / "training", help="where the working state lies (default: training)")
    parser.add_argument("--output", type=Path, default=STARTER, help=f"the file that export writes (default: {STARTER})")
    parser.add_argument("--threads", type=int, default=2, help="processor threads to use (default: 2)")


def main(args: argparse.Namespace) -> int:
    import torch

    from modules.training import steps

    torch.set_num_threads(args.threads)
    for name in STEPS if args.step == "all" else (args.step,):
        try:
            finished = steps.run(name, args.folder, args.minutes, args.output)
        except (FileNotFoundError, RuntimeError) as error:
            return fail(str(error), 1)
        if not finished:
            return fail(f"{name} was stopped; the same command goes on from here", 130)
    return 0


if __name__ == "__main__":
    top = argparse.ArgumentParser()
    add_parser(top.add_subparsers(required=True))
    raise SystemExit(main(top.parse_args()))
