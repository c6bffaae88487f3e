import numpy as np
import pytest

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS
from modules.training.data import PLACED, Scene, anything, draw, scenes_of, to_signed
from modules.training.grammar import END, LENGTH, START, UNKNOWN, article, caption, compact, padded, tokens, vocabulary, with_noise
from modules.training.sprites import fetch, paste


def test_scenes_cover_every_thing_on_every_background() -> None:
    scenes = list(scenes_of(PLACED))
    assert {(scene.thing, scene.background) for scene in scenes} == {(t, b) for t in range(len(THINGS)) for b in range(len(BACKGROUNDS))}
    assert len(set(scenes)) == len(scenes)
    assert all(scene.left % 8 == 0 and scene.top % 8 == 0 and scene.left + scene.size <= 128 for scene in scenes)


def test_drawing_puts_the_thing_on_its_background(icons) -> None:
    white = draw(Scene(0, 0, 0, 96, 16, 16, False), icons)
    mirrored = draw(Scene(0, 0, 0, 96, 16, 16, True), icons)
    assert white.shape == (128, 128, 3)
    assert (white[0] == 255).all() and (white[64, 64] != 255).any()
    assert (mirrored[:, ::-1] == white).all()


def test_paste_blends_and_cuts_off_at_the_edges() -> None:
    picture = np.full((4, 4, 3), 200, np.uint8)
    sprite = np.zeros((4, 4, 4), np.uint8)
    sprite[...] = (50, 0, 0, 128)  # half-transparent red, already multiplied
    paste(picture, sprite, 2, -2)
    assert picture[0, 3].tolist() == [150, 100, 100]
    assert (picture[2:] == 200).all() and (picture[:, :2] == 200).all()


def test_anything_is_the_same_for_the_same_seed(icons) -> None:
    first, again, other = (anything(np.random.default_rng(seed), icons) for seed in (1, 1, 2))
    assert (first == again).all() and (first != other).any()


def test_signed_pictures_span_minus_one_to_one() -> None:
    values = to_signed(np.array([[[[0, 255, 0]]]], np.uint8))
    assert values.shape == (1, 3, 1, 1) and values[0, :, 0, 0].tolist() == [-1, 1, -1]


@pytest.mark.parametrize(("word", "said"), [("fox", "a fox"), ("owl", "an owl"), ("cherries", "cherries"), ("two cherries", "two cherries"),
                                            ("red heart", "a red heart"), ("bus", "a bus"), ("cactus", "a cactus")])  # fmt: skip
def test_articles(word: str, said: str) -> None:
    assert article(word) == said


def test_every_word_of_every_caption_is_in_the_vocabulary() -> None:
    rng = np.random.default_rng(0)
    for number in range(4000):
        text = caption(rng, number % len(THINGS), number % len(BACKGROUNDS))
        assert UNKNOWN not in compact(np.array(tokens(text))), text


def test_padding_is_what_stable_diffusion_expects() -> None:
    assert padded([1, 2]) == [START, 1, 2] + [END] * 74
    assert len(padded(list(range(100)))) == LENGTH and padded(list(range(100)))[-1] == END


def test_foreign_words_become_the_unknown_row() -> None:
    known = tokens("a fox in the snow")
    mixed = with_noise(np.random.default_rng(3), known, 8)
    assert len(mixed) > len(known)
    assert [row for row in compact(np.array(mixed)) if row != UNKNOWN] == compact(np.array(known)).tolist()
    assert (compact(np.array(tokens("zeppelin"))) == UNKNOWN).all()
    assert vocabulary()[-2:] == (START, END)


def test_icons_are_asked_of_npm_only_when_missing(icons) -> None:
    assert fetch("flat", icons).parent == icons


def test_a_failed_download_says_what_failed(tmp_path, monkeypatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'network is down' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match="fluent-emoji-flat.*network is down"):
        fetch("flat", tmp_path / "icons")
