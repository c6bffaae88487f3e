"""Stopped, killed, without room, or with damaged files: training goes on from its last state and never destroys it."""

import csv
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
import torch

from modules.training import autoencoder, denoiser
from modules.training.denoiser import Course
from modules.training.files import Unusable, alone, load, save, whole
from modules.training.latents import Cache, Shelf
from modules.training.loop import Budget, train
from tests.training import killed

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def processes() -> multiprocessing.context.ForkServerContext:
    """Processes that have torch loaded from the start."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.training.killed"])
    return context


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small cache of random latents."""
    random = torch.Generator().manual_seed(0)
    mean = torch.randn(16, 4, 8, 8, generator=random).half()
    shelf = Shelf(mean, mean.abs() * 0.1, torch.randn(16, 77, 32, generator=random).bfloat16(), mean[:, :0])
    path = tmp_path_factory.mktemp("kept") / "cache.pt"
    save(Cache({"wide": shelf}, torch.randn(8, 77, 32).bfloat16(), torch.zeros(4), torch.ones(4)).state(), path)
    return path


def ended(process: multiprocessing.process.BaseProcess, seconds: float) -> bool:
    process.join(seconds)
    return not process.is_alive()


def notes(folder: Path) -> list[tuple[int, str]]:
    return [(int(step), loss) for step, loss in (line.split() for line in (folder / "notes").read_text().splitlines())]


def test_ten_kills_change_nothing(processes: multiprocessing.context.ForkServerContext, tmp_path: Path) -> None:
    whole_run, folder, moments = tmp_path / "whole", tmp_path / "killed", random.Random(1)
    whole_run.mkdir()
    folder.mkdir()
    undisturbed = processes.Process(target=killed.run, args=(whole_run,))
    undisturbed.start()
    for _ in range(10):
        process = processes.Process(target=killed.run, args=(folder,))
        process.start()
        time.sleep(moments.uniform(0.05, 0.4))
        process.kill()
        process.join()
        assert process.exitcode == -signal.SIGKILL
    last = processes.Process(target=killed.run, args=(folder,))
    last.start()
    assert ended(last, 120) and ended(undisturbed, 120) and last.exitcode == undisturbed.exitcode == 0

    assert set(notes(folder)) == set(notes(whole_run)) and len(set(notes(whole_run))) == killed.STEPS  # no step came out otherwise
    assert len(notes(folder)) <= killed.STEPS + 10  # a kill costs the step that was not yet written down
    one, other = (torch.load(place / "tiny.pt", weights_only=True)["networks"]["network"] for place in (whole_run, folder))
    assert all(torch.equal(one[name], other[name]) for name in one)
    with (folder / "tiny.csv").open() as file:
        steps = [int(row["step"]) for row in csv.DictReader(file)]
    assert steps == sorted(set(steps))


def test_sigterm_keeps_the_last_step(processes: multiprocessing.context.ForkServerContext, tmp_path: Path) -> None:
    process = processes.Process(target=killed.run, args=(tmp_path,))
    process.start()
    while not (tmp_path / "notes").exists() or len(notes(tmp_path)) < 3:
        time.sleep(0.02)
    process.terminate()
    assert ended(process, 60) and process.exitcode == 0
    assert load(tmp_path / "tiny.pt")["done"] == len(notes(tmp_path)) < killed.STEPS


def test_a_helper_does_not_outlive_a_killed_parent(
    processes: multiprocessing.context.ForkServerContext, kept: Path, tmp_path: Path
) -> None:
    process = processes.Process(target=killed.denoise, args=(tmp_path, kept))
    process.start()
    deadline = time.monotonic() + 240
    while time.monotonic() < deadline and (not (tmp_path / "steps").exists() or int((tmp_path / "steps").read_text() or 0) < 1):
        time.sleep(0.05)
    helpers = [
        child for child in psutil.Process(process.pid).children(recursive=True) if "multiprocessing-fork" in " ".join(child.cmdline())
    ]
    assert helpers
    process.kill()
    assert not psutil.wait_procs(helpers, timeout=30)[1]


