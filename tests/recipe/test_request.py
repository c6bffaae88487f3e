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


class Pictures:
    """Pictures that are called by their size, masks whose darkest and lightest values stand behind it."""

    def size_of(self, id):
        if not id[:1].isdigit():
            raise LookupError("the picture is not there any more: choose it again")
        width, height = id.partition(" ")[0].split("x")
        return int(width), int(height)

    def mask_extremes(self, id):
        darkest, lightest = id.partition(" ")[2].split("-")
        return int(darkest), int(lightest)


def resolved(**request):
    return resolve(request, find, lambda model: "0123456789", Pictures())


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
        *[("sgm_noise_multiplier", v) for v in ("maybe", 2, 0.5, [])],
        *[("randn_source", v) for v in ("GPU", True)],
        *[("eta", v) for v in (1.5, -0.1, "much")],
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


def test_a_flag_is_read_as_people_write_it():
    for wanted, written in ((True, (True, "true", "On", 1)), (False, (False, "False", "0", None, ""))):
        assert [resolved(sgm_noise_multiplier=value).sgm_noise_multiplier for value in written] == [wanted] * len(written)


@pytest.mark.parametrize(("low", "high"), [("sigma_min", "sigma_max"), ("guidance_sigma_min", "guidance_sigma_max")])
def test_a_range_begins_below_its_end(low, high):
    assert getattr(resolved(**{low: 1.5}), low) == 1.5
    with pytest.raises(BadField, match="is not below") as refused:
        resolved(**{low: 1.5, high: 1.0})
    assert refused.value.field == low


def test_pictures_count_up_by_the_variation_seed_if_there_is_one():
    varied = resolved(seed=5, subseed=9, subseed_strength=0.3, batch_size=2, batch_count=2)
    assert (varied.seeds, varied.subseeds) == ([5] * 4, [9, 10, 11, 12])
    assert varied.alone(2) == resolved(seed=5, subseed=11, subseed_strength=0.3)
    assert resolved(seed=5, batch_size=3).alone(2) == resolved(seed=7, subseed=1)
    assert 0 <= resolved(subseed_strength=0.3).subseed < 2**32
    with pytest.raises(BadField, match="Variation seed: .* no room"):
        resolved(subseed=2**63 - 1, subseed_strength=0.3, batch_size=2)


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
        assert kind in (str, bool) or row.low is not None and row.high is not None, name
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


def said(**values):
    """The keys that these values add to the parameters text, with what is said there."""
    plain, text = (write(Recipe(seed=1, **{"sampler": "Euler a", **known}), 1) for known in ({}, values))
    before, after = (dict(pair.split(": ", 1) for pair in line.splitlines()[-1].split(", ")) for line in (plain, text))
    return {key: value for key, value in after.items() if before.get(key) != value}


@pytest.mark.parametrize(
    ("values", "wanted"),
    [
        ({"eta": 0.5}, {"Eta": "0.5"}),
        ({"eta": 0.5, "sampler": "DPM++ 2M"}, {"Sampler": "DPM++ 2M", "Schedule type": "Karras"}),
        ({"eta_ddim": 0.5, "sampler": "DDIM"}, {"Sampler": "DDIM", "Eta DDIM": "0.5"}),
        ({"eta_ddim": 0.5}, {}),
        ({"s_churn": 2.0, "s_tmax": 5.0, "sampler": "Euler"}, {"Sampler": "Euler", "Sigma churn": "2.0", "Sigma tmax": "5.0"}),
        ({"eta_noise_seed_delta": 31337}, {"ENSD": "31337"}),
        ({"eta_noise_seed_delta": 31337, "eta": 0.0}, {"Eta": "0.0"}),
        ({"eta_noise_seed_delta": 31337, "sampler": "Euler"}, {"Sampler": "Euler"}),
        ({"eta_noise_seed_delta": 31337, "sampler": "LCM"}, {"Sampler": "LCM", "ENSD": "31337"}),
        ({"subseed": 9}, {}),
        ({"subseed": 9, "subseed_strength": 0.3}, {"Variation seed": "9", "Variation seed strength": "0.3"}),
        ({"seed_resize_from_w": 512, "seed_resize_from_h": 640}, {"Seed resize from": "512x640"}),
        ({"seed_resize_from_w": 512}, {}),
        ({"randn_source": "NV"}, {"RNG": "NV"}),
        ({"sigma_min": 0.1, "schedule": "Karras"}, {"Schedule type": "Karras", "Schedule min sigma": "0.1"}),
        ({"rho": 5.0, "schedule": "Karras"}, {"Schedule type": "Karras", "Schedule rho": "5.0"}),
        ({"rho": 5.0, "schedule": "Exponential"}, {"Schedule type": "Exponential"}),
        ({"beta_dist_alpha": 0.5, "schedule": "Beta"}, {"Schedule type": "Beta", "Beta schedule alpha": "0.5"}),
        ({"always_discard_next_to_last_sigma": True}, {"Discard penultimate sigma": "True"}),
        ({"sgm_noise_multiplier": True}, {"SGM noise multiplier": "True"}),
        ({"sd_noise_schedule": "Zero Terminal SNR", "cfg_rescale": 0.7}, {"Noise Schedule": "Zero Terminal SNR", "CFG rescale": "0.7"}),
        ({"use_downcasted_alpha_bar": True}, {"Downcast alphas_cumprod": "True"}),
        ({"guidance_sigma_min": 0.28, "guidance_sigma_max": 5.42}, {"Guidance min sigma": "0.28", "Guidance max sigma": "5.42"}),
    ],
)
def test_the_text_says_what_was_chosen_if_it_has_a_say(values, wanted):
    assert said(**values) == wanted


