"""The trainings there are: asked for, cancelled, resumed, and shown."""

from collections.abc import Callable, Mapping
from pathlib import Path

from modules.gallery.pictures import SAMPLES, Gallery
from modules.jobs.coach import Coach, facts
from modules.jobs.messages import Picture
from modules.jobs.queue import Job, Queue
from modules.jobs.training import Training, arguments, from_dict, in_words, output_of, require_free, training_for
from modules.model_manager.library import Checkpoint
from modules.recipe.fields import BadField
from modules.settings import Settings
from modules.store import Store

SHOWN = 30  # trainings that ended
MAX_WAITING = 100


class Trainings:
    """`checkpoints` are those that can be trained further; `changed` is called after every change, `made` when there is a new model."""

    def __init__(
        self,
        store: Store,
        gallery: Gallery,
        settings: Settings,
        checkpoints: Callable[[], list[Checkpoint]],
        changed: Callable[[], None],
        made: Callable[[], None],
    ) -> None:
        self._queue = Queue(store, "training", from_dict)
        self._gallery = gallery
        self._settings = settings
        self._checkpoints = checkpoints
        self._changed = changed
        self._coach = Coach(self._queue, self._command, self._folder, self._keep, changed, made)

    def open(self) -> None:
        self._queue.put_back()
        self._coach.start()

    def close(self) -> None:
        self._coach.stop()

    def submit(self, request: Mapping[str, object]) -> int:
        """Queue a training and return the job's id. BadField names the field that is wrong."""
        training = training_for(request, self._checkpoints(), self._settings)
        self._require_alone(training)
        return self._wake(self._queue.add(training))

    def resume(self, job: int) -> bool:
        """Queue a training again that was cancelled or has failed: it goes on from where it was. False if it is no such training."""
        stopped = self._queue.job(job)
        if stopped is None or stopped.state not in ("cancelled", "failed"):
            return False
        require_free(stopped.recipe, self._settings)
        self._require_alone(stopped.recipe)
        return bool(self._wake(self._queue.resume(job)))

    def cancel(self, job: int) -> bool:
        """Stop a training that waits or runs; what it reached is kept."""
        cancelled = self._coach.cancel(job) or self._queue.drop(job)
        self._changed()
        return cancelled

    def shown(self) -> list[dict[str, object]]:
        """The training that runs, those that wait, and the last ones that ended, as plain data."""
        unfinished = sorted(self._queue.unfinished(), key=lambda job: job.state != "running")
        jobs = [*unfinished, *self._queue.ended(SHOWN)]
        pictures = self._gallery.newest_of([job.id for job in jobs])
        return [{**_shown(job), **self._reached(job), "picture": pictures.get(job.id)} for job in jobs]

    def _reached(self, job: Job[Training]) -> dict[str, object]:
        """How far it came: as the process says that trains it, or as it was written down when it stopped."""
        if job.state != "running":
            return job.facts
        lesson = self._coach.lesson
        if lesson is None or lesson.job.id != job.id or lesson.progress is None:
            return {}
        return {**facts(lesson.progress), "seconds_left": lesson.progress.seconds_left}

    def _wake(self, job: int) -> int:
        self._changed()
        self._coach.wake()
        return job

    def _require_alone(self, training: Training) -> None:
        """BadField if another training makes the same file."""
        others = self._queue.unfinished()
        if len(others) >= MAX_WAITING:
            raise BadField("", f"{MAX_WAITING} trainings are waiting: let some of them finish first")
        output = output_of(training, self._settings)
        if any(output_of(job.recipe, self._settings) == output for job in others):
            raise BadField("name", f"Name: a training called {training.name} is on its way already: choose another name")

    def _command(self, training: Training) -> list[str]:
        return arguments(training, self._settings)

    def _folder(self, training: Training) -> Path:
        return self._settings.training / training.folder

    def _keep(self, picture: Picture) -> int:
        return self._gallery.keep(picture, SAMPLES)


def _shown(job: Job[Training]) -> dict[str, object]:
    nowhere = {"stage": "", "fraction": None, "values": {}}
    told = {"name": job.recipe.name, "about": in_words(job.recipe), "minutes": job.recipe.minutes, "folder": job.recipe.folder}
    return {"job": job.id, "state": job.state, "attempt": job.attempt, "reason": job.reason, **told, **nowhere}
