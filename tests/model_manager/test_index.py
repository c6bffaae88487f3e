"""Ten thousand files are listed at once, whoever looked at them first; nothing among them stops that."""

import json
import os
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from modules.model_manager import index, library
from modules.model_manager.library import Checkpoint, scan, scan_vaes
from modules.settings import PROGRAM
from tests.checkpoints import write_checkpoint
from tests.model_manager.bad_zips import TINY

MANY = 10_000
ONCE = """
import json, sys, time
from pathlib import Path
from modules.model_manager.library import scan
begun = time.process_time()
found = scan([Path(sys.argv[1])], Path(sys.argv[2]))
print(json.dumps([len(found), sum(c.status == "ok" for c in found), time.process_time() - begun]))
"""


def in_a_process_of_its_own(folder: Path, store: Path) -> tuple[int, int, float]:
    """(files, usable ones, CPU seconds) of a scan by a fresh process."""
    return tuple(json.loads(subprocess.check_output([sys.executable, "-c", ONCE, str(folder), str(store)], cwd=PROGRAM)))


def forget(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a new process: nothing in memory, all in the store."""
    monkeypatch.setattr(index, "_memory", {})
    monkeypatch.setattr(index, "_stored", {})


def forbid_looking(monkeypatch: pytest.MonkeyPatch) -> None:
    def look(path: Path) -> None:
        raise AssertionError(f"{path} is read again")

    monkeypatch.setattr(library, "described", look)
    monkeypatch.setattr(library, "read_header", look)


@pytest.fixture
def lora() -> bytes:
    tensor = {"dtype": "F16", "shape": [4, 2], "data_offsets": [0, 16]}
    header = json.dumps({"lora_unet_mid_block_attentions_0_proj_in.lora_down.weight": tensor})
    return len(header).to_bytes(8, "little") + header.encode() + bytes(16)


def test_ten_thousand_files_and_what_is_no_file_are_listed_at_once(tmp_path: Path, lora: bytes) -> None:
    """Threat 17. Listing them again, by another process, takes a fraction of the CPU time of reading their headers."""
    folder, store = tmp_path / "models", tmp_path / "state" / "hashes.sqlite3"
    for part in range(10):
        (folder / f"{part}").mkdir(parents=True)
        (folder / f"{part}" / "0000.safetensors").write_bytes(lora)
        for number in range(1, MANY // 10):
            os.link(folder / f"{part}" / "0000.safetensors", folder / f"{part}" / f"{number:04}.safetensors")
    write_checkpoint(folder / "good.safetensors", TINY, dtype="float16")
    os.mkfifo(folder / "pipe.safetensors")
    (folder / "dangling.safetensors").symlink_to(folder / "nothing")
    (folder / "loop.safetensors").symlink_to(folder / "loop.safetensors")
    (folder / "closed.safetensors").write_bytes(lora)
    (folder / "closed.safetensors").chmod(0)
    here = os.getcwd()
    with socket.socket(socket.AF_UNIX) as listener:
        os.chdir(folder)  # the name of a socket is at most 108 bytes long
        listener.bind("socket.safetensors")
        os.chdir(here)

    _, usable, reading = in_a_process_of_its_own(folder, store)
    count, again, listing = in_a_process_of_its_own(folder, store)
    assert (count, usable, again) == (MANY + 6, 1, 1)
    assert listing < reading / 2
    said = {found.name: found.reason for found in scan([folder], store)}
    assert "named pipe" in said["pipe.safetensors"] and "socket" in said["socket.safetensors"]
    assert "not there" in said["dangling.safetensors"] and "leads back" in said["loop.safetensors"]
    assert "models/Lora" in said["3/0500.safetensors"]


def test_what_another_process_saw_is_told_from_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = tmp_path / "hashes.sqlite3"
    path = write_checkpoint(tmp_path / "a.safetensors", TINY, dtype="float16")
    with path.with_suffix(".yaml").open("a") as file:
        file.write("defaults: {steps: 12, sampler: Euler a}\n")
    (tmp_path / "b.vae.pt").write_bytes(b"hello" * 20)
    (tmp_path / "c.ckpt").write_bytes(b"")
    os.rename(write_checkpoint(tmp_path / "d.safetensors", TINY), os.fsencode(tmp_path) + b"/\xff.safetensors")
    first, vaes = scan([tmp_path], store), scan_vaes([tmp_path], (), store)
    forget(monkeypatch)
    forbid_looking(monkeypatch)
    assert scan([tmp_path], store) == first
    assert scan_vaes([tmp_path], (), store) == vaes
    assert {found.status for found in first} == {"ok", "refused"}


@pytest.mark.parametrize(
    "change",
    [
        lambda path: write_checkpoint(path, TINY, seed=2),
        lambda path: os.utime(path, (1, 1)),
        lambda path: path.with_suffix(".yaml").write_text(""),
        lambda path: os.truncate(path, 1000),
        lambda path: path.unlink() or write_checkpoint(path, TINY),
    ],
)
def test_what_changed_is_looked_at_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: Callable[[Path], object]) -> None:
    store = tmp_path / "hashes.sqlite3"
    path = write_checkpoint(tmp_path / "a.safetensors", TINY)
    scan([tmp_path], store)
    change(path)
    forget(monkeypatch)
    looked = []
    described = library.described
    monkeypatch.setattr(library, "described", lambda path: looked.append(path) or described(path))
    scan([tmp_path], store)
    assert looked == [path]


@pytest.mark.parametrize("change", ["readers = 'older'", "found = 'no JSON'", "found = '{}'", "found = '[1]'"])
def test_what_another_version_of_the_readers_wrote_is_looked_at_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    store = tmp_path / "hashes.sqlite3"
    write_checkpoint(tmp_path / "a.safetensors", TINY)
    scan([tmp_path], store)
    with sqlite3.connect(store) as connection:
        connection.execute(f"UPDATE seen SET {change}")
    forget(monkeypatch)
    assert scan([tmp_path], store)[0].status == "ok"


@pytest.mark.parametrize("spoil", [lambda store: store.write_bytes(b"no database" * 500), lambda store: store.unlink() or store.mkdir()])
def test_a_store_that_cannot_be_used_costs_time_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, spoil: Callable[[Path], object]
) -> None:
    store = tmp_path / "hashes.sqlite3"
    write_checkpoint(tmp_path / "a.safetensors", TINY)
    first = scan([tmp_path], store)
    spoil(store)
    forget(monkeypatch)
    again = scan([tmp_path], store)
    assert again == first and isinstance(again[0], Checkpoint)
