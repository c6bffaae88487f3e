"""The output writer: a picture appears under its final name whole, or not at all, and never in place of another."""

import contextlib
import itertools
import os
import re
import secrets
from collections.abc import Iterable
from pathlib import Path

_NUMBER = re.compile(r"^(\d+)-")


def save(png: bytes, folder: Path, seed: int, stem: str = "") -> Path:
    """Write `folder/NNNNN-SEED.png`, numbered after the highest that is there, and return its path.

    With a stem it is `STEM.png`, or `STEM-N.png` where that is taken.
    The bytes are on the disk (file and folder synced) when this returns. OSError if they cannot be; nothing half-written stays.
    """
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{secrets.token_hex(8)}.tmp"
    try:
        with open(temporary, "xb") as file:
            file.write(png)
            file.flush()
            os.fsync(file.fileno())
        numbers = itertools.count() if stem else itertools.count(_next_number(folder))
        names = (f"{stem}-{n}.png" if n else f"{stem}.png" for n in numbers) if stem else (f"{n:05d}-{seed}.png" for n in numbers)
        return _published(temporary, folder, names)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def _published(temporary: Path, folder: Path, names: Iterable[str]) -> Path:
    """Give the file its final name: the first of `names` that nobody took, even in the same instant."""
    for name in names:
        path = folder / name
        try:
            _rename_without_overwriting(temporary, path)
        except FileExistsError:
            continue
        _sync_folder(folder)
        return path
    raise AssertionError("names do not end")


def _next_number(folder: Path) -> int:
    numbers = [int(match[1]) for name in os.listdir(folder) if (match := _NUMBER.match(name))]
    return max(numbers, default=-1) + 1


def _rename_without_overwriting(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        with open(path, "xb"):
            pass
        os.replace(temporary, path)


def _sync_folder(folder: Path) -> None:
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sweep(folder: Path, older_than: float) -> None:
    """Remove temporary files that a killed program left below `folder` before `older_than` (seconds since 1970)."""
    for leftover in folder.glob("*/*/.*.tmp"):
        with contextlib.suppress(OSError):
            if leftover.lstat().st_mtime < older_than:
                leftover.unlink()
