import io
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
from PIL import Image

from modules.engine.run import run
from modules.engine.stop import Cancelled, CannotDraw, Skipped
from modules.engine.studio import Studio
from modules.jobs.messages import Message, Picture, Preview, Progress
from modules.recipe import infotext
from modules.recipe.catalogue import SAMPLERS, SCHEDULES
from modules.recipe.fields import Recipe
from tests.checkpoints import SMALL, random_weights, write_checkpoint, write_safetensors


def drawn(recipe: Recipe, studio: Studio) -> list[bytes]:
    """The PNG files of a recipe, in order."""
    messages: list[Message] = []
    run(recipe, studio, messages.append, check=lambda: None)
    return [message.png for message in messages if isinstance(message, Picture)]


def pixels_of(recipe: Recipe, studio: Studio) -> numpy.ndarray:
    """The first picture's pixels, (height, width, 3)."""
    return numpy.asarray(Image.open(io.BytesIO(drawn(recipe, studio)[0])), dtype=int)


def stopper(stop: type[Exception], after: int) -> tuple[Callable[[], None], list[int]]:
    """A check that raises once, at its `after`th call, and the list of its calls."""
    calls: list[int] = []

    def check() -> None:
        calls.append(len(calls))
        if len(calls) == after:
            raise stop

    return check, calls


CHANCES = [  # every sampler, and every other way in which noise is drawn
    *((sampler, {}) for sampler in SAMPLERS if sampler != "DPM adaptive"),
    ("DPM adaptive", {"schedule": "Karras", "sigma_max": 0.2}),  # a short way: these networks make it take small steps
    ("Euler", {"s_churn": 2.0}),
    ("Euler a", {"eta_noise_seed_delta": 31337, "randn_source": "NV"}),
    ("DPM++ 2M SDE", {"randn_source": "NV"}),
    ("DPM++ 2M", {"seed_resize_from_w": 128, "seed_resize_from_h": 40}),
]


@pytest.mark.parametrize(("sampler", "options"), CHANCES)
def test_picture_i_is_what_its_seed_draws_alone(sampler: str, options: dict[str, object], studio: Studio, recipe: Recipe) -> None:
    recipe = replace(recipe, sampler=sampler, **options)
    together = drawn(replace(recipe, batch_size=2, batch_count=2), studio)
    alone = [drawn(replace(recipe, seed=seed), studio)[0] for seed in (8, 9)]
    assert together[1:3] == alone
    assert len(set(together)) == 4


def test_variations_keep_the_seed_and_count_their_own_up(studio: Studio, recipe: Recipe) -> None:
    recipe = replace(recipe, subseed=3, subseed_strength=0.2)
    messages: list[Message] = []
    run(replace(recipe, batch_size=2), studio, messages.append, check=lambda: None)
    pictures = [message for message in messages if isinstance(message, Picture)]
    assert [picture.seed for picture in pictures] == [7, 7]
    assert [f"Variation seed: {subseed}, Variation seed strength: 0.2" in pictures[i].infotext for i, subseed in enumerate((3, 4))]
    assert [picture.png for picture in pictures] == [drawn(replace(recipe, subseed=subseed), studio)[0] for subseed in (3, 4)]
    original, slight, other = (
        pixels_of(replace(recipe, **changed), studio)
        for changed in ({"subseed_strength": 0.0}, {"subseed_strength": 0.05}, {"subseed_strength": 1.0})
    )
    assert 0 < abs(original - slight).mean() < abs(original - other).mean()


def test_another_process_draws_the_same_bytes(studio: Studio, recipe: Recipe, models: Path, tmp_path: Path) -> None:
    recipe = replace(recipe, sampler="DPM++ SDE", prompt="a (red:1.2) fox")
    script = f"""
import sys
from pathlib import Path
from modules.engine.run import run
from modules.engine.studio import Studio
from modules.jobs.messages import Picture
from modules.recipe.fields import Recipe
studio = Studio([Path({str(models)!r})], [], Path({str(tmp_path)!r}), device="cpu", precision="float32")
run({recipe!r}, studio, lambda m: sys.stdout.buffer.write(m.png) if isinstance(m, Picture) else None, check=lambda: None)
"""
    other = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    assert other.stdout == drawn(recipe, studio)[0] == drawn(recipe, studio)[0]