def test_a_picture_that_is_changed_keeps_its_size_unless_only_the_masked_part_is_drawn():
    photo, mask = "4000x3001", "4000x3001 0-255"
    assert (resolved(init_image=photo).width, resolved(init_image=photo).height) == (4000, 3001)
    assert resolved(init_image=photo, width=133).width == 133
    only_masked = resolved(init_image=photo, mask=mask, inpaint_area="Only masked")
    assert (only_masked.width, only_masked.height) == (128, 128)
    assert resolved(init_image=photo, inpaint_area="Only masked").width == 4000


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({"init_image": "gone"}, "init_image", "choose it again"),
        ({"init_image": "5000x100"}, "width", "5000 is outside"),
        ({"mask": "64x64 0-255"}, "init_image", "no picture under it"),
        ({"init_image": "64x64", "mask": "gone"}, "mask", "choose it again"),
        ({"init_image": "64x64", "mask": "64x64 0-0"}, "mask", "empty"),
        ({"init_image": "64x64", "mask": "64x64 0-100"}, "mask", "empty"),
        ({"init_image": "64x64", "mask": "64x64 255-255", "mask_mode": "Inpaint not masked"}, "mask", "empty"),
        ({"init_image": "64x64", "mask": "64x80 0-255"}, "mask", "another shape"),
        ({"init_image": "64x64", "denoising_strength": 1.01}, "denoising_strength", "outside"),
        ({"init_image": "64x64", "masked_content": "orignal"}, "masked_content", "did you mean 'original'"),
        ({"init_image": "6" * 65}, "init_image", "characters"),
    ],
)
def test_pictures_and_masks_that_cannot_be_used_are_refused(request_, field, says):
    with pytest.raises(BadField, match=says) as refused:
        resolved(**request_)
    assert refused.value.field == field and "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("request_", "field", "says"),
    [
        ({"hires_scale": 9}, "hires_scale", "9 is outside 1 to 8"),
        ({"hires_scale": 8, "width": 1024}, "hires_scale", "8192x1024 is outside 64x64 to 4096x4096"),
        ({"hires_width": 100}, "hires_width", "not a multiple of 8"),
        ({"hires_height": 4104}, "hires_height", "outside"),
        ({"hires_width": 64, "width": 512}, "hires_width", "64x16 is outside"),
        ({"hires_sampler": "Eular"}, "hires_sampler", "did you mean 'Euler'"),
        ({"hires_schedule": ""}, "hires_schedule", "not known"),
        ({"hires_steps": 151}, "hires_steps", "outside"),
        ({"hires_steps": 20, "denoising_strength": 0.01}, "denoising_strength", "20 steps at strength 0.01 are the last of 2000"),
        ({"denoising_strength": 5e-324}, "denoising_strength", "20 steps at strength 4.94066e-324 are the last of 20000000000,"),
        ({"width": 64, "height": 4096, "hires_width": 4096, "hires_height": 4096}, "hires_width", "too little of 4096x262144 would be"),
        ({"init_image": "128x128"}, "hires", "turn it off"),
        ({"hires": "maybe"}, "hires", "true or false"),
    ],
)
def test_a_second_pass_that_cannot_be_drawn_is_refused(request_, field, says):
    with pytest.raises(BadField, match=says) as refused:
        resolved(**{"hires": True, **request_})
    assert refused.value.field == field and "\n" not in str(refused.value)


def test_what_hires_fix_is_told_has_no_say_while_it_is_off():
    assert resolved(hires_scale=8, width=1024, hires_width=100, denoising_strength=0.01).hires_width == 100
    assert resolved(hires=True, denoising_strength=0).denoising_strength == 0


def test_a_mask_may_have_another_size_of_the_same_shape_and_a_soft_one_may_be_dark():
    resolved(init_image="1000x667", mask="512x341 0-255")
    resolved(init_image="64x64", mask="64x64 0-100", mask_edge="Soft")


def test_the_parameters_say_how_a_picture_was_changed():
    def keys(**values):
        line = write(Recipe(seed=1, **values), 1).splitlines()[-1]
        return [pair.partition(":")[0] for pair in line.split(", ")]

    new, changed = keys(), keys(init_image="a")
    assert [key for key in changed if key not in new] == ["Denoising strength"]
    masked = keys(init_image="a", mask="b")
    assert [key for key in masked if key not in changed] == ["Mask blur"]
    about = {"mask_mode": "Inpaint not masked", "inpaint_area": "Only masked", "masked_content": "fill", "mask_edge": "Soft"}
    assert set(keys(init_image="a", mask="b", **about)) - set(masked) == {
        *("Mask mode", "Inpaint area", "Masked area padding", "Masked content", "Mask edge")
    }
    assert keys(**about) == new
