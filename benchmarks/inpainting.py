"""How well things are removed and replaced: `python benchmarks/inpainting.py JUDGE ICONS [--checkpoint NAME] [--count 100]`.

Held-out scenes of two things are drawn, one of the two is masked by its square, and the judge that `train evaluate` made (the folder
JUDGE, with judge.pt) says what it sees afterwards. ICONS is the folder with the things' drawings, NAME a file or a checkpoint of
models/Stable-diffusion. Things are removed as the page's button does it, and replaced at the strength that suits the checkpoint.
"""

import argparse
import io
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from modules.engine.run import run
from modules.engine.studio import Studio
from modules.jobs.messages import Picture
from modules.model_manager.choice import recipe_for, usable
from modules.model_manager.library import scan
from modules.recipe.request import removal
from modules.settings import PROGRAM
from modules.training import judge
from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS
from modules.training.data import draw, to_signed
from modules.training.grammar import article
from modules.training.scenes import WIDE, Placed, Scene, scenes

SEED = 31
MARGIN = 2  # pixels around a thing's square that are masked too
ACROSS = 2  # pixels on either side of the mask's edge whose colours are compared
MODELS = PROGRAM / "models" / "Stable-diffusion"
REPLACED = 0.75  # the strength that things are replaced at by a checkpoint that does not see the mask


@dataclass(frozen=True)
class Task:
    """A scene, which of its two things goes, and the name of what may come instead."""

    scene: Scene
    chosen: int
    instead: int

    @property
    def removed(self) -> Placed:
        return self.scene.things[self.chosen]

    @property
    def other(self) -> Placed:
        return self.scene.things[1 - self.chosen]

    @property
    def box(self) -> tuple[int, int, int, int]:
        left, top, right, bottom = self.removed.box
        return max(left - MARGIN, 0), max(top - MARGIN, 0), min(right + MARGIN, self.scene.side), min(bottom + MARGIN, self.scene.side)


def tasks(count: int) -> list[Task]:
    """Held-out scenes of two different things."""
    rng = np.random.default_rng(SEED)
    found = scenes(rng, replace(WIDE, two=1, small=0, same=0, styled=0), count, held_out=True)
    chosen = []
    for scene in found:
        known = {placed.thing for placed in scene.things}
        instead = int(rng.choice([thing for thing in range(len(THINGS)) if thing not in known]))
        chosen.append(Task(scene, int(rng.integers(2)), instead))
    return chosen


class Painter:
    """Changes pictures with one checkpoint, as the page and the command line do."""

    def __init__(self, checkpoint: str, state: Path) -> None:
        file = Path(checkpoint).absolute()
        folder, wanted = (file.parent, file.name) if file.is_file() else (MODELS, checkpoint)
        self._studio, self._hashes = Studio([folder], [], state), state / "hashes.sqlite3"
        self._found = scan([folder], self._hashes)
        chosen = usable(self._found, wanted)
        self._name, self.inpaints = chosen.name, chosen.architecture.inpaints

    def paint(self, picture: np.ndarray, box: tuple[int, int, int, int], **request: object) -> np.ndarray:
        mask = Image.new("L", picture.shape[1::-1])
        mask.paste(255, box)
        ids = {"init_image": self._kept(Image.fromarray(picture)), "mask": self._kept(mask)}
        asked = {"checkpoint": self._name, "seed": 1, **request, **ids}
        recipe = recipe_for(asked, self._found, [], [], [], self._hashes, self._studio.shelf)
        drawn: list[Picture] = []
        run(recipe, self._studio, lambda message: drawn.append(message) if isinstance(message, Picture) else None, check=lambda: None)
        return np.asarray(Image.open(io.BytesIO(drawn[0].png)))

    def _kept(self, image: Image.Image) -> str:
        file = io.BytesIO()
        image.save(file, "PNG")
        return self._studio.shelf.keep(file.getvalue())


def near(found: judge.Found, placed: Placed) -> bool:
    """Whether it stands where the thing stood."""
    return abs(found.x - placed.left - placed.size / 2) < placed.size / 2


def step(picture: np.ndarray, box: tuple[int, int, int, int]) -> float:
    """The mean step of colours (0 to 255) across the box's edges, as far as they lie in the picture."""
    left, top, right, bottom = box
    rows, columns = slice(top, bottom), slice(left, right)
    pixels, (height, width) = picture.astype(float), picture.shape[:2]
    steps = [
        (pixels[rows, at : at + ACROSS].mean((0, 1)) - pixels[rows, at - ACROSS : at].mean((0, 1)))
        for at in (left, right)
        if ACROSS <= at <= width - ACROSS
    ] + [
        (pixels[at : at + ACROSS, columns].mean((0, 1)) - pixels[at - ACROSS : at, columns].mean((0, 1)))
        for at in (top, bottom)
        if ACROSS <= at <= height - ACROSS
    ]
    return float(np.abs(steps).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("judge", type=Path)
    parser.add_argument("icons", type=Path)
    parser.add_argument("--checkpoint", metavar="NAME", default="starter")
    parser.add_argument("--count", type=int, default=100)
    options = parser.parse_args()
    network, chosen = judge.load(options.judge), tasks(options.count)
    removed, replaced, empty, seams = [], [], [], []
    with tempfile.TemporaryDirectory() as folder:
        painter = Painter(options.checkpoint, Path(folder))
        removing, strength = removal(painter.inpaints), 1 if painter.inpaints else REPLACED
        for task in tqdm(chosen, unit="scene"):
            before = draw(task.scene, options.icons)
            empty.append(draw(replace(task.scene, things=(task.other,)), options.icons))
            removed.append(painter.paint(before, task.box, **removing))
            seams.append(step(removed[-1], task.box) - step(empty[-1], task.box))
            words = f"{article(THINGS[task.instead].name)} {BACKGROUNDS[task.scene.background].phrases[0]}"
            replaced.append(painter.paint(before, task.box, prompt=words, denoising_strength=strength))
    without, with_other, control = (judge.seen(network, torch.from_numpy(to_signed(np.stack(some)))) for some in (removed, replaced, empty))
    pairs = list(zip(chosen, without, with_other, strict=True))
    shares = {
        "the other thing is seen where the scene is drawn without the removed one": [
            any(f.thing == t.other.thing for f in seen.things) for t, seen in zip(chosen, control, strict=True)
        ],
        "the other thing is still seen (95 % wanted)": [any(f.thing == t.other.thing for f in seen.things) for t, seen, _ in pairs],
        "the removed one is not (90 % wanted)": [
            not any(f.thing == t.removed.thing and near(f, t.removed) for f in seen.things) for t, seen, _ in pairs
        ],
        "nothing is seen in its place": [not any(near(f, t.removed) for f in seen.things) for t, seen, _ in pairs],
        "what was asked for instead is seen there (70 % wanted)": [
            any(f.thing == t.instead and near(f, t.removed) for f in seen.things) for t, _, seen in pairs
        ],
    }
    for name, right in shares.items():
        print(f"{name}: {sum(right)} of {len(right)}")
    print(f"mean colour step across the mask's edge beyond that of the empty scene (4 allowed): {np.mean(seams):.2f} of 255")


if __name__ == "__main__":
    main()
