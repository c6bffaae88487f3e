"""A folder of pictures with captions to try training on: scenes of any emoji, those included that the starter has never seen."""

import difflib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS, Thing
from modules.training.data import draw, icons
from modules.training.grammar import caption
from modules.training.scenes import Scene, Stage, draw_scene

SEED = 7
ALONE = Stage(two=0, small=0.2, same=0, styled=0, recoloured=0)


def thing_called(wanted: str, folder: Path) -> Thing:
    """One of THINGS, or any icon of its package. RuntimeError if there is none."""
    known = next((thing for thing in THINGS if wanted in thing.names), None)
    drawings = icons("flat", folder)
    icon = wanted.strip().lower().replace(" ", "-")
    if not known and icon not in drawings:
        close = difflib.get_close_matches(icon, drawings.names, n=3)
        raise RuntimeError(f"there is no emoji called {wanted[:100]}{'; did you mean ' + ' or '.join(close) + '?' if close else ''}")
    return known or Thing((icon.replace("-", " "),), icon)


def scenes_of(thing: Thing, count: int) -> Iterator[tuple[Scene, str]]:
    """Scenes with this thing alone, as number 0, on each background in turn; and how one would ask for each."""
    rng = np.random.default_rng(SEED)
    for number in range(count):
        place = (number + number // len(BACKGROUNDS)) % len(BACKGROUNDS)  # so that no place is every tenth, and held out, every time
        scene = next(scene for scene in iter(lambda: draw_scene(rng, ALONE, (thing,)), None) if scene.background == place)
        yield scene, caption(rng, scene, things=(thing,))


def write_scenes(wanted: str, count: int, output: Path, folder: Path) -> None:
    """Writes `count` scenes as 00.png with 00.txt and so on. RuntimeError if `output` holds something, or there is no such emoji."""
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise RuntimeError(f"--output {output} is there already and not empty: name a new folder")
    thing = thing_called(wanted, folder)
    output.mkdir(parents=True, exist_ok=True)
    digits = len(str(count - 1))
    for number, (scene, words) in enumerate(scenes_of(thing, count)):
        path = output / f"{number:0{digits}}.png"
        Image.fromarray(draw(scene, folder, (thing,))).save(path)
        path.with_suffix(".txt").write_text(f"{words}\n", encoding="utf-8")
