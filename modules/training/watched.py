"""A training as a job: it leaves the machine to others, says how it stands to the process that started it, and ends with that one."""

import contextlib
import fcntl
import os
import signal
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from modules.engine.worker import private_streams
from modules.jobs.messages import Trained, write_frame

if TYPE_CHECKING:  # it imports torch, which takes seconds
    from modules.training.loop import Report

PATIENCE = 10.0  # seconds to write down where it stands once nobody watches any more
NICENESS = 10


class Watched:
    """Frames to whoever watches, on standard output. When standard input ends this process is asked to stop, and ended if it does not.

    `folder` is locked while this process lives: it waits for another that has not stopped yet.
    """

    def __init__(self, folder: Path) -> None:
        os.nice(NICENESS)
        with contextlib.suppress(OSError):  # only Linux has it: when memory runs out, this process is ended before the engine
            Path("/proc/self/oom_score_adj").write_text("800")
        requests, self._answers = private_streams()
        threading.Thread(target=_end_with, args=(requests,), daemon=True).start()
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = os.open(folder / "watched.lock", os.O_RDWR | os.O_CREAT)
        fcntl.flock(self._lock, fcntl.LOCK_EX)

    def report(self, stage: str = "", begin: float = 0.0, end: float = 1.0, after: float = 0.0) -> "Report":
        """What a stage reports to that goes from one fraction of the whole to another, with so many seconds of work after it."""

        def report(fraction: float, left: float, values: Mapping[str, float], picture: Path | None) -> None:
            sample = picture.read_bytes() if picture else b""
            said = Trained(stage, begin + (end - begin) * fraction, left + after, dict(values), sample)
            with contextlib.suppress(OSError):  # nobody watches any more: the end is near, and the state is written down first
                write_frame(self._answers, said)

        return report


def _end_with(requests: BinaryIO) -> None:
    requests.read()
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait(PATIENCE)
    os._exit(1)
