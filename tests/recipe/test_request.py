from types import SimpleNamespace

import pytest

from modules.recipe.fields import DEFAULTS, FIELDS, BadField, Recipe, from_dict, to_dict
from modules.recipe.infotext import write
from modules.recipe.request import resolve

STARTER = SimpleNamespace(name="starter.safetensors", native_size=128, defaults={"cfg_scale": 3.0})


def find(wanted):
    if wanted in ("", "starter"):
        return STARTER
    raise LookupError(f"{wanted!r} is not among the checkpoints")


def resolved(**request):
    return resolve(request, find, lambda model: "0123456789")


def test_holes_take_the_checkpoints_defaults_then_the_tables():
    recipe = resolved(prompt="a fox", steps=None, seed="7", width="")
    assert (recipe.width, recipe.height, recipe.cfg_scale, recipe.steps, recipe.seed) == (128, 128, 3.0, 20, 7)
    assert (recipe.checkpoint, recipe.model_hash) == ("starter.safetensors", "0123456789")


def test_what_is_asked_wins_and_names_are_found_by_alias():
    recipe = resolved(cfg_scale=7, sampler="k_euler_a", schedule="karras", checkpoint="starter", width=256)
    assert (recipe.cfg_scale, recipe.sampler, recipe.schedule, recipe.width, recipe.height) == (7.0, "Euler a", "Karras", 256, 128)


def test_minus_one_is_a_random_seed_and_pictures_count_up():
    assert 0 <= resolved(seed=-1).seed < 2**32
    assert resolved(seed=5, batch_size=2, batch_count=2).seeds == [5, 6, 7, 8]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *[("steps", v) for v in (0, -1, 151, 10**9, "abc", 2.5, float("nan"), True, [], "1e309", 10**400, "1" * 5000)],
        *[("width", v) for v in (7, 0, -64, 10**6, 100, "512px")],
        *[("cfg_scale", v) for v in (float("inf"), -1, 31, "nan", {})],
        *[("seed", v) for v in (-2, 2**64, 1.5, float("nan"))],
        *[("batch_size", v) for v in (0, 10**4)],
        *[("sampler", v) for v in ("Eular", 5, "")],
        *[("prompt", v) for v in (5, "x" * 100_001, "a\0b", "\ud800")],
        ("checkpoint", "../../etc/passwd"),
        ("stepz", 5),
        ("\ud800", 1),
    ],
)
def test_bad_values_are_refused_with_the_fields_name(field, value):
    with pytest.raises(BadField) as refused:
        resolved(**{field: value})
    assert refused.value.field == field
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_more_fields_than_there_are_cost_nothing():
    with pytest.raises(BadField, match="more than a recipe has"):
        resolved(**{f"field{i}": i for i in range(1000)})


def test_too_many_pictures_and_seeds_that_run_out_are_refused():
    with pytest.raises(BadField, match="1280 pictures"):
        resolved(batch_size=64, batch_count=20)
    with pytest.raises(BadField, match="no room"):
        resolved(seed=2**63 - 1, batch_size=2)


def test_a_recipe_survives_its_description():
    recipe = resolved(prompt="a (red:1.2) fox", seed=3)
    assert from_dict(to_dict(recipe)) == recipe
    with pytest.raises(BadField):
        from_dict({"evil": 1})


def test_every_row_has_what_the_form_needs():
    for name, (kind, row) in FIELDS.items():
        assert row.label and row.help.endswith("."), name
        assert kind is str or row.low is not None and row.high is not None, name
        assert isinstance(getattr(DEFAULTS, name), kind)


def test_infotext():
    recipe = Recipe(
        prompt="a red fox,\nin the snow",
        negative_prompt="blurry",
        seed=5,
        checkpoint="sub/dir/my, model.ckpt",
        model_hash="0123456789",
        clip_skip=2,
    )
    assert write(recipe, 6) == (
        "a red fox,\nin the snow\nNegative prompt: blurry\n"
        "Steps: 20, Sampler: DPM++ 2M, Schedule type: Karras, CFG scale: 7.0, Seed: 6, Size: 512x512, Model hash: 0123456789, "
        'Model: "my, model", Clip skip: 2, RNG: CPU, Version: Easel 0.1.0'
    )
    assert "Negative" not in write(Recipe(prompt="x", seed=1), 1)
    with_lora = write(Recipe(prompt="x<lora:a b:1>", seed=1, lora_hashes="a b: 0123456789ab, c: ba9876543210"), 1)
    assert with_lora.startswith("x<lora:a b:1>\n") and 'Lora hashes: "a b: 0123456789ab, c: ba9876543210", RNG' in with_lora
