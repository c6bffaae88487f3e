"""What people really have must load, and read equal to what torch and safetensors read."""

import io
import sys
import zipfile
from collections import Counter, OrderedDict, defaultdict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PosixPath
from types import ModuleType
from unittest.mock import patch

import numpy
import pytest
import safetensors.torch
import torch

from modules.model_manager.architecture import SD15, Architecture
from modules.model_manager.check import check_file
from modules.model_manager.config import Config
from modules.model_manager.headers import Refused, read_header
from modules.model_manager.layout import expected_tensors
from modules.model_manager.reading import described
from modules.model_manager.recognise import recognise
from modules.model_manager.stored import Header, Identity, Stretch, TensorInfo
from modules.model_manager.tensors import open_tensors
from tests.checkpoints import SMALL, random_weights, write_checkpoint
from tests.model_manager.bad_zips import TINY, tiny_members, tiny_weights, zipped

TYPES = {"F16": torch.float16, "BF16": torch.bfloat16, "F32": torch.float32, "F64": torch.float64, "I64": torch.int64}
TEXT = "cond_stage_model.transformer."


def read_all(path: Path) -> dict[str, torch.Tensor]:
    header = read_header(path)
    found = {name: torch.empty(info.shape, dtype=TYPES[info.dtype]) for name, info in header.tensors.items()}
    with open_tensors(path, header) as tensors:
        for name, tensor in found.items():
            tensors.read(name, into=tensor.reshape(-1).view(torch.uint8).numpy())
    return found


