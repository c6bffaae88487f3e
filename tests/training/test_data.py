import numpy as np
import pytest

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import COLOURS, THINGS
from modules.training.data import anything, draw, to_signed
from modules.training.grammar import article, caption, plural
from modules.training.masks import hide
from modules.training.scenes import LARGE, SIMPLE, WIDE, Placed, Scene, scenes, sibling
from modules.training.sources import Emoji
from modules.training.sprites import fetch, paste, recoloured
from modules.training.vocabulary import END, LENGTH, START, UNKNOWN, Vocabulary, padded, tokens

ONE = Scene((Placed(0, "", 96, 16, 16),), 0, 0)


@pytest.mark.parametrize("stage", [SIMPLE, WIDE, LARGE])
def test_things_stand_on_the_grid_inside_the_picture_and_apart(stage) -> None:
    for scene in scenes(np.random.default_rng(0), stage, 500):
        for left, top, right, bottom in (placed.box for placed in scene.things):
            assert left % 8 == top % 8 == 0 and left >= 0 and top >= 0 and right <= scene.side and bottom <= scene.side
        if len(scene.things) == 2:
            assert scene.things[0].box[2] <= scene.things[1].box[0]


def test_held_out_scenes_share_no_combination_with_the_others() -> None:
    def combination(scene: Scene) -> tuple:
        return tuple((placed.thing, placed.colour) for placed in scene.things), scene.background

    rng = np.random.default_rng(1)
    seen, unseen = ({combination(scene) for scene in scenes(rng, WIDE, 2000, held_out=out)} for out in (False, True))
    assert seen and unseen and not seen & unseen


def test_a_sibling_differs_in_one_thing_and_means_something_else() -> None:
    rng = np.random.default_rng(2)
    pairs = [(scene, sibling(rng, scene)) for scene in scenes(rng, WIDE, 300)]
    assert sum(scene.meaning != other.meaning for scene, other in pairs) > 200
    for scene, other in pairs:
        assert len(scene.things) == len(other.things) and scene.side == other.side


def test_drawing_puts_the_thing_on_its_background(icons) -> None:
    white = draw(ONE, icons)
    assert white.shape == (128, 128, 3)
    assert (white[0] == 255).all() and (white[64, 64] != 255).any()


def test_styles_take_the_colour_away(icons) -> None:
    grey = draw(Scene(ONE.things, 6, 0, style=1), icons).astype(int)
    sepia = draw(Scene(ONE.things, 6, 0, style=2), icons).astype(int)
    assert (grey.max(axis=2) == grey.min(axis=2)).all()
    assert (sepia[..., 0] >= sepia[..., 2]).all() and (sepia[..., 0] > sepia[..., 2]).any()


def test_recolouring_changes_the_main_colour_only() -> None:
    sprite = np.zeros((8, 8, 4), np.uint8)
    sprite[:6] = (230, 30, 30, 255)
    sprite[6:] = (60, 60, 60, 255)
    for name, colour in COLOURS.items():
        painted = recoloured(sprite, name).astype(int)
        assert np.abs(painted[0, 0, :3] - colour).max() < 12, name
        assert (painted[6:] == sprite[6:]).all()


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


ARTICLES = {"fox": "a fox", "owl": "an owl", "cherries": "cherries", "small cherries": "small cherries", "red heart": "a red heart"}


@pytest.mark.parametrize(("word", "said"), ARTICLES.items())
def test_articles(word: str, said: str) -> None:
    assert article(word) == said


@pytest.mark.parametrize(("one", "two"), [("fox", "foxes"), ("baby chick", "baby chicks"), ("bunny", "bunnies"), ("fish", "fish"),
                                          ("bus", "buses"), ("cherries", "cherries"), ("t-rex", "t-rexes")])  # fmt: skip
def test_plurals(one: str, two: str) -> None:
    assert plural(one) == two


def test_captions_say_what_tells_scenes_apart() -> None:
    rng = np.random.default_rng(3)
    car, owl = THINGS.index(next(t for t in THINGS if t.name == "car")), THINGS.index(next(t for t in THINGS if t.name == "owl"))
    scene = Scene((Placed(car, "blue", 40, 0, 80), Placed(owl, "", 80, 48, 40)), 6, 0)
    for _ in range(50):
        words = caption(rng, scene)
        assert "blue car" in words and "owl" in words
        assert any(size in words for size in ("small", "little", "tiny", "big", "large"))
    right = Scene((Placed(owl, "", 56, 72, 64),), 9, 0)
    assert all("right" in caption(rng, right) for _ in range(20))
    assert caption(rng, Scene((Placed(owl, "", 112, 8, 8),), 9, 0), plain=True) == "an owl at night"
    assert "two" in caption(rng, Scene((Placed(owl, "", 56, 0, 64), Placed(owl, "", 56, 72, 64)), 0, 0))


def test_every_word_of_every_caption_is_in_the_vocabulary(tmp_path) -> None:
    rng, vocabulary = np.random.default_rng(0), Emoji(tmp_path).vocabulary
    for scene in scenes(rng, WIDE, 3000):
        text = caption(rng, scene)
        assert UNKNOWN not in vocabulary.rows(np.array(tokens(text))), text


def test_padding_is_what_stable_diffusion_expects() -> None:
    assert padded([1, 2]) == [START, 1, 2] + [END] * 74
    assert len(padded(list(range(100)))) == LENGTH and padded(list(range(100)))[-1] == END


def test_foreign_words_become_the_unknown_row() -> None:
    vocabulary = Vocabulary.of(["a fox in the snow"])
    known = tokens("a fox in the snow")
    mixed = vocabulary.with_noise(np.random.default_rng(3), known, 8)
    assert len(mixed) > len(known)
    assert [row for row in vocabulary.rows(np.array(mixed)) if row != UNKNOWN] == vocabulary.rows(np.array(known)).tolist()
    assert (vocabulary.rows(np.array(tokens("zeppelin"))) == UNKNOWN).all()
    assert vocabulary.ids[-2:] == (START, END)


def test_masks_hide_a_thing_or_the_place_it_was_taken_from() -> None:
    rng = np.random.default_rng(4)
    taken = 0
    for scene in scenes(rng, WIDE, 200):
        task = hide(rng, scene)
        assert task.mask.shape == (scene.side, scene.side) and 0 < task.mask.mean() < 1
        if len(task.scene.things) < len(scene.things):
            taken += 1
            gone = next(thing for thing in scene.things if thing not in task.scene.things)
            assert task.mask[gone.top + gone.size // 2, gone.left + gone.size // 2]
            assert THINGS[gone.thing].name not in task.words or gone.thing in {thing.thing for thing in task.scene.things}
    assert 60 < taken < 120


def test_backgrounds_are_drawn_at_every_size(icons) -> None:
    for number in range(len(BACKGROUNDS)):
        assert draw(Scene(ONE.things, number, 0, side=256), icons).shape == (256, 256, 3)


def test_icons_are_asked_of_npm_only_when_missing(icons) -> None:
    assert fetch("flat", icons).parent == icons


def test_a_failed_download_says_what_failed(tmp_path, monkeypatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\necho 'network is down' >&2\nexit 1\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    with pytest.raises(RuntimeError, match="fluent-emoji-flat.*network is down"):
        fetch("flat", tmp_path / "icons")
