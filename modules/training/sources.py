"""Where pictures and captions come from: the emoji scenes that the starter learnt."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np

from modules.training import grammar, masks
from modules.training.data import anything, draw
from modules.training.scenes import LARGE, SIMPLE, WIDE, Scene, Stage, draw_scene, scenes, sibling
from modules.training.vocabulary import Vocabulary

COUNTS = {"simple": 6_000, "wide": 32_000, "192": 1_000, "256": 2_000}
STAGES = {"simple": SIMPLE, "wide": WIDE}


@dataclass(frozen=True)
class Example:
    """A picture and how one would ask for it. `meaning` is equal for pictures that the same words fit."""

    picture: np.ndarray  # (H, W, 3) uint8
    words: str
    meaning: int = 0
    mask: np.ndarray | None = None  # (H, W) bool, True where an inpainting denoiser has to paint


class Source(Protocol):
    """Something to train on."""

    vocabulary: Vocabulary
    counts: Mapping[str, int]
    """How many examples of each shelf the denoiser's cache keeps: "wide" is the native size, others are named in latents.Cache."""

    def pictures(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """What the autoencoder sees, (count, 128, 128, 3) uint8."""

    def pairs(self, rng: np.random.Generator, count: int) -> list[Example]:
        """What the text encoder sees."""

    def examples(self, rng: np.random.Generator, shelf: str, masked: bool) -> Iterator[Example]:
        """What the denoiser sees: examples of one shelf, as many as are asked for; all of one size."""


@dataclass(frozen=True)
class Emoji:
    """Scenes of emoji art from the packages in `icons`, which are fetched when they are not there.

    `stages` are what shelves show; those of larger pictures, called by their side, show LARGE.
    """

    icons: Path
    counts: Mapping[str, int] = field(default_factory=lambda: COUNTS)
    stages: Mapping[str, Stage] = field(default_factory=lambda: STAGES)

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of(grammar.all_words())

    def pictures(self, rng: np.random.Generator, count: int) -> np.ndarray:
        """Two scenes for each picture of anything: the autoencoder knows more than the denoiser draws."""
        chosen = scenes(rng, self.stages["wide"], count)
        return np.stack([draw(scene, self.icons) if i % 3 else anything(rng, self.icons) for i, scene in enumerate(chosen)])

    def pairs(self, rng: np.random.Generator, count: int) -> list[Example]:
        """Half of the scenes differ from another of the batch in one thing only, so that colours, places and order have to be read."""
        half = scenes(rng, self.stages["wide"], count // 2)
        return [self._example(rng, scene) for scene in (*half, *(sibling(rng, scene, self.stages["wide"]) for scene in half))]

    def examples(self, rng: np.random.Generator, shelf: str, masked: bool) -> Iterator[Example]:
        stage = self.stages.get(shelf, LARGE)
        while True:
            scene = draw_scene(rng, stage)
            if scene.held_out or stage is LARGE and scene.side != int(shelf):
                continue
            yield self._masked(rng, scene) if masked else self._example(rng, scene)

    def _example(self, rng: np.random.Generator, scene: Scene) -> Example:
        return Example(draw(scene, self.icons), grammar.caption(rng, scene), scene.meaning)

    def _masked(self, rng: np.random.Generator, scene: Scene) -> Example:
        task = masks.hide(rng, scene)
        return Example(draw(task.scene, self.icons), task.words, 0, task.mask)
