"""Autoencoders of every factor and both regularisers: where they start, what they learn by, and what comes after them."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modules.training import autoencoder, clip, denoiser
from modules.training.autoencoder import Shape
from modules.training.data import to_signed
from modules.training.denoiser import Course
from modules.training.files import Unusable
from modules.training.latents import cache
from modules.training.loop import Budget
from modules.training.sources import Emoji

FACTORS = (1, 2, 4, 8, 16, 32)
EVERY = [("kl", f) for f in FACTORS] + [("vq", f) for f in FACTORS]


def small(regulariser: autoencoder.Regulariser, f: int) -> Shape:
    """The paper's latents with few channels and codes."""
    shape = Shape.named(regulariser, f)
    return shape._replace(channels=(8,) * len(shape.channels), codes=min(shape.codes, 64))


def started(shape: Shape, icons: Path) -> autoencoder.FirstStage:
    return autoencoder.trainer(Emoji(icons), batch=4, **shape._asdict()).networks["network"]


def test_latents_are_those_of_the_paper() -> None:
    assert [Shape.named("kl", f).latent for f in FACTORS] == [3, 2, 3, 4, 16, 64]
    assert [Shape.named("vq", f)[1:] for f in (4, 8, 16, 32)] == [(3, 8192), (4, 16384), (8, 16384), (16, 16384)]
    assert [Shape.named("vq", f).f for f in FACTORS] == list(FACTORS)


@pytest.mark.parametrize(("regulariser", "f"), EVERY)
def test_every_factor_starts_linear(regulariser: autoencoder.Regulariser, f: int, icons: Path) -> None:
    shape = small(regulariser, f)
    network = started(shape, icons)
    assert Shape.of(network.state_dict()) == shape
    pictures = Emoji(icons).pictures(np.random.default_rng(1), 4)
    seen = torch.from_numpy(to_signed(pictures))
    mean, deviation = autoencoder.encode(network, pictures)
    assert mean.shape == deviation.shape == (4, shape.latent, 128 // f, 128 // f)
    with torch.no_grad():
        shown = network.decode(mean).sample
    error = (F.avg_pool2d(shown, f) - F.avg_pool2d(seen, f)).pow(2).mean()
    assert error < 0.3 * F.avg_pool2d(seen, f).var()  # two channels leave out one of three colours, few codes all fine shades


def test_it_learns(icons: Path) -> None:
    shape = small("kl", 8)._replace(channels=(16,) * 4)
    training = autoencoder.trainer(Emoji(icons), batch=4, **shape._asdict())
    losses = [training.step(number, 0.3)["loss"] for number in [*range(8), *range(8, 300), *range(8)]]  # the same crops, before and after
    own, again = sum(losses[:8]), sum(losses[-8:])
    assert again < own


def test_both_halves_and_the_codes_are_trained(icons: Path) -> None:
    training = autoencoder.trainer(Emoji(icons), batch=4, **small("vq", 8)._asdict())
    network = training.networks["network"]
    parts = [network.encoder.conv_in.weight, network.quantize.embedding.weight, network.decoder.conv_out.weight]
    before = [part.detach().clone() for part in parts]
    values = training.step(0, 0.3)
    assert values["codebook"] > 0 and all((part != old).any() for part, old in zip(parts, before, strict=True))


def test_a_codebook_moves_to_the_latents_and_they_to_it() -> None:
    network = autoencoder.build((8, 8), 2, 4)
    latents = torch.tensor([[0.0, 1.0], [4.0, 4.0]]).T[None, :, None].requires_grad_()  # (1, 2, 1, 2)
    with torch.no_grad():
        network.quantize.embedding.weight.copy_(torch.tensor([[0.0, 0.0], [4.0, 2.0], [90.0, 90.0], [-90.0, 90.0]]))
    codes, cost, _ = network.quantize(latents)
    assert codes[0, :, 0].T.tolist() == [[0, 0], [4, 2]]
    assert float(cost.detach()) == pytest.approx(1.25 * (1 + 4) / 4)
    cost.backward()
    assert network.quantize.embedding.weight.grad[:2].tolist() == [[0, -0.5], [0, -1]]
    assert latents.grad[0, :, 0].T.tolist() == [[0, pytest.approx(0.125)], [0, pytest.approx(0.25)]]


@pytest.mark.parametrize(("regulariser", "f"), [("kl", 4), ("kl", 16), ("vq", 8)])
def test_what_follows_takes_the_autoencoders_shape(regulariser: autoencoder.Regulariser, f: int, icons: Path) -> None:
    shape, source = small(regulariser, f), Emoji(icons, {"wide": 8})
    network = started(shape, icons)
    kept = cache(network, clip.TextEncoder(source.vocabulary, 64, 1).eval(), source)
    assert kept.shelves["wide"].mean.shape == (8, shape.latent, 128 // f, 128 // f)
    training = denoiser.trainer(kept, denoiser.decoder(network, kept), channels=(32, 64), course=Course(batch=2))
    assert training.step(0, 0.5)["loss"] > 0
    drawn = training.picture()
    assert drawn.shape == (128, 8 * 128, 3) and drawn.std() > 0


def test_one_that_is_there_goes_on_as_it_is(icons: Path, tmp_path: Path) -> None:
    source = Emoji(icons)
    training = autoencoder.trainer(source, batch=4, **small("vq", 2)._asdict())
    torch.save(training.state(), tmp_path / "autoencoder.pt")
    with pytest.raises(Unusable, match="--regulariser vq --f 2"):
        autoencoder.run(source, tmp_path, Budget(1), f=8)
    training = autoencoder.load_stage(tmp_path / "autoencoder.pt")
    assert isinstance(training, autoencoder.VQModel) and Shape.of(training.state_dict()) == small("vq", 2)
