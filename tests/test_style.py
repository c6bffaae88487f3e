"""The manners of the code, checked by the tools that the project chose for it."""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def checked(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr


def test_ruff():
    checked(sys.executable, "-m", "ruff", "check", "app.py", "modules", "tests", "benchmarks")


def test_who_may_import_whom():
    checked(str(Path(sys.executable).parent / "lint-imports"), "--no-cache")


def test_nothing_unpickles():
    loads = re.compile(r"torch\.load\(|pickle\.loads?\(|\bimport pickle\b|weights_only|allow_pickle=True")
    guilty = [str(path) for path in (ROOT / "modules").rglob("*.py") if loads.search(path.read_text())]
    assert [path for path in guilty if "/training/" not in path] == []


def test_torchvision_is_never_asked_for():
    for name in ("requirements.txt", "requirements-test.txt"):
        assert not re.search(r"^torchvision", (ROOT / name).read_text(), re.MULTILINE)
