"""A checkpoint as a folder in diffusers' layout: `model_index.json`, and each network with its `config.json` in a folder of its own."""

import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from modules.model_manager.canonical import canonical
from modules.model_manager.config import Config, read_config
from modules.model_manager.diffusers_names import Levels, text_name, unet_name
from modules.model_manager.headers import read_stored_header
from modules.model_manager.kinds import SUPPORTED
from modules.model_manager.layout import UNET, VAE
from modules.model_manager.stored import Header, Refused, TensorInfo, shown

INDEX = "model_index.json"
PARTS = {"unet": "diffusion_pytorch_model", "vae": "diffusion_pytorch_model", "text_encoder": "(?:model|pytorch_model)"}
SHARD = r"-\d+-of-\d+\.safetensors"
PREFERRED = (r"\.safetensors", SHARD, r"\.fp16\.safetensors", rf"\.fp16{SHARD}", r"\.bin", r"\.fp16\.bin")
CONFIGS = (*(f"{part}/config.json" for part in PARTS), "scheduler/scheduler_config.json")
KNOWN_CLASS = re.compile("StableDiffusion(?!3|XL)[A-Za-z]*Pipeline")
PREDICTIONS = {"epsilon": "eps", "v_prediction": "v"}


def is_folder_checkpoint(path: Path) -> bool:
    return os.path.isfile(path / INDEX)


def files_of(folder: Path) -> list[str]:
    """The files that such a checkpoint is made of, as paths below it; of several copies of its weights the one that is read."""
    weights = [name for part in PARTS for name in _weights(folder, part)]
    return [INDEX, *(name for name in CONFIGS if os.path.lexists(folder / name)), *weights]


def read_folder(folder: Path) -> Header:
    """What its files say about the networks' tensors, under their canonical names. Raises Refused with a line for the user."""
    _check_class(folder)
    tensors: dict[str, TensorInfo] = {}
    files = {}
    for part in PARTS:
        names = _weights(folder, part)
        if not names:
            raise Refused(f"incomplete: it has no weights in {part}/; download the whole folder")
        found: dict[str, TensorInfo] = {}
        for name in names:
            header = _read(folder, name)
            files[name] = header.files[""]
            found |= {key: replace(tensor, stretch=replace(tensor.stretch, file=name)) for key, tensor in header.tensors.items()}
        found = canonical(found)
        rename = _renamer(part, found)
        tensors |= {rename(key): tensor for key, tensor in found.items()}
    return Header("folder", tensors, {}, files)


def folder_config(folder: Path) -> Config:
    """What its `config.json` files say, in the places of a CompVis-style `.yaml`. Raises Refused with the value that is wrong."""
    unet, vae, text, scheduler = (_config(folder, name) for name in CONFIGS)
    prediction = scheduler.choice((), "prediction_type", "", ("", *PREDICTIONS))
    values = {
        "parameterization": PREDICTIONS.get(prediction),
        "image_size": unet.text((), "sample_size"),
        "scale_factor": vae.text((), "scaling_factor"),
        "unet_config": {"params": _heads(unet)},
        "first_stage_config": {"params": {"ddconfig": {"norm_num_groups": vae.text((), "norm_num_groups")}}},
        "cond_stage_config": {"params": {"hidden_act": text.text((), "hidden_act")}},
    }
    return Config({"model": {"params": values}}, "its config.json")


def _weights(folder: Path, part: str) -> list[str]:
    """The files of the first kind there is, best first: whole and safetensors before half and pickled ones."""
    try:
        names = sorted(os.listdir(folder / part))
    except OSError:
        return []
    for ending in PREFERRED:
        if found := [f"{part}/{name}" for name in names if re.fullmatch(PARTS[part] + ending, name)]:
            return found
    return []


def _check_class(folder: Path) -> None:
    name = read_config(folder / INDEX).text((), "_class_name") or "nothing"
    if "XL" in name or os.path.isdir(folder / "text_encoder_2"):
        raise Refused(f"an SDXL model in diffusers' layout: not supported yet; {SUPPORTED}")
    if not KNOWN_CLASS.fullmatch(name):
        raise Refused(f"a {shown(name)} in diffusers' layout: not supported; {SUPPORTED}")


def _read(folder: Path, name: str) -> Header:
    try:
        return read_stored_header(folder / name)
    except Refused as refusal:
        raise Refused(f"{shown(name)}: {refusal}") from refusal


def _config(folder: Path, name: str) -> Config:
    return read_config(folder / name if os.path.lexists(folder / name) else None)


def _heads(unet: Config) -> dict[str, str]:
    """`attention_head_dim` has meant the number of heads since Stable Diffusion 1: one, or one a level where each has its width."""
    table = unet.values if isinstance(unet.values, dict) else {}
    heads, channels = table.get("attention_head_dim"), table.get("block_out_channels")
    if not isinstance(heads, list):
        return {"num_heads": unet.text((), "attention_head_dim") or "8"}
    if len(set(map(str, heads))) == 1:
        return {"num_heads": str(heads[0])}
    try:
        widths = {int(width) / int(count) for width, count in zip(channels, heads, strict=True)}
    except (TypeError, ValueError, ArithmeticError):
        widths = set()
    if len(widths) != 1:
        raise Refused("unet/config.json: attention_head_dim does not fit block_out_channels")
    return {"num_head_channels": f"{widths.pop():g}"}


def _renamer(part: str, tensors: dict[str, TensorInfo]) -> Callable[[str], str]:
    if part == "vae":
        return lambda name: VAE + name
    if part == "text_encoder":
        return text_name
    layers = len({name.split(".")[3] for name in tensors if name.startswith("down_blocks.0.resnets.")})
    blocks = {int(found[1]) for name in tensors if (found := re.match(r"down_blocks\.(\d)\.", name))}
    levels = Levels(layers, tuple(f"down_blocks.{block}.attentions.0.norm.weight" in tensors for block in sorted(blocks)))

    def rename(name: str) -> str:
        try:
            return unet_name(name, levels)
        except (ValueError, KeyError, IndexError):  # of a denoiser that has more than ours: it will be one tensor too many
            return UNET + name

    return rename
