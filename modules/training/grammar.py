"""Captions as a person would type them, and the tokens they are made of.

Of CLIP's 49,408 tokens a few hundred occur here. The text encoder trains on those rows and one shared row for every other
token (`UNKNOWN`); export copies that row to all unused ids, so an unknown word in a prompt does no harm.
"""

from functools import cache

import numpy as np
from instant_clip_tokenizer import Tokenizer

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS

LENGTH, START, END, VOCABULARY = 77, 49406, 49407, 49408
UNKNOWN = 0
FOREIGN = 0  # CLIP's token for "!", which no caption has

BARE = 0.2
OPENINGS = (
    "", "", "", "", "a picture of ", "a drawing of ", "an illustration of ", "a photo of ", "an emoji of ", "a sticker of ", "an icon of ",
)  # fmt: skip
ADJECTIVES = ("", "", "", "", "cute ", "big ", "little ", "beautiful ", "happy ", "funny ")
ENDINGS = (
    "", "", "", "", ", flat design", ", emoji", ", simple", ", cartoon", ", high quality", ", vector art", ", illustration",
)  # fmt: skip


def article(word: str) -> str:
    """"a fox", "an owl", "two cherries", "cherries"."""
    first, last = word.split()[0], word.split()[-1]
    if last.endswith("ies") or first in ("two", "red") and last.endswith("s"):
        return word
    return f"an {word}" if word[0] in "aeiou" else f"a {word}"


def caption(rng: np.random.Generator, thing: int, background: int) -> str:
    """One way to ask for the thing on the background."""
    words, place = THINGS[thing].names, BACKGROUNDS[background]
    name = words[0] if rng.random() < 0.6 else words[rng.integers(len(words))]
    phrase = place.phrases[rng.integers(len(place.phrases))]
    subject = f"{ADJECTIVES[rng.integers(len(ADJECTIVES))]}{name}"
    if rng.random() >= BARE:
        subject = article(subject)
    if rng.random() < 0.25:
        return f"{OPENINGS[rng.integers(len(OPENINGS))]}{subject}, {phrase.removeprefix('with ')}"
    return f"{OPENINGS[rng.integers(len(OPENINGS))]}{subject} {phrase}{ENDINGS[rng.integers(len(ENDINGS))]}"


def asked(thing: int, background: int) -> str:
    """The plainest caption, as used for contact sheets: "a fox in the snow"."""
    return f"{article(THINGS[thing].name)} {BACKGROUNDS[background].phrases[0]}"


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def tokens(text: str) -> list[int]:
    """CLIP's ids of a text, without start and end."""
    return list(_tokenizer().encode(text))


def padded(ids: list[int]) -> list[int]:
    """77 ids as Stable Diffusion wants them: start, at most 75 ids, end, and end again as padding."""
    return ([START, *ids[: LENGTH - 2]] + [END] * LENGTH)[:LENGTH]


@cache
def vocabulary() -> tuple[int, ...]:
    """The token of each compact row; row 0 is the unknown one and stands for no token (-1)."""
    texts = [text for part in (OPENINGS, ADJECTIVES, ENDINGS) for text in part]
    texts += [word for thing in THINGS for name in thing.names for word in (name, f" {name}")]
    texts += [phrase for background in BACKGROUNDS for phrase in background.phrases]
    used = {token for text in (*texts, "a", "an", ",") for token in tokens(text)}
    return (-1, *sorted(used), START, END)


@cache
def _rows() -> np.ndarray:
    rows = np.full(VOCABULARY, UNKNOWN, np.int64)
    for row, token in enumerate(vocabulary()[1:], 1):
        rows[token] = row
    return rows


def compact(ids: np.ndarray) -> np.ndarray:
    """CLIP ids -> rows of the compact vocabulary, any shape."""
    return _rows()[ids]


def with_noise(rng: np.random.Generator, ids: list[int], most: int) -> list[int]:
    """Up to `most` tokens outside the vocabulary, put in at random: the unknown row learns to say nothing."""
    mixed = list(ids)
    for _ in range(rng.integers(0, most + 1)):
        mixed.insert(rng.integers(len(mixed) + 1), FOREIGN)
    return mixed
