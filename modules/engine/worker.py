"""The engine as a process: messages in on standard input, messages out on standard output, nothing else on either.

It lives as long as the server that started it: when standard input ends, so does this process, in the middle of a step too.
"""

import argparse
import contextlib
import gc
import logging
import os
import queue
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from modules.engine.stop import Cancelled, CannotDraw, Skipped
from modules.jobs import messages
from modules.jobs.messages import (
    BrokenFrame,
    Cancel,
    Done,
    Failed,
    Load,
    Loaded,
    Loading,
    Message,
    Ready,
    Run,
    Skip,
    Spent,
    read_frame,
    write_frame,
)
from modules.recipe.upscaling import Upscaling

if TYPE_CHECKING:
    from modules.engine.studio import Studio

SERVER_GONE, NONSENSE = 0, 3  # exit codes
LOADING_EVERY = 0.2  # seconds

Job = tuple[int, int]
"""(job, attempt)"""


class Inbox:
    """What the server wants. A thread of its own reads, so that a word of the server's is heard in the middle of a step."""

    def __init__(self, stream: BinaryIO) -> None:
        self.work: queue.Queue[Run | Load] = queue.Queue()
        self._cancelled: set[Job] = set()
        self._skipped: set[Job] = set()
        threading.Thread(target=self._read, args=(stream,), name="inbox", daemon=True).start()

    def checker(self, job: Job) -> Callable[[], None]:
        """A check for this job: raises Cancelled from the moment it was cancelled on, Skipped once for each Skip."""

        def check() -> None:
            if job in self._cancelled:
                raise Cancelled
            if job in self._skipped:
                self._skipped.discard(job)
                raise Skipped

        return check

    def supersedes(self, load: Load) -> bool:
        """Whether what comes next has no use for this checkpoint, so that loading it only keeps someone waiting."""
        with self.work.mutex:
            waiting = self.work.queue[0] if self.work.queue else load
        if isinstance(waiting, Run):
            return waiting.recipe.checkpoint != load.checkpoint or (waiting.job, waiting.attempt) in self._cancelled
        return waiting.checkpoint != load.checkpoint

    def _read(self, stream: BinaryIO) -> None:
        """Every way out of here ends the process at once: without a server there is nobody to draw for."""
        try:
            while message := read_frame(stream):
                self._take(message)
            os._exit(SERVER_GONE)
        except BrokenFrame as error:
            print(f"engine: the server sent what is no message: {error}", file=sys.stderr, flush=True)
        except BaseException:
            traceback.print_exc()
        os._exit(NONSENSE)

    def _take(self, message: Message) -> None:
        match message:
            case Run() | Load():
                self.work.put(message)
            case Cancel(job=job, attempt=attempt):
                self._cancelled.add((job, attempt))
            case Skip(job=job, attempt=attempt):
                self._skipped.add((job, attempt))
            case _:
                raise BrokenFrame(f"{type(message).__name__} is no message for an engine")


