"""Going from one checkpoint to another: the recent ones are kept while they fit, and what goes gives its memory back."""

import json
import os
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import numpy
import psutil
import pytest
import torch

from modules.engine import studio as studio_room
from modules.engine.families import sd1
from modules.engine.stop import CannotDraw
from modules.engine.studio import Studio
from modules.jobs.messages import Load, Loaded, Spent
from modules.jobs.queue import Queue
from modules.jobs.supervisor import Supervisor
from modules.model_manager.layout import expected_tensors
from modules.recipe.fields import Recipe
from modules.store import Store
from tests.checkpoints import SMALL, random_weights, write_checkpoint, write_safetensors
from tests.engine.test_studio import no_report, only_picture
from tests.engine.test_worker import DEADLINE, Engine

NAMES = ("a", "b", "c")
SIZE = sd1.size(SMALL, torch.float32)
GB_OF_TWO = 2.5 * SIZE / 1e9


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("three")
    for seed, name in enumerate(NAMES):
        write_checkpoint(folder / f"{name}.safetensors", SMALL, seed=seed)
    return folder


def studio_of(folder: Path, budget: float | None) -> Studio:
    return Studio([folder], [], folder / "state", "cpu", "float32", budget)


def test_recent_checkpoints_are_kept_while_the_budget_allows(three: Path) -> None:
    own = studio_of(three, GB_OF_TWO)
    a, b = (own.warm(name, "None", no_report) for name in "ab")
    assert own.warm("a", "None", no_report) is a
    own.warm("c", "None", no_report)
    assert own.warm("a", "None", no_report) is a, "b was not used for longest"
    assert own.warm("b", "None", no_report) is not b
    assert own.spent == ""


def test_without_a_budget_only_the_one_that_draws_is_kept(three: Path) -> None:
    own = studio_of(three, 0)
    a = own.warm("a", "None", no_report)
    assert own.warm("a", "None", no_report) is a
    own.warm("b", "None", no_report)
    assert own.warm("a", "None", no_report) is not a


def test_thirty_switches_between_three_checkpoints_hold_no_more_memory_in_the_end(three: Path, tmp_path: Path) -> None:
    engine = Engine(three, tmp_path, "--memory-budget=0")
    process = psutil.Process(engine.process.pid)
    held = []
    for switch in range(30):
        before = len(engine.said)
        engine.tell(Load(f"{NAMES[switch % 3]}.safetensors"))
        assert engine.hears(Loaded, after=before).problem == ""
        held.append(process.memory_info().rss)
    engine.process.stdin.close()
    assert engine.ended() == 0
    assert not any(isinstance(message, Spent) for message in engine.said)
    settled = held[6:]  # the libraries' first use of each kernel is behind
    slope = numpy.polyfit(range(len(settled)), settled, 1)[0]
    assert abs(slope) < 0.02 * SIZE, "bytes a switch, against the bytes of a checkpoint"
    assert max(settled) - min(settled) < SIZE


def test_a_picture_does_not_depend_on_what_was_drawn_between(three: Path, recipe: Recipe) -> None:
    own = studio_of(three, None)
    wanted = replace(recipe, checkpoint="a.safetensors")
    first = only_picture(wanted, own)[0]
    only_picture(replace(wanted, checkpoint="b.safetensors"), own)
    assert only_picture(wanted, own)[0] == first


