"""Each step of training runs, learns, and resumes as if it had never been stopped."""

import csv
import multiprocessing
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from modules.training import autoencoder, clip, denoiser, inpainting
from modules.training.data import to_signed
from modules.training.denoiser import Course
from modules.training.helper import helped
from modules.training.latents import Cache, cache
from modules.training.loop import Budget, Trainer, learning_rate, sheet, train
from modules.training.sources import Emoji

TINY = (8, 8, 16, 16)


FEW = {"simple": 8, "wide": 24, "256": 4}


def kept_of(icons: Path, masked: bool, unit: tuple[torch.Tensor, torch.Tensor] | None = None) -> Cache:
    torch.manual_seed(0)
    network, source = autoencoder.build(TINY), Emoji(icons, FEW)
    autoencoder.start_linear(network)
    return cache(network, clip.TextEncoder(source.vocabulary, 64, 1).eval(), source, masked=masked, unit=unit)


@pytest.fixture(scope="module")
def kept(icons: Path) -> Cache:
    return kept_of(icons, masked=False)


@pytest.fixture
def makers(icons: Path, kept: Cache) -> dict[str, Callable[[], Trainer]]:
    return {
        "autoencoder": lambda: autoencoder.trainer(Emoji(icons), channels=TINY, batch=4),
        "clip": lambda: clip.trainer(Emoji(icons), width=64, layers=1, batch=16),
        "denoiser": lambda: denoiser.trainer(kept, lambda latents: latents[:, :3], channels=(32, 64), course=Course(batch=8)),
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
    told: list[tuple] = []
    train(makers["denoiser"](), Budget(2), tmp_path, report=lambda *values: told.append(values))
    assert told[0][0] == 0.5 and told[0][1] > 0 and {"step", "loss", "per_second"} <= set(told[0][2])
    assert told[-1] == (1, 0, told[-1][2], tmp_path / "denoiser.png")
    with (tmp_path / "denoiser.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert rows and {"step", "seconds", "loss", "rate"} <= set(rows[0])
    assert (tmp_path / "denoiser.png").stat().st_size > 1000


def test_a_helper_trains_the_same_weights_and_ends(makers: dict[str, Callable[[], Trainer]], kept: Cache) -> None:
    training = makers["denoiser"]()
    training.step = lambda number, fraction: {}  # so that only the helper changes anything
    before = [parameter.detach().clone() for parameter in training.networks["network"].parameters()]
    with helped(training, kept, Course(batch=8)):
        deadline = time.monotonic() + 120
        while training.step(0, 0.5)["helper"] < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
    assert any((one != other).any() for one, other in zip(before, training.networks["network"].parameters(), strict=True))
    assert not multiprocessing.active_children()


def test_the_linear_start_reconstructs_at_once(icons: Path) -> None:
    torch.manual_seed(0)
    network = autoencoder.build(TINY)
    autoencoder.start_linear(network)
    seen = torch.from_numpy(to_signed(Emoji(icons).pictures(np.random.default_rng(1), 8)))
    with torch.no_grad():
        shown = network.decode(network.encode(seen).latent_dist.mean).sample
    means = torch.nn.functional.avg_pool2d(seen, 8)
    assert (seen - shown).pow(2).mean() < 0.5 * seen.var()
    assert (torch.nn.functional.avg_pool2d(shown, 8) - means).abs().mean() < 0.1


def test_cached_latents_are_normalised_and_belong_to_their_captions(kept: Cache) -> None:
    assert {name: len(shelf) for name, shelf in kept.shelves.items()} == FEW
    assert all(len(shelf.mean) == len(shelf.deviation) == len(shelf.context) == len(shelf.given) for shelf in kept.shelves.values())
    spread = kept.shelves["wide"].mean.float().std(dim=(0, 2, 3))
    assert spread[:3].sub(1).abs().max() < 0.01
    assert spread[3] < 0.1  # nothing trained that channel yet: what varies in it is its noise, which is the unit then
    assert kept.shelves["wide"].deviation[:, 3].float().mean() == pytest.approx(1, abs=0.01)
    assert kept.shelves["256"].mean.shape[-2:] == (32, 32)


def test_the_cache_survives_the_disk(kept: Cache, tmp_path: Path) -> None:
    torch.save(kept.state(), tmp_path / "cache.pt")
    again = Cache.of(torch.load(tmp_path / "cache.pt", weights_only=True))
    assert torch.equal(again.shelves["256"].context, kept.shelves["256"].context) and torch.equal(again.scale, kept.scale)


def test_the_curriculum_begins_simple_and_ends_with_larger_pictures(kept: Cache) -> None:
    rng = np.random.default_rng(0)
    seen = {stage: {len(denoiser.shelf_for(kept, rng, stage)) for _ in range(60)} for stage in (0.1, 0.5, 0.9)}
    assert seen == {0.1: {8}, 0.5: {24}, 0.9: {24, 4}}
    larger = denoiser.batch_of(kept, kept.shelves["256"], rng, torch.Generator(), 16)
    assert larger.latents.shape == (4, 4, 32, 32)  # a quarter of the pictures, four times the size


def test_an_inpainting_denoiser_sees_the_mask_and_what_it_leaves(icons: Path, kept: Cache) -> None:
    masked = kept_of(icons, masked=True, unit=(kept.shift, kept.scale))
    shelf = masked.shelves["wide"]
    assert shelf.given.shape == (24, 5, 16, 16)
    assert set(shelf.given[:, 0].unique().tolist()) == {0.0, 1.0}
    outside = (shelf.given[:, :1] == 0) & (torch.nn.functional.max_pool2d(shelf.given[:, :1].float(), 5, 1, 2) == 0)
    assert (shelf.given[:, 1:] - shelf.mean).abs()[outside.expand(-1, 4, -1, -1)].max() < 0.2  # far from the hole it is the picture itself
    training = denoiser.trainer(masked, lambda latents: latents[:, :3], channels=(32, 64), course=Course(batch=8))
    assert training.networks["network"].conv_in.in_channels == 9
    assert (masked.shift - kept.shift).abs().max() == 0 and (masked.scale - kept.scale).abs().max() == 0
    taught = denoiser.trainer(kept, lambda latents: latents[:, :3], seed=9, channels=(32, 64)).networks["ema"]
    inpainting.start_from(training, taught.state_dict())
    x, t, context = torch.randn(2, 9, 16, 16), torch.tensor([3, 800]), kept.empty[:2].float()
    for network in training.networks.values():  # at first it does as the denoiser does, whatever it is told
        torch.testing.assert_close(network(x, t, context).sample, taught(x[:, :4], t, context).sample)
    assert training.step(0, 0.5)["loss"] > 0
    assert training.picture().shape[2] == 3


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_a_perfect_prediction_has_no_loss(prediction: denoiser.Prediction) -> None:
    alpha = denoiser.alphas()
    latents, noise, t = torch.randn(4, 4, 8, 8), torch.randn(4, 4, 8, 8), torch.tensor([0, 300, 700, 999])
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    right = kept * noise - lost * latents if prediction == "v" else noise
    seen = denoiser.Batch(latents, latents, latents[:, :0])
    assert float(denoiser.loss(lambda *_, **__: (right,), seen, t, noise, alpha, prediction)) < 1e-10
    assert float(denoiser.loss(lambda *_, **__: (-right,), seen, t, noise, alpha, prediction)) > 0.1


def test_both_predictions_weigh_an_error_of_the_picture_alike() -> None:
    alpha, t = denoiser.alphas(), torch.tensor([100, 400, 800])
    latents, noise = torch.randn(3, 4, 8, 8), torch.randn(3, 4, 8, 8)
    kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
    seen, wrong = denoiser.Batch(latents, latents, latents[:, :0]), latents + 0.1  # a picture that is off by 0.1 everywhere
    eps = (kept * latents + lost * noise - kept * wrong) / lost
    v = kept * eps - lost * wrong
    losses = [
        float(denoiser.loss(lambda *_, shown=shown, **__: (shown,), seen, t, noise, alpha, kind))
        for shown, kind in ((v, "v"), (eps, "epsilon"))
    ]
    snr = alpha[t] / (1 - alpha[t])
    assert losses == pytest.approx([0.01 * float(snr.clamp(max=5).mean())] * 2, rel=1e-3)


def test_the_schedule_is_stable_diffusions() -> None:
    alpha = denoiser.alphas()
    assert float(alpha[0]) == pytest.approx(0.99915, abs=1e-5)
    assert float(alpha[-1]) == pytest.approx(0.00466, abs=1e-5)


def test_timesteps_are_spread_over_all_strata() -> None:
    drawn = denoiser.timesteps(torch.Generator().manual_seed(0), 10)
    assert sorted(int(t) // 100 for t in drawn) == list(range(10))


@pytest.mark.parametrize("prediction", ["v", "epsilon"])
def test_sampling_follows_a_perfect_denoiser_to_its_picture(prediction: denoiser.Prediction) -> None:
    target, alpha = torch.full((1, 4, 8, 8), 0.5), denoiser.alphas()

    def perfect(x: torch.Tensor, t: torch.Tensor, context: torch.Tensor, return_dict: bool) -> tuple[torch.Tensor]:
        kept, lost = alpha[t].sqrt()[:, None, None, None], (1 - alpha[t]).sqrt()[:, None, None, None]
        noise = (x - kept * target) / lost
        return (kept * noise - lost * target if prediction == "v" else noise,)

    told = (torch.zeros(1, 77, 8), torch.zeros(1, 77, 8), torch.randn(1, 4, 8, 8), torch.zeros(1, 0, 8, 8))
    found = denoiser.sample(perfect, *told, steps=10, prediction=prediction)
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
