"""What an upscaled picture is made from: sizes, refusals before any work, and what its parameters say."""

import pytest

from modules.recipe.fields import BadField, Recipe, to_dict
from modules.recipe.upscaling import Upscaling, enlarged_size, finished_size, infotext, passes, read, resolve


class Photos:
    def size_of(self, id):
        if id != "photo":
            raise LookupError("the picture is not there any more: choose it again")
        return (640, 427)


def asked(**request):
    known = {"": "usual", "v3": "realesr-animevideov3", "lanczos": "Lanczos"}

    def named(wanted):
        if wanted not in known:
            raise LookupError(f"there is no upscaler {wanted}")
        return known[wanted]

    return resolve({"picture": "photo", **request}, named, Photos())


@pytest.mark.parametrize(
    ("request_", "enlarged", "finished"),
    [
        ({}, (2560, 1708), (2560, 1708)),
        ({"factor": "2"}, (1280, 854), (1280, 854)),
        ({"factor": 2, "width": 0, "height": 0}, (1280, 854), (1280, 854)),
        ({"factor": 0.5}, (320, 213), (320, 213)),
        ({"factor": 0.05}, (32, 21), (32, 21)),
        ({"width": 1280}, (1280, 854), (1280, 854)),
        ({"height": "100"}, (150, 100), (150, 100)),
        ({"width": 1000, "height": 1000}, (1499, 1000), (1000, 1000)),
        ({"width": 1000, "height": 1000, "crop": False}, (1499, 1000), (1499, 1000)),
        ({"width": 64, "height": 427}, (640, 427), (64, 427)),
    ],
)
def test_how_large_it_becomes(request_, enlarged, finished):
    upscaling = asked(**request_)
    assert enlarged_size(upscaling, (640, 427)) == enlarged and finished_size(upscaling, (640, 427)) == finished


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({"factor": 40}, "factor", "outside"),
        ({"factor": "nan"}, "factor", "not a number"),
        ({"width": 65000}, "width", "65000x43367 would be 2819 million pixels; a file holds 333 million pixels at most"),
        ({"width": 70000}, "width", "outside"),
        ({"width": 0, "height": "0"}, "width", "say how wide or how high"),
        ({"upscaler": "v4"}, "upscaler", "there is no upscaler v4"),
        ({"upscaler_2": "v4"}, "upscaler_2", "Second upscaler: there is no upscaler v4"),
        ({"upscaler_2_weight": 1.5}, "upscaler_2_weight", "outside"),
        ({"picture": "other"}, "picture", "not there any more"),
        ({"picture": ""}, "picture", "not there any more"),
        ({"size": 3}, "size", "no such field"),
        ({"crop": "maybe"}, "crop", "true or false"),
    ],
)
def test_a_bad_value_is_refused_by_its_field(request_, field, says):
    with pytest.raises(BadField, match=says) as refused:
        asked(**request_)
    assert refused.value.field == field


def test_holes_are_filled_and_names_become_the_upscalers_own():
    assert asked(upscaler=None, upscaler_2="", factor=None).upscaler == "usual"
    both = asked(upscaler="v3", upscaler_2="lanczos")
    assert (both.upscaler, both.upscaler_2, both.blends) == ("realesr-animevideov3", "Lanczos", True)
    assert not asked(upscaler_2="lanczos", upscaler_2_weight=0).blends and not asked(upscaler_2="None").blends


@pytest.mark.parametrize(
    ("target", "scale", "runs"),
    [
        ((640, 427), 4, 1),
        ((2560, 1708), 4, 1),
        ((2561, 1708), 4, 2),
        ((320, 213), 4, 1),
        ((10_240, 6832), 4, 2),
        ((40_960, 1), 4, 3),
        ((9999, 9), 1, 1),
        ((99_999, 9), 2, 3),
    ],
)
def test_how_often_a_network_runs(target, scale, runs):
    assert passes((640, 427), target, scale) == runs


def test_its_parameters_say_how_it_was_enlarged():
    said = infotext(Upscaling(upscaler="R-ESRGAN 4x+"), (10, 10), "")
    assert said.startswith("Postprocess upscale by: 4, Postprocess upscaler: R-ESRGAN 4x+, Version: Easel ")
    drawn = "a fox\nSteps: 20, Sampler: Euler, Seed: 1"
    target = Upscaling(upscaler="a, b", upscaler_2="Lanczos", upscaler_2_weight=0.25, width=30, height=40)
    assert infotext(target, (10, 10), drawn) == (
        f'{drawn}, Postprocess upscale to: 30x40, Postprocess crop to: 30x40, Postprocess upscaler: "a, b", '
        "Postprocess upscaler 2: Lanczos, Postprocess upscaler 2 visibility: 0.25"
    )


def test_it_is_told_from_a_recipe_by_its_plain_values():
    for described in (Recipe(prompt="a fox", seed=3), Upscaling(picture="photo", upscaler="v3", factor=2.5)):
        assert read(to_dict(described)) == described
    with pytest.raises(BadField):
        read({"picture": "photo", "prompt": "a fox"})
