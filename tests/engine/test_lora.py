"""LoRAs in the networks: the right sums on the right layers, and nothing left behind."""

import io
import itertools
import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import safetensors.numpy
import torch
from diffusers.loaders.lora_conversion_utils import _convert_non_diffusers_lora_to_diffusers
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from PIL import Image
from torch import nn
from transformers.models.clip.configuration_clip import CLIPTextConfig
from transformers.models.clip.modeling_clip import CLIPTextModel

from modules.engine.families.sd1 import text_config, unet_config
from modules.engine.lora import Change, Difference, applied, read, text_layers, unet_layers
from modules.engine.run import run
from modules.engine.stop import Cancelled, CannotDraw
from modules.engine.studio import Studio, Warm
from modules.jobs.messages import Message, Picture
from modules.model_manager.architecture import SD15, Architecture
from modules.model_manager.layout import UNET, expected_tensors
from modules.model_manager.lora_names import TEXT, layers_of, spelled
from modules.recipe.fields import Recipe
from modules.recipe.prompt import Network
from tests.checkpoints import SMALL, random_weights, write_checkpoint, write_safetensors
from tests.loras import CONV, PROJ_IN, Q_PROJ, TO_K, USUAL, Weights, parts, shape_of, weights, write_lora

LINEAR = replace(SMALL, unet=replace(SMALL.unet, channels=(32, 64, 64), layers=2, attention=(False, True, True), linear_projection=True))
FOX = "a red fox"
LORA_UNET = "lora_unet_"


def no_check() -> None:
    pass


def stopper(after: int) -> Callable[[], None]:
    """A check that raises at its `after`th call."""
    calls = itertools.count(1)

    def check() -> None:
        if next(calls) == after:
            raise Cancelled

    return check


def layers_built(architecture: Architecture) -> dict[str, nn.Module]:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**unet_config(architecture.unet))
        encoder = CLIPTextModel(CLIPTextConfig(**text_config(architecture.text)))
    return {**unet_layers(unet), **text_layers(encoder)}


def snapshot(warm: Warm) -> dict[str, torch.Tensor]:
    networks = {"unet": warm.family.unet, "text": warm.family.text}
    return {f"{name}.{key}": value.clone() for name, network in networks.items() for key, value in network.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) and one[key].dtype == other[key].dtype for key in one)


def drawn(recipe: Recipe, studio: Studio) -> bytes:
    messages: list[Message] = []
    run(recipe, studio, messages.append, check=no_check)
    return next(message.png for message in messages if isinstance(message, Picture))


def pixels(png: bytes) -> bytes:
    return Image.open(io.BytesIO(png)).tobytes()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lora")
    write_checkpoint(folder / "eps.safetensors", SMALL, seed=1)
    write_lora(folder / "Lora/usual.safetensors")
    return folder


@pytest.fixture(scope="module")
def own(folder: Path) -> Studio:
    return Studio([folder], [], folder, "cpu", "float32", lora_roots=[folder / "Lora"])


@pytest.fixture
def warm(own: Studio) -> Iterator[Warm]:
    warm = own.warm("eps.safetensors", "None", lambda fraction: None)
    before = snapshot(warm)
    yield warm
    assert same(snapshot(warm), before)


@pytest.mark.parametrize("architecture", [SMALL, LINEAR, SD15], ids=["small", "linear", "SD 1.5"])
def test_every_layer_has_the_name_and_shape_that_the_check_expects(architecture: Architecture) -> None:
    built = {name: tuple(layer.weight.shape) for name, layer in layers_built(architecture).items()}
    assert built == dict(layers_of(architecture).values())


def test_diffusers_names_for_kohyas_layers_lead_back_to_them() -> None:
    """kohya's name, translated by diffusers' own converter into diffusers' older names, is read as the same layer."""
    wanted = [name for name in layers_built(SD15) if "attentions" in name or name.startswith(TEXT)]
    file = {f"{name}.{part}": torch.zeros(1) for name in wanted for part in ("lora_down.weight", "lora_up.weight", "alpha")}
    converted, _ = _convert_non_diffusers_lora_to_diffusers(file)
    assert sum("processor.to_out_lora" in name for name in converted) == 64
    assert {spelled(name) for name in converted} == {(name, part) for name in wanted for part in ("down", "up")}