def test_several_processes_train_one_network(kept: Path, tmp_path: Path) -> None:
    # what `accelerate launch` starts for GPUs; for CPUs it wants MPI
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "tests.training.killed"]
    paths = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    environment = os.environ | {"PYTHONPATH": paths, "ACCELERATE_USE_CPU": "true"}
    done = subprocess.run([*command, str(tmp_path), str(kept)], cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    first, second = (torch.load(tmp_path / f"rank{rank}.pt", weights_only=True) for rank in (0, 1))
    assert first["processes"] == second["processes"] == 2
    assert all(torch.equal(first["weights"][name], second["weights"][name]) for name in first["weights"])  # one network
    assert len(set(first["losses"] + second["losses"])) == 6  # other pictures each
    assert load(tmp_path / "denoiser.pt")["done"] == 3 and done.stdout.count("denoiser 100.0%") == 1  # the first one writes and reports


def limited(folder: Path, kept: Path, most: int) -> str:
    """What training says where no file may be larger than `most` bytes."""
    script = f"""
import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({most}, {most}))
from pathlib import Path
from tests.training import killed
try: killed.run(Path({str(folder)!r}))
except OSError as error: raise SystemExit(f"easel: {{error}}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    return done.stderr


def test_a_full_disk_leaves_the_last_state(tmp_path: Path) -> None:
    training = killed.tiny(tmp_path / "notes")
    train(training, Budget(2), tmp_path, report=lambda *_: None)
    before = (tmp_path / "tiny.pt").read_bytes()
    assert limited(tmp_path, tmp_path, 512) == f"easel: {tmp_path / 'tiny.pt'} cannot be written: File too large\n"
    assert (tmp_path / "tiny.pt").read_bytes() == before
    assert not list(tmp_path.glob("*.part"))


def test_whole_files_or_none(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file"
    with whole(path) as file:
        file.write(b"first")
    with pytest.raises(KeyError), whole(path) as file:
        file.write(b"sec")
        raise KeyError
    assert path.read_bytes() == b"first" and os.listdir(path.parent) == ["file"]
    (tmp_path / "in the way").write_text("")
    with pytest.raises(OSError, match="in the way/file cannot be written"), whole(tmp_path / "in the way" / "file"):
        pass


def test_a_folder_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OSError, match="cannot be used as a folder to write to"), alone(tmp_path / "file" / "deeper"):
        pass


def test_one_training_a_folder(tmp_path: Path) -> None:
    with alone(tmp_path), pytest.raises(OSError, match="another training works in"), alone(tmp_path):
        pass
    with alone(tmp_path):
        pass


def garbage(path: Path) -> None:
    path.write_bytes(b"not a state at all")


def half(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def something_else(path: Path) -> None:
    torch.save([torch.ones(3)], path)


def other_network(path: Path) -> None:
    torch.save({"networks": {"network": {"weight": torch.ones(3)}}}, path)


def other_sizes(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    state["networks"]["network"]["weight"] = torch.ones(5, 4)
    torch.save(state, path)


def no_optimiser(path: Path) -> None:
    state = torch.load(path, weights_only=True)
    torch.save({"networks": state["networks"]}, path)


@pytest.mark.parametrize("damage", [garbage, half, something_else, other_network, other_sizes, no_optimiser])
def test_a_state_that_does_not_fit_is_left_alone(damage, tmp_path: Path) -> None:
    path = tmp_path / "tiny.pt"
    save(killed.tiny(tmp_path / "notes").state(), path)
    damage(path)
    before = path.read_bytes()
    with pytest.raises(Unusable, match=str(path)) as caught:
        train(killed.tiny(tmp_path / "notes"), Budget(2), tmp_path, report=lambda *_: None)
    assert "\n" not in str(caught.value) and "move it away" in str(caught.value)
    assert path.read_bytes() == before and not (tmp_path / "notes").exists()


def test_a_pickle_that_would_run_something_is_not_run(tmp_path: Path) -> None:
    class Evil:
        def __reduce__(self) -> tuple:
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"networks": Evil()}, tmp_path / "tiny.pt")
    with pytest.raises(Unusable):
        load(tmp_path / "tiny.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("loads", [autoencoder.load_stage, denoiser.load_denoiser])
def test_a_stage_says_what_is_wrong_with_its_file(loads, tmp_path: Path) -> None:
    path = tmp_path / "stage.pt"
    for network in ("network", "ema"):
        save({"networks": {network: {"weight": torch.ones(3)}}}, path)
        with pytest.raises(Unusable, match="stage.pt holds no"):
            loads(path)


def test_a_denoiser_goes_on_predicting_what_it_did(kept: Path, tmp_path: Path) -> None:
    cache, path = Cache.of(load(kept)), tmp_path / "denoiser.pt"

    def made(prediction: denoiser.Prediction) -> denoiser.Trainer:
        return denoiser.trainer(cache, lambda latents: latents[:, :3], channels=(32, 64), course=Course(prediction, batch=2))

    save(made("epsilon").state(), path)
    assert denoiser.load_denoiser(path)[1] == "epsilon"
    with pytest.raises(Unusable, match="trained with prediction epsilon"):
        made("v").restore(path)
    old = made("v").state()
    del old["about"]  # as states were before there was a choice
    save(old, path)
    network, prediction = denoiser.load_denoiser(path)
    assert prediction == "v" and network.config.block_out_channels == (32, 64) and made("v").restore(path)
