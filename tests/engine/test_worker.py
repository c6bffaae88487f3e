"""The real engine process, driven by frames as the server drives it."""

import io
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from modules.jobs.messages import (
    Cancel,
    Cancelled,
    Done,
    Failed,
    Load,
    Loaded,
    Message,
    Picture,
    Progress,
    Ready,
    Run,
    Skip,
    read_frame,
    write_frame,
)
from modules.recipe.fields import Recipe
from modules.settings import PROGRAM

DEADLINE = 120.0  # seconds; only reached when something hangs


class Engine:
    """A worker process; `said` grows while it speaks."""

    def __init__(self, models: Path, state: Path, *further: str) -> None:
        options = [f"--checkpoints={models}", f"--state={state}", "--device=cpu", "--precision=float32", *further]
        command = [sys.executable, "-m", "modules.engine.worker", *options]
        self.process = subprocess.Popen(command, cwd=PROGRAM, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.said: list[Message] = []
        self.complaints = b""
        self._news = threading.Condition()
        self._threads = [threading.Thread(target=target, daemon=True) for target in (self._listen, self._overhear)]
        for thread in self._threads:
            thread.start()

    def tell(self, message: Message) -> None:
        write_frame(self.process.stdin, message)

    def hears(self, kind: type[Message], after: int = 0, **wanted: object) -> Message:
        """Waits for a message of this kind with these values, said after the first `after` messages."""

        def found() -> Message | None:
            return next((m for m in self.said[after:] if isinstance(m, kind) and all(getattr(m, k) == v for k, v in wanted.items())), None)

        with self._news:
            assert self._news.wait_for(found, DEADLINE), f"no {kind.__name__} {wanted} in {self.said[-5:]}, {self.complaints.decode()}"
            return found()

    def ended(self) -> int:
        """Waits for the end of the process; its exit code."""
        code = self.process.wait(DEADLINE)
        for thread in self._threads:
            thread.join(DEADLINE)
        return code

    def _listen(self) -> None:
        while message := read_frame(self.process.stdout):
            with self._news:
                self.said.append(message)
                self._news.notify_all()

    def _overhear(self) -> None:
        self.complaints = self.process.stderr.read()


@pytest.fixture
def engine(models: Path, tmp_path: Path) -> Iterator[Engine]:
    started = Engine(models, tmp_path)
    yield started
    started.process.kill()
    started.process.wait()


def endless(recipe: Recipe) -> Recipe:
    return replace(recipe, steps=150, width=512, height=512, batch_count=100)


def test_a_whole_conversation(engine: Engine, recipe: Recipe) -> None:
    """Ready, Load, Run, Cancel of a running and of a waiting job, Skip, a job that cannot be drawn, Ctrl+C ignored, the end of input."""
    ready = engine.hears(Ready, device="cpu", number_format="float32")
    assert ready is engine.said[0]
    assert ready.versions["torch"]
    engine.process.send_signal(signal.SIGINT)

    engine.tell(Load("eps.safetensors"))
    assert engine.hears(Loaded, checkpoint="eps.safetensors").problem == ""
    engine.tell(Load("none.safetensors"))
    assert "none.safetensors" in engine.hears(Loaded, checkpoint="none.safetensors").problem

    engine.tell(Run(1, 2, recipe))
    done = engine.hears(Done, job=1, attempt=2)
    picture = engine.hears(Picture, job=1, attempt=2, index=0)
    assert Image.open(io.BytesIO(picture.png)).text["parameters"] == picture.infotext
    assert done.facts["pictures"] == 1

    engine.tell(Run(3, 1, endless(recipe)))
    engine.hears(Progress, job=3, phase="draw")
    engine.tell(Run(4, 1, recipe))
    engine.tell(Cancel(4, 1))
    engine.tell(Cancel(3, 1))
    engine.hears(Cancelled, job=3, attempt=1)
    engine.hears(Cancelled, job=4, attempt=1)
    assert not any(isinstance(message, Picture) and message.job in (3, 4) for message in engine.said)

    engine.tell(Run(5, 1, replace(recipe, steps=150, width=128, height=128, batch_count=2)))
    engine.hears(Progress, job=5, phase="draw")
    engine.tell(Skip(5, 1))
    assert engine.hears(Done, job=5).facts["skipped"] == 1
    assert [message.index for message in engine.said if isinstance(message, Picture) and message.job == 5] == [1]

    engine.tell(Run(6, 1, replace(recipe, clip_skip=12)))
    assert "Clip skip" in engine.hears(Failed, job=6, attempt=1).reason
    engine.tell(Run(7, 1, recipe))
    engine.hears(Done, job=7)
    assert engine.hears(Picture, job=7).png == picture.png

    engine.process.stdin.close()
    assert engine.ended() == 0
    assert engine.complaints == b""


def test_stray_output_does_not_disturb_the_frames() -> None:
    script = """
import os
from modules.engine.worker import private_streams
requests, answers = private_streams()
print("from Python", flush=True)
os.system("echo from a child; cat")
answers.write(requests.read())
answers.flush()
"""
    process = subprocess.run([sys.executable, "-c", script], cwd=PROGRAM, input=b"a frame", capture_output=True, check=True)
    assert process.stdout == b"a frame"
    assert process.stderr == b"from Python\nfrom a child\n"


def test_the_engine_ends_with_its_server_in_the_middle_of_a_step(engine: Engine, recipe: Recipe) -> None:
    engine.tell(Run(1, 1, endless(recipe)))
    engine.hears(Progress, job=1, phase="draw")
    engine.process.stdin.close()
    begun = time.monotonic()
    assert engine.ended() == 0
    assert time.monotonic() - begun < 5


@pytest.mark.parametrize("garbage", [b"GET / HTTP/1.1\r\n\r\n", b"\0\0\0\x02\0\0\0\0{}", b"\0\0\0\x01"])
def test_garbage_ends_the_engine(garbage: bytes, engine: Engine) -> None:
    """Already while it starts: a server that cannot be understood is as good as none."""
    engine.process.stdin.write(garbage)
    engine.process.stdin.close()
    assert engine.ended() == 3
    assert b"no message" in engine.complaints
    assert engine.complaints.count(b"\n") == 1
