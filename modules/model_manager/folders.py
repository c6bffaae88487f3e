"""Model files below folders that people fill by hand: links, loops, pipes, hidden files and checkpoints that are folders."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from modules.model_manager.folder_checkpoint import is_folder_checkpoint

EXTENSIONS = {".ckpt", ".safetensors", ".pt", ".pth", ".bin"}
MAX_DEPTH = 12
MAX_FOLDERS = 10_000


def model_files(roots: Sequence[Path]) -> Iterator[tuple[str, Path]]:
    """Model files as (name, path); a name that an earlier folder has already gets its own folder's name before it."""
    names: set[str] = set()
    for root in dict.fromkeys(Path(os.path.abspath(root)) for root in roots):
        for path in _walk(root, MAX_DEPTH, set()):
            name = path.relative_to(root).as_posix().encode("utf-8", "replace").decode("utf-8")  # a name may be bytes of no text
            name = f"{root.name}/{name}" if name in names else name
            names.add(name)
            yield name, path


def _walk(folder: Path, depth: int, seen: set[tuple[int, int]]) -> Iterator[Path]:
    """Model files below a folder, each real folder once however many links lead there; what cannot be listed holds nothing."""
    try:
        here = os.stat(folder)
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        return
    if (here.st_dev, here.st_ino) in seen or len(seen) >= MAX_FOLDERS:
        return
    seen.add((here.st_dev, here.st_ino))
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if _is_folder(entry):
            if is_folder_checkpoint(Path(entry.path)):
                yield Path(entry.path)
            elif depth > 0:
                yield from _walk(Path(entry.path), depth - 1, seen)
        elif Path(entry.name).suffix.lower() in EXTENSIONS:
            yield Path(entry.path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def is_vae(path: Path) -> bool:
    """Whether it is called `*.vae.*`, as VAE files beside checkpoints are."""
    return Path(path.stem).suffix.lower() == ".vae"
