"""The judge reads back what its labels say, learns, and takes nothing for a thing that is none."""

import csv
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from modules.training import autoencoder
from modules.training.agreement import Asked, Share, matched, tally
from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS, Thing
from modules.training.data import draw
from modules.training.evaluate import ask
from modules.training.grammar import STYLES
from modules.training.judge import Found, Judge, Labels, Maps, Seen, Studies, labels, load, loss, moved, read, run, trainer
from modules.training.loop import Budget, train
from modules.training.negatives import SPOILERS, spoil, spoil_latents
from modules.training.scenes import LARGE, NAMES, WIDE, Placed, Scene, scenes

TINY = (16, 16, 16, 16, 16)
TWO = Scene((Placed(0, "", 40, 8, 40), Placed(17, "blue", 80, 48, 24)), 3, 0)


def perfect(wanted: Labels) -> Maps:
    """The maps of a judge that is always right and sure."""

    def sure(answers: torch.Tensor, kinds: int) -> torch.Tensor:
        return 20 * F.one_hot(answers.clamp(min=0), kinds).float().movedim(-1, 1)

    return Maps(
        40 * wanted.there - 20, 40 * wanted.sound - 20, sure(wanted.things, len(THINGS)), sure(wanted.colours, len(NAMES)), wanted.sizes,
        sure(wanted.background, len(BACKGROUNDS)), sure(wanted.style, len(STYLES)), torch.zeros(len(wanted.style), 1),
    )  # fmt: skip


def whole(chosen: list[Scene], spoilt: bool = False) -> Labels:
    flags = [[spoilt] * len(scene.things) for scene in chosen]
    return labels(chosen, flags, np.zeros((len(chosen), 2), int))


@pytest.mark.parametrize("side", [128, 192, 256])
def test_a_perfect_judge_agrees_with_every_scene(side: int) -> None:
    asked = ask(side, 120)
    found = read(perfect(whole([each.scene for each in asked])))
    for name, share in vars(tally(found, asked)).items():
        assert share.right == share.of > 10, name


def test_a_perfect_judge_has_no_loss_and_spoilt_things_are_none() -> None:
    chosen = scenes(np.random.default_rng(0), WIDE, 50)
    assert float(loss(perfect(whole(chosen)), whole(chosen))[0]) < 1e-4
    assert float(loss(perfect(whole(chosen)), whole(chosen, spoilt=True))[0]) > 1
    found = read(perfect(whole(chosen, spoilt=True)))
    assert all(each.thing is None for one in found for each in one.things)
    assert [len(one.things) for one in found] == [len(scene.things) for scene in chosen]


def test_wrong_things_colours_and_places_are_counted_one_by_one() -> None:
    words = f"a small cat to the left of a big blue apple {BACKGROUNDS[3].phrases[0]}"
    (right,) = read(perfect(whole([TWO])))
    cat, apple = right.things

    def figures(*things: Found) -> dict[str, bool]:
        return {name: share.right == share.of for name, share in vars(tally([replace(right, things=things)], [Asked(TWO, words)])).items()}

    assert all(figures(cat, apple).values())
    assert figures(cat, replace(apple, colour="red")) == figures(cat, apple) | {"colour": False}
    assert figures(replace(apple, x=20.0), replace(cat, x=100.0)) == figures(cat, apple) | {"place": False}
    assert figures(cat, replace(apple, thing=5)) == figures(cat, apple) | {"thing": False, "both": False, "place": False}
    assert figures(cat, replace(apple, size=cat.size)) == figures(cat, apple) | {"size": False}
    assert not any(value for name, value in figures().items() if name != "background")


def test_what_the_words_leave_open_is_not_judged() -> None:
    found = read(perfect(whole([TWO])))
    open_words = tally(found, [Asked(TWO, f"a cat and an apple {BACKGROUNDS[3].phrases[0]}")])
    assert open_words.place.of == open_words.colour.of == 0 and open_words.thing == Share(2, 2)


def test_of_more_things_than_were_asked_for_the_surest_count() -> None:
    one = Scene((Placed(4, "", 96, 16, 16),), 0, 0)
    right, intruder = Found(4, 0.6, "red", 96, 64, 64), Found(5, 0.9, "red", 40, 20, 20)
    assert matched(Seen((right,), 0, 0), one) == (right,)
    assert matched(Seen((intruder, right), 0, 0), one) == (intruder,)


