"""Every layout in which people have their checkpoints is read as the same model."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import pytest
import safetensors.torch
import torch
import yaml

from modules.model_manager.architecture import SD15, Architecture
from modules.model_manager.canonical import canonical
from modules.model_manager.check import check_file
from modules.model_manager.config import Config
from modules.model_manager.headers import read_header
from modules.model_manager.layout import expected_tensors
from modules.model_manager.library import scan, scan_vaes
from modules.model_manager.reading import described
from modules.model_manager.recognise import recognise
from modules.model_manager.stored import Header, Refused, Stretch, TensorInfo
from modules.model_manager.tensors import open_tensors
from tests.checkpoints import INPAINTING, SD2, SMALL, as_open_clip, config_of, random_weights, write_checkpoint, write_open_clip
from tests.model_manager.bad_zips import TINY, legacy, tiny_weights

UNET = "model.diffusion_model."
TORCH = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}
NUMPY = {"F16": numpy.float16, "F32": numpy.float32}
TINY_SD2 = replace(SD2, unet=replace(SD2.unet, channels=(32,), attention=(True,)), vae=TINY.vae, text=replace(SD2.text, layers=1))
SD21 = replace(
    SD15,
    family="sd2",
    unet=replace(SD15.unet, context=1024, heads=0, head_width=64, linear_projection=True),
    text=replace(SD15.text, width=1024, layers=23, heads=16, feed_forward=4096, activation="gelu", padding=0),
)


def read_as(path: Path) -> tuple[Architecture, dict[str, numpy.ndarray]]:
    """The architecture and the values of all the tensors that it needs, by their canonical names."""
    header, architecture = described(path)
    with open_tensors(path, header) as tensors:
        return architecture, {
            name: tensors.read(name).view(NUMPY[header.tensors[name].dtype]).reshape(shape)
            for name, shape in expected_tensors(architecture).items()
        }


def equal(found: dict[str, numpy.ndarray], wanted: dict[str, numpy.ndarray]) -> bool:
    return found.keys() == wanted.keys() and all(numpy.array_equal(found[name], wanted[name]) for name in wanted)


@pytest.mark.parametrize("root", [lambda t: t, lambda t: {"state_dict": t, "epoch": 3}, lambda t: {"model": {"state_dict": t}}])
@pytest.mark.parametrize("zip_", [True, False])
def test_flat_and_nested_pickles_of_both_formats(tmp_path: Path, root: Callable[[dict], object], zip_: bool) -> None:
    torch.save(root(tiny_weights()), tmp_path / "a.ckpt", _use_new_zipfile_serialization=zip_)
    architecture, found = read_as(tmp_path / "a.ckpt")
    assert architecture == TINY
    assert equal(found, {name: weight.numpy() for name, weight in tiny_weights().items()})
    assert check_file(tmp_path / "a.ckpt").startswith("usable: sd1")


def test_legacy_storages_are_shared_and_strided_as_torch_reads_them(tmp_path: Path) -> None:
    storage = torch.arange(600, dtype=torch.float64)
    views = {"whole": storage, "part": storage[100:110], "turned": storage[:600].reshape(20, 30).T, "other": torch.arange(3)}
    legacy({"state_dict": views, "optimizer": [torch.ones(7)]})(tmp_path / "a.pt")
    header = read_header(tmp_path / "a.pt")
    kinds = {"F64": numpy.float64, "I64": numpy.int64}
    with open_tensors(tmp_path / "a.pt", header) as tensors:
        for name, view in views.items():
            info = header.tensors[name]
            assert numpy.array_equal(tensors.read(name).view(kinds[info.dtype]).reshape(info.shape), view.numpy())


@pytest.mark.parametrize("suffix", ["ckpt", "safetensors", "legacy"])
def test_number_formats_mixed_in_one_file(tmp_path: Path, suffix: str) -> None:
    dtypes = list(TORCH.values())
    weights = {name: weight.to(dtypes[place % len(dtypes)]) for place, (name, weight) in enumerate(tiny_weights().items())}
    path = tmp_path / f"a.{suffix.replace('legacy', 'ckpt')}"
    if suffix == "safetensors":
        safetensors.torch.save_file(weights, path)
    else:
        torch.save(weights, path, _use_new_zipfile_serialization=suffix == "ckpt")
    header, architecture = described(path)
    assert architecture == TINY
    with open_tensors(path, header) as tensors:
        for name, weight in weights.items():
            assert bytes(tensors.read(name)) == bytes(weight.view(torch.uint8).numpy())
    assert all(dtype in check_file(path) for dtype in TORCH)


@pytest.mark.parametrize(("kind", "nan"), [(torch.float8_e4m3fn, 0x7F), (torch.float8_e5m2, 0x7C)])
def test_weights_in_float8_that_are_not_finite_are_refused(tmp_path: Path, kind: torch.dtype, nan: int) -> None:
    weights = {name: weight.to(kind) for name, weight in tiny_weights().items()}
    weights[f"{UNET}out.2.bias"].view(torch.uint8)[1] = nan
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    with pytest.raises(Refused, match="out.2.bias holds numbers that are not finite"):
        check_file(tmp_path / "a.safetensors")


@pytest.mark.parametrize("wanted", [True, False])
def test_averages_of_the_weights_are_a_choice(tmp_path: Path, wanted: bool) -> None:
    weights = dict(tiny_weights())
    averages = {
        "model_ema." + name.removeprefix("model.").replace(".", ""): weight * 2 for name, weight in weights.items() if name.startswith(UNET)
    }
    torch.save({"state_dict": weights | averages | {"model_ema.num_updates": torch.tensor(5)}}, tmp_path / "a.ckpt")
    (tmp_path / "a.yaml").write_text(f"model: {{params: {{use_ema: {wanted}}}}}")
    _, found = read_as(tmp_path / "a.ckpt")
    for name, weight in weights.items():
        assert numpy.array_equal(found[name], (weight * 2 if wanted and name.startswith(UNET) else weight).numpy())


def test_averages_that_are_not_there_are_asked_for_in_vain(tmp_path: Path) -> None:
    torch.save(tiny_weights(), tmp_path / "a.ckpt")
    (tmp_path / "a.yaml").write_text("model: {params: {use_ema: true}}")
    assert "holds no averages" in scan([tmp_path])[0].reason


@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_open_clip_is_read_as_clip_without_its_last_layer(tmp_path: Path, suffix: str) -> None:
    weights = dict(random_weights(TINY_SD2, 5))
    path = tmp_path / f"a.{suffix}"
    if suffix == "safetensors":
        write_open_clip(path, TINY_SD2, seed=5)
    else:
        torch.save({name: torch.from_numpy(values) for name, values in as_open_clip(weights.items(), 1).items()}, path)
        path.with_suffix(".yaml").write_text(yaml.safe_dump(config_of(TINY_SD2)))
    architecture, found = read_as(path)
    assert architecture == TINY_SD2
    assert equal(found, weights)
    assert check_file(path).startswith("usable: sd2")


def of_shapes(architecture: Architecture) -> Header:
    shapes = {name: numpy.empty(shape, "V0") for name, shape in expected_tensors(architecture).items()}
    if architecture.family == "sd2":
        stored = as_open_clip(((n, numpy.broadcast_to(numpy.float16(0), v.shape)) for n, v in shapes.items()), architecture.text.layers)
    else:
        stored = shapes
    return Header("safetensors", canonical({n: TensorInfo("F16", v.shape, Stretch(0, 0, 0)) for n, v in stored.items()}), {}, {})


def with_inputs(architecture: Architecture) -> Architecture:
    return replace(architecture, unet=replace(architecture.unet, in_channels=9))


RELEASED = {"1.5": SD15, "1.5 inpainting": with_inputs(SD15), "2.1": SD21, "2 inpainting": with_inputs(SD21)}


@pytest.mark.parametrize("architecture", RELEASED.values(), ids=RELEASED)
def test_the_released_sizes_are_recognised_without_a_yaml(architecture: Architecture) -> None:
    assert recognise(of_shapes(architecture), Config({}, "")) == architecture


def test_an_inpainting_checkpoint_is_usable_and_says_so_by_its_inputs(tmp_path: Path) -> None:
    write_checkpoint(tmp_path / "a.safetensors", INPAINTING, dtype="float16")
    (found,) = scan([tmp_path])
    assert (found.status, found.architecture) == ("ok", INPAINTING)


@pytest.mark.parametrize("kind", TORCH)
@pytest.mark.parametrize(("spread", "prediction", "size"), [(0.02, "epsilon", 512), (0.2, "v", 768)])
def test_a_stable_diffusion_2_tells_by_its_weights_what_it_predicts(
    tmp_path: Path, spread: float, prediction: str, size: int, kind: str
) -> None:
    weights = {name: torch.from_numpy(values).half() for name, values in as_open_clip(random_weights(TINY_SD2, 5), 1).items()}
    last = f"{UNET}output_blocks.1.1.transformer_blocks.0.norm1.bias"
    weights[last] = (torch.randn(32, generator=torch.Generator().manual_seed(1)) * spread).to(TORCH[kind])
    safetensors.torch.save_file(weights, tmp_path / "a.safetensors")
    (tmp_path / "a.yaml").write_text("model: {params: {unet_config: {params: {num_head_channels: 16}}}}")
    _, architecture = described(tmp_path / "a.safetensors")
    factor = TINY_SD2.vae.factor
    assert (architecture.family, architecture.prediction, architecture.native_size) == ("sd2", prediction, size // factor * factor)
    (tmp_path / "a.yaml").write_text("model: {params: {parameterization: eps, unet_config: {params: {num_head_channels: 16}}}}")
    assert described(tmp_path / "a.safetensors")[1].prediction == "epsilon"


def test_a_vae_in_a_file_by_diffusers_is_a_vae(tmp_path: Path) -> None:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    from modules.engine.families.sd1 import vae_config

    AutoencoderKL(**vae_config(SMALL.vae)).save_pretrained(tmp_path / "vae" / "mse")
    (found,) = scan_vaes([tmp_path / "vae"])
    assert (found.name, found.status, found.shape) == ("mse/diffusion_pytorch_model.safetensors", "ok", SMALL.vae)
    assert "belongs in models/VAE" in scan([tmp_path / "vae"])[0].reason


def write_index(folder: Path, **values: object) -> None:
    folder.mkdir()
    (folder / "model_index.json").write_text(json.dumps({"_class_name": "StableDiffusionPipeline", **values}))


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        ({"_class_name": "StableDiffusionXLPipeline"}, "an SDXL model in diffusers' layout: not supported yet"),
        ({"_class_name": "StableDiffusion3Pipeline"}, "a StableDiffusion3Pipeline in diffusers' layout: not supported"),
        ({"_class_name": ["x"]}, "_class_name must be a plain value"),
        ({}, "incomplete: it has no weights in unet/; download the whole folder"),
    ],
)
def test_a_folder_that_is_no_checkpoint_of_ours_is_refused(tmp_path: Path, values: dict[str, object], reason: str) -> None:
    write_index(tmp_path / "some model.v1", **values)
    (found,) = scan([tmp_path])
    assert (found.name, found.status) == ("some model.v1", "refused")
    assert reason in found.reason


def test_a_pointer_in_a_folder_is_named(tmp_path: Path) -> None:
    write_index(tmp_path / "model")
    weights = tmp_path / "model" / "unet" / "diffusion_pytorch_model.safetensors"
    weights.parent.mkdir()
    weights.write_text("version https://git-lfs.github.com/spec/v1\n" + "x" * 80)
    assert scan([tmp_path])[0].reason.startswith("unet/diffusion_pytorch_model.safetensors: a Git LFS pointer")


def test_deep_json_in_a_folder_is_refused(tmp_path: Path) -> None:
    write_index(tmp_path / "model")
    (tmp_path / "model" / "model_index.json").write_text("[" * 5000)
    assert "nested too deeply" in scan([tmp_path])[0].reason


