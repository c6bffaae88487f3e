"""Trainings whose process or server is killed, cancelled or refused: what they reached is never lost, and drawing goes on."""

import os

import psutil
import pytest
from PIL import Image

from modules.jobs.coach import PATIENCE
from tests.checkpoints import write_checkpoint
from tests.datasets import write_pictures
from tests.servers import started

LONG = 60  # minutes: longer than any test


def folder_of_data(path):
    """Data for a server of its own: a checkpoint of tiny networks and pictures to train on."""
    checkpoints = path / "models" / "Stable-diffusion"
    checkpoints.mkdir(parents=True)
    write_checkpoint(checkpoints / "tiny.safetensors")
    write_pictures(path / "datasets" / "squares")
    return path


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    data = folder_of_data(tmp_path_factory.mktemp("data"))
    with started(data, models=data / "models") as server:
        yield server


@pytest.fixture
def studio(shared):
    yield shared
    for training in shared.state()["trainings"]:
        shared.ask(f"/api/v1/jobs/{training['job']}", method="DELETE")


def train(server, name, minutes=LONG, data="squares"):
    status, answer = server.ask("/api/v1/train", {"base": "tiny", "data": data, "name": name, "minutes": minutes})
    assert status == 201, answer
    return answer["job"]


def of(job):
    """The training `job` in a state of the server's."""
    return lambda state: next(training for training in state["trainings"] if training["job"] == job)


def wait(server, job, holds, seconds=120):
    return of(job)(server.wait(lambda state: holds(of(job)(state)), seconds))


def trained(step=1, attempt=1):
    return lambda training: (training["state"], training["attempt"]) == ("running", attempt) and training["values"].get("step", 0) >= step


def process(server):
    (child,) = [child for child in psutil.Process(server.process.pid).children() if "train" in child.cmdline()]
    return child


def test_a_training_shows_its_progress_its_samples_and_the_model_that_it_made(studio):
    job = train(studio, "whole", minutes=0.2)
    wait(studio, job, trained())
    assert process(studio).nice() > os.nice(0)
    picture = studio.draw(steps=2, checkpoint="tiny")
    assert studio.wait_for_job(picture)["state"] == "done"
    done = wait(studio, job, lambda training: training["state"] in ("done", "failed"))
    assert (done["state"], done["fraction"], done["reason"]) == ("done", 1, "")
    assert done["values"]["step"] >= 1 and done["values"]["loss"] > 0
    sample = studio.pictures(job)[-1]
    assert done["picture"] == sample["id"] and sample["file"].startswith("train-samples/")
    with Image.open(studio.data / "outputs" / sample["file"]) as image:
        assert image.text["parameters"] == sample["infotext"] and "Training: whole" in sample["infotext"]
    assert (studio.data / "models" / "Lora" / "whole.safetensors").is_file()
    assert studio.ask("/api/v1/train", {"base": "tiny", "data": "squares", "name": "whole"})[1]["field"] == "name"


def test_what_is_cancelled_or_killed_goes_on_from_there_and_fails_when_it_dies_again(studio):
    job = train(studio, "shaken")
    wait(studio, job, trained())
    child = process(studio)
    assert studio.ask(f"/api/v1/jobs/{job}", method="DELETE")[1] == {"dropped": True}
    cancelled = of(job)(studio.state())
    assert cancelled["state"] == "cancelled"
    child.wait(timeout=2 * PATIENCE)
    assert studio.ask(f"/api/v1/train/{job}/resume", {})[1] == {"resumed": True}
    assert wait(studio, job, trained())["values"]["step"] > cancelled["values"]["step"]
    assert studio.ask(f"/api/v1/train/{job}/resume", {})[1] == {"resumed": False}
    for attempt in (1, 2):
        wait(studio, job, trained(attempt=attempt))
        process(studio).kill()
    failed = wait(studio, job, lambda training: training["state"] == "failed")
    assert "killed by signal 9" in failed["reason"] and failed["reason"].count("\n") == 0
    assert studio.ask(f"/api/v1/train/{job}/resume", {})[1] == {"resumed": True}
    assert (of(job)(studio.state())["attempt"], of(job)(studio.state())["reason"]) == (1, "")


def test_a_refusal_is_said_in_one_line(studio):
    mute = write_pictures(studio.data / "datasets" / "mute")
    for caption in mute.glob("*.txt"):
        caption.unlink()
    failed = wait(studio, train(studio, "mute", data="mute"), lambda training: training["state"] == "failed")
    assert "no pictures with captions" in failed["reason"] and failed["reason"].count("\n") == 0


def test_trainings_of_a_killed_server_go_on_after_the_restart(tmp_path):
    data = folder_of_data(tmp_path)
    with started(data, models=data / "models") as server:
        job, second = train(server, "first"), train(server, "second")
        reached = wait(server, job, trained(2))["values"]["step"]
        child = process(server)
        server.process.kill()
        server.process.wait()
        child.wait(timeout=2 * PATIENCE)
    with started(data, models=data / "models") as again:
        assert wait(again, job, trained())["values"]["step"] > reached
        assert of(second)(again.state())["state"] == "queued"
        assert again.ask("/api/v1/train", {"base": "tiny", "data": "squares", "name": "second"})[1]["field"] == "name"