def same(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> bool:
    return found.keys() == wanted.keys() and all(torch.equal(found[name], wanted[name]) for name in wanted)


def lightning(path: Path) -> None:
    """What Lightning leaves beside the weights: a class as a key, numpy scalars, objects of its own, an optimizer."""
    name = "pytorch_lightning.callbacks.model_checkpoint"
    foreign = type("ModelCheckpoint", (), {"__module__": name})
    rest = {
        "epoch": 7,
        "global_step": 840000,
        "pytorch-lightning_version": "1.4.2",
        "callbacks": {foreign: {"best_model_score": numpy.float32(0.5), "at": numpy.arange(3), "by": foreign(), "in": PosixPath("a")}},
        "optimizer_states": [{"state": {0: {"step": 5, "exp_avg": torch.ones(3)}}, "param_groups": [{"betas": (0.9, 0.999)}]}],
        "lr_schedulers": [defaultdict(list), Counter("aab"), torch.Size([1]), torch.device("cpu"), torch.float16, {1, 2}, slice(3)],
    }
    modules = {part: ModuleType(part) for part in ("pytorch_lightning", "pytorch_lightning.callbacks", name)}
    modules[name].ModelCheckpoint = foreign  # type: ignore[attr-defined]
    with patch.dict(sys.modules, modules):
        torch.save({**rest, "state_dict": OrderedDict(tiny_weights())}, path)


def from_module(path: Path) -> None:
    """A module's own state_dict(): parameters, and `_metadata` put onto the dictionary after it was made."""
    table = OrderedDict((name, torch.nn.Parameter(weight)) for name, weight in tiny_weights().items())
    table._metadata = OrderedDict({"": {"version": 1}})  # type: ignore[attr-defined]
    torch.save(table, path)


def with_extras(path: Path) -> None:
    extras = {
        "betas": torch.ones(1000),
        "model_ema.decay": torch.tensor(0.9999),
        "model_ema.diffusion_modelout2weight": torch.zeros(3),
        f"{TEXT}text_model.embeddings.position_ids": torch.arange(77)[None],
        f"{TEXT}text_projection.weight": torch.zeros(2, 2),
        "first_stage_model.loss.logvar": torch.zeros(()),
    }
    torch.save({"state_dict": {**tiny_weights(), **extras}}, path)


def with_old_names(path: Path) -> None:
    torch.save({name.replace("transformer.text_model.", "transformer."): weight for name, weight in tiny_weights().items()}, path)


def deflated(path: Path) -> None:
    path.write_bytes(zipped(tiny_members(), zipfile.ZIP_DEFLATED))


def with_matrices_in_the_vae(path: Path) -> None:
    torch.save({name: weight.squeeze() if ".attn_1." in name else weight for name, weight in tiny_weights().items()}, path)


WRITERS = {
    "lightning": lightning,
    "flat": lambda path: torch.save(tiny_weights(), path),
    "module": from_module,
    "extras": with_extras,
    "old names": with_old_names,
    "deflated": deflated,
    "protocol 4": lambda path: torch.save(tiny_weights(), path, pickle_protocol=4),
    "matrices": with_matrices_in_the_vae,
    "safetensors called ckpt": lambda path: safetensors.torch.save_file(tiny_weights(), path),
}


@pytest.mark.parametrize("name", WRITERS)
def test_a_checkpoint_as_people_have_it_is_usable(tmp_path: Path, name: str) -> None:
    path = tmp_path / "model.ckpt"
    WRITERS[name](path)
    assert described(path)[1] == TINY
    found = read_all(path)
    assert all(torch.equal(found[name], weight.reshape(found[name].shape)) for name, weight in tiny_weights().items())
    assert check_file(path).startswith("usable: sd1, ")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("suffix", ["safetensors", "ckpt"])
def test_every_number_format_reads_as_their_own_readers_read_it(tmp_path: Path, dtype: torch.dtype, suffix: str) -> None:
    weights = {name: weight.to(dtype) for name, weight in tiny_weights().items()}
    path = tmp_path / f"model.{suffix}"
    save: Callable = torch.save if suffix == "ckpt" else safetensors.torch.save_file
    save(weights, path)
    theirs = torch.load(path, weights_only=True) if suffix == "ckpt" else safetensors.torch.load_file(path)
    assert same(read_all(path), theirs)
    assert next(format for format, kind in TYPES.items() if kind == dtype) in check_file(path).split(", ")


@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_views_of_storages_read_as_torch_reads_them(tmp_path: Path, compression: int) -> None:
    storage = torch.arange(5000, dtype=torch.float32)
    views = {
        "whole": storage,
        "again": storage,
        "slice": storage[100:200],
        "matrix": storage[1000:1600].reshape(20, 30),
        "transposed": storage[1000:1600].reshape(20, 30).T,
        "permuted": storage[:2400].reshape(2, 30, 40).permute(2, 0, 1),
        "every third": storage[::3],
        "scalar": storage[7],
        "empty": storage[5:5],
        "int": torch.arange(6),
    }
    buffer = io.BytesIO()
    torch.save(views, buffer)
    with zipfile.ZipFile(buffer) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    path = tmp_path / "views.pt"
    path.write_bytes(zipped(members, compression))
    assert same(read_all(path), views)
    assert same(dict(reversed(read_all(path).items())), views)


def test_a_tensor_is_read_into_the_callers_memory(tmp_path: Path) -> None:
    for format in ("safetensors", "ckpt"):
        path = write_checkpoint(tmp_path / f"a.{format}", TINY, format)
        target = torch.empty(32, 4, 3, 3)
        header = read_header(path)
        with open_tensors(path, header) as tensors:
            tensors.read("model.diffusion_model.input_blocks.0.0.weight", into=target.view(torch.uint8).reshape(-1).numpy())
            with pytest.raises(ValueError, match="needs a flat uint8 buffer of 4608 bytes"):
                tensors.read("model.diffusion_model.input_blocks.0.0.weight", into=numpy.empty(4607, numpy.uint8))
        wanted = dict(random_weights(TINY, 0))["model.diffusion_model.input_blocks.0.0.weight"]
        assert torch.equal(target, torch.from_numpy(wanted))


@pytest.mark.parametrize("change", [lambda path: path.write_bytes(path.read_bytes() + b"x"), lambda path: path.touch(), Path.unlink])
def test_a_file_that_changed_since_it_was_checked_is_not_read(tmp_path: Path, change: Callable[[Path], object]) -> None:
    path = write_checkpoint(tmp_path / "a.safetensors", TINY)
    header = read_header(path)
    change(path)
    with pytest.raises(Refused, match="has changed since|No such file"), open_tensors(path, header):
        pass


def test_a_file_cut_while_it_is_read_is_an_error_not_a_crash(tmp_path: Path) -> None:
    path = write_checkpoint(tmp_path / "a.safetensors", TINY)
    header = read_header(path)
    with pytest.raises(Refused, match="final_layer_norm.bias: the file ends early"), open_tensors(path, header) as tensors:  # noqa: SIM117
        with path.open("r+b") as file:
            file.truncate(path.stat().st_size - 1)
            tensors.read(f"{TEXT}text_model.final_layer_norm.bias")


DEEP = replace(
    SMALL,
    unet=replace(SMALL.unet, channels=(32, 64, 96), layers=2, attention=(False, True, True), linear_projection=True, context=128, heads=4),
    vae=replace(SMALL.vae, channels=(16, 48), layers=2, norm_groups=16, mid_attention=False, quant=False),
    text=replace(SMALL.text, width=128, heads=2, layers=3),
    prediction="v",
    scale_factor=0.2,
    native_size=96,
)
NO_MIDDLE = replace(SMALL, unet=replace(SMALL.unet, mid_attention=False, attention=(True, True)))


@pytest.mark.parametrize("architecture", [SMALL, DEEP, TINY, NO_MIDDLE])
def test_any_width_and_depth_is_recognised(tmp_path: Path, architecture: Architecture) -> None:
    path = write_checkpoint(tmp_path / "a.safetensors", architecture, dtype="float16")
    assert described(path)[1] == architecture


def test_the_size_of_sd15_is_recognised_without_a_yaml(tmp_path: Path) -> None:
    tensors = {name: TensorInfo("F16", shape, Stretch(0, 0, 0)) for name, shape in expected_tensors(SD15).items()}
    assert recognise(Header("safetensors", tensors, {}, {"": Identity(0, 0, 0, 0)}), Config({}, "")) == SD15
