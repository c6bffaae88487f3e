"""webui.sh on a folder of its own: a real virtual environment and a real pip, with a tiny wheel in torch's place."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
APP = "import sys, os, torch; print('app', torch.here, sys.argv[1:], os.environ['COMMANDLINE_ARGS'])"


def wheels(place):
    return place.parent / "wheels"  # a list of places in PIP_FIND_LINKS is split at spaces


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    place = tmp_path_factory.mktemp("a path with spaces")
    shutil.copy(ROOT / "webui.sh", place)
    (place / "app.py").write_text(APP)
    (place / "requirements.txt").write_text("torch==2.13.0\n")
    (place / "requirements-weights.txt").write_text("weights==2.0.0\n")
    wheels(place).mkdir()
    write_wheel(place, "torch", "2.13.0", "py3-none-any")
    write_wheel(place, "weights", "2.0.0", "cp311-none-manylinux1_x86_64", "Requires-Dist: no-such-package\n")
    return place


def write_wheel(place, name, version, tag, more=""):
    with zipfile.ZipFile(wheels(place) / f"{name}-{version}-{tag}.whl", "w") as wheel:
        wheel.writestr(f"{name}.py", "here = True")
        wheel.writestr(f"{name}-{version}.dist-info/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n{more}")
        wheel.writestr(f"{name}-{version}.dist-info/WHEEL", f"Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{name}-{version}.dist-info/RECORD", "")


def webui(place, *arguments, cwd="/", **environment):
    offline = {"PIP_CONFIG_FILE": os.devnull, "PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(wheels(place)), "python_cmd": sys.executable}
    known = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    variables = {name: value for name, value in {**known, **offline, **environment}.items() if value is not None}
    return subprocess.run([str(place / "webui.sh"), *arguments], cwd=cwd, capture_output=True, text=True, env=variables, timeout=120)


def one_line(result):
    return result.returncode != 0 and result.stderr.count("\n") == 1 and result.stderr.startswith("webui.sh: ")


def test_the_first_start_installs_and_the_second_only_starts(place):
    first = webui(place, "--port", "5", "two words", COMMANDLINE_ARGS="--listen")
    assert first.returncode == 0, first.stderr
    assert first.stdout.splitlines()[-1] == "app True ['--port', '5', 'two words'] --listen"
    assert (place / "venv" / "weights" / "weights.py").is_file(), "the data of a package for another machine, without what it depends on"
    wheels(place).rename(place / "gone")
    second = webui(place)
    assert second.stdout == "app True [] \n" and second.returncode == 0
    (place / "gone").rename(wheels(place))


def test_a_changed_list_is_installed_again(place):
    assert webui(place).returncode == 0
    (place / "requirements.txt").write_text("torch==2.13.0\nno-such-package==1\n")
    failed = webui(place)
    assert one_line(failed) and "no-such-package" in failed.stderr
    (place / "requirements.txt").write_text("torch==2.13.0\n")
    assert webui(place).returncode == 0


def test_an_interrupted_installation_starts_over(place):
    assert webui(place).returncode == 0
    (place / "venv" / ".installing").touch()
    again = webui(place)
    assert "interrupted" in again.stdout and again.stdout.splitlines()[-1].startswith("app True")


def test_a_link_to_it_works_from_anywhere(place, tmp_path):
    (tmp_path / "easel").symlink_to(place / "webui.sh")
    assert webui(place).returncode == 0
    result = subprocess.run([tmp_path / "easel"], cwd=tmp_path, capture_output=True, text=True)
    assert result.stdout.splitlines()[-1].startswith("app True")


def test_no_network_is_one_line(place):
    lost = webui(place, venv_dir=str(place / "other"), PIP_NO_INDEX=None, PIP_FIND_LINKS=None, PIP_INDEX_URL="http://127.0.0.1:9/simple")
    assert one_line(lost) and "network" in lost.stderr


@pytest.mark.parametrize(
    ("program", "says"),
    [
        ("[ $1 = --version ] && echo Python 3.9.1; case $2 in *version_info*) exit 1;; esac", "Python 3.9.1"),
        ("case $2 in *ensurepip*) exit 1;; esac", "python3-venv"),
    ],
)
def test_an_unfit_python_is_one_line(place, tmp_path, program, says):
    fake = tmp_path / "python"
    fake.write_text(f"#!/bin/sh\n{program}\nexit 0\n")
    fake.chmod(0o755)
    refused = webui(place, python_cmd=str(fake), venv_dir=str(tmp_path / "venv"))
    assert one_line(refused) and says in refused.stderr


def test_a_missing_python_is_one_line(place, tmp_path):
    refused = webui(place, python_cmd="no-such-python", venv_dir=str(tmp_path / "venv"))
    assert one_line(refused) and "no-such-python" in refused.stderr


def test_a_folder_that_cannot_be_made_is_one_line(place):
    refused = webui(place, venv_dir="/proc/venv")
    assert one_line(refused) and "/proc/venv" in refused.stderr


def test_a_start_that_was_killed_before_pip_was_there_starts_over(place):
    venv = place / "half"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", venv], check=True)
    again = webui(place, venv_dir=str(venv))
    assert again.returncode == 0 and again.stdout.splitlines()[-1].startswith("app True"), again.stderr


def test_two_starts_do_not_install_at_once_and_a_dead_ones_lock_is_taken_over(place):
    lock = place / "shared.lock"
    lock.mkdir()
    (lock / "owner").write_text(str(os.getpid()))
    waits = webui(place, venv_dir=str(place / "shared"))
    assert one_line(waits) and str(os.getpid()) in waits.stderr and lock.is_dir()
    (lock / "owner").write_text("999999999")
    assert webui(place, venv_dir=str(place / "shared")).returncode == 0 and not lock.exists()


def test_paths_are_the_callers(place, tmp_path):
    (place / "app.py").write_text(APP + "; print(os.getcwd())")
    assert webui(place, cwd=tmp_path).stdout.splitlines()[-1] == str(tmp_path)
    (place / "app.py").write_text(APP)
