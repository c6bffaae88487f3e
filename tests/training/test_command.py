import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_export_without_training_says_which_step_is_missing(tmp_path: Path) -> None:
    places = ["--folder", str(tmp_path), "--output", str(tmp_path / "x.safetensors")]
    done = subprocess.run([sys.executable, "app.py", "train", "export", *places], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 1
    assert "autoencoder.pt is missing" in done.stderr and "train autoencoder" in done.stderr
    assert "Traceback" not in done.stderr and not (tmp_path / "x.safetensors").exists()
