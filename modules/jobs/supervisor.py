"""Starts, watches, feeds and restarts the engine: a child process that may die at any moment without anyone losing a job."""

import logging
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from modules.jobs.messages import (
    BrokenFrame,
    Cancel,
    Cancelled,
    Done,
    Failed,
    Load,
    Loaded,
    Loading,
    Message,
    Picture,
    Preview,
    Progress,
    Ready,
    Run,
    Skip,
    Spent,
    read_frame,
    write_frame,
)
from modules.jobs.queue import Job, Queue
from modules.settings import PROGRAM

PATIENCE = 5.0  # seconds an engine gets to obey a Cancel before it is ended
BACKOFF = (0.0, 1.0, 2.0, 5.0, 10.0, 30.0)  # seconds before each further start in a row without a Ready

log = logging.getLogger("easel")


@dataclass(frozen=True)
class Board:
    """What the engine is doing, for whoever looks."""

    state: str = "starting"  # starting, loading, ready, busy, restarting, failed
    text: str = "starting"
    ready: Ready | None = None
    running: Job | None = None
    progress: Progress | None = None
    preview: Preview | None = None
    interrupting: bool = False


class Supervisor:
    """One engine at the queue. `keep` takes each finished picture and its kind; `changed` is called after every change of the board."""

    def __init__(self, queue: Queue, arguments: Sequence[str], keep: Callable[[Picture, str], int], changed: Callable[[], None]) -> None:
        self.board = Board()
        self._queue = queue
        self._command = [sys.executable, "-m", "modules.engine.worker", *arguments]
        self._keep = keep
        self._changed = changed
        self._lock = threading.RLock()
        self._process: subprocess.Popen | None = None
        self._stopping = threading.Event()
        self._starts_in_vain = 0
        self._preload = ""
        self._spent = False
        self._thread = threading.Thread(target=self._attend, name="supervisor", daemon=True)

    def start(self, preload: str = "") -> None:
        """Start the engine; it loads the checkpoint `preload` when nothing else is to do."""
        self._preload = preload
        self._thread.start()

    def stop(self) -> None:
        """End the engine; its job waits for the next server."""
        self._stopping.set()
        self._end_process()
        self._thread.join(timeout=3)
        self._queue.put_back()

    def wake(self) -> None:
        """There may be a job to draw."""
        with self._lock:
            if self.board.state in ("ready", "loading") and not self.board.running and (job := self._queue.claim()):
                self._show(state="busy", text="drawing", running=job, progress=None, preview=None, interrupting=False)
                self._send(Run(job.id, job.attempt, job.recipe))

    def interrupt(self) -> bool:
        """Stop the running job now; False if none runs. An engine that does not obey in time is ended."""
        with self._lock:
            job = self.board.running
            if job is None:
                return False
            if not self.board.interrupting:
                self._show(interrupting=True)
                self._send(Cancel(job.id, job.attempt))
                timer = threading.Timer(PATIENCE, self._lose_patience, (job,))
                timer.daemon = True
                timer.start()
            return True

    def skip(self) -> bool:
        """Give up the batch being drawn; False if none is."""
        with self._lock:
            if job := self.board.running:
                self._send(Skip(job.id, job.attempt))
            return job is not None

    def _attend(self) -> None:
        while not self._stopping.is_set():
            wait = BACKOFF[min(self._starts_in_vain, len(BACKOFF) - 1)]
            if self._stopping.wait(wait):
                return
            self._starts_in_vain += 1
            try:
                cause = self._one_life()
            except Exception as error:  # whatever it is, there has to be a next engine
                log.exception("attending to the engine failed")
                self._end_process()
                cause = str(error)
            if not self._stopping.is_set():
                self._bury(cause)

    def _one_life(self) -> str:
        """Start an engine and take what it says until it is gone; why it went."""
        self._spent = False
        process = self._process = subprocess.Popen(self._command, cwd=PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        if self._stopping.is_set():
            self._end_process()
        try:
            while message := read_frame(process.stdout):
                with self._lock:
                    self._take(message)
        except (BrokenFrame, OSError) as error:
            log.error("the engine talks nonsense and is ended: %s", error)
            process.kill()
        code = process.wait()
        return f"killed by signal {-code}" if code < 0 else f"ended with code {code}"

    def _bury(self, cause: str) -> None:
        with self._lock:
            job, interrupting = self.board.running, self.board.interrupting
            if job and interrupting:
                self._queue.end(job.id, "cancelled")
            elif job:
                log.error("the engine went away while drawing job %s (%s)", job.id, cause)
                self._queue.died(job.id, f"the engine died twice while drawing this ({cause})")
            failed = self._starts_in_vain >= len(BACKOFF)
            text = f"cannot start ({cause}): see the terminal" if failed else "restarting"
            self.board = Board(state="failed" if failed else "restarting", text=text)
            self._changed()

    def _take(self, message: Message) -> None:
        job = self.board.running
        if isinstance(message, Progress | Preview | Picture | Done | Cancelled | Failed):
            if job and (message.job, message.attempt) == (job.id, job.attempt):
                self._take_of_job(job, message)
            return
        match message:
            case Ready():
                self._starts_in_vain = 0
                self._show(state="ready", text="ready", ready=message)
                self.wake()
                if self._preload and not self.board.running:
                    self._send(Load(self._preload))
            case Loading():
                text = f"loading {message.checkpoint}… {message.fraction:.0%}"
                self._show(text=text) if job else self._show(state="loading", text=text)
            case Loaded():
                self._learn(message.number_format, message.why)
                if not job:
                    self._show(state="ready", text=message.problem or "ready")
                    self._replace_if_spent()
            case Spent(why=why):
                self._spent = True
                log.info("the engine is replaced before the next job: %s", why)

    def _take_of_job(self, job: Job, message: Message) -> None:
        match message:
            case Progress():
                self._show(progress=message, text={"load": self.board.text, "upscale": "enlarging"}.get(message.phase, "drawing"))
            case Preview():
                self._show(preview=message)
            case Picture():
                self._keep(message, job.recipe.kind)
                self._show(preview=None)
            case Done(facts=facts):
                self._learn(str(facts.get("number_format", "")), str(facts.get("number_format_why", "")))
                self._finish(job, "done", facts=facts)
            case Cancelled():
                self._finish(job, "cancelled")
            case Failed(reason=reason):
                self._finish(job, "failed", reason=reason)

    def _learn(self, number_format: str, why: str) -> None:
        """Which format the checkpoint that is warm now is computed in."""
        if number_format and self.board.ready:
            self._show(ready=replace(self.board.ready, number_format=number_format, why=why))

    def _finish(self, job: Job, state: str, **how: object) -> None:
        self._queue.end(job.id, state, **how)
        self._preload = job.recipe.checkpoint or self._preload
        self._show(state="ready", text="ready", running=None, progress=None, preview=None, interrupting=False)
        self._replace_if_spent()
        self.wake()

    def _replace_if_spent(self) -> None:
        """An engine without input ends; the next one has all its memory."""
        if self._spent:
            self._show(state="restarting", text="restarting, for the memory that the last checkpoint left behind")
            self._process.stdin.close()

    def _show(self, **what: object) -> None:
        self.board = replace(self.board, **what)
        self._changed()

    def _send(self, message: Message) -> None:
        try:
            write_frame(self._process.stdin, message)
        except (OSError, ValueError):
            log.warning("the engine is gone before it could be told: %s", type(message).__name__)

    def _lose_patience(self, job: Job) -> None:
        running = self.board.running
        if running and (running.id, running.attempt) == (job.id, job.attempt) and self._process:
            log.warning("the engine did not stop in %s s and is ended", PATIENCE)
            self._process.kill()

    def _end_process(self) -> None:
        process = self._process
        if process is None:
            return
        try:
            process.stdin.close()
            process.wait(timeout=1)
        except (OSError, subprocess.TimeoutExpired):
            process.kill()
            process.wait()
