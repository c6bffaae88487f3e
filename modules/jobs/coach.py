"""Trains what waits to be trained, one after the other: each training is a process of its own, beside the engine.

The process is the command `train`. It may die at any moment: what it reached lies in its folder, and it goes on from there.
"""

import io
import logging
import math
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from PIL import Image

from modules.jobs.messages import Picture, Trained, read_frame
from modules.jobs.queue import Job, Queue
from modules.jobs.training import Training, infotext
from modules.png import packed
from modules.recipe.fields import BadField
from modules.settings import PROGRAM

PATIENCE = 10.0  # seconds a training gets to write down where it stands before it is ended
FAILED, BAD_USE = 1, 2  # exit codes with which the command has said why
LOG = "log.txt"
PLACES = 10**9  # that samples of a training can have: what is trained once more gives no second sample

log = logging.getLogger("easel")


@dataclass(frozen=True)
class Lesson:
    """The training that runs, for whoever looks."""

    job: Job[Training]
    progress: Trained | None = None


class Coach:
    """One training at a time. `command` gives a training's command line (BadField: it cannot be done) and `folder`
    where its state lies; `keep` takes each sample picture; `changed` is called after every change of the lesson, `made` when one
    has reached its end."""

    def __init__(
        self,
        queue: Queue[Training],
        command: Callable[[Training], list[str]],
        folder: Callable[[Training], Path],
        keep: Callable[[Picture], int],
        changed: Callable[[], None],
        made: Callable[[], None],
    ) -> None:
        self.lesson: Lesson | None = None
        self._queue = queue
        self._command = command
        self._folder = folder
        self._keep = keep
        self._changed = changed
        self._made = made
        self._lock = threading.RLock()
        self._process: subprocess.Popen | None = None
        self._stopping = threading.Event()
        self._work = threading.Event()
        self._thread = threading.Thread(target=self._attend, name="coach", daemon=True)

    def start(self) -> None:
        self._work.set()
        self._thread.start()

    def stop(self) -> None:
        """End the training; it waits for the next server. The process may need a moment more to write down where it stands."""
        with self._lock:
            self._stopping.set()
            self._work.set()
            self._let_go()
        self._thread.join(timeout=1)
        self._queue.put_back()

    def wake(self) -> None:
        """There may be something to train."""
        self._work.set()

    def cancel(self, job: int) -> bool:
        """Stop this training now, if it is the one that runs; what it reached is kept."""
        with self._lock:
            lesson = self.lesson
            if lesson is None or lesson.job.id != job:
                return False
            self._queue.end(job, "cancelled", facts=facts(lesson.progress))
            self._let_go()
            return True

    def _let_go(self) -> None:
        """Ask the process to write down where it stands and to end; whatever it does from now on is its own affair."""
        self.lesson = None
        if process := self._process:
            process.stdin.close()
            timer = threading.Timer(PATIENCE, process.kill)
            timer.daemon = True
            timer.start()

    def _attend(self) -> None:
        while not self._stopping.is_set():
            self._work.wait()
            self._work.clear()
            try:
                while job := self._begun():
                    self._attend_to(job)
            except Exception:  # whatever it is, there has to be a next training
                log.exception("attending to the training failed")
                self._stopping.wait(1)
                self._work.set()

    def _begun(self) -> Job[Training] | None:
        """The next training, claimed and started; None if none waits."""
        with self._lock:
            if self._stopping.is_set():
                return None
            while job := self._queue.claim():
                try:
                    self._process = self._started(job.recipe)
                except (OSError, BadField) as error:
                    self._queue.end(job.id, "failed", str(error))
                    self._changed()
                    continue
                self.lesson = Lesson(job)
                self._changed()
                return job
            return None

    def _started(self, training: Training) -> subprocess.Popen:
        command, folder = self._command(training), self._folder(training)
        folder.mkdir(parents=True, exist_ok=True)
        line = [sys.executable, "app.py", *command]
        with open(folder / LOG, "ab") as said:  # in a session of its own, for Ctrl+C on the terminal is the server's
            return subprocess.Popen(line, cwd=PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=said, start_new_session=True)

    def _attend_to(self, job: Job[Training]) -> None:
        """Take what the process says until it is gone, and write down how it ended."""
        process = self._process
        try:
            while message := read_frame(process.stdout):
                with self._lock:
                    if self.lesson and isinstance(message, Trained):
                        self._take(self.lesson, message)
        except Exception:  # nonsense from the process, or a sample that cannot be kept: whatever it is, this process has to end
            log.exception("the training %s is ended", job.recipe.name)
            process.kill()
        code = process.wait()
        with self._lock:
            lesson, self.lesson, self._process = self.lesson, None, None
            if lesson:
                self._ended(lesson, code)
                self._changed()

    def _take(self, lesson: Lesson, said: Trained) -> None:
        values = {name: value for name, value in said.values.items() if math.isfinite(value)}  # a page knows no other numbers
        if lesson.progress and lesson.progress.stage == said.stage:
            values = {**lesson.progress.values, **values}
        self.lesson = replace(lesson, progress=replace(said, values=values, sample=b""))
        if said.sample:
            self._keep(_sample(lesson.job, replace(said, values=values)))
        self._changed()

    def _ended(self, lesson: Lesson, code: int) -> None:
        job, reached = lesson.job.id, facts(lesson.progress)
        if code == 0:
            self._queue.end(job, "done", facts=reached)
            self._made()
        elif code in (FAILED, BAD_USE):
            self._queue.end(job, "failed", self._last_words(lesson), reached)
        else:
            cause = f"killed by signal {-code}" if code < 0 else f"ended with code {code}"
            log.error("the training %s went away (%s)", lesson.job.recipe.name, cause)
            self._queue.died(job, f"the training died twice ({cause}); what it reached is kept", reached)

    def _last_words(self, lesson: Lesson) -> str:
        """The last line that the process wrote, which says why it ended."""
        said = (self._folder(lesson.job.recipe) / LOG).read_bytes()[-4096:].decode("utf-8", "replace").strip()
        return re.split(r"[\r\n]+", said)[-1].removeprefix("easel: ")[:300] or "it gave no reason"


def facts(progress: Trained | None) -> dict[str, object]:
    """How far a training came, for the record."""
    return {} if progress is None else {"stage": progress.stage, "fraction": progress.fraction, "values": progress.values}


def _sample(job: Job[Training], said: Trained) -> Picture:
    """A sample as a picture of the job's, with parameters that say where it comes from."""
    text = infotext(job.recipe, said.stage, said.values)
    with Image.open(io.BytesIO(said.sample), formats=["PNG"]) as image:
        return Picture(job.id, job.attempt, round(said.fraction * PLACES), 0, *image.size, text, packed(image, text))
