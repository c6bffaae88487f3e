"""`generate`, `models` and `doctor` as a user or a script calls them."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy
import pytest
from PIL import Image

from tests.checkpoints import INPAINTING, write_checkpoint
from tests.loras import write_lora
from tests.pictures import BAD, COLOURS, GOOD
from tests.servers import MODELS, ROOT

APP = [sys.executable, str(ROOT / "app.py")]


@pytest.fixture
def places(tmp_path):
    return [f"--data-dir={tmp_path}", f"--models-dir={MODELS}"]


def easel(*arguments):
    return subprocess.run([*APP, *map(str, arguments)], cwd="/", capture_output=True, text=True, timeout=300)


def test_generate_writes_pictures_and_prints_only_their_paths(places, tmp_path):
    result = easel("generate", "a red apple", "--steps", "2", "--seed", "7", "--size", "64x72", "-n", "2", "-o", tmp_path / "out", *places)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == [str(tmp_path / "out" / name) for name in ("00000-7.png", "00001-8.png")]
    with Image.open(tmp_path / "out" / "00001-8.png") as picture:
        assert picture.size == (64, 72)
        assert picture.text["parameters"].startswith("a red apple\nSteps: 2, Sampler: DPM++ 2M")
        assert "Seed: 8, Size: 64x72" in picture.text["parameters"]


def test_a_picture_is_drawn_twice(places, tmp_path):
    hires = ["--hires-upscaler", "lanczos", "--hires-steps", "2", "--denoising-strength", "0.5", "--hires-width", "96"]
    drawn = easel("generate", "a fox", "--steps", "2", "--seed", "7", "--size", "64x80", *hires, "--json", *places)
    assert drawn.returncode == 0, drawn.stderr
    (picture,) = json.loads(drawn.stdout)["pictures"]
    assert (picture["width"], picture["height"]) == (96, 120)
    assert "Hires resize: 96x0, Hires steps: 2, Hires upscaler: Lanczos" in picture["infotext"]


def test_the_same_call_gives_the_same_file_and_picture_i_is_what_its_seed_draws_alone(places, tmp_path):
    both = json.loads(easel("generate", "a fox", "--steps", "3", "--seed", "1", "-n", "2", "--json", *places).stdout)
    alone = json.loads(easel("generate", "a fox", "--steps", "3", "--seed", "2", "--json", *places).stdout)
    assert [picture["seed"] for picture in both["pictures"]] == [1, 2]
    assert both["facts"]["device"] == "cpu"
    with Image.open(both["pictures"][1]["path"]) as one, Image.open(alone["pictures"][0]["path"]) as other:
        assert one.tobytes() == other.tobytes() and one.text == other.text
    assert (one.text["parameters"], one.size) == (
        both["pictures"][1]["infotext"],
        (both["pictures"][1]["width"], both["pictures"][1]["height"]),
    )


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--steps", "0"], "Steps"),
        (["--steps", "nan"], "Steps"),
        (["--size", "64"], "Size"),
        (["--size", "65x64"], "Width"),
        (["--size=-64x64"], "Width"),
        (["-n", "0"], "Batch count"),
        (["--sampler", "Eular"], "did you mean 'Euler'"),
        (["--model", "nothing-like-it"], "nothing-like-it"),
        (["--vae", "nothing-like-it"], "VAE: there is no nothing-like-it"),
        (["--cfg-scale", "inf"], "CFG scale"),
        (["--hires-scale", "9"], "Upscale by: 9 is outside 1 to 8"),
        (["--hires", "--hires-upscaler", "Lanczoz"], "Upscaler: there is no upscaler Lanczoz; did you mean Lanczos?"),
        (["--precision", "int3"], "int3"),
        (["--unknown"], "--unknown"),
    ],
)
def test_bad_use_is_one_line_and_code_2(places, arguments, says):
    result = easel("generate", "a fox", *arguments, *places)
    assert result.returncode == 2 and result.stdout == ""
    assert says in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


def test_a_folder_that_cannot_be_written_is_one_line_and_code_1(places, tmp_path):
    (tmp_path / "out").write_text("a file")
    result = easel("generate", "a fox", "--steps", "1", "-o", tmp_path / "out", *places)
    assert result.returncode == 1 and str(tmp_path / "out") in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr


def test_ctrl_c_is_code_130_and_leaves_nothing_half_written(places, tmp_path):
    process = subprocess.Popen(
        [*APP, "generate", "a fox", "--steps", "150", "-n", "50", "-o", str(tmp_path / "out"), *places],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    while not (tmp_path / "out").is_dir():
        assert process.poll() is None
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    printed, error = process.communicate(timeout=30)
    assert process.returncode == 130 and "Traceback" not in error
    assert len(printed.split()) == len(os.listdir(tmp_path / "out")) and f"{len(printed.split())} of 50" in error
    for name in os.listdir(tmp_path / "out"):
        with Image.open(tmp_path / "out" / name) as picture:
            picture.load()


def test_models_lists_what_is_there_and_why_a_file_is_refused(tmp_path):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    for name in ("starter.safetensors", "starter.yaml"):
        shutil.copy(MODELS / "Stable-diffusion" / name, folder)
    (folder / "broken.ckpt").write_bytes(b"<html>404</html>")
    every = json.loads(easel("models", "--json", f"--data-dir={tmp_path}").stdout)
    listed = [model for model in every if model["kind"] != "upscaler"]  # of those some come with the program
    assert [(model["name"], model["status"], model["family"]) for model in listed] == [
        ("broken.ckpt", "refused", None),
        ("starter.safetensors", "ok", "sd1"),
    ]
    assert listed[0]["reason"] and listed[1]["reason"] is None and listed[1]["path"] == str(folder / "starter.safetensors")
    assert easel("models", f"--data-dir={tmp_path}").stdout.count("\n") == len(every)
    write_lora(tmp_path / "more" / "style.safetensors")
    both = [f"--data-dir={tmp_path}", f"--lora-dir={tmp_path / 'more'}"]
    assert json.loads(easel("models", "--json", *both).stdout)[2] == {
        "name": "style.safetensors",
        "path": str(tmp_path / "more" / "style.safetensors"),
        "kind": "lora",
        "status": "ok",
        "family": None,
        "reason": None,
    }
    assert "style.safetensors  LoRA of rank 2 for 3 layers" in easel("models", *both).stdout


def test_models_check_reads_one_file_and_says_whether_it_can_be_used(tmp_path):
    good = easel("models", "check", MODELS / "Stable-diffusion" / "starter.safetensors")
    assert good.returncode == 0 and good.stdout.count("\n") == 1
    bad = tmp_path / "bad.safetensors"
    whole = (MODELS / "Stable-diffusion" / "starter.safetensors").read_bytes()
    bad.write_bytes(whole[: len(whole) // 2])
    refused = easel("models", "check", bad)
    assert refused.returncode == 1 and "refused" in refused.stdout and refused.stdout.count("\n") == 1
    assert easel("models", "check", tmp_path / "none").returncode == 2


def test_doctor_is_content_with_this_machine_and_not_with_an_empty_one(places, tmp_path):
    well = easel("doctor", *places)
    assert well.returncode == 0, well.stdout + well.stderr
    assert "torch 2.13.0" in well.stdout and "usable" in well.stdout and "trouble" not in well.stdout
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "outputs").write_text("a file")
    ill = easel("doctor", f"--data-dir={tmp_path / 'empty'}")
    assert ill.returncode == 1
    assert [line.split()[1] for line in ill.stdout.splitlines() if line.startswith("trouble")] == ["models", "drawing", "outputs"]


def test_a_reader_that_goes_away_and_a_full_disk_make_no_traceback(places):
    for arguments in (["models", *places], ["--help"]):
        with subprocess.Popen([*APP, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as reader:
            reader.stdout.close()
            assert b"Traceback" not in reader.stderr.read()
    with open("/dev/full", "w") as full:
        result = subprocess.run([*APP, "models", *places], stdout=full, stderr=subprocess.PIPE, text=True, timeout=60)
    assert result.returncode == 1 and result.stderr.count("\n") == 1


def test_folders_that_cannot_be_are_named(tmp_path):
    unknown = easel("models", "--data-dir=~nosuchuser/a")
    assert unknown.returncode == 2 and "nosuchuser" in unknown.stderr and unknown.stderr.count("\n") == 1
    nowhere = easel("serve", "--data-dir=/dev/null", "--port=70000")
    assert nowhere.returncode == 2 and "Traceback" not in nowhere.stderr


@pytest.fixture
def photo(tmp_path):
    """A picture of the starter's kind with a bright square, and the mask of that square."""
    (tmp_path / "in").mkdir()
    (tmp_path / "masks").mkdir()
    for name in ("one", "two [x]"):
        picture = Image.new("RGB", (150, 130), (90, 150, 80))
        picture.paste((250, 30, 30), (60, 50, 90, 80))
        picture.save(tmp_path / "in" / f"{name}.png")
        mask = Image.new("L", (150, 130))
        mask.paste(255, (56, 46, 94, 84))
        mask.save(tmp_path / "masks" / f"{name}.png")
    return tmp_path / "in" / "one.png", tmp_path / "masks" / "one.png"


