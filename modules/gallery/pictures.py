"""The pictures that were drawn, by id: most lie in the outputs folder; one that the disk refused is kept in memory."""

import datetime
import errno
import os
import stat
import threading
import time
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from modules.gallery.writer import save, sweep
from modules.jobs.messages import MAX_BODY, Picture
from modules.store import Store

SPOOL_LIMIT = 512 << 20  # bytes of pictures that could not be saved, kept in memory


SAMPLES = "train-samples"


def today(outputs: Path, kind: str) -> Path:
    """Where today's pictures of this kind (a recipe's, or SAMPLES) go."""
    return outputs / (kind if kind == SAMPLES else f"{kind}-images") / datetime.date.today().isoformat()


@dataclass(frozen=True)
class Entry:
    """A picture in the gallery. `file` is below the outputs folder; None while only memory has it, because of `problem`."""

    id: int
    job: int
    seed: int
    width: int
    height: int
    infotext: str
    file: str | None
    problem: str | None
    created: float  # seconds since 1970


class Gallery:
    """Keeps every finished picture: on the disk first, then in the index."""

    def __init__(self, store: Store, outputs: Path) -> None:
        self._store = store
        self._outputs = outputs
        self._spool: OrderedDict[int, tuple[bytes, str]] = OrderedDict()  # file and kind
        self._lock = threading.Lock()
        sweep(outputs, time.time() - 3600)
        store.write("DELETE FROM pictures WHERE file IS NULL")

    def keep(self, picture: Picture, kind: str) -> int:
        """Save a picture of this kind and return its id. The same picture of a job that had to be repeated is kept once."""
        known = self._store.read("SELECT id FROM pictures WHERE job = ? AND place = ?", (picture.job, picture.index))
        if known:
            return known[0]["id"]
        file, problem = self._saved(picture.png, kind, picture.seed)
        row = self._store.write(
            "INSERT INTO pictures (job, place, seed, width, height, infotext, file, problem, created) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (picture.job, picture.index, picture.seed, picture.width, picture.height, picture.infotext, file, problem, time.time()),
        )
        if problem:
            self._remember(row.lastrowid, picture.png, kind)
        return row.lastrowid

    def save_again(self, id: int) -> Entry:
        """Try once more to write a picture that only memory has."""
        entry = self.entry(id)
        if entry.file is None and id in self._spool:
            file, problem = self._saved(*self._spool[id], entry.seed)
            self._store.write("UPDATE pictures SET file = ?, problem = ? WHERE id = ?", (file, problem, id))
            if file:
                with self._lock:
                    self._spool.pop(id, None)
        return self.entry(id)

    def entry(self, id: int) -> Entry:
        """The picture's entry, or LookupError."""
        rows = self._store.read("SELECT * FROM pictures WHERE id = ?", (id,))
        if not rows:
            raise LookupError(f"there is no picture {id}")
        return _entry(rows[0])

    def latest(self, limit: int, before: int | None = None) -> list[Entry]:
        """Up to `limit` pictures, newest first, older than the id `before`."""
        query = "SELECT * FROM pictures WHERE id < ? ORDER BY id DESC LIMIT ?"
        return [_entry(row) for row in self._store.read(query, (before or 2**62, limit))]

    def of_job(self, job: int) -> list[Entry]:
        """The pictures of a job, in the order of their seeds."""
        return [_entry(row) for row in self._store.read("SELECT * FROM pictures WHERE job = ? ORDER BY place", (job,))]

    def newest_of(self, jobs: Sequence[int]) -> dict[int, int]:
        """The newest picture of each of these jobs that has one."""
        places = ", ".join("?" * len(jobs))
        return dict(self._store.read(f"SELECT job, max(id) FROM pictures WHERE job IN ({places}) GROUP BY job", jobs))

    def png(self, id: int) -> bytes:
        """The picture's file, whole. LookupError if it is gone, or is not a plain file any more."""
        entry = self.entry(id)
        if entry.file is None:
            if id in self._spool:
                return self._spool[id][0]
            raise LookupError(f"picture {id} could not be saved and is gone")
        try:
            with open(self._outputs / entry.file, "rb", opener=_plain_file) as file:
                return file.read()
        except OSError as error:
            raise LookupError(f"{entry.file} cannot be read: {error.strerror}") from None

    def unsaved(self) -> int:
        return len(self._spool)

    def _saved(self, png: bytes, kind: str, seed: int) -> tuple[str | None, str | None]:
        try:
            path = save(png, today(self._outputs, kind), seed)
        except OSError as error:
            return None, error.strerror or str(error)
        return path.relative_to(self._outputs).as_posix(), None

    def _remember(self, id: int, png: bytes, kind: str) -> None:
        with self._lock:
            self._spool[id] = png, kind
            while len(self._spool) > 1 and sum(len(kept) for kept, _ in self._spool.values()) > SPOOL_LIMIT:
                self._spool.popitem(last=False)


def _plain_file(path: str, flags: int) -> int:
    """Opens a file that is one: what somebody put in its place, a link or a pipe, is an OSError instead."""
    handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    about = os.fstat(handle)
    if not stat.S_ISREG(about.st_mode) or about.st_size > MAX_BODY:
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a picture any more")
    return handle


def _entry(row: object) -> Entry:
    return Entry(*(row[name] for name in ("id", "job", "seed", "width", "height", "infotext", "file", "problem", "created")))