def test_the_file_carries_its_parameters(studio: Studio, recipe: Recipe) -> None:
    recipe = replace(recipe, prompt="a fox, 狐", width=136, height=128, steps=2)
    messages: list[Message] = []
    run(recipe, studio, messages.append, check=lambda: None)
    picture = messages[-1]
    image = Image.open(io.BytesIO(picture.png))
    assert image.size == (picture.width, picture.height) == (136, 128)
    assert image.text["parameters"] == picture.infotext == infotext.write(recipe, 7)


@pytest.mark.parametrize(("width", "height"), [(64, 64), (72, 64), (64, 200), (136, 128)])
def test_any_multiple_of_8_can_be_drawn(width: int, height: int, studio: Studio, recipe: Recipe) -> None:
    image = Image.open(io.BytesIO(drawn(replace(recipe, width=width, height=height, steps=1), studio)[0]))
    assert image.size == (width, height)
    assert image.mode == "RGB"


def test_a_size_that_the_autoencoder_does_not_divide_is_refused(tmp_path: Path, recipe: Recipe) -> None:
    coarse = replace(SMALL, vae=replace(SMALL.vae, channels=(32, 32, 32, 32, 64)))
    write_checkpoint(tmp_path / "eps.safetensors", coarse)
    studio = Studio([tmp_path], [], tmp_path, "cpu", "float32")
    with pytest.raises(CannotDraw, match="multiples of 16"):
        drawn(replace(recipe, width=72), studio)
    assert Image.open(io.BytesIO(drawn(replace(recipe, width=80), studio)[0])).size == (80, 64)


@pytest.mark.parametrize(
    ("sampler", "schedule", "steps"),
    [
        *((sampler, "Automatic", 1) for sampler in SAMPLERS),
        *((sampler, "KL Optimal", 3) for sampler in SAMPLERS if sampler != "DPM adaptive"),
        *((sampler, schedule, 3) for sampler in ("Euler a", "DPM++ 3M SDE") for schedule in SCHEDULES),
        ("Restart", "Automatic", 20),
    ],
)
def test_every_sampler_and_every_schedule_draws(sampler: str, schedule: str, steps: int, studio: Studio, recipe: Recipe) -> None:
    assert pixels_of(replace(recipe, sampler=sampler, schedule=schedule, steps=steps), studio).std() > 3


@pytest.mark.parametrize(
    ("sampler", "option", "value"),
    [
        *(("Euler a", *change) for change in (("eta", 0.5), ("eta_noise_seed_delta", 5), ("randn_source", "NV"), ("cfg_rescale", 0.7))),
        *(("DDIM", "eta_ddim", 1.0), ("Heun", "s_churn", 3.0), ("DPM++ SDE", "s_noise", 1.5), ("DPM++ 2M", "rho", 3.0)),
        *(("DPM++ 2M", "sigma_min", 0.5), ("DPM++ 2M", "sigma_max", 8.0), ("Euler", "always_discard_next_to_last_sigma", True)),
        *(("Euler", "sgm_noise_multiplier", True), ("Euler", "sd_noise_schedule", "Zero Terminal SNR")),
        *(("Euler", "use_downcasted_alpha_bar", True), ("Euler", "guidance_sigma_max", 5.0), ("DDIM CFG++", "guidance_sigma_min", 2.0)),
    ],
)
def test_every_option_changes_the_picture(sampler: str, option: str, value: object, studio: Studio, recipe: Recipe) -> None:
    recipe = replace(recipe, sampler=sampler, cfg_scale=20.0)
    assert (pixels_of(recipe, studio) != pixels_of(replace(recipe, **{option: value}), studio)).any()