def test_memory_that_does_not_come_back_is_noticed(three: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(studio_room, "UNRETURNED", 100e6)
    own = studio_of(three, 0)
    own.warm("a", "None", no_report)
    leak = numpy.ones(200_000_000, numpy.uint8)
    own.warm("b", "None", no_report)
    assert "of memory did not come back from earlier checkpoints" in own.spent
    assert leak.any()


def test_a_checkpoint_larger_than_the_memory_is_refused_before_it_is_read(three: Path) -> None:
    wide = replace(SMALL, text=replace(SMALL.text, feed_forward=2**33))
    size = sd1.size(wide, torch.float32)
    header, end = {}, 0
    for name, shape in expected_tensors(wide).items():
        begin, end = end, end + 2 * int(numpy.prod(shape, dtype=object))
        header[name] = {"dtype": "F16", "shape": shape, "data_offsets": [begin, end]}
    text = json.dumps(header).encode()
    path = three / "wide.safetensors"
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        os.truncate(path, 8 + len(text) + end)  # gigabytes of nothing
    try:
        with pytest.raises(CannotDraw, match=rf"needs {size / 1e9:.2f} GB of memory, .* GB are free: close other programs"):
            studio_of(three, None).warm("wide", "None", no_report)
    finally:
        path.unlink()


@pytest.mark.parametrize("change", [lambda path: path.unlink(), lambda path: os.truncate(path, 1000)], ids=["deleted", "cut"])
def test_a_file_that_goes_while_it_is_loaded_fails_the_job_and_not_the_engine(tmp_path: Path, change: object) -> None:
    path = write_checkpoint(tmp_path / "a.safetensors", SMALL)
    write_checkpoint(tmp_path / "b.safetensors", SMALL)
    own = studio_of(tmp_path, None)

    def report(fraction: float) -> None:
        if path.exists() and path.stat().st_size > 1000 and fraction > 0.3:
            change(path)

    if change.__code__.co_names[0] == "unlink":  # the bytes stay for whoever has the file open: it is loaded to its end
        own.warm("a", "None", report)
    else:
        with pytest.raises(CannotDraw, match="a.safetensors cannot be used: .*the file ends early|has changed since"):
            own.warm("a", "None", report)
    own.warm("b", "None", no_report)
    with pytest.raises(CannotDraw):
        own.warm("a", "None", no_report)


SPENT_AT_ONCE = """
import sys
from modules.engine import studio, worker
studio.UNRETURNED = -1e12
worker.main(sys.argv[1:])
"""


def test_a_spent_engine_is_replaced_between_jobs(three: Path, tmp_path: Path) -> None:
    queue = Queue(Store(tmp_path / "easel.sqlite3"))
    options = [f"--checkpoints={three}", f"--state={tmp_path}", "--device=cpu", "--precision=float32", "--memory-budget=0"]
    engines: set[int] = set()
    supervisor = Supervisor(queue, options, keep=lambda picture, kind: 1, changed=lambda: None)
    supervisor._command = [sys.executable, "-c", SPENT_AT_ONCE, *options]
    recipe = Recipe(prompt="a fox", steps=1, width=64, height=64, seed=1, cfg_scale=1)
    jobs = [queue.add(replace(recipe, checkpoint=f"{name}.safetensors")) for name in "abb"]
    supervisor.start()
    try:
        deadline = time.monotonic() + 2 * DEADLINE
        while any(queue.job(job).state != "done" for job in jobs):
            assert time.monotonic() < deadline, [queue.job(job).state for job in jobs]
            if supervisor.board.running and supervisor._process:
                engines.add(supervisor._process.pid)
            threading.Event().wait(0.002)
    finally:
        supervisor.stop()
    assert [queue.job(job).attempt for job in jobs] == [1, 1, 1], "no attempt was lost"
    assert len(engines) == 2, "the engine that went from a to b was replaced after it had drawn b"


@pytest.mark.parametrize("part", ["model.", "first_stage_model.", "cond_stage_model."])
def test_a_network_of_zeros_is_refused_instead_of_drawing_one_colour(part: str, tmp_path: Path) -> None:
    weights = ((name, values * (not name.startswith(part))) for name, values in random_weights(SMALL, 0, "float16"))
    write_safetensors(tmp_path / "a.safetensors", expected_tensors(SMALL), "float16", weights)
    with pytest.raises(CannotDraw, match="a.safetensors cannot be used: all numbers of one of its networks are zero"):
        studio_of(tmp_path, None).warm("a", "None", no_report)
