import os

import pytest

from modules.jobs.training import FINE_TUNE, LORA, NEW, arguments, datasets, from_dict, infotext, training_for
from modules.model_manager.library import scan
from modules.recipe.fields import BadField
from modules.settings import Settings
from tests.checkpoints import write_checkpoint
from tests.datasets import write_pictures


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    settings = Settings(data_dir=tmp_path_factory.mktemp("data"), datasets_dir=tmp_path_factory.mktemp("more"))
    (settings.models / "Stable-diffusion").mkdir(parents=True)
    write_checkpoint(settings.models / "Stable-diffusion" / "tiny.safetensors")
    write_pictures(settings.dataset_roots[0] / "cats")
    write_pictures(settings.dataset_roots[1] / "dogs")
    (settings.dataset_roots[0] / "empty").mkdir()
    (settings.dataset_roots[0] / ".hidden").mkdir()
    (settings.dataset_roots[0] / "listed").mkdir()
    (settings.dataset_roots[0] / "listed" / "metadata.jsonl").write_text("{}")
    return settings


def asked(settings, **request):
    usual = {"what": "lora", "base": "tiny", "data": "cats", "name": "mine"}
    return training_for({**usual, **request}, scan(settings.checkpoint_roots), settings)


def test_what_is_asked_for_becomes_a_command_line(settings):
    training = asked(settings, minutes=2)
    assert (training.what, training.base, training.data, training.minutes) == (LORA, "tiny.safetensors", "cats", 2.0)
    line = arguments(training, settings)
    assert line[:3] == ["train", "--watched", "lora"]
    assert f"--data={settings.dataset_roots[0] / 'cats'}" in line and "--from=tiny.safetensors" in line and "--minutes=2" in line
    assert f"--output={settings.models / 'Lora' / 'mine.safetensors'}" in line
    assert f"--data={settings.dataset_roots[1] / 'dogs'}" in arguments(asked(settings, what=FINE_TUNE, data="dogs"), settings)
    new = asked(settings, what=NEW, base="nobody", data="../..")
    assert (new.base, new.data) == ("", "") and arguments(new, settings)[2] == "all"


def test_only_folders_of_pictures_that_lie_in_the_dataset_folders_have_names(settings):
    assert datasets(settings) == ["cats", "dogs", "listed"]


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"data": ""}, "data"),
        ({"data": "empty"}, "data"),
        ({"data": "/etc"}, "data"),
        ({"data": "../models"}, "data"),
        ({"data": "cats/../cats"}, "data"),
        ({"data": "."}, "data"),
        ({"data": 5}, "data"),
        ({"base": "nobody"}, "base"),
        ({"base": "../../etc/passwd"}, "base"),
        ({"what": "everything"}, "what"),
        ({"minutes": 0}, "minutes"),
        ({"minutes": "nan"}, "minutes"),
        ({"minutes": True}, "minutes"),
        ({"name": ""}, "name"),
        ({"name": "../mine"}, "name"),
        ({"name": "a/b"}, "name"),
        ({"name": ".mine"}, "name"),
        ({"name": "-mine"}, "name"),
        ({"name": "mine."}, "name"),
        ({"name": "mi\nne"}, "name"),
        ({"name": "mine<lora:x:1>"}, "name"),
        ({"name": "x" * 51}, "name"),
        ({"folder": "../elsewhere"}, "folder"),
        ({"output": "/etc/passwd"}, "output"),
    ],
)
def test_bad_requests_name_the_field_in_one_line(settings, request_, field):
    with pytest.raises(BadField) as bad:
        asked(settings, **request_)
    assert bad.value.field == field and "\n" not in str(bad.value)


def test_what_is_no_folder_is_no_choice(settings, tmp_path):
    os.symlink(tmp_path / "gone", settings.dataset_roots[0] / "gone")
    os.mkfifo(settings.dataset_roots[0] / "pipe")
    assert datasets(settings) == ["cats", "dogs", "listed"]


def test_what_is_there_is_not_overwritten(settings):
    (settings.models / "Lora").mkdir(exist_ok=True)
    (settings.models / "Lora" / "taken.safetensors").write_bytes(b"")
    with pytest.raises(BadField, match="choose another name"):
        asked(settings, name="taken")
    assert asked(settings, name="taken", what=FINE_TUNE).name == "taken"


def test_a_row_from_elsewhere_is_refused():
    for values in ({"what": "x"}, {"minutes": "many"}, {"more": 1}):
        with pytest.raises(BadField):
            from_dict(values)


def test_a_sample_says_which_training_it_belongs_to(settings):
    text = infotext(asked(settings), "denoiser", {"step": 1200.0, "loss": 0.01234567, "rate": 0.1})
    assert text.startswith("A sample of the training mine: LoRA of tiny.safetensors on cats\n")
    assert "Training: mine, Training stage: denoiser, Training step: 1200, Training loss: 0.0123457, Version: Easel" in text
