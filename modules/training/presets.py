"""How long each step trains, and on what: the recipe of the starter, and one for a quarter of an hour."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from modules.training.classes import THINGS
from modules.training.scenes import SIMPLE, Stage
from modules.training.sources import COUNTS, STAGES


@dataclass(frozen=True)
class Preset:
    """`minutes` of training by step, the time to encode included; what the denoiser's cache holds (`masked`: the inpainting one's);
    what its shelves show; and by how many `captions` it is judged at which size in pixels.
    """

    minutes: Mapping[str, float]
    counts: Mapping[str, int]
    masked: Mapping[str, int]
    stages: Mapping[str, Stage]
    captions: Mapping[int, int]


EASY = (
    "fox", "frog", "pig", "panda", "penguin", "apple", "carrot", "mushroom",
    "car", "bus", "rocket", "cactus", "sunflower", "house", "star", "heart",
)  # fmt: skip
FEW = replace(SIMPLE, only=tuple(number for number, thing in enumerate(THINGS) if thing.name in EASY))

PRESETS = {
    "starter": Preset(
        minutes={"autoencoder": 36, "clip": 18, "denoiser": 176, "inpainting": 60, "evaluate": 14},
        counts=COUNTS,
        masked={name: count for name, count in COUNTS.items() if name != "simple"},
        stages=STAGES,
        captions={128: 500, 256: 100},
    ),
    "quick": Preset(
        minutes={"autoencoder": 3, "clip": 2, "denoiser": 6.5, "inpainting": 3, "evaluate": 1.5},
        counts={"wide": 2_000},
        masked={"wide": 2_000},
        stages={"wide": FEW},
        captions={128: 32},
    ),
}
