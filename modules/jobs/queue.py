"""The durable queue: a job is a row, written before anyone is told that it was accepted.

States: queued -> running -> done | failed | cancelled; queued -> cancelled; running -> queued only when the engine or the
server went away. A job is tried twice at most.
"""

import json
import time
from dataclasses import dataclass

from modules.recipe.fields import BadField, Recipe, from_dict, to_dict
from modules.store import Store

MAX_ATTEMPTS = 2
MAX_WAITING = 10_000


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
        while waiting := self.waiting(1):
            (job,) = waiting
            if self._move(job.id, "queued", "running"):
                return self.job(job.id)
        return None

    def waiting(self, limit: int) -> list[Job]:
        return [_job(row) for row in self._store.read("SELECT * FROM jobs WHERE state = 'queued' ORDER BY id LIMIT ?", (limit,))]

    def waiting_count(self) -> int:
        return self._store.read("SELECT count(*) FROM jobs WHERE state = 'queued'")[0][0]

    def job(self, job: int) -> Job | None:
        rows = self._store.read("SELECT * FROM jobs WHERE id = ?", (job,))
        return _job(rows[0]) if rows else None

    def last_ended(self) -> Job | None:
        rows = self._store.read("SELECT * FROM jobs WHERE ended IS NOT NULL ORDER BY ended DESC, id DESC LIMIT 1")
        return _job(rows[0]) if rows else None

    def end(self, job: int, state: str, reason: str = "", facts: dict[str, object] | None = None) -> bool:
        """A running job becomes done, failed or cancelled; False if it was not running."""
        query = "UPDATE jobs SET state = ?, reason = ?, facts = ?, ended = ? WHERE id = ? AND state = 'running'"
        return self._store.write(query, (state, reason, json.dumps(facts or {}), time.time(), job)).rowcount == 1

    def drop(self, job: int) -> bool:
        """A waiting job is cancelled; False if it did not wait any more."""
        query = "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND state = 'queued'"
        return self._store.write(query, (time.time(), job)).rowcount == 1

    def put_back(self, job: int) -> None:
        """The server stops in good order: the running job waits again, its attempt does not count."""
        self._move(job, "running", "queued")

    def died(self, job: int, cause: str) -> None:
        """The engine went away under a running job: it is tried once more, then it has failed because of `cause`."""
        row = self.job(job)
        if row is None or row.state != "running":
            return
        if row.attempt >= MAX_ATTEMPTS:
            self.end(job, "failed", f"the engine died twice while drawing this ({cause})")
        else:
            self._store.write("UPDATE jobs SET state = 'queued', attempt = attempt + 1 WHERE id = ? AND state = 'running'", (job,))

    def recover(self) -> None:
        """At the start: what was running when the last server was killed is queued again."""
        for row in self._store.read("SELECT id FROM jobs WHERE state = 'running'"):
            self.died(row["id"], "the server was killed")

    def _move(self, job: int, old: str, new: str) -> bool:
        return self._store.write("UPDATE jobs SET state = ? WHERE id = ? AND state = ?", (new, job, old)).rowcount == 1


def _job(row: object) -> Job:
    return Job(row["id"], row["state"], row["attempt"], from_dict(json.loads(row["recipe"])), row["reason"], json.loads(row["facts"]))
