"""SHA-256 of model files, remembered: reading gigabytes takes seconds, and a file's hash only changes with the file."""

import hashlib
import logging
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from modules.model_manager.stored import Identity, Refused, identify, open_regular

SHORT = 10
log = logging.getLogger("easel")
TABLE = "CREATE TABLE IF NOT EXISTS hashes (path TEXT PRIMARY KEY, size INTEGER, mtime_ns INTEGER, sha256 TEXT)"


def short_hash(path: Path, cache: Path | None) -> str:
    """The first 10 hexadecimal digits of the file's SHA-256, as pictures' parameters name a model. Raises Refused if unreadable."""
    known = known_hash(path, cache) if cache else None
    return (known or _measure(path, cache))[:SHORT]


def known_hash(path: Path, cache: Path) -> str | None:
    """The file's whole SHA-256 if it was measured since the file last changed; never reads the file."""
    try:
        now = path.stat()
    except OSError:
        return None
    try:
        with _opened(cache) as store:
            row = store.execute("SELECT size, mtime_ns, sha256 FROM hashes WHERE path = ?", (str(path.absolute()),)).fetchone()
    except (OSError, sqlite3.Error):  # a disk that is full or read-only: then nothing is known
        return None
    return row[2] if row and row[:2] == (now.st_size, now.st_mtime_ns) else None


def _measure(path: Path, cache: Path | None) -> str:
    with open_regular(path) as file:
        before = identify(file)
        try:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        except OSError as error:
            raise Refused(f"unreadable: {error.strerror or error}") from error
        unchanged = identify(file) == before
    if cache and unchanged:
        _remember(path, before, digest, cache)
    return digest


def _remember(path: Path, identity: Identity, digest: str, cache: Path) -> None:
    row = (str(path.absolute()), identity.size, identity.mtime_ns, digest)
    try:
        with _opened(cache) as store, store:
            store.execute("INSERT OR REPLACE INTO hashes VALUES (?, ?, ?, ?)", row)
    except (OSError, sqlite3.Error) as error:
        log.warning("%s cannot be written, so %s is read again next time: %s", cache, path.name, error)


@contextmanager
def _opened(cache: Path) -> Iterator[sqlite3.Connection]:
    """The store; one that is damaged is begun anew, for everything in it can be measured again."""
    cache.parent.mkdir(parents=True, exist_ok=True)
    try:
        store = _connect(cache)
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        cache.unlink()
        store = _connect(cache)
    with closing(store):
        yield store


def _connect(cache: Path) -> sqlite3.Connection:
    store = sqlite3.connect(cache, timeout=10)
    try:
        store.execute(TABLE)
    except sqlite3.DatabaseError:
        store.close()
        raise
    return store