def test_labels_follow_moved_pictures() -> None:
    studies_shift = np.array([[3, -2]])
    picture = torch.zeros(1, 3, 128, 128)
    picture[..., 60:64, 80:84] = 1
    shifted = moved(picture, studies_shift)
    assert bool((shifted[..., 58:62, 83:87] == 1).all()) and float(shifted.sum()) == float(picture.sum())
    here, there = (labels([TWO], [[False, False]], np.array([shift])) for shift in ((0, 0), (4, 0)))
    apple = [(one.things[0] == 17).nonzero()[:, 1].float().mean() for one in (here, there)]
    assert 0 < float(apple[1] - apple[0]) <= 1


@pytest.mark.parametrize("kind", SPOILERS)
def test_each_way_to_spoil_changes_the_thing_and_not_what_is_around(kind: str, icons: Path) -> None:
    studies, rng = Studies(icons), np.random.default_rng(5)
    for scene in scenes(rng, WIDE, 8):
        sound = draw(scene, icons)
        spoilt = studies.draw(rng, scene, [True] + [False] * (len(scene.things) - 1), kind)
        changed = (sound != spoilt).any(axis=2)
        left, top, right, bottom = scene.things[0].box
        assert changed[top:bottom, left:right].mean() > 0.02
        changed[top:bottom, left:right] = False
        assert not changed.any()


def test_spoiling_is_repeatable_and_keeps_colours_premultiplied() -> None:
    sprite, other = (np.full((40, 40, 4), value, np.uint8) for value in (200, 90))
    sprite[:10] = 0
    for kind in SPOILERS:
        one, two = (spoil(np.random.default_rng(3), kind, sprite, other) for _ in range(2))
        assert (one == two).all() and one.shape == sprite.shape
        assert (one[..., :3].max(axis=2) <= one[..., 3]).all()


def test_latents_are_spoilt_in_the_things_box_only() -> None:
    latents = torch.randn(4, 16, 16)
    for seed in range(12):
        spoilt = latents.clone()
        spoil_latents(np.random.default_rng(seed), spoilt, [TWO.things[1]], 8, torch.ones(4))
        changed = (spoilt != latents).any(dim=0)
        assert changed[3:13, 6:16].float().mean() > 0.8
        changed[3:13, 6:16] = False
        assert not changed.any()


def test_it_learns_and_resumes_as_if_never_stopped(icons: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    vae = autoencoder.build((8, 8, 16, 16)).eval()
    autoencoder.start_linear(vae)
    studies = Studies(icons, vae=vae)
    one, first, second = (trainer(studies, channels=TINY, batch=12) for _ in range(3))
    one.picture = first.picture = None
    assert train(one, Budget(6), tmp_path / "whole")
    inner = first.step

    def stopping(number: int, fraction: float) -> dict[str, float]:
        first._stop = number == 2
        return inner(number, fraction)

    first.step = stopping
    assert not train(first, Budget(6), tmp_path / "parts")
    assert train(second, Budget(6), tmp_path / "parts")
    for name, weight in one.networks["network"].state_dict().items():
        torch.testing.assert_close(weight, second.networks["network"].state_dict()[name], rtol=0, atol=0)
    with (tmp_path / "parts" / "judge.csv").open() as file:
        assert {"step", "loss", "things", "named", "told"} <= set(next(csv.DictReader(file)))


def test_it_learns_a_batch_by_heart(icons: Path) -> None:
    training = trainer(Studies(icons), channels=TINY, batch=8)
    losses = [training.step(0, 0.2)["loss"] for _ in range(50)]  # the same random numbers, so the same pictures
    assert losses[-1] < 0.6 * losses[0]


def test_a_judge_of_one_more_thing(icons: Path, tmp_path: Path) -> None:
    things = (*THINGS, Thing(("disc",), THINGS[3].icon))
    studies = Studies(icons, things)
    chosen = scenes(np.random.default_rng(0), WIDE, 400, things=things)
    assert any(placed.thing == len(THINGS) for scene in chosen for placed in scene.things)
    assert run(studies, tmp_path, Budget(1))
    assert load(tmp_path, things).mark.out_channels == Judge().mark.out_channels + 1
    with pytest.raises(RuntimeError, match="train it in another folder"):
        load(tmp_path)
    pictures, wanted = studies.batch(np.random.default_rng(1), replace(LARGE, sides=(256,)), 4)
    assert pictures.shape == (4, 3, 256, 256) and wanted.things.shape == (4, 32, 32)
