import torch

from modules.training.backgrounds import BACKGROUNDS
from modules.training.classes import THINGS
from modules.training.data import PLACED, draw, scenes_of, to_signed
from modules.training.evaluate import nearest, subjects


def test_every_thing_is_judged_on_several_backgrounds() -> None:
    asked = subjects(2)
    assert len(set(asked)) == 2 * len(THINGS)
    assert {background for _, background in asked} == set(range(len(BACKGROUNDS)))


def test_nearest_finds_the_scene_that_was_drawn(icons) -> None:
    scenes = [scene for scene in scenes_of(PLACED) if (scene.thing, scene.background) == (2, 6)]
    drawn = torch.from_numpy(to_signed(draw(scenes[3], icons)[None]))[0]
    rough = drawn.roll(4, dims=2)  # four pixels to the side
    assert nearest(drawn, scenes, icons) == float("inf")
    assert 5 < nearest(rough, scenes, icons) < 40