def test_levels_that_do_not_fall_are_refused(studio: Studio, recipe: Recipe) -> None:
    with pytest.raises(CannotDraw, match="Schedule max sigma"):
        drawn(replace(recipe, sigma_max=0.01), studio)


def test_outside_the_guidance_interval_the_negative_prompt_is_not_computed(studio: Studio, recipe: Recipe) -> None:
    passes = []
    unet = studio.warm("eps.safetensors", "None", lambda fraction: None).family.unet
    hook = unet.register_forward_pre_hook(lambda module, inputs: passes.append(len(inputs[0])))
    try:
        drawn(replace(recipe, sampler="Euler", guidance_sigma_max=5.0, guidance_sigma_min=0.2), studio)
    finally:
        hook.remove()
    assert passes == [1, 2, 2, 1]  # at training steps 999, 666, 333 and 0


def test_progress_never_goes_back_in_a_restart(studio: Studio, recipe: Recipe) -> None:
    messages: list[Message] = []
    run(replace(recipe, sampler="Restart", steps=24), studio, messages.append, check=lambda: None)
    steps = [message.step for message in messages if isinstance(message, Progress) and message.phase in ("draw", "decode")]
    assert steps == sorted(steps) and steps[-1] == 24


def test_at_cfg_scale_1_the_negative_pass_is_left_out(studio: Studio, recipe: Recipe) -> None:
    messages: list[Message] = []
    facts = run(replace(recipe, cfg_scale=1), studio, messages.append, check=lambda: None)
    assert facts["negative_pass"] == "skipped (CFG scale 1)"
    other_words = drawn(replace(recipe, cfg_scale=1, negative_prompt="something else"), studio)
    pixels = [numpy.asarray(Image.open(io.BytesIO(png))) for png in (messages[-1].png, other_words[0])]
    assert (pixels[0] == pixels[1]).all()
    nearly = numpy.asarray(Image.open(io.BytesIO(drawn(replace(recipe, cfg_scale=1.0001), studio)[0])))
    assert abs(pixels[0].astype(int) - nearly).max() <= 2


def test_prompts_of_different_length_are_drawn(studio: Studio, recipe: Recipe) -> None:
    """More than 75 tokens make a second chunk, on one side only."""
    messages: list[Message] = []
    facts = run(replace(recipe, prompt="a fox " * 60), studio, messages.append, check=lambda: None)
    assert "differ in length" in facts["negative_pass"]
    assert messages[-1].png != drawn(recipe, studio)[0]


def test_progress_counts_up_and_previews_come(studio: Studio, recipe: Recipe) -> None:
    messages: list[Message] = []
    run(replace(recipe, batch_count=2, sampler="Heun"), studio, messages.append, check=lambda: None)
    progress = [message for message in messages if isinstance(message, Progress)]
    places = [(message.picture, message.step) for message in progress]
    assert places == sorted(places)
    assert {(0, 0), (0, 4), (1, 0), (1, 4)} <= set(places)
    assert [phase for i, phase in enumerate(p.phase for p in progress) if i == 0 or progress[i - 1].phase != phase] == [
        *("load", "encode", "draw", "decode", "draw", "decode")
    ]
    assert progress[-1].seconds_left == 0
    preview = next(message for message in messages if isinstance(message, Preview))
    assert Image.open(io.BytesIO(preview.jpeg)).size == (64, 64)


@pytest.mark.parametrize("after", [1, 40, 400, 700])
def test_cancel_acts_in_the_middle_of_a_pass(after: int, studio: Studio, recipe: Recipe) -> None:
    """The very next layer is not computed, whichever network is at work, and the studio can go on."""
    whole = drawn(recipe, studio)
    check, calls = stopper(Cancelled, after)
    with pytest.raises(Cancelled):
        run(recipe, studio, lambda message: None, check)
    assert len(calls) == after
    assert drawn(recipe, studio) == whole


