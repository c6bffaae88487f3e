"""The one SQLite file that the server writes to: jobs, pictures, the form's draft.

A disk that is full or read-only must not stop anyone from drawing: the store then goes on in memory and says so in `notice`.
"""

import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    kind TEXT NOT NULL DEFAULT 'picture',
    state TEXT NOT NULL CHECK (state IN ('queued', 'running', 'done', 'failed', 'cancelled')),
    attempt INTEGER NOT NULL DEFAULT 1,
    recipe TEXT NOT NULL,
    reason TEXT NOT NULL DEFAULT '',
    facts TEXT NOT NULL DEFAULT '{}',
    created REAL NOT NULL,
    ended REAL,
    ending INTEGER  -- counts the jobs that ended, for clocks can be set back
);
CREATE INDEX IF NOT EXISTS jobs_by_state ON jobs (state, id);
CREATE INDEX IF NOT EXISTS jobs_by_ending ON jobs (ending);
CREATE TABLE IF NOT EXISTS pictures (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    job INTEGER NOT NULL,
    place INTEGER NOT NULL,
    seed INTEGER NOT NULL,
    width INTEGER NOT NULL,
    height INTEGER NOT NULL,
    infotext TEXT NOT NULL,
    file TEXT,
    problem TEXT,
    created REAL NOT NULL,
    UNIQUE (job, place)
);
CREATE TABLE IF NOT EXISTS drafts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
"""


class Store:
    """A connection that all threads share. `notice` is empty while what is written stays on the disk."""

    def __init__(self, path: Path) -> None:
        self.notice = ""
        self._lock = threading.RLock()
        self._path = path
        try:
            self._connection = _opened(path)
        except (OSError, sqlite3.OperationalError) as error:
            self._connection = _in_memory()
            self._go_on_in_memory(error)

    def read(self, query: str, values: Sequence[object] = ()) -> list[sqlite3.Row]:
        with self._lock:
            return self._connection.execute(query, values).fetchall()

    def write(self, query: str, values: Sequence[object] = ()) -> sqlite3.Cursor:
        """One statement, on the disk when this returns (or in memory, with a notice, if the disk takes nothing)."""
        with self._lock:
            try:
                return self._committed(query, values)
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                    raise  # another program holds the file for now: nothing is wrong with the disk
                memory = _in_memory()
                self._connection.backup(memory)
                self._connection.close()
                self._connection = memory
                self._go_on_in_memory(error)
                return self._committed(query, values)

    def close(self) -> None:
        with self._lock:
            self._connection.close()

    def _committed(self, query: str, values: Sequence[object]) -> sqlite3.Cursor:
        with self._connection:
            return self._connection.execute(query, values)

    def _go_on_in_memory(self, error: Exception) -> None:
        self.notice = f"{self._path} cannot be written ({error}): the queue is kept in memory and ends with this run."


def _opened(path: Path) -> sqlite3.Connection:
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        connection = _connected(path)
        if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("is damaged")
    except sqlite3.OperationalError:
        raise
    except sqlite3.DatabaseError:
        os.replace(path, path.with_suffix(f".damaged-{time.strftime('%Y%m%d-%H%M%S')}"))
        for leftover in (f"{path}-wal", f"{path}-shm"):
            Path(leftover).unlink(missing_ok=True)
        connection = _connected(path)
    return connection


def _connected(path: Path | str) -> sqlite3.Connection:
    connection = sqlite3.connect(path, check_same_thread=False, timeout=20)
    connection.row_factory = sqlite3.Row
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.executescript(SCHEMA)
    if "kind" not in [column["name"] for column in connection.execute("PRAGMA table_info(jobs)")]:  # a store from before there were kinds
        connection.execute("ALTER TABLE jobs ADD COLUMN kind TEXT NOT NULL DEFAULT 'picture'")
    return connection


def _in_memory() -> sqlite3.Connection:
    return _connected(":memory:")
