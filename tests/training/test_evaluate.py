"""Evaluation asks varied words, lets the real engine draw them, and writes its figures whole or not at all."""

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.linalg import sqrtm
from scipy.ndimage import gaussian_filter

from modules.training import autoencoder, evaluate
from modules.training.evaluate import BEGIN, END, ask, replaced, write_all
from modules.training.loop import Budget, save
from modules.training.measures import frechet, psnr, ssim
from tests.checkpoints import write_checkpoint


def test_questions_are_held_out_varied_and_the_same_each_time() -> None:
    asked = ask(128, 200)
    assert all(each.scene.held_out for each in asked)
    assert len({each.words for each in asked}) > 190
    assert asked == ask(128, 200) != ask(128, 200, seed=1)


def test_psnr_and_ssim_of_known_pictures() -> None:
    rng = np.random.default_rng(0)
    one = torch.from_numpy(gaussian_filter(rng.standard_normal((2, 3, 48, 48)), (0, 0, 2, 2)).astype(np.float32) * 2)
    other = one + torch.from_numpy(rng.standard_normal(one.shape).astype(np.float32)) * 0.1
    assert psnr(one, one + 0.2) == pytest.approx(20, abs=1e-3)
    assert ssim(one, one) == pytest.approx(1, abs=1e-4)
    assert ssim(one, other) == pytest.approx(reference_ssim(one.numpy(), other.numpy()), abs=1e-4)


def reference_ssim(one: np.ndarray, other: np.ndarray) -> float:
    """By scipy's Gaussian in float64, away from the edges."""

    def mean(pictures: np.ndarray) -> np.ndarray:
        return gaussian_filter(pictures.astype(float), (0, 0, 1.5, 1.5), truncate=3.5)[..., 5:-5, 5:-5]

    a, b = mean(one), mean(other)
    variances, common = mean(one**2) - a**2 + mean(other**2) - b**2, mean(one * other) - a * b
    return float(np.mean((2 * a * b + 4e-4) * (2 * common + 36e-4) / ((a**2 + b**2 + 4e-4) * (variances + 36e-4))))


def test_frechet_distance_is_the_textbooks() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.standard_normal((400, 6)), rng.standard_normal((300, 6)) @ rng.standard_normal((6, 6)) + 1
    first, second = np.cov(one, rowvar=False), np.cov(other, rowvar=False)
    apart = ((one.mean(axis=0) - other.mean(axis=0)) ** 2).sum()
    assert frechet(one, other) == pytest.approx(apart + np.trace(first + second - 2 * sqrtm(first @ second).real))
    assert frechet(one, one) == pytest.approx(0, abs=1e-6)
    assert frechet(one, one + 3) == pytest.approx(6 * 9)


def test_the_table_replaces_the_last_one_and_nothing_else() -> None:
    first = replaced("# Starter\n\nwords\n", "one")
    assert first.startswith("# Starter\n\nwords\n") and first.count(BEGIN) == first.count(END) == 1
    second = replaced(first.replace("words", "other words") + "\nafter\n", "two")
    assert "other words" in second and "\nafter\n" in second and "two" in second and "one" not in second
    assert second.count(BEGIN) == second.count(END) == 1


def test_files_are_written_all_or_none(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("old")
    with pytest.raises(FileNotFoundError):
        write_all({tmp_path / "a": b"new", tmp_path / "missing" / "b": b"new"})
    assert (tmp_path / "a").read_text() == "old" and os.listdir(tmp_path) == ["a"]
    write_all({tmp_path / "a": b"new", tmp_path / "b": b"new"})
    assert (tmp_path / "a").read_text() == "new" and sorted(os.listdir(tmp_path)) == ["a", "b"]


def test_what_is_missing_is_named(icons: Path, tmp_path: Path) -> None:
    checkpoint = tmp_path / "models" / "x.safetensors"
    with pytest.raises(FileNotFoundError, match="train export"):
        evaluate.evaluate(icons, tmp_path, checkpoint, Budget(1))
    checkpoint.parent.mkdir()
    write_checkpoint(checkpoint)
    with pytest.raises(FileNotFoundError, match="train autoencoder"):
        evaluate.evaluate(icons, tmp_path, checkpoint, Budget(1))


def test_the_engines_pictures_are_judged_and_reported(icons: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluate, "SPOILT", 2)
    monkeypatch.setattr(evaluate, "PAIRS", 4)
    checkpoint = tmp_path / "models" / "x.safetensors"
    checkpoint.parent.mkdir()
    write_checkpoint(checkpoint)
    with checkpoint.with_suffix(".yaml").open("a") as about:
        about.write("\ndefaults: {steps: 2}\n")
    checkpoint.with_suffix(".md").write_text("# A model\n")
    network = autoencoder.build((8, 8, 16, 16))
    autoencoder.start_linear(network)
    save({"networks": {"network": network.state_dict()}}, tmp_path / "autoencoder.pt")
    assert evaluate.evaluate(icons, tmp_path, checkpoint, Budget(2), {128: 3, 256: 2})

    report = json.loads((tmp_path / "evaluate.json").read_text())
    assert [(table["side"], table["captions"]) for table in report["tables"]] == [(128, 3), (256, 2)]
    figures = [(table, table[kind]["agreement"]) for table in report["tables"] for kind in ("drawn", "reconstructed", "real")]
    assert all(agreement["background"]["of"] == table["captions"] for table, agreement in figures)
    assert 15 < report["psnr"] < 30 and 0.3 < report["ssim"] < 1
    page = checkpoint.with_suffix(".md").read_text()
    assert page.startswith("# A model\n") and "3 held-out captions, 128 × 128" in page and "2 held-out captions, 256 × 256" in page
    assert Image.open(checkpoint.with_suffix(".png")).size == (8 * 128, 128)
