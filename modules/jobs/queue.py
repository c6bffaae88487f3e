"""The durable queue: a job is a row, written before anyone is told that it was accepted.

States: queued -> running -> done | failed | cancelled; queued -> cancelled; running -> queued only when the engine or the
server went away. A job is tried twice at most.
"""

import json
import sqlite3
import time
from dataclasses import dataclass

from modules.recipe.fields import BadField, Recipe, from_dict, to_dict
from modules.store import Store

MAX_ATTEMPTS = 2
MAX_WAITING = 10_000
_ENDED = "ended = ?, ending = (SELECT coalesce(max(ending), 0) + 1 FROM jobs)"


class QueueFull(BadField):
    """More jobs wait than anyone will live to see; no field of the request is to blame."""


@dataclass(frozen=True)
class Job:
    """A row of the queue."""

    id: int
    state: str
    attempt: int
    recipe: Recipe
    reason: str
    facts: dict[str, object]


class Queue:
    """The jobs of a store, oldest first."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add(self, recipe: Recipe) -> int:
        """Write the job down and return its id."""
        if self.waiting_count() >= MAX_WAITING:
            raise QueueFull("", f"{MAX_WAITING} jobs are waiting: let some of them finish first")
        row = self._store.write(
            "INSERT INTO jobs (state, recipe, created) VALUES ('queued', ?, ?)", (json.dumps(to_dict(recipe)), time.time())
        )
        return row.lastrowid

    def claim(self) -> Job | None:
        """The oldest waiting job, now running; None if none waits."""
        while self.waiting_count():
            for job in self.waiting(1):
                if self._move(job.id, "queued", "running"):
                    return self.job(job.id)
        return None

    def waiting(self, limit: int) -> list[Job]:
        return self._read("SELECT * FROM jobs WHERE state = 'queued' ORDER BY id LIMIT ?", limit)

    def unfinished(self) -> list[Job]:
        """All jobs that wait or run."""
        return self._read("SELECT * FROM jobs WHERE state IN ('queued', 'running') ORDER BY id LIMIT ?", MAX_WAITING + 1)

    def waiting_count(self) -> int:
        return self._store.read("SELECT count(*) FROM jobs WHERE state = 'queued'")[0][0]

    def job(self, job: int) -> Job | None:
        return next(iter(self._read("SELECT * FROM jobs WHERE id = ?", job)), None)

    def last_ended(self) -> Job | None:
        return next(iter(self._read("SELECT * FROM jobs WHERE ending IS NOT NULL ORDER BY ending DESC LIMIT ?", 1)), None)

    def end(self, job: int, state: str, reason: str = "", facts: dict[str, object] | None = None) -> bool:
        """A running job becomes done, failed or cancelled; False if it was not running."""
        query = f"UPDATE jobs SET state = ?, reason = ?, facts = ?, {_ENDED} WHERE id = ? AND state = 'running'"
        return self._store.write(query, (state, reason, json.dumps(facts or {}), time.time(), job)).rowcount == 1

    def drop(self, job: int) -> bool:
        """A waiting job is cancelled; False if it did not wait any more."""
        query = f"UPDATE jobs SET state = 'cancelled', {_ENDED} WHERE id = ? AND state = 'queued'"
        return self._store.write(query, (time.time(), job)).rowcount == 1

    def put_back(self) -> None:
        """What was running when this or the last server stopped waits again. That was not the job's fault: its attempt stays."""
        self._store.write("UPDATE jobs SET state = 'queued' WHERE state = 'running'")

    def died(self, job: int, cause: str) -> None:
        """The engine went away under a running job: it is tried once more, then it has failed because of `cause`."""
        again = "UPDATE jobs SET state = 'queued', attempt = attempt + 1 WHERE id = ? AND state = 'running' AND attempt < ?"
        if not self._store.write(again, (job, MAX_ATTEMPTS)).rowcount:
            self.end(job, "failed", f"the engine died twice while drawing this ({cause})")

    def _read(self, query: str, value: int) -> list[Job]:
        """The jobs a query finds. One that cannot be read, from another version or a broken disk, is ended and left out."""
        jobs = []
        for row in self._store.read(query, (value,)):
            try:
                jobs.append(_job(row))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = f"its recipe cannot be read: {error}"
                repair = f"UPDATE jobs SET state = 'failed', reason = ?, recipe = '{{}}', facts = '{{}}', {_ENDED} WHERE id = ?"
                self._store.write(repair, (reason, time.time(), row["id"]))
        return jobs

    def _move(self, job: int, old: str, new: str) -> bool:
        return self._store.write("UPDATE jobs SET state = ? WHERE id = ? AND state = ?", (new, job, old)).rowcount == 1


def _job(row: sqlite3.Row) -> Job:
    return Job(row["id"], row["state"], row["attempt"], from_dict(json.loads(row["recipe"])), row["reason"], json.loads(row["facts"]))