def test_a_file_adds_scale_times_up_times_down_and_leaves_the_weights_as_they_were(own: Studio, warm: Warm) -> None:
    before, tensors = snapshot(warm), weights()
    layers = {**unet_layers(warm.family.unet), **text_layers(warm.family.text)}
    plain = {name: layer.weight for name, layer in layers.items()}
    with own.adapted(warm, [Network("usual", text=0.5, unet=-2.0)], no_check):
        for name, layer in layers.items():
            if name not in USUAL:
                assert layer.weight is plain[name]
                continue
            down, up = (tensors[f"{name}.lora_{part}.weight"].astype("float64") for part in ("down", "up"))
            times = (0.5 if name == Q_PROJ else -2.0) * 1.0 / 2
            expected = plain[name].double().numpy() + times * (up.reshape(len(up), -1) @ down.reshape(len(down), -1)).reshape(
                layer.weight.shape
            )
            assert not torch.equal(layer.weight, plain[name])
            assert numpy.allclose(layer.weight.numpy(), expected, atol=1e-6)
    assert all(layer.weight is plain[name] for name, layer in layers.items())
    assert same(snapshot(warm), before)


def test_whatever_ends_the_block_the_weights_come_back(own: Studio, warm: Warm) -> None:
    for after in range(1, 2 * len(USUAL) + 1):  # reading each layer, changing each layer
        with pytest.raises(Cancelled), own.adapted(warm, [Network("usual", 1.0, 1.0)], stopper(after)):
            pass
    with pytest.raises(ZeroDivisionError), own.adapted(warm, [Network("usual", 1.0, 1.0)], no_check):
        1 / 0  # noqa: B018


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sums_are_rounded_once_and_keep_format_and_layout(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    layer = nn.Conv2d(8, 16, 3).to(dtype=dtype, memory_format=torch.channels_last)
    twice = [Difference(torch.randn(4, 8, 3, 3), torch.randn(16, 4, 1, 1), None, scale) for scale in (0.01, 0.003)]
    own = layer.weight
    with applied({"x": layer}, [Change("", None, times, {"x": d}) for times, d in zip((1.0, 0.5), twice, strict=True)], no_check):
        expected = own.double() + sum(
            t * d.scale * torch.einsum("or,rikl->oikl", d.up[:, :, 0, 0].double(), d.down.double())
            for t, d in zip((1.0, 0.5), twice, strict=True)
        )
        assert layer.weight.dtype == dtype and layer.weight.is_contiguous(memory_format=torch.channels_last)
        assert (layer.weight.double() - expected).abs().max() <= torch.finfo(dtype).eps * expected.abs().max()
    assert layer.weight is own


def test_a_tucker_decomposition_is_multiplied_out() -> None:
    rng = torch.Generator().manual_seed(3)
    down, up, mid = (torch.randn(shape, generator=rng) for shape in ((2, 5, 1, 1), (7, 2, 1, 1), (2, 2, 3, 3)))
    weight = torch.zeros(7, 5, 3, 3)
    found = Difference(down, up, mid, 0.5).at(weight)
    image = torch.randn(1, 5, 6, 6, generator=rng)
    in_turn = nn.functional.conv2d(nn.functional.conv2d(nn.functional.conv2d(image, down), mid), up)
    assert torch.allclose(nn.functional.conv2d(image, found), 0.5 * in_turn, atol=1e-5)


PATHS = {  # kohya's name -> the module's, the key of an attention processor, CompVis's
    TO_K: ("mid_block.attentions.0.transformer_blocks.0.attn2.to_k", "middle_block_1_transformer_blocks_0_attn2_to_k"),
    CONV: ("mid_block.resnets.0.conv1", "middle_block_0_in_layers_2"),
    PROJ_IN: ("mid_block.attentions.0.proj_in", "middle_block_1_proj_in"),
    "lora_unet_up_blocks_1_attentions_1_transformer_blocks_0_attn1_to_out_0": (
        "up_blocks.1.attentions.1.transformer_blocks.0.attn1.to_out.0",
        "output_blocks_3_1_transformer_blocks_0_attn1_to_out_0",
    ),
    Q_PROJ: ("text_model.encoder.layers.0.self_attn.q_proj", None),
}


def respelled(tensors: Weights, spelling: str) -> Weights:
    found = {}
    for layer, (path, compvis) in PATHS.items():
        down, up = tensors[f"{layer}.lora_down.weight"], tensors[f"{layer}.lora_up.weight"]
        network = "text_encoder" if compvis is None else "unet"
        attention = path.replace(".to_", ".processor.to_").replace(".to_out.0", ".to_out") if ".to_" in path else None
        names = {
            "kohya": (f"{layer}.lora_down.weight", f"{layer}.lora_up.weight"),
            "compvis": (f"{LORA_UNET}{compvis}.lora_down.weight", f"{LORA_UNET}{compvis}.lora_up.weight"),
            "peft": (f"{network}.{path}.lora_A.weight", f"{network}.{path}.lora_B.weight"),
            "bare peft": (f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"),
            "flat": (
                f"{network}.{path.removeprefix('text_model.')}.lora.down.weight",
                f"{network}.{path.removeprefix('text_model.')}.lora.up.weight",
            ),
            "processors": (f"unet.{attention}_lora.down.weight", f"unet.{attention}_lora.up.weight"),
        }
        names["processors"] = names["processors"] if attention else names["flat"]
        if network == "text_encoder":
            names["compvis"] = names["kohya"]
            names["processors"] = tuple(f"text_encoder.{path}.lora_linear_layer.{part}.weight" for part in ("down", "up"))
        found |= dict(zip(names[spelling], (down, up), strict=True))
    return found


@pytest.mark.parametrize("spelling", ["kohya", "compvis", "peft", "bare peft", "flat", "processors"])
def test_every_spelling_means_the_same_layers(spelling: str, tmp_path: Path) -> None:
    tensors = weights(PATHS)
    path = write_lora(tmp_path / "a.safetensors", respelled(tensors, spelling))
    changes = read(path, Network("a", 1.0, 1.0), SMALL, no_check)
    found = {layer: difference for change in changes for layer, difference in change.differences.items()}
    assert found.keys() == PATHS.keys()
    for layer, difference in found.items():
        assert numpy.array_equal(difference.up.numpy(), tensors[f"{layer}.lora_up.weight"]) and difference.scale == 1


def test_a_convolutions_lora_may_be_written_flat_and_alpha_as_a_whole_number(own: Studio, warm: Warm, folder: Path) -> None:
    down, up = parts((*shape_of(PROJ_IN)[:2],), 2, 5)
    tensors = {f"{PROJ_IN}.lora_down.weight": down, f"{PROJ_IN}.lora_up.weight": up, f"{PROJ_IN}.alpha": numpy.array(4)}
    write_lora(folder / "Lora/flat.safetensors", tensors)
    layer = unet_layers(warm.family.unet)[PROJ_IN]
    before = layer.weight.clone()
    with own.adapted(warm, [Network("flat", 1.0, 1.0)], no_check):
        assert torch.allclose(layer.weight - before, torch.from_numpy(2 * up @ down)[:, :, None, None], atol=1e-6)


def test_a_picture_with_a_lora_is_that_of_a_checkpoint_it_was_merged_into(own: Studio, folder: Path, recipe: Recipe) -> None:
    """With rank 1 and powers of two every sum has one rounding, so the pictures are the same to the bit."""
    plain = drawn(recipe, own)
    tensors = weights(USUAL, rank=1, alpha=0.5)
    write_lora(folder / "Lora/one.safetensors", tensors)
    compvis = {
        TO_K: f"{UNET}middle_block.1.transformer_blocks.0.attn2.to_k.weight",
        PROJ_IN: f"{UNET}middle_block.1.proj_in.weight",
        CONV: f"{UNET}middle_block.0.in_layers.2.weight",
        Q_PROJ: "cond_stage_model.transformer.text_model.encoder.layers.0.self_attn.q_proj.weight",
    }
    merged = dict(random_weights(SMALL, 1))
    for layer, name in compvis.items():
        down, up = (tensors[f"{layer}.lora_{part}.weight"] for part in ("down", "up"))
        merged[name] = merged[name] + numpy.float32(0.5) * (up.reshape(len(up), 1) * down.reshape(1, -1)).reshape(merged[name].shape)
    write_safetensors(folder / "merged.safetensors", expected_tensors(SMALL), "float32", merged.items())
    shutil.copy(folder / "eps.yaml", folder / "merged.yaml")
    with_lora = drawn(replace(recipe, prompt=f"{FOX}<lora:one:1>"), own)
    assert pixels(drawn(replace(recipe, prompt=FOX), own)) == pixels(plain) != pixels(with_lora)
    assert pixels(drawn(replace(recipe, prompt=FOX, checkpoint="merged.safetensors"), own)) == pixels(with_lora)


def test_the_second_pass_of_hires_fix_has_the_loras_of_its_own_prompt(own: Studio, warm: Warm, recipe: Recipe) -> None:
    """To the bit: as one draws the small picture and changes the large one in two jobs."""
    recipe = replace(recipe, prompt=f"{FOX}<lora:usual:1>", denoising_strength=0.5)
    twice = replace(recipe, hires=True, hires_scale=1.5, hires_upscaler="Nearest", hires_prompt=f"{FOX}<lora:usual:0.3>")
    small = Image.open(io.BytesIO(drawn(recipe, own))).resize((96, 96), Image.Resampling.NEAREST)
    file = io.BytesIO()
    small.save(file, "PNG")
    changed = replace(recipe, prompt=twice.hires_prompt, init_image=own.shelf.keep(file.getvalue()), width=96, height=96, steps=8)
    assert pixels(drawn(twice, own)) == pixels(drawn(changed, own)) != pixels(drawn(replace(twice, hires_prompt=""), own))
    messages: list[Message] = []
    run(replace(twice, seed=6, batch_count=2), own, messages.append, check=no_check)
    assert [message.png for message in messages if isinstance(message, Picture)][1] == drawn(twice, own)
    with pytest.raises(CannotDraw, match="nothing"):
        drawn(replace(twice, hires_prompt="<lora:nothing:1>"), own)


def test_the_text_encoder_alone_the_u_net_alone_and_neither(own: Studio, recipe: Recipe) -> None:
    def picture(tag: str) -> bytes:
        return pixels(drawn(replace(recipe, prompt=FOX + tag), own))

    plain, both = picture(""), picture("<lora:usual:1>")
    text, unet = picture("<lora:usual:1:0>"), picture("<lora:usual:0:1>")
    assert len({plain, both, text, unet}) == 4
    assert picture("<lora:usual:0>") == plain == picture("<lora:usual:0.5><lora:usual:-0.5>")
    assert picture("<lyco:usual:unet=1:te=1>") == both == picture("<lora:usual:0.5><lora:usual:0.5>")
    assert picture("<lora:usual:1:0>") == text  # prompts are kept encoded for each state of the text encoder


def test_a_batch_keeps_its_loras_and_a_cancelled_job_leaves_none(own: Studio, warm: Warm, recipe: Recipe) -> None:
    recipe = replace(recipe, prompt=f"{FOX}<lora:usual:1>", batch_count=2)
    messages: list[Message] = []
    run(recipe, own, messages.append, check=no_check)
    second = [message.png for message in messages if isinstance(message, Picture)][1]
    assert pixels(second) == pixels(drawn(replace(recipe, seed=recipe.seed + 1, batch_count=1), own))
    for after in (3, 10, 200):
        with pytest.raises(Cancelled):
            run(recipe, own, lambda message: None, stopper(after))
        assert warm.text_loras == ()


@pytest.mark.parametrize(
    ("tag", "reason"),
    [
        ("<lora:usul:1>", "there is no LoRA usul; did you mean usual"),
        ("<lora:wide:1>", "wide cannot be used: for a model of another size"),
        ("<lora:spoiled:1>", "spoiled cannot be used: it would give lora_unet.* weights that are no numbers"),
        ("<lora:usual:1e39>", "usual cannot be used: it would give"),
    ],
)
def test_what_cannot_be_used_is_said_in_one_line(tag: str, reason: str, own: Studio, warm: Warm, folder: Path, recipe: Recipe) -> None:
    write_lora(folder / "Lora/wide.safetensors", weights([TO_K], architecture=SD15))
    spoiled = weights([TO_K])
    spoiled[f"{TO_K}.lora_up.weight"][0] = numpy.nan
    write_lora(folder / "Lora/spoiled.safetensors", spoiled)
    with pytest.raises(CannotDraw, match=reason) as failure:
        drawn(replace(recipe, prompt=FOX + tag), own)
    assert "\n" not in str(failure.value)


def test_a_lora_that_training_writes_is_read(own: Studio, warm: Warm, folder: Path) -> None:
    """The names of the layers as a trainer gets them, and its tensors, are all that a file needs."""
    linear = {name: layer for name, layer in text_layers(warm.family.text).items() if isinstance(layer, nn.Linear)}
    trained = {}
    for name, layer in linear.items():
        trained[f"{name}.lora_down.weight"] = torch.randn(4, layer.in_features).numpy()
        trained[f"{name}.lora_up.weight"] = torch.zeros(layer.out_features, 4).numpy()
        trained[f"{name}.alpha"] = numpy.float32(4)
    safetensors.numpy.save_file({name: numpy.asarray(values) for name, values in trained.items()}, folder / "Lora/trained.safetensors")
    with own.adapted(warm, [Network("trained", 1.0, 1.0)], no_check):
        assert len(warm.text_loras) == 1
