import time

import pytest

from modules.gallery.pictures import Gallery
from modules.jobs.trainings import Trainings
from modules.model_manager.library import scan
from modules.recipe.fields import BadField
from modules.settings import Settings
from modules.store import Store
from tests.checkpoints import write_checkpoint
from tests.datasets import write_pictures

REQUEST = {"what": "lora", "base": "tiny", "data": "squares", "name": "mine"}


@pytest.fixture
def trainings(tmp_path):
    """Trainings at rest: until they are opened nothing is trained. Their folder cannot be written."""
    settings = Settings(data_dir=tmp_path)
    (settings.models / "Stable-diffusion").mkdir(parents=True)
    write_checkpoint(settings.models / "Stable-diffusion" / "tiny.safetensors")
    write_pictures(settings.dataset_roots[0] / "squares")
    settings.training.write_text("a file where the folder should be")
    store = Store(settings.state / "easel.sqlite3")
    known = scan(settings.checkpoint_roots)
    return Trainings(store, Gallery(store, settings.outputs), settings, lambda: known, lambda: None, lambda: None)


def states(trainings):
    return [(training["name"], training["state"]) for training in trainings.shown()]


def test_one_file_is_made_by_one_training(trainings):
    job = trainings.submit(REQUEST)
    with pytest.raises(BadField, match="on its way") as bad:
        trainings.submit(REQUEST)
    assert bad.value.field == "name"
    trainings.submit({**REQUEST, "what": "finetune"})
    assert trainings.cancel(job) and not trainings.cancel(job)
    again = trainings.submit(REQUEST)
    with pytest.raises(BadField, match="on its way"):
        trainings.resume(job)
    trainings.cancel(again)
    assert trainings.resume(job) and not trainings.resume(job)
    assert states(trainings) == [("mine", "queued"), ("mine", "queued"), ("mine", "cancelled")]


def test_a_folder_that_cannot_be_written_fails_the_training_and_not_the_next(trainings):
    trainings.submit(REQUEST)
    trainings.submit({**REQUEST, "name": "next"})
    trainings.open()
    deadline = time.monotonic() + 20
    while [state for _, state in states(trainings)] != ["failed", "failed"]:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    trainings.close()
    reason = trainings.shown()[0]["reason"]
    assert "training" in reason and "\n" not in reason
