"""Which of CLIP's 49,408 tokens a text encoder is trained on.

Captions of one kind use a few hundred. The encoder trains on their rows and one shared row for every other token (`UNKNOWN`);
export copies that row to all unused ids, so that an unknown word in a prompt does no harm.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache, cached_property

import numpy as np
from instant_clip_tokenizer import Tokenizer

LENGTH, START, END, SIZE = 77, 49406, 49407, 49408
UNKNOWN = 0


@cache
def _tokenizer() -> Tokenizer:
    return Tokenizer()


def tokens(text: str) -> list[int]:
    """CLIP's ids of a text, without start and end."""
    return list(_tokenizer().encode(text))


def padded(ids: list[int]) -> list[int]:
    """77 ids as Stable Diffusion wants them: start, at most 75 ids, end, and end again as padding."""
    return ([START, *ids[: LENGTH - 2]] + [END] * LENGTH)[:LENGTH]


@dataclass(frozen=True)
class Vocabulary:
    """The token of each row. Row 0 is the unknown one and stands for no token (-1); the last two are start and end."""

    ids: tuple[int, ...]

    @classmethod
    def of(cls, texts: Iterable[str]) -> "Vocabulary":
        """All tokens of the texts."""
        return cls((-1, *sorted({token for text in texts for token in tokens(text)}), START, END))

    def __len__(self) -> int:
        return len(self.ids)

    @cached_property
    def foreign(self) -> int:
        """A token outside."""
        return next(token for token in range(SIZE) if token not in self.ids)

    @cached_property
    def _rows(self) -> np.ndarray:
        rows = np.full(SIZE, UNKNOWN, np.int64)
        rows[list(self.ids[1:])] = range(1, len(self.ids))
        return rows

    def rows(self, ids: np.ndarray) -> np.ndarray:
        """CLIP ids -> rows, any shape."""
        return self._rows[ids]

    def with_noise(self, rng: np.random.Generator, ids: list[int], most: int) -> list[int]:
        """Up to `most` tokens from outside, put in at random: the unknown row learns to say nothing."""
        mixed = list(ids)
        for _ in range(rng.integers(0, most + 1)):
            mixed.insert(rng.integers(len(mixed) + 1), self.foreign)
        return mixed
