"""A folder of pictures with captions: what is read, what is left out and said, and that any step can train on it."""

import io
import json
import os
import struct
import zlib
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import app
from modules.model_manager.library import find, scan
from modules.training import autoencoder, clip, denoiser
from modules.training.files import Unusable
from modules.training.folder import Folder, read_folder, square
from modules.training.latents import cache
from modules.training.vocabulary import tokens
from tests.training.folders import put, write_folder

SIDE = 16


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def halves(width: int, height: int) -> Image.Image:
    """Red above, blue below."""
    image = Image.new("RGB", (width, height), "red")
    image.paste("blue", (0, height // 2, width, height))
    return image


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 50,000 pixels wide and high."""

    def part(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + part(b"IHDR", header) + part(b"IDAT", zlib.compress(bytes(1000))) + part(b"IEND", b"")


def test_pictures_come_with_the_texts_beside_them_and_with_lines_of_metadata(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "a red fox,\n  in the snow\n")
    put(tmp_path, "b.JPG", "ein Käfer")
    put(tmp_path, "c.webp", None)
    put(tmp_path, "in/d.png", None)
    lines = [{"file_name": "c.webp", "text": "a cat"}, {"file_name": "in/d.png", "text": "a dog"}]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n\n")
    data = read_folder(tmp_path, SIDE)
    assert sorted(data.captions) == ["a cat", "a dog", "a red fox, in the snow", "ein Käfer"]
    assert data.squares.shape == (4, SIDE, SIDE, 3) and data.left_out == ""


def test_the_middle_is_kept_upright_and_what_is_transparent_is_white() -> None:
    wide = Image.new("RGB", (64, 16), "green")
    wide.paste("red", (24, 0, 40, 16))
    assert (square(encoded(wide), SIDE) == (255, 0, 0)).all()
    turned = Image.Exif()
    turned[0x0112] = 3  # upside down
    assert (square(encoded(halves(32, 32), exif=turned), SIDE)[0] == (0, 0, 255)).all()
    clear = Image.new("RGBA", (32, 32), (0, 0, 0, 0))
    clear.paste((255, 0, 0, 255), (0, 0, 32, 16))
    shown = square(encoded(clear), SIDE)
    assert (shown[0] == (255, 0, 0)).all() and (shown[-1] == 255).all()
    assert square(encoded(Image.new("L", (1, 400))), SIDE).shape == (SIDE, SIDE, 3)
    assert square(encoded(Image.new("CMYK", (20, 30)), "JPEG"), SIDE).shape == (SIDE, SIDE, 3)


def test_what_cannot_be_used_is_left_out_counted_and_named(tmp_path: Path) -> None:
    put(tmp_path, "good.png", "a good one")
    whole = encoded(halves(64, 64))
    for name, data in {"cut.png": whole[: len(whole) // 2], "web.png": b"<html>", "none.jpg": b"", "bomb.png": bomb()}.items():
        (tmp_path / name).write_bytes(data)
        (tmp_path / name).with_suffix(".txt").write_text("a caption")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "pipe.txt").write_text("never opened")
    put(tmp_path, "silent.png", None)
    put(tmp_path, "empty.png", " \n")
    put(tmp_path, "latin.png", None)
    (tmp_path / "latin.txt").write_bytes(b"K\xe4fer")
    (tmp_path / "alone.txt").write_text("a picture that is gone")
    data = read_folder(tmp_path, SIDE)
    assert data.captions == ("a good one",)
    for said in ("5 broken pictures", "1 pictures without captions (silent.png)", "1 empty captions", "1 unreadable captions"):
        assert said in data.left_out
    assert "1 captions without pictures (alone.txt)" in data.left_out and "\n" not in data.left_out


def test_bad_lines_of_metadata_are_counted_and_lead_nowhere_else(tmp_path: Path) -> None:
    put(tmp_path / "data", "a.png", None)
    put(tmp_path, "secret.png", None)
    outside = json.dumps({"file_name": "../secret.png", "text": "x"})
    absolute = json.dumps({"file_name": str(tmp_path / "secret.png"), "text": "x"})
    gone = json.dumps({"file_name": "gone.png", "text": "x"})
    lines = [outside, absolute, gone, "{", "[" * 100_000, '{"file_name": 3, "text": "x"}', '{"text": "x"}', "\0"]
    good = json.dumps({"file_name": "a.png", "text": "a fox"})
    (tmp_path / "data" / "metadata.jsonl").write_text("\n".join([*lines, good]))
    data = read_folder(tmp_path / "data", SIDE)
    assert data.captions == ("a fox",)
    assert "bad lines in metadata.jsonl (line 1)" in data.left_out and "1 captions without pictures (gone.png)" in data.left_out


@pytest.mark.parametrize("kind", ["missing", "a file", "empty", "no captions", "a pipe for metadata"])
def test_a_folder_with_nothing_to_train_on_is_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    if kind == "a file":
        folder.write_text("x")
    elif kind != "missing":
        folder.mkdir()
    if kind == "no captions":
        put(folder, "a.png", None)
    if kind == "a pipe for metadata":
        os.mkfifo(folder / "metadata.jsonl")
    with pytest.raises(Unusable, match=str(folder)) as refusal:
        read_folder(folder, SIDE)
    assert "\n" not in str(refusal.value)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Folder:
    return read_folder(write_folder(tmp_path_factory.mktemp("pictures"), 20, side=128), 128)


def test_every_tenth_is_held_out(data: Folder) -> None:
    assert data.held_out.tolist() == [9, 19] and data.counts == {"wide": 18}
    rng = np.random.default_rng(0)
    shown = [example.words for example in islice(data.examples(rng, "wide", False), 36)]
    assert shown[:18] == shown[18:] and not {data.captions[9], data.captions[19]} & set(shown)
    assert not {example.words for example in data.pairs(rng, 200)} & {data.captions[9], data.captions[19]}
    assert set(tokens(data.captions[0])) <= set(data.vocabulary.ids)


def test_every_step_trains_on_a_folder(data: Folder) -> None:
    assert autoencoder.trainer(data, channels=(8, 8, 16, 16), batch=4).step(0, 0)["loss"] > 0
    assert clip.trainer(data, width=64, layers=1, batch=4).step(0, 0)["loss"] > 0
    torch.manual_seed(0)
    text = clip.TextEncoder(data.vocabulary, 64, 1).eval()
    for masked in (False, True):
        kept = cache(autoencoder.build((8, 8, 16, 16)), text, data, masked=masked)
        training = denoiser.trainer(kept, lambda latents: latents[:, :3], channels=(32, 64), course=denoiser.Course(batch=4))
        assert training.step(0, 0)["loss"] > 0


def test_the_steps_make_a_checkpoint_of_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pictures = write_folder(tmp_path / "squares", 12, side=32)
    places = ["--data", str(pictures), "--folder", str(tmp_path / "work"), "--output", str(tmp_path / "squares.safetensors")]
    assert app.main(["train", "all", *places, "--minutes", "0.001", "--threads", "1"]) == 0
    found = find(scan([tmp_path]), "squares.safetensors")
    assert found.status == "ok" and "12 pictures with captions" in capsys.readouterr().out
    assert app.main(["train", "evaluate", *places]) == 1
    assert "emoji only" in capsys.readouterr().err
