"""Captions as a person would type them."""

from collections.abc import Iterator, Sequence

import numpy as np

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import COLOURS, THINGS, Thing
from modules.training.scenes import Placed, Scene

BARE = 0.1
OPENINGS = (
    "", "", "", "", "", "a picture of ", "a drawing of ", "an illustration of ", "a photo of ", "an emoji of ", "a sticker of ",
)  # fmt: skip
ADJECTIVES = ("", "", "", "", "", "", "cute ", "beautiful ", "happy ", "funny ")
SMALL, BIG = ("small", "little", "tiny"), ("big", "large")
ENDINGS = (
    "", "", "", "", "", ", flat design", ", emoji", ", simple", ", cartoon", ", high quality", ", vector art", ", illustration",
)  # fmt: skip
BESIDE = ("{} and {}", "{} and {}", "{} next to {}", "{} beside {}", "{} to the left of {}", "{} left of {}")
BEHIND = ("{} to the right of {}", "{} right of {}")
SIDES = {"left": ("on the left", "on the left side"), "right": ("on the right", "on the right side"), "middle": ("", "in the middle")}
STYLES: tuple[tuple[str, ...], ...] = ((), ("black and white", "in black and white"), ("sepia", "in sepia"))
KINDS = ("picture", "photo", "drawing")
PLURALS = {
    "bunny": "bunnies",
    "puppy": "puppies",
    "fish": "fish",
    "cactus": "cacti",
    "strawberry": "strawberries",
    "butterfly": "butterflies",
}


def article(words: str) -> str:
    """Indefinite: "a fox", "an owl", "a red apple", "cherries"."""
    if words.split()[-1] == "cherries":
        return words
    return f"an {words}" if words[0] in "aeiou" else f"a {words}"


def plural(name: str) -> str:
    """As people say it: "foxes", "cherries", "bunnies"."""
    first, _, last = name.rpartition(" ")
    if last == "cherries":
        return name
    ending = "es" if last.endswith(("s", "x", "ch")) else "s"
    return f"{first} {PLURALS.get(last, last + ending)}".strip()


def _pick(rng: np.random.Generator, words: tuple[str, ...]) -> str:
    return words[rng.integers(len(words))]


def named(rng: np.random.Generator, placed: Placed, size: str = "", plain: bool = False, things: Sequence[Thing] = THINGS) -> str:
    """One thing in words, without article: "small blue car". Colours other than its own are always said."""
    thing = things[placed.thing]
    name = thing.name if plain or rng.random() < 0.6 else _pick(rng, thing.names)
    said = placed.colour and (placed.colour != thing.colour or rng.random() < 0.5)
    adjective = "" if plain or size or said and rng.random() < 0.7 else _pick(rng, ADJECTIVES)
    return f"{size + ' ' if size else ''}{adjective}{placed.colour + ' ' if said else ''}{name}"


def _subject(rng: np.random.Generator, scene: Scene, plain: bool, things: Sequence[Thing]) -> str:
    """Everything that stands in the scene."""
    if len(scene.things) == 1:
        (only,) = scene.things
        size = _pick(rng, SMALL) if scene.small(only) else _pick(rng, ("", "", "", *BIG))
        words = named(rng, only, "" if plain and size in BIG else size, plain, things)
        side = _pick(rng, SIDES[scene.where(only)]) if scene.small(only) else ""
        return f"{words if rng.random() < BARE and not plain else article(words)} {side}".strip()
    left, right = scene.things
    if (left.thing, left.colour) == (right.thing, right.colour):
        words = named(rng, left, plain=plain, things=things)
        name = next(name for name in sorted(things[left.thing].names, key=len, reverse=True) if words.endswith(name))
        return f"two {words.removesuffix(name)}{plural(name)}"
    first, second = _sizes(rng, left, right)
    one, other = (article(named(rng, *each, plain, things)) for each in ((left, first), (right, second)))
    if rng.random() < 0.2:
        return _pick(rng, BEHIND).format(other, one)
    return _pick(rng, BESIDE).format(one, other)


def _sizes(rng: np.random.Generator, left: Placed, right: Placed) -> tuple[str, str]:
    """How the sizes of two things are told apart; of things of different sizes at least one is said."""
    if left.size == right.size:
        return "", ""
    small, big = _pick(rng, SMALL), _pick(rng, BIG)
    small, big = ((small, big), (small, ""), ("", big))[rng.integers(3)]
    return (small, big) if left.size < right.size else (big, small)


def caption(rng: np.random.Generator, scene: Scene, plain: bool = False, things: Sequence[Thing] = THINGS) -> str:
    """One way to ask for the scene; `plain` without ornament: what a contact sheet or a test asks. `things` are what its numbers mean."""
    subject, place = _subject(rng, scene, plain, things), BACKGROUNDS[scene.background]
    phrase = place.phrases[0] if plain else _pick(rng, place.phrases)
    style = _pick(rng, STYLES[scene.style]) if scene.style else ""
    if plain:
        return f"{subject} {phrase}{', ' + style if style else ''}"
    opening, ending = _pick(rng, OPENINGS), _pick(rng, ENDINGS)
    if style and rng.random() < 0.4 and not style.startswith("in "):
        opening, style = f"{article(style)} {_pick(rng, KINDS)} of ", ""
    tail = f", {style}" if style else ending
    if rng.random() < 0.2:
        return f"{opening}{subject}, {phrase.removeprefix('with ')}{tail}"
    return f"{opening}{subject} {phrase}{tail}"


def all_words() -> Iterator[str]:
    """Every word that a caption can have, in pieces."""
    yield from (*OPENINGS, *ADJECTIVES, *ENDINGS, *SMALL, *BIG, *COLOURS, *BESIDE, *BEHIND, "a", "an", ",", "two", *KINDS)
    for part in (*SIDES.values(), *STYLES):
        yield from part
    for thing in THINGS:
        for name in thing.names:
            yield from (name, plural(name))
    for background in BACKGROUNDS:
        yield from background.phrases