def pixels(path):
    with Image.open(path) as image:
        return numpy.asarray(image.convert("RGB")).astype(int)


def test_generate_changes_a_picture_under_its_mask(places, tmp_path, photo):
    init, mask = photo
    result = easel("generate", "--init", init, "--mask", mask, "--remove", "--seed", 1, "--mask-blur", 2, "-o", tmp_path / "out", *places)
    assert result.returncode == 0, result.stderr
    before, after = pixels(init), pixels(result.stdout.strip())
    outside = numpy.ones((130, 150), bool)
    outside[40:90, 50:100] = False
    assert (before == after)[outside].all()
    assert abs(after[50:80, 60:90] - [90, 150, 80]).mean() < 40, "the red square is gone"
    parameters = json.loads(easel("generate", "--init", init, "--steps", 2, "--json", *places).stdout)["pictures"][0]
    assert "img2img-images" in parameters["path"] and "Denoising strength: 0.75" in parameters["infotext"]
    assert (parameters["width"], parameters["height"]) == (150, 130)


def test_a_folder_of_pictures_keeps_its_names(places, tmp_path, photo):
    arguments = [
        "generate",
        "grass",
        "--init",
        tmp_path / "in",
        "--mask",
        tmp_path / "masks",
        "--steps",
        1,
        "-o",
        tmp_path / "out",
        *places,
    ]
    for names in (["one.png", "two [x].png"], ["one-1.png", "two [x]-1.png"]):
        assert easel(*arguments).stdout.splitlines() == [str(tmp_path / "out" / name) for name in names]


