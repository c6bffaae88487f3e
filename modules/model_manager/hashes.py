"""SHA-256 of model files, remembered: reading gigabytes takes seconds, and a file's hash only changes with the file."""

import hashlib
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

from modules.model_manager.folder_checkpoint import files_of, is_folder_checkpoint
from modules.model_manager.index import opened
from modules.model_manager.stored import Refused, open_regular

SHORT = 10
log = logging.getLogger("easel")
PIECE = 2**20


def short_hash(path: Path, cache: Path | None) -> str:
    """The first 10 hexadecimal digits of the file's SHA-256, as pictures' parameters name a model. Raises Refused if unreadable."""
    return sha256(path, cache)[:SHORT]


def sha256(path: Path, cache: Path | None, start: int = 0) -> str:
    """The whole SHA-256, of a file from the byte `start` on, in hexadecimal digits. Raises Refused if unreadable."""
    known = known_hash(path, cache, start) if cache else None
    return known or _measure(path, cache, start=start)


def known_hash(path: Path, cache: Path, start: int = 0) -> str | None:
    """The whole SHA-256 (from the byte `start` on) if it was measured since the file last changed; never reads the file."""
    try:
        size, mtime_ns = _state(path)
    except OSError:
        return None
    try:
        with opened(cache) as store:
            row = store.execute("SELECT size, mtime_ns, sha256 FROM hashes WHERE path = ?", (_key(path, start),)).fetchone()
    except (OSError, sqlite3.Error):  # a disk that is full or read-only: then nothing is known
        return None
    return row[2] if row and row[:2] == (size, mtime_ns) else None


def paths_of(prefix: str, cache: Path) -> set[str]:
    """The paths that had a hash with these first digits when they were measured."""
    try:
        with opened(cache) as store:
            return {path for (path,) in store.execute("SELECT path FROM hashes WHERE substr(sha256, 1, ?) = ?", (len(prefix), prefix))}
    except (OSError, sqlite3.Error):
        return set()


def measure_missing(paths: Iterable[Path], cache: Path, pause: Callable[[], None]) -> None:
    """Measures those files whose hash is not known. `pause` is called before each piece; what it raises ends the work."""
    for path in paths:
        if known_hash(path, cache) is None:
            try:
                _measure(path, cache, pause)
            except Refused as refusal:
                log.warning("%s: %s", path.name, refusal)


def _measure(path: Path, cache: Path | None, pause: Callable[[], None] = lambda: None, start: int = 0) -> str:
    """The SHA-256 of the file from the byte `start` on; of a folder, of its files one after the other."""
    try:
        before = _state(path)
        digest = hashlib.sha256()
        for name in _files(path):
            with open_regular(path / name) as file:
                file.seek(start)
                _add(file, digest, pause)
        unchanged = _state(path) == before
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror or error}") from error
    if cache and unchanged:
        _remember(_key(path, start), before, digest.hexdigest(), cache)
    return digest.hexdigest()


def _add(file: BinaryIO, digest: "hashlib._Hash", pause: Callable[[], None]) -> None:
    while True:
        pause()
        if not (piece := file.read(PIECE)):
            return
        digest.update(piece)


def _files(path: Path) -> list[str]:
    return files_of(path) if is_folder_checkpoint(path) else [""]


def _state(path: Path) -> tuple[int, int]:
    """(bytes, time of the last change) of the file or of all files of a folder."""
    states = [os.stat(path / name) for name in _files(path)]
    return sum(state.st_size for state in states), max(state.st_mtime_ns for state in states)


def _key(path: Path, start: int) -> str:
    return f"{path.absolute()} from {start}" if start else str(path.absolute())


def _remember(key: str, state: tuple[int, int], digest: str, cache: Path) -> None:
    try:
        with opened(cache) as store, store:
            store.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", (key, *state, digest))
    except (OSError, sqlite3.Error) as error:
        log.warning("%s cannot be written, so %s is read again next time: %s", cache, key, error)
