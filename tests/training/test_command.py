import subprocess
import sys
from pathlib import Path

import pytest

import app
from modules.commands import train
from modules.model_manager.reading import described
from modules.training import clip, denoiser
from modules.training.files import load
from modules.training.presets import PRESETS, Preset

ROOT = Path(__file__).parents[2]
STEPS = (*train.STEPS[:3], "inpainting", "export")


@pytest.fixture
def instant(monkeypatch: pytest.MonkeyPatch, icons: Path, tmp_path: Path) -> list[str]:
    """Options of a training that ends after a step or two, with the networks of the real one."""
    minutes = dict.fromkeys(PRESETS["quick"].minutes, 0.001)
    monkeypatch.setitem(PRESETS, "instant", Preset(minutes, {"wide": 24}, {"wide": 24}, PRESETS["quick"].stages, {}))
    monkeypatch.setattr(denoiser, "SHOWN", 1)
    monkeypatch.setattr(clip, "SHOWN", 8)
    (tmp_path / "icons").symlink_to(icons)
    return ["--preset", "instant", "--folder", str(tmp_path), "--output", str(tmp_path / "mine.safetensors"), "--threads", "1"]


def test_step_after_step_makes_checkpoints(instant: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    for step in STEPS:
        assert app.main(["train", step, *instant]) == 0, capsys.readouterr().err
    assert described(tmp_path / "mine.safetensors")[1].prediction == "v"
    assert described(tmp_path / "mine-inpainting.safetensors")[1].unet.in_channels == 9
    for step in STEPS[:4]:
        assert (tmp_path / f"{step}.png").stat().st_size > 1000 and (tmp_path / f"{step}.csv").exists()
    said = capsys.readouterr().out
    assert "autoencoder 100.0%" in said and "min left" in said and "inpainting.png" in said
    before = load(tmp_path / "autoencoder.pt")["done"]
    assert before > 0 and app.main(["train", "autoencoder", *instant]) == 0
    assert load(tmp_path / "autoencoder.pt")["done"] == before  # its budget is spent


def test_export_without_training_says_which_step_is_missing(tmp_path: Path) -> None:
    places = ["--folder", str(tmp_path), "--output", str(tmp_path / "x.safetensors")]
    done = subprocess.run([sys.executable, "app.py", "train", "export", *places], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "autoencoder.pt is missing" in done.stderr and "train autoencoder" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "x.safetensors").exists()


def test_a_state_that_is_none_is_one_line_and_stays(instant: list[str], tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    (tmp_path / "autoencoder.pt").write_bytes(b"something else")
    assert app.main(["train", "autoencoder", *instant]) == 1
    assert capsys.readouterr().err.splitlines() == [
        f"easel: {tmp_path / 'autoencoder.pt'} is damaged or no state of Easel's training: move it away to begin again"
    ]
    assert (tmp_path / "autoencoder.pt").read_bytes() == b"something else"


@pytest.mark.parametrize("wrong", [["--minutes", "0"], ["--minutes", "nan"], ["--threads", "0"], ["--f", "3"], ["--preset", "slow"]])
def test_bad_options_are_bad_use(wrong: list[str], capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as ended:
        app.main(["train", "all", *wrong])
    assert ended.value.code == 2 and wrong[0] in capsys.readouterr().err


def test_help_names_every_step_and_preset(capsys: pytest.CaptureFixture) -> None:
    said = []
    for asked in (["train", "--help"], ["train", "all", "--help"]):
        with pytest.raises(SystemExit):
            app.main(asked)
        said.append(capsys.readouterr().out)
    assert all(f"  {step} " in said[0] for step in (*train.STEPS, "inpainting")) and all(name in said[1] for name in PRESETS)