def test_a_picture_is_extended(places, tmp_path, photo):
    result = easel("generate", "grass", "--init", photo[0], "--extend", "40,0,8,0", "--steps", 2, "-o", tmp_path / "out", *places)
    before, after = pixels(photo[0]), pixels(result.stdout.strip())
    assert after.shape == (130, 198, 3)
    assert (after[:, 40 + 12 + 10 : 190 - 12 - 10] == before[:, 22:128]).all()


def test_remove_draws_at_the_strength_that_suits_the_checkpoint(tmp_path, photo):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "sees.safetensors", INPAINTING)
    arguments = ["--init", photo[0], "--mask", photo[1], "--remove", "--steps", 1, "--json", f"--data-dir={tmp_path}"]
    answer = json.loads(easel("generate", *arguments).stdout)
    assert "Denoising strength: 0.75" in answer["pictures"][0]["infotext"] and "CFG scale: 1.0" in answer["pictures"][0]["infotext"]
    assert answer["facts"]["way"] == "an inpainting checkpoint that sees the mask"
    own = json.loads(easel("generate", *arguments, "--denoising-strength", 0.5).stdout)
    assert "Denoising strength: 0.5" in own["pictures"][0]["infotext"]


def test_files_of_a_folder_that_cannot_be_used_are_named_and_left_out(places, tmp_path):
    (tmp_path / "in").mkdir()
    for name, (data, *_) in (BAD | GOOD).items():
        (tmp_path / "in" / f"{name}.png").write_bytes(data)
    Image.new("RGB", (20, 90)).save(tmp_path / "in" / "tiny.png")
    result = easel("generate", "--init", tmp_path / "in", "--denoising-strength", 0, "--steps", 1, "-o", tmp_path / "out", *places)
    assert result.returncode == 1 and "Traceback" not in result.stderr
    left_out = [line for line in result.stderr.splitlines() if "left out: " in line]
    assert len(left_out) == len(BAD) + 1 and f"easel: left out: {tmp_path / 'in' / 'tiny.png'}: Width: 20 is outside 64 to 4096" in left_out
    for name, (_, says) in BAD.items():
        assert [line for line in left_out if f"{name}.png: " in line and re.search(says, line)], name
    assert sorted(os.listdir(tmp_path / "out")) == sorted(f"{name}.png" for name in GOOD)
    for name, (_, _, off) in GOOD.items():
        assert abs(pixels(tmp_path / "out" / f"{name}.png") - COLOURS).max() <= off