class Outbox:
    """Sends messages; a server that does not take them any more is gone."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def send(self, message: Message) -> None:
        try:
            write_frame(self._stream, message)
        except OSError:
            os._exit(SERVER_GONE)


def main(arguments: list[str]) -> None:
    """Serve until the server is gone."""
    options = parsed(arguments)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C reaches every process of a terminal; the server decides
    logging.basicConfig(level=logging.WARNING, format="engine: %(message)s", stream=sys.stderr)
    with contextlib.suppress(OSError):  # only Linux has it: when memory runs out, the engine is ended and not the server or the browser
        Path("/proc/self/oom_score_adj").write_text("500")
    requests, answers = private_streams()
    inbox, outbox = Inbox(requests), Outbox(answers)  # before the slow imports: the server may die meanwhile

    from modules.engine.facts import versions
    from modules.engine.studio import Studio

    gc.freeze()  # what the libraries made stays: looking through it again at every change of checkpoint takes a quarter of a second
    try:
        how = options.device, options.precision, options.memory_budget
        roots = {"lora_roots": options.loras, "upscaler_roots": options.upscalers}
        studio = Studio(options.checkpoints, options.vaes, options.state, *how, **roots, incoming=options.incoming)
    except CannotDraw as error:
        sys.exit(f"engine: {error}")
    chosen = studio.format_for()
    outbox.send(Ready(str(studio.device), chosen.name, chosen.why, versions()))
    while True:
        match inbox.work.get():
            case Load() as wanted:
                last = load(wanted, studio, outbox, inbox)
            case Run() as wanted:
                last = answer(wanted, studio, outbox, inbox.checker((wanted.job, wanted.attempt)))
        if studio.spent:
            outbox.send(Spent(studio.spent))
        if last:
            outbox.send(last)


def answer(wanted: Run, studio: "Studio", outbox: Outbox, check: Callable[[], None]) -> Message:
    """Runs a recipe, sending what happens on the way, and returns the last word on it."""
    from modules.engine import run
    from modules.engine.upscalers import run as upscale

    def emit(message: Message) -> None:
        own = {"job": wanted.job, "attempt": wanted.attempt}
        outbox.send(message if isinstance(message, Loading) else replace(message, **own))

    try:
        check()
        if isinstance(wanted.recipe, Upscaling):
            done = upscale.run(wanted.recipe, studio.rack, studio.shelf, emit, check)
        else:
            done = run.run(wanted.recipe, studio, emit, check)
        return Done(wanted.job, wanted.attempt, done)
    except Cancelled:
        return messages.Cancelled(wanted.job, wanted.attempt)
    except Exception as error:
        return Failed(wanted.job, wanted.attempt, in_one_line(error))


def load(wanted: Load, studio: "Studio", outbox: Outbox, inbox: Inbox) -> Loaded | None:
    """Loads a checkpoint ahead of its first use; None if it turned out that something else is wanted."""
    begun = last = time.monotonic()

    def report(fraction: float) -> None:
        nonlocal last
        if inbox.supersedes(wanted):
            raise Cancelled
        if time.monotonic() - last > LOADING_EVERY:
            last = time.monotonic()
            outbox.send(Loading(wanted.checkpoint, fraction))

    problem = number_format = why = ""
    try:
        chosen = studio.warm(wanted.checkpoint, "Automatic", report)
        number_format, why = chosen.format.name, chosen.format.why
    except Cancelled:
        return None
    except Exception as error:
        problem = in_one_line(error)
    return Loaded(wanted.checkpoint, time.monotonic() - begun, problem, number_format, why)


def in_one_line(error: Exception) -> str:
    """The reason for the person who asked. What nobody foresaw goes to standard error in full."""
    if isinstance(error, CannotDraw):
        return str(error)
    traceback.print_exception(error)
    first = (str(error).strip().splitlines() or [""])[0]
    return f"something went wrong in the engine ({type(error).__name__}: {first[:300]}); the terminal shows more"


def private_streams() -> tuple[BinaryIO, BinaryIO]:
    """Standard input and output for our frames alone: whatever else prints goes to standard error, whatever else reads gets nothing."""
    requests, answers = os.fdopen(os.dup(0), "rb"), os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    return requests, answers


def parsed(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m modules.engine.worker", description=__doc__, allow_abbrev=False)
    parser.add_argument("--checkpoints", metavar="DIR", type=Path, action="append", default=[], help="a folder with checkpoints")
    parser.add_argument("--vaes", metavar="DIR", type=Path, action="append", default=[], help="a folder with VAEs")
    parser.add_argument("--loras", metavar="DIR", type=Path, action="append", default=[], help="a folder with LoRAs")
    parser.add_argument("--upscalers", metavar="DIR", type=Path, action="append", default=[], help="a folder with upscalers")
    parser.add_argument("--state", metavar="DIR", type=Path, required=True, help="where measurements are kept")
    parser.add_argument("--incoming", metavar="DIR", type=Path, help="where pictures that are changed lie (default: incoming in the state)")
    parser.add_argument("--device", default="auto")
    parser.add_argument("--precision", default="auto")
    parser.add_argument("--memory-budget", metavar="GB", type=float, help="for recent checkpoints to stay loaded in")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main(sys.argv[1:])
