"""What the front desk knows of the model folders, and when it finds it out."""

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from modules.jobs import desk as desk_room
from modules.jobs.desk import Desk, engine_arguments
from modules.jobs.supervisor import Board
from modules.model_manager.hashes import known_hash
from modules.settings import Settings
from tests.checkpoints import write_checkpoint
from tests.model_manager.bad_zips import TINY

DEADLINE = 60.0  # seconds; only reached when something hangs


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "a.safetensors", TINY)
    return folder


@pytest.fixture
def desk(folder: Path, tmp_path: Path) -> Desk:
    return Desk(Settings(data_dir=tmp_path))


def test_folders_that_do_not_answer_leave_the_list_as_it_was(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Threat 16: a share whose server went away blocks whoever looks into it, and nobody else."""
    desk.refresh_checkpoints()
    write_checkpoint(folder / "b.safetensors", TINY)
    answers, scandir = threading.Event(), os.scandir

    def stalled(path: str | Path) -> object:
        if Path(path) == folder:
            answers.wait(DEADLINE)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", stalled)
    monkeypatch.setattr(desk_room, "PATIENCE", 0.1)
    desk.refresh_checkpoints()
    assert [found.name for found in desk.checkpoints()] == ["a.safetensors"]
    assert any("do not answer yet" in notice for notice in desk.snapshot()["notices"])
    assert desk.resolve({"prompt": "x", "checkpoint": "a"}).checkpoint == "a.safetensors"
    answers.set()
    eventually(lambda: len(desk.checkpoints()) == 2)
    assert desk.snapshot()["notices"] == []


def test_a_replaced_file_is_another_checkpoint(desk: Desk, folder: Path) -> None:
    desk.refresh_checkpoints()
    first = desk.resolve({"prompt": "x"}).model_hash
    write_checkpoint(folder / "new", TINY, seed=2)
    os.replace(folder / "new", folder / "a.safetensors")
    assert desk.resolve({"prompt": "x"}).model_hash != first


def test_hashes_are_measured_while_nobody_draws(desk: Desk, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(desk_room, "IDLE", 0.01)
    desk.refresh_checkpoints()
    time.sleep(0.1)
    assert known_hash(folder / "a.safetensors", desk.settings.hashes) is None, "the engine still starts"
    desk._supervisor.board = Board(state="ready")
    eventually(lambda: known_hash(folder / "a.safetensors", desk.settings.hashes))


def test_refused_files_of_every_folder_are_told_with_their_reasons(desk: Desk, folder: Path) -> None:
    (folder / "bad.ckpt").write_bytes(b"")
    (folder.parent / "VAE").mkdir()
    (folder.parent / "VAE" / "words.pt").write_bytes(b"hello " * 50)
    desk.refresh_checkpoints()
    assert [file["name"] for file in desk.refused()] == ["bad.ckpt", "words.pt"]
    assert desk.snapshot()["models"]["refused"] == 2
    assert all(file["reason"] for file in desk.refused())


def test_the_engine_is_told_its_budget() -> None:
    assert "--memory-budget=1.5" in engine_arguments(Settings(memory_budget=1.5))
    assert not any("budget" in argument for argument in engine_arguments(Settings()))