def test_a_picture_without_a_mask_or_with_one_of_another_shape_is_left_out(places, tmp_path, photo):
    Image.new("L", (150, 30), 255).save(tmp_path / "masks" / "two [x].png")
    shutil.copy(photo[0], tmp_path / "in" / "three.png")
    folders = ["--init", tmp_path / "in", "--mask", tmp_path / "masks"]
    result = easel("generate", "grass", *folders, "--steps", 1, "-o", tmp_path / "out", *places)
    assert result.returncode == 1 and os.listdir(tmp_path / "out") == ["one.png"]
    assert "left out: --mask: there is no mask for three.png" in result.stderr
    assert "two [x].png: Mask: 150x30 has another shape" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--init", "nothing.png"], "no file nothing.png"),
        (["--mask", "MASK"], "--init"),
        ([], "say what to draw"),
        (["--init", "PHOTO", "--mask", "EMPTY"], "it is empty"),
        (["--init", "PHOTO", "--mask", "OTHER"], "another shape"),
        (["--init", "BROKEN"], "broken.png: an SVG is a drawing"),
        (["--init", "PHOTO", "--mask", "BROKEN"], "broken.png: an SVG"),
        (["--init", "PHOTO", "--extend", "1,2"], "is not like 64,0,64,0"),
        (["--init", "PHOTO", "--extend", "1,2,3,4", "--mask", "MASK"], "leave --mask out"),
        (["--init", "PHOTO", "--denoising-strength", "2"], "Denoising strength"),
        (["--init", "HOLLOW"], "nothing in"),
    ],
)
def test_pictures_that_cannot_be_changed_are_one_line_and_code_2(places, tmp_path, photo, arguments, says):
    Image.new("L", (150, 130)).save(tmp_path / "empty.png")
    Image.new("L", (150, 30), 255).save(tmp_path / "other.png")
    (tmp_path / "broken.png").write_text("<svg/>")
    (tmp_path / "hollow").mkdir()
    known = {"PHOTO": photo[0], "MASK": photo[1], **{name.upper(): tmp_path / f"{name}.png" for name in ("empty", "other", "broken")}}
    known["HOLLOW"] = tmp_path / "hollow"
    result = easel("generate", *(known.get(argument, argument) for argument in arguments), *places)
    assert result.returncode == 2 and result.stdout == ""
    assert says in result.stderr.splitlines()[-1] and "Traceback" not in result.stderr
