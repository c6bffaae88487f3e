"""Each step of training runs, learns, and resumes as if it had never been stopped."""

import csv
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from modules.training import autoencoder, clip, denoiser
from modules.training.data import PLACED, scenes_of
from modules.training.helper import helped
from modules.training.loop import Budget, Trainer, learning_rate, sheet, train

TINY = (8, 8, 16, 16)


@pytest.fixture(scope="module")
def kept(icons: Path) -> denoiser.Cache:
    torch.manual_seed(0)
    network = autoencoder.build(TINY)
    autoencoder.start_linear(network)
    return denoiser.cache(network, clip.build(64, 1).eval(), list(scenes_of(PLACED))[::50], icons, wordings=2)


@pytest.fixture
def makers(icons: Path, kept: denoiser.Cache) -> dict[str, Callable[[], Trainer]]:
    return {
        "autoencoder": lambda: autoencoder.trainer(icons, channels=TINY, batch=4),
        "clip": lambda: clip.trainer(icons, width=64, layers=1, batch=16),
        "denoiser": lambda: denoiser.trainer(kept, lambda latents: latents[:, :3], channels=(32, 64), batch=8),
    }


@pytest.mark.parametrize("name", ["autoencoder", "clip", "denoiser"])
def test_resumed_equals_uninterrupted(name: str, makers: dict[str, Callable[[], Trainer]], tmp_path: Path) -> None:
    whole, first, second = makers[name](), makers[name](), makers[name]()
    whole.picture = first.picture = second.picture = None
    assert train(whole, Budget(6), tmp_path / "whole")

    inner = first.step

    def stopping(number: int, fraction: float) -> dict[str, float]:
        first._stop = number == 2
        return inner(number, fraction)

    first.step = stopping
    assert not train(first, Budget(6), tmp_path / "parts")
    assert train(second, Budget(6), tmp_path / "parts")

    assert second.done == whole.done == 6
    for key, network in whole.networks.items():
        for one, other in zip(network.parameters(), second.networks[key].parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=0, atol=0)


def test_a_run_leaves_a_log_and_a_picture(makers: dict[str, Callable[[], Trainer]], tmp_path: Path) -> None:
    train(makers["denoiser"](), Budget(2), tmp_path)
    with (tmp_path / "denoiser.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows and {"step", "seconds", "loss", "rate"} <= set(rows[0])
    assert (tmp_path / "denoiser.png").stat().st_size > 1000


def test_a_helper_trains_the_same_weights_and_ends(makers: dict[str, Callable[[], Trainer]], kept: denoiser.Cache) -> None:
    training = makers["denoiser"]()
    training.step = lambda number, fraction: {}  # so that only the helper changes anything
    before = [parameter.detach().clone() for parameter in training.networks["network"].parameters()]
    with helped(training, kept):
        deadline = time.monotonic() + 120
        while training.step(0, 0.5)["helper"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert any((one != other).any() for one, other in zip(before, training.networks["network"].parameters(), strict=True))
    assert not multiprocessing.active_children()


def test_the_linear_start_reconstructs_at_once(icons: Path) -> None:
    torch.manual_seed(0)
    network = autoencoder.build(TINY)
    autoencoder.start_linear(network)
    seen = autoencoder.pictures(icons, 1, 0, 8)
    with torch.no_grad():
        shown = network.decode(network.encode(seen).latent_dist.mean).sample
    means = torch.nn.functional.avg_pool2d(seen, 8)
    assert (seen - shown).pow(2).mean() < 0.5 * seen.var()
    assert (torch.nn.functional.avg_pool2d(shown, 8) - means).abs().mean() < 0.1


def test_cached_latents_are_normalised_and_belong_to_their_captions(kept: denoiser.Cache) -> None:
    assert len(kept.mean) == len(kept.deviation) == len(kept.subject)
    assert kept.mean.float().std(dim=(0, 2, 3)).sub(1).abs().max() < 0.01
    assert int(kept.subject.max()) == len(kept.context) - 1


def test_a_perfect_prediction_has_no_loss() -> None:
    alpha = denoiser.alphas()
    latents, noise, t = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 300, 700, 999])
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    right = kept * noise - lost * latents
    assert float(denoiser.loss(lambda *_, **__: (right,), latents, latents, t, noise, alpha)) < 1e-10
    assert float(denoiser.loss(lambda *_, **__: (-right,), latents, latents, t, noise, alpha)) > 0.1


def test_the_schedule_is_stable_diffusions() -> None:
    alpha = denoiser.alphas()
    assert float(alpha[0]) == pytest.approx(0.99915, abs=1e-5)
    assert float(alpha[-1]) == pytest.approx(0.00466, abs=1e-5)


def test_timesteps_are_spread_over_all_strata() -> None:
    drawn = denoiser.timesteps(torch.Generator().manual_seed(0), 10)
    assert sorted(int(t) // 100 for t in drawn) == list(range(10))


def test_sampling_follows_a_perfect_denoiser_to_its_picture() -> None:
    target, alpha = torch.full((1, 4, 8, 8), 0.5), denoiser.alphas()

    def perfect(x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
        noise = (x - kept * target) / lost
        return (kept * noise - lost * target,)

    found = denoiser.sample(perfect, torch.zeros(1, 77, 8), torch.zeros(1, 77, 8), torch.randn(1, 4, 8, 8), steps=10)
    torch.testing.assert_close(found, target, atol=1e-4, rtol=0)


def test_contrast_prefers_matching_pairs() -> None:
    vectors = torch.nn.functional.normalize(torch.randn(6, 16), dim=-1)
    labels = torch.arange(6)
    right = clip.contrast(vectors, vectors, torch.tensor(20.0), labels)
    assert right < clip.contrast(vectors, vectors.roll(1, 0), torch.tensor(20.0), labels)


def test_the_rate_rises_stays_and_falls() -> None:
    assert learning_rate(0, 0, 10, 0.5) == pytest.approx(0.1)
    assert learning_rate(0.3, 50, 10, 0.5) == pytest.approx(1)
    assert learning_rate(1, 99, 10, 0.5) == pytest.approx(0.01)


def test_sheet_lays_pictures_in_rows() -> None:
    grid = sheet(torch.stack([torch.full((3, 2, 2), value) for value in (-1.0, 0.0, 1.0)]), 2)
    assert grid.shape == (4, 4, 3)
    assert grid[0, 0, 0] == 0 and grid[0, 2, 0] == 128 and grid[2, 0, 0] == 255
