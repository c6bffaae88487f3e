"""The durable queue: a job is a row, written before anyone is told that it was accepted.

States: queued -> running -> done | failed | cancelled; queued -> cancelled; running -> queued only when the process that worked
on it or the server went away; failed | cancelled -> queued only for jobs that keep what they did. A job is tried twice at most.
"""

import dataclasses
import json
import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from modules.recipe.fields import BadField, from_dict
from modules.store import Store

MAX_ATTEMPTS = 2
MAX_WAITING = 10_000
_ENDED = "ended = ?, ending = (SELECT coalesce(max(ending), 0) + 1 FROM jobs)"


class QueueFull(BadField):
    """More jobs wait than anyone will live to see; no field of the request is to blame."""


Described = TypeVar("Described")
"""What says all about a job of one kind: a frozen dataclass of plain values."""


@dataclass(frozen=True)
class Job(Generic[Described]):
    """A row of the queue."""

    id: int
    state: str
    attempt: int
    recipe: Described
    reason: str
    facts: dict[str, object]


class Queue(Generic[Described]):
    """The jobs of one kind in a store, oldest first. `read` makes a job's recipe of its plain values again, or raises ValueError."""

    def __init__(self, store: Store, kind: str = "picture", read: Callable[[Mapping[str, object]], Described] = from_dict) -> None:
        self._store = store
        self._kind = kind
        self._recipe = read

    def add(self, recipe: Described) -> int:
        """Write the job down and return its id."""
        (job,) = self.add_all([recipe])
        return job

    def add_all(self, recipes: Sequence[Described]) -> list[int]:
        """Write the jobs down and return their ids, or QueueFull for all of them."""
        waiting = self.waiting_count()
        if waiting + len(recipes) > MAX_WAITING:
            raise QueueFull("", f"{waiting} jobs are waiting, and {MAX_WAITING} can: let some of them finish first")
        return [self._written(recipe) for recipe in recipes]

    def _written(self, recipe: Described) -> int:
        values = self._kind, json.dumps(dataclasses.asdict(recipe)), time.time()
        row = self._store.write("INSERT INTO jobs (kind, state, recipe, created) VALUES (?, 'queued', ?, ?)", values)
        return row.lastrowid

    def claim(self) -> Job[Described] | None:
        """The oldest waiting job, now running; None if none waits."""
        while self.waiting_count():
            for job in self.waiting(1):
                if self._move(job.id, "queued", "running"):
                    return self.job(job.id)
        return None

    def waiting(self, limit: int) -> list[Job[Described]]:
        return self._read("state = 'queued' ORDER BY id LIMIT ?", limit)

    def unfinished(self) -> list[Job[Described]]:
        """All jobs that wait or run."""
        return self._read("state IN ('queued', 'running') ORDER BY id LIMIT ?", MAX_WAITING + 1)

    def waiting_count(self) -> int:
        return self._store.read("SELECT count(*) FROM jobs WHERE state = 'queued' AND kind = ?", (self._kind,))[0][0]

    def job(self, job: int) -> Job[Described] | None:
        return next(iter(self._read("id = ?", job)), None)

    def last_ended(self) -> Job[Described] | None:
        return next(iter(self.ended(1)), None)

    def ended(self, limit: int) -> list[Job[Described]]:
        """The jobs that ended last, the last one first."""
        return self._read("ending IS NOT NULL ORDER BY ending DESC LIMIT ?", limit)

    def end(self, job: int, state: str, reason: str = "", facts: dict[str, object] | None = None) -> bool:
        """A running job becomes done, failed or cancelled; False if it was not running."""
        query = f"UPDATE jobs SET state = ?, reason = ?, facts = ?, {_ENDED} WHERE id = ? AND state = 'running'"
        return self._store.write(query, (state, reason, json.dumps(facts or {}), time.time(), job)).rowcount == 1

    def drop(self, job: int) -> bool:
        """A waiting job is cancelled; False if it did not wait any more."""
        query = f"UPDATE jobs SET state = 'cancelled', {_ENDED} WHERE id = ? AND state = 'queued' AND kind = ?"
        return self._store.write(query, (time.time(), job, self._kind)).rowcount == 1

    def resume(self, job: int) -> bool:
        """A job that was cancelled or has failed waits again, as if it had never been tried; False if it is no such job."""
        again = "UPDATE jobs SET state = 'queued', attempt = 1, reason = '', ended = NULL, ending = NULL"
        query = f"{again} WHERE id = ? AND state IN ('cancelled', 'failed') AND kind = ?"
        return self._store.write(query, (job, self._kind)).rowcount == 1

    def put_back(self) -> None:
        """What was running when this or the last server stopped waits again. That was not the job's fault: its attempt stays."""
        self._store.write("UPDATE jobs SET state = 'queued' WHERE state = 'running' AND kind = ?", (self._kind,))

    def died(self, job: int, reason: str, facts: dict[str, object] | None = None) -> None:
        """What worked on a running job went away: it is tried once more, then it has failed for this reason."""
        again = "UPDATE jobs SET state = 'queued', attempt = attempt + 1 WHERE id = ? AND state = 'running' AND attempt < ?"
        if not self._store.write(again, (job, MAX_ATTEMPTS)).rowcount:
            self.end(job, "failed", reason, facts)

    def _read(self, condition: str, value: int) -> list[Job[Described]]:
        """The jobs of this kind that a condition finds. One that cannot be read, from another version or a broken disk, is ended
        and left out."""
        jobs = []
        for row in self._store.read(f"SELECT * FROM jobs WHERE kind = ? AND {condition}", (self._kind, value)):
            try:
                jobs.append(self._job(row))
            except (ValueError, TypeError, KeyError, AttributeError) as error:
                reason = f"its recipe cannot be read: {error}"
                repair = f"UPDATE jobs SET state = 'failed', reason = ?, recipe = '{{}}', facts = '{{}}', {_ENDED} WHERE id = ?"
                self._store.write(repair, (reason, time.time(), row["id"]))
        return jobs

    def _job(self, row: sqlite3.Row) -> Job[Described]:
        recipe = self._recipe(json.loads(row["recipe"]))
        return Job(row["id"], row["state"], row["attempt"], recipe, row["reason"], json.loads(row["facts"]))

    def _move(self, job: int, old: str, new: str) -> bool:
        return self._store.write("UPDATE jobs SET state = ? WHERE id = ? AND state = ?", (new, job, old)).rowcount == 1