def test_cancel_keeps_what_is_finished_and_acts_in_decoding(studio: Studio, recipe: Recipe) -> None:
    messages: list[Message] = []

    def check() -> None:
        if any(isinstance(m, Progress) and (m.picture, m.phase) == (1, "decode") for m in messages):
            raise Cancelled

    with pytest.raises(Cancelled):
        run(replace(recipe, batch_size=3), studio, messages.append, check)
    assert [m.png for m in messages if isinstance(m, Picture)] == drawn(recipe, studio)


def test_skip_goes_on_with_the_next_batch(studio: Studio, recipe: Recipe) -> None:
    messages: list[Message] = []
    skipped = []

    def check() -> None:
        if not skipped and any(isinstance(m, Progress) and (m.picture, m.step) == (1, 1) for m in messages):
            skipped.append(True)
            raise Skipped

    facts = run(replace(recipe, batch_size=2, batch_count=2), studio, messages.append, check)
    assert [message.index for message in messages if isinstance(message, Picture)] == [0, 2, 3]
    assert (facts["pictures"], facts["skipped"]) == (3, 1)


def test_cancel_acts_while_loading(models: Path, tmp_path: Path, recipe: Recipe) -> None:
    fresh = Studio([models], [], tmp_path, device="cpu", precision="float32")
    check, calls = stopper(Cancelled, 5)
    with pytest.raises(Cancelled):
        run(recipe, fresh, lambda message: None, check)
    assert len(calls) == 5
    assert len(drawn(recipe, fresh)) == 1


def test_clip_skip_reads_an_earlier_layer_and_has_a_bound(studio: Studio, recipe: Recipe) -> None:
    assert drawn(replace(recipe, clip_skip=2), studio) != drawn(recipe, studio)
    with pytest.raises(CannotDraw, match="2 layers"):
        drawn(replace(recipe, clip_skip=3), studio)


def spoiled(path: Path, part: str) -> None:
    """A checkpoint in which one tensor is all NaN."""
    from modules.model_manager.layout import expected_tensors

    weights = ((name, values * numpy.float32("nan") if name == part else values) for name, values in random_weights(SMALL, 1))
    write_safetensors(path, expected_tensors(SMALL), "float32", weights)
    write_checkpoint(path.with_name("whole.safetensors"), SMALL, seed=1).with_suffix(".yaml").rename(path.with_suffix(".yaml"))


@pytest.mark.parametrize(
    ("part", "culprit"),
    [
        ("model.diffusion_model.middle_block.0.in_layers.2.weight", "the denoiser"),
        ("cond_stage_model.transformer.text_model.final_layer_norm.weight", "the text encoder"),
        ("first_stage_model.decoder.conv_out.weight", "the VAE"),
    ],
)
def test_weights_that_are_no_numbers_fail_with_the_reason(part: str, culprit: str, tmp_path: Path, recipe: Recipe) -> None:
    """No black picture: the run says which network it was."""
    spoiled(tmp_path / "eps.safetensors", part)
    messages: list[Message] = []
    with pytest.raises(CannotDraw, match=f"{culprit} of this checkpoint gave values that are no numbers") as failure:
        run(recipe, Studio([tmp_path], [], tmp_path, "cpu", "float32"), messages.append, check=lambda: None)
    assert "\n" not in str(failure.value)
    assert not any(isinstance(message, Picture) for message in messages)


def test_running_out_of_memory_is_explained(studio: Studio, recipe: Recipe) -> None:
    """Asks torch for more than any machine has, as a huge size would."""
    import torch

    def check() -> None:
        torch.empty(2**55)

    with pytest.raises(CannotDraw, match="not enough memory to draw 64x64 with eps.safetensors: choose a smaller size"):
        run(recipe, studio, lambda message: None, check)


def test_facts_say_what_happened(studio: Studio, recipe: Recipe) -> None:
    facts = run(recipe, studio, lambda message: None, check=lambda: None)
    assert (facts["device"], facts["number_format"], facts["checkpoint"]) == ("cpu", "float32", "eps.safetensors")
    assert {"load", "encode", "draw", "decode", "total"} <= facts["seconds"].keys()
    assert facts["peak_memory_bytes"] > 100e6
    assert facts["versions"]["torch"]
