"""`train finetune`, `train lora`, `train scenes`: what goes on from a checkpoint that is there."""

import argparse
import math
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from modules.commands.options import add_settings, fail, settings_of
from modules.model_manager.loras import UNSPEAKABLE
from modules.settings import PROGRAM, Settings

if TYPE_CHECKING:
    from modules.model_manager.library import Checkpoint
    from modules.training.base import Descent
    from modules.training.folder import Folder
    from modules.training.loop import Trainer

STEPS = ("finetune", "lora", "scenes")
DATA = "name.png with name.txt beside it, or a metadata.jsonl"


def add_parsers(steps: argparse._SubParsersAction) -> None:
    finetune = steps.add_parser("finetune", description="trains a checkpoint further on pictures with captions", allow_abbrev=False)
    _add_training(finetune, steps=600, batch=8, output="models/Stable-diffusion/NAME-tuned.safetensors")
    lora = steps.add_parser("lora", description="makes a LoRA for a checkpoint from pictures with captions", allow_abbrev=False)
    _add_training(lora, steps=600, batch=8, output="models/Lora/, called like the folder of pictures")
    lora.add_argument("--rank", type=_positive, default=8, help="how much each change can hold (default: 8)")
    lora.add_argument("--alpha", type=float, help="what changes are weighed with, alpha / rank (default: the rank)")
    lora.add_argument("--convolutions", action="store_true", help="change the convolutions too: learns faster, forgets more")
    lora.add_argument("--text", action="store_true", help="change the text encoder too")
    scenes = steps.add_parser("scenes", description="writes pictures with captions, of one emoji, to train on", allow_abbrev=False)
    scenes.add_argument("--thing", required=True, metavar="EMOJI", help="the emoji: snail, unicorn, hot-dog")
    scenes.add_argument("--count", type=_positive, default=20, help="how many pictures (default: 20)")
    scenes.add_argument("--output", type=Path, required=True, metavar="DIR", help="a folder that is new or empty")
    scenes.add_argument("--icons", type=Path, default=PROGRAM / "training" / "starter" / "icons", metavar="DIR", help=argparse.SUPPRESS)


def _add_training(parser: argparse.ArgumentParser, steps: int, batch: int, output: str) -> None:
    parser.add_argument("--from", dest="start", default="starter", metavar="NAME", help="the checkpoint (default: starter)")
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help=DATA)
    parser.add_argument("--output", type=Path, metavar="FILE", help=f"the file to write (default: {output})")
    parser.add_argument("--steps", type=_positive, default=steps, help=f"how many updates in all (default: {steps})")
    parser.add_argument("--minutes", type=minutes, metavar="M", help="how long it trains instead, however many updates that is")
    parser.add_argument("--batch", type=_positive, default=batch, help=f"pictures an update (default: {batch})")
    parser.add_argument("--rate", type=_rate, help="how far an update goes at most (default: what suits the checkpoint's width)")
    parser.add_argument("--folder", type=Path, default=PROGRAM / "training", help="where the working state lies (default: training)")
    parser.add_argument("--threads", type=_positive, default=2, help="processor threads to use (default: 2)")
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir"])


def main(arguments: argparse.Namespace) -> int:
    try:
        return {"finetune": finetune, "lora": lora, "scenes": scenes}[arguments.step](arguments)
    except (OSError, RuntimeError) as error:
        return fail(" ".join(str(error).split()), 1)


def finetune(arguments: argparse.Namespace) -> int:
    from modules.training import finetune
    from modules.training.base import found_base, load_base
    from modules.training.hardware import accelerator
    from modules.training.written import check_output

    settings = settings_of(arguments)
    found = found_base(arguments.start, settings)
    output = arguments.output or settings.models / "Stable-diffusion" / f"{Path(found.name).stem}-tuned.safetensors"
    check_output(output)
    data, start = read_data(arguments.data, found.native_size), load_base(found, settings)
    training = finetune.trainer(output.stem, start, data, _plan(arguments, finetune.rate_for(start)), _about(found, settings))
    if not _train(training, arguments, "finetune"):
        return _stopped()
    if accelerator().is_main_process:
        finetune.write(training, start, data, output)
        print(f"{output}: {found.name} after {training.done} steps")
    return 0


def lora(arguments: argparse.Namespace) -> int:
    from modules.training import lora
    from modules.training.base import found_base, load_base
    from modules.training.hardware import accelerator
    from modules.training.written import check_output

    settings = settings_of(arguments)
    found = found_base(arguments.start, settings)
    output = arguments.output or settings.models / "Lora" / f"{arguments.data.absolute().name}.safetensors"
    if UNSPEAKABLE.search(output.stem):
        return fail(f"--output {output.name}: no prompt can call a LoRA with one of : < > in its name", 1)
    check_output(output)
    shape = lora.Shape(arguments.rank, arguments.alpha or arguments.rank, arguments.convolutions, arguments.text)
    data, start = read_data(arguments.data, found.native_size), load_base(found, settings)
    plan = _plan(arguments, lora.rate_for(start))
    training = lora.trainer(output.stem, start, data, plan, _about(found, settings), shape)
    if not _train(training, arguments, "lora"):
        return _stopped()
    if accelerator().is_main_process:
        lora.write(training, start, data, plan, shape, output, settings.hashes)
        print(f"{output}: use it as <lora:{output.stem}:1> in a prompt for {found.name}")
    return 0


def scenes(arguments: argparse.Namespace) -> int:
    from modules.training.samples import write_scenes

    write_scenes(arguments.thing, arguments.count, arguments.output, arguments.icons)
    print(f"{arguments.output}: {arguments.count} pictures of a {arguments.thing} with captions")
    return 0


def read_data(folder: Path, side: int) -> "Folder":
    """The pictures of a folder; says how many there are, and what is left out. OSError and RuntimeError as read_folder."""
    from modules.training.folder import read_folder

    data = read_folder(folder, side)
    print(f"{folder}: {len(data.captions)} pictures with captions{'; left out: ' + data.left_out if data.left_out else ''}")
    return data


def _plan(arguments: argparse.Namespace, rate: float) -> "Descent":
    from modules.training.base import Descent

    return Descent(arguments.rate or rate, arguments.steps, arguments.batch)


def _about(found: "Checkpoint", settings: Settings) -> dict[str, str]:
    """What a run cannot change half-way."""
    from modules.model_manager.hashes import short_hash

    return {"from": short_hash(found.path, settings.hashes)}


def _train(training: "Trainer", arguments: argparse.Namespace, kind: str) -> bool:
    """Trains to the end; False if it was stopped before."""
    import torch

    from modules.training.files import alone
    from modules.training.hardware import accelerator
    from modules.training.loop import Budget, train

    torch.set_num_threads(arguments.threads)
    folder = arguments.folder / kind
    budget = Budget(60 * arguments.minutes, "seconds") if arguments.minutes else Budget(arguments.steps)
    with alone(folder) if accelerator().is_main_process else nullcontext():
        return train(training, budget, folder, report=arguments.watched and arguments.watched.report())


def _stopped() -> int:
    return fail("training was stopped; the same command goes on from here", 130)


def minutes(text: str) -> float:
    number = float(text)
    if not 0 < number < math.inf:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def _positive(text: str) -> int:
    number = int(text)
    if not 1 <= number <= 1_000_000:
        raise argparse.ArgumentTypeError(f"{text} is not 1 or more")
    return number


def _rate(text: str) -> float:
    rate = float(text)
    if not 0 < rate < 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return rate
