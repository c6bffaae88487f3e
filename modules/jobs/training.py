"""What a training job is: what is made from which pictures, for how long, and what the result is called."""

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from modules.model_manager.choice import usable
from modules.model_manager.library import Checkpoint
from modules.recipe.catalogue import Named
from modules.recipe.fields import BadField, checked, row, table
from modules.recipe.infotext import pairs
from modules.settings import Settings
from modules.version import VERSION

NEW, FINE_TUNE, LORA = "New small model", "Fine-tune", "LoRA"
WHAT = {row.name: row for row in (Named(LORA, ("lora",)), Named(FINE_TUNE, ("finetune",)), Named(NEW, ("all", "new")))}
LONG = 60  # minutes: in less a new model learns few things rather than none
PICTURES = (".png", ".jpg", ".jpeg", ".webp", "metadata.jsonl")
STEM = re.compile(r"\w(?:[\w .()+-]{0,48}[\w)+-])?")

_WHAT_HELP = "A LoRA is quick and small; a fine-tune changes a whole checkpoint; a new model learns emoji scenes from nothing."
_MINUTES_HELP = "How long it trains in all; it can be stopped and go on at any time."
_DATA_HELP = "A folder in datasets/ with pictures and captions: cat.png and cat.txt, or a metadata.jsonl."


@dataclass(frozen=True)
class Training:
    """Everything that decides a training. `folder` is where it keeps its state, below the trainings' folder."""

    what: str = row(LORA, "What to make", _WHAT_HELP, choices=WHAT)
    base: str = row("", "Starts from", "The checkpoint that is trained further, or that the LoRA is for.", high=1000)
    data: str = row("", "Pictures", _DATA_HELP, high=1000)
    minutes: float = row(30.0, "Minutes", _MINUTES_HELP, low=0.1, high=20160, step=1)
    name: str = row("", "Name", "What the new file in models is called.", high=100)
    folder: str = row("", "Folder", "Where the state is kept.", high=200)


FIELDS = table(Training)
DEFAULTS = Training()


def from_dict(values: Mapping[str, object]) -> Training:
    """The training that `dataclasses.asdict` described. BadField names a value that none can have."""
    if unknown := set(values) - set(FIELDS):
        raise BadField(min(unknown), f"{min(unknown)!r:.60}: there is no such field")
    return Training(**{name: checked(name, value, FIELDS) for name, value in values.items()})


def training_for(request: Mapping[str, object], checkpoints: Sequence[Checkpoint], settings: Settings) -> Training:
    """The training that a request asks for; what it leaves out is as usual. BadField names the field that is wrong."""
    asked = from_dict({name: value for name, value in request.items() if value is not None})
    if asked.folder:
        raise BadField("folder", "Folder: nobody can choose it")
    if not STEM.fullmatch(asked.name):
        wrong = "up to 50 letters, digits, spaces and . _ - ( ) + make one" if asked.name else "what shall it be called?"
        raise BadField("name", f"Name: {wrong}")
    if asked.what == NEW:
        asked = replace(asked, base="", data="")
    else:
        try:
            asked = replace(asked, base=usable(checkpoints, asked.base, settings.hashes).name)
        except LookupError as error:
            raise BadField("base", f"Starts from: {error}") from None
        _folder_of(asked.data, settings)
    require_free(asked, settings)
    return replace(asked, folder=f"{asked.name}-{time.strftime('%Y%m%d-%H%M%S')}")


def require_free(training: Training, settings: Settings) -> None:
    """BadField if the file that the training makes is there already."""
    output = output_of(training, settings)
    if os.path.lexists(output):
        raise BadField("name", f"Name: there is a file {output.parent.name}/{output.name} already: choose another name")


def output_of(training: Training, settings: Settings) -> Path:
    """The file that the training makes."""
    folder = settings.lora_roots[0] if training.what == LORA else settings.checkpoint_roots[0]
    return folder / f"{training.name}.safetensors"


def arguments(training: Training, settings: Settings) -> list[str]:
    """The command line that trains. BadField if the pictures are gone."""
    step, *_ = WHAT[training.what].aliases
    known = {"folder": settings.training / training.folder, "output": output_of(training, settings), "minutes": f"{training.minutes:g}"}
    if training.what == NEW:
        known |= {"preset": "starter" if training.minutes >= LONG else "quick", "icons": settings.training / "icons"}
    else:
        known |= {"from": training.base, "data": _folder_of(training.data, settings)}
        known |= {"data-dir": settings.data_dir, "models-dir": settings.models}
        known |= {"ckpt-dir": settings.ckpt_dir} if settings.ckpt_dir else {}
    return ["train", "--watched", step, *(f"--{name}={value}" for name, value in known.items())]


def datasets(settings: Settings) -> list[str]:
    """The folders that can be trained on, by name."""
    return sorted(dict(_folders(settings)), key=str.casefold)


def _folder_of(name: str, settings: Settings) -> Path:
    """The folder called `name` in the dataset folders: only what lies there has a name. BadField says what to do."""
    root = settings.dataset_roots[0]
    if not name:
        raise BadField("data", f"Pictures: put a folder of pictures with captions into {root} and choose it")
    found = dict(_folders(settings)).get(name)
    if found is None:
        raise BadField("data", f"Pictures: there is no folder of pictures {name:.100} in {root} that can be read")
    return found


def _folders(settings: Settings) -> Iterator[tuple[str, Path]]:
    """(name, path) of each readable folder of pictures; of two with one name the last, which is in the first root, counts."""
    for root in reversed(settings.dataset_roots):
        try:
            inside = list(os.scandir(root))
        except OSError:
            continue
        for entry in inside:
            if entry.name.isprintable() and not entry.name.startswith(".") and _holds_pictures(entry.path):
                yield entry.name, Path(entry.path)


def _holds_pictures(folder: str) -> bool:
    try:
        return any(entry.name.lower().endswith(PICTURES) for entry in os.scandir(folder))
    except OSError:
        return False


def in_words(training: Training) -> str:
    """What is trained, in one line: "cats: LoRA of starter.safetensors on cats"."""
    source = f" of {training.base} on {training.data}" if training.base else ""
    return f"{training.name}: {training.what}{source}"


def infotext(training: Training, stage: str, values: Mapping[str, float]) -> str:
    """The parameters text of a sample picture: which training it belongs to, and how far that was."""
    figures = {f"Training {name}": f"{values[name]:.6g}" for name in ("step", "loss") if name in values}
    about = {"Training": training.name, "Training stage": stage or None, **figures, "Version": f"Easel {VERSION}"}
    return f"A sample of the training {in_words(training)}\n{pairs(about)}"
