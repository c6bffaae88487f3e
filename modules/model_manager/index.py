"""What was seen in model files, remembered until they change: in memory, and in SQLite for the next process.

Reading ten thousand headers takes a minute, asking for ten thousand sizes and times a fraction of a second.
"""

import hashlib
import json
import logging
import os
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Generic, TypeVar

log = logging.getLogger("easel")

TABLES = """
CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT);
CREATE TABLE IF NOT EXISTS seen (kind TEXT, path TEXT, stamp TEXT, readers TEXT, found TEXT, PRIMARY KEY (kind, path)) WITHOUT ROWID;
"""

Found = TypeVar("Found")
Stamp = str
Named = tuple[str, Path]


@dataclass(frozen=True)
class Kind(Generic[Found]):
    """A kind of model file: the files whose change matters, how to look at it, and what was found as JSON's plain values and back."""

    name: str
    files: Callable[[Path], Sequence[str]]
    look: Callable[[str, Path], Found]
    pack: Callable[[Found], object]
    unpack: Callable[[str, Path, object], Found]


_memory: dict[tuple[str, str, Path], tuple[Stamp, object]] = {}
_stored: dict[tuple[str, Path], dict[str, tuple[Stamp, str]]] = {}


def remembered(kind: Kind[Found], named: Iterable[Named], store: Path | None = None) -> list[Found]:
    """What each of these files is. Only those that changed since this process, or another by way of `store`, saw them are looked at."""
    found, fresh = [], {}
    for name, path in named:
        now, key = stamp(kind.files(path)), (kind.name, name, path)
        if key not in _memory or _memory[key][0] != now:
            seen = _from_store(kind, name, path, now, store)
            if seen is None:
                seen = kind.look(name, path)
                fresh[path] = now, seen
            _memory[key] = now, seen
        found.append(_memory[key][1])
    if fresh and store:
        _remember([(kind.name, _text(path), then, readers(), json.dumps(kind.pack(seen))) for path, (then, seen) in fresh.items()], store)
    return found  # type: ignore[return-value]


@contextmanager
def opened(store: Path) -> Iterator[sqlite3.Connection]:
    """The store; one that is damaged is begun anew, for everything in it can be found out again."""
    store.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = _connect(store)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        store.unlink()
        connection = _connect(store)
    with closing(connection):
        yield connection


@cache
def readers() -> str:
    """Which version of these very modules is reading: what another version saw may look different to this one."""
    here = Path(__file__).parent
    sources = sorted(name for name in os.listdir(here) if name.endswith(".py"))
    return hashlib.sha256(b"".join((here / name).read_bytes() for name in sources)).hexdigest()[:16]


def _connect(store: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(store, timeout=10)
    try:
        connection.executescript(TABLES)
    except sqlite3.DatabaseError:
        connection.close()
        raise
    return connection


def stamp(paths: Sequence[str]) -> Stamp:
    """Changes whenever one of the files does."""
    parts = []
    for path in paths:
        try:
            now = os.stat(path)
        except OSError as error:
            parts.append(f"{error.errno}")
        else:
            parts.append(f"{now.st_size} {now.st_mtime_ns} {now.st_ctime_ns} {now.st_mode}")
    return ", ".join(parts)


def _from_store(kind: Kind[Found], name: str, path: Path, now: Stamp, store: Path | None) -> Found | None:
    if store is None:
        return None
    if (kind.name, store) not in _stored:
        _stored[kind.name, store] = _rows(kind.name, store)
    then, found = _stored[kind.name, store].get(_text(path), ("", ""))
    try:
        return kind.unpack(name, path, json.loads(found)) if then == now else None
    except (ValueError, TypeError, LookupError):  # a store that somebody else wrote into
        return None


def _rows(kind: str, store: Path) -> dict[str, tuple[Stamp, str]]:
    query = "SELECT path, stamp, found FROM seen WHERE kind = ? AND readers = ?"
    try:
        with opened(store) as connection:
            return {path: (stamp, found) for path, stamp, found in connection.execute(query, (kind, readers()))}
    except (OSError, sqlite3.Error):  # a disk that is full or read-only: then nothing is known
        return {}


def _remember(rows: list[tuple[str, ...]], store: Path) -> None:
    try:
        with opened(store) as connection, connection:
            connection.executemany("INSERT OR REPLACE INTO seen VALUES (?, ?, ?, ?, ?)", rows)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s cannot be written, so %s model files are looked at again next time: %s", store, len(rows), error)


def _text(path: Path) -> str:
    """A path as SQLite takes it, though a name may be bytes of no text."""
    return os.fsencode(path).hex() if not str(path).isprintable() else str(path)
