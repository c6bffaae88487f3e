"""`upscale` as a user or a script calls it."""

import json
import os
import subprocess
import sys

import pytest
from PIL import Image

from tests.servers import ROOT
from tests.upscalers import COMPACT, random_weights, write_upscaler

PHOTO = ROOT / "tests" / "chelsea.jpg"


@pytest.fixture
def places(tmp_path):
    write_upscaler(tmp_path / "models" / "ESRGAN" / "small.pth", random_weights(COMPACT))
    (tmp_path / "models" / "ESRGAN" / "page.pth").write_text("<html>Sign in</html>")
    return [f"--data-dir={tmp_path}"]


def upscale(*arguments):
    command = [sys.executable, str(ROOT / "app.py"), "upscale", *map(str, arguments)]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=300)


def test_a_picture_is_enlarged_and_only_its_path_is_printed(places, tmp_path):
    result = upscale(PHOTO, "--to", "2x", "-o", tmp_path / "out", *places)
    assert result.returncode == 0, result.stderr
    assert result.stdout == f"{tmp_path / 'out' / 'chelsea.png'}\n"
    with Image.open(tmp_path / "out" / "chelsea.png") as picture:
        assert picture.size == (320, 240)
        assert picture.text["parameters"].startswith("Postprocess upscale by: 2, Postprocess upscaler: realesr-animevideov3, ")


def test_a_folder_is_enlarged_but_for_what_is_no_picture(places, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for at in range(3):
        Image.new("RGB", (10 + at, 9)).save(folder / f"{at}.png")
    (folder / "broken.png").write_text("no picture")
    result = upscale(folder, "--to", "30x0", "--with", "small", "--and-with", "lanczos", "--weight", "0.5", "--json", *places)
    assert result.returncode == 1 and f"easel: {folder / 'broken.png'}: not a picture" in result.stderr
    said = json.loads(result.stdout)
    assert [(each["width"], each["height"]) for each in said["pictures"]] == [(30, 27), (30, 25), (30, 22)]
    assert [each["path"] for each in said["skipped"]] == [str(folder / "broken.png")]
    assert said["facts"]["upscalers"] == ["small", "Lanczos"] and "extras-images" in said["pictures"][0]["path"]


def test_a_folder_without_pictures_is_said_and_what_is_no_plain_file_or_far_too_long_is_not_even_read(places, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    result = upscale(folder, *places)
    assert (result.returncode, result.stdout) == (2, "") and result.stderr == f"easel: there is no file in {folder}\n"
    with open(folder / "film.mp4", "wb") as film:
        film.truncate(1 << 40)  # more than any memory
    os.mkfifo(tmp_path / "pipe")
    result = upscale(folder, tmp_path / "pipe", *places)
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.splitlines() == [
        f"easel: {folder / 'film.mp4'}: 1048576 MB: pictures of more than 64 MB are not taken",
        f"easel: {tmp_path / 'pipe'}: it is no plain file",
    ]


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ([PHOTO, "--to", "large"], 2, "neither like 4x nor like 2048x1536"),
        ([PHOTO, "--to", "0x0"], 2, "Size: say how wide or how high"),
        ([PHOTO, "--to", "99x"], 2, "Factor: 99 is outside"),
        ([PHOTO, "--with", "smal"], 2, "there is no upscaler smal; did you mean small?"),
        ([PHOTO, "--with", "page"], 2, "page cannot be used: a web page"),
        ([PHOTO, "--weight", "2"], 2, "outside"),
        (["/no/such/file.png"], 2, "there is no file"),
        ([PHOTO, "--to", "60000x0", "--with", "Lanczos"], 1, "60000x45000 would be 2700 million pixels; a file holds 333 million"),
    ],
)
def test_bad_use_is_one_line_and_makes_nothing(places, tmp_path, arguments, code, says):
    result = upscale(*arguments, "-o", tmp_path / "out", *places)
    assert result.returncode == code and says in result.stderr.splitlines()[-1], result.stderr
    assert result.stdout == "" and not (tmp_path / "out").exists()
