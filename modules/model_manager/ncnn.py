"""Weights in ncnn's format as .safetensors: a text that lists the layers (`.param`) and their numbers in that order (`.bin`).

https://github.com/Tencent/ncnn/wiki/param-and-model-file-structure. Only what Real-ESRGAN's networks are made of is read.
"""

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import numpy
from safetensors.numpy import save_file

from modules.model_manager.stored import Refused

HALF = 0x01306B47  # before weights in float16; what is in float32 has 0
MAGIC = "7767517"
KERNEL = 9

Weights = dict[str, numpy.ndarray]


def convert(param: Path, target: Path, about: dict[str, str]) -> None:
    """Writes the network of `param` and the `.bin` beside it to `target` (.safetensors, whole or not at all), with `about` as metadata.

    OSError if that cannot be written, Refused if the files are not what they should be.
    """
    weights = read(param.read_text("utf-8", "replace"), param.with_suffix(".bin").read_bytes())
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.parent / f".{secrets.token_hex(8)}.tmp"
    try:
        save_file(weights, temporary, about)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, target)
    finally:
        with contextlib.suppress(FileNotFoundError):
            temporary.unlink()


def read(param: str, data: bytes) -> Weights:
    """The tensors under the names that Real-ESRGAN's own files give them. Refused if these are not such files, or no longer whole."""
    try:
        layers = list(_layers(param))
    except (ValueError, LookupError):
        raise Refused("damaged: one of its layers is written as none is") from None
    names = _compact_names(len(layers)) if any(kind == "PReLU" for kind, _, _ in layers) else _rrdb_names(len(layers))
    if len(names) != len(layers):
        raise Refused(f"not one of Real-ESRGAN's networks: {len(layers)} layers")
    weights, at = {}, 0
    for name, (kind, outputs, size) in zip(names, layers, strict=True):
        if kind == "PReLU":
            weights[f"{name}.weight"], at = _numbers(data, at, outputs, "<f4")
            continue
        tag, at = _numbers(data, at, 1, "<u4")
        if tag[0] not in (0, HALF):
            raise Refused(f"damaged, or in a number format that is not known: {name} begins with {tag[0]:#010x}")
        if outputs < 1 or size < 1 or size % (outputs * KERNEL):
            raise Refused(f"damaged: {name} has {size} weights for {outputs} outputs")
        flat, at = _numbers(data, at, size, "<f2" if tag[0] == HALF else "<f4")
        weights[f"{name}.weight"] = flat.reshape(outputs, size // KERNEL // outputs, 3, 3)
        weights[f"{name}.bias"], at = _numbers(data, -(-at // 4) * 4, outputs, "<f4")
    if at != len(data):
        raise Refused(f"damaged: {len(data)} bytes where its layers need {at}")
    return weights


def _layers(param: str) -> Iterator[tuple[str, int, int]]:
    """(kind, outputs, weights) of each layer that has numbers."""
    first, *lines = param.splitlines() or [""]
    if first != MAGIC:
        raise Refused("not a network in ncnn's format")
    for line in filter(str.strip, lines):
        kind, *words = line.split()
        if kind in ("Convolution", "PReLU"):
            settings = dict(word.split("=", 1) for word in words if "=" in word)
            yield kind, int(settings["0"]), int(settings.get("6", 0))


def _compact_names(layers: int) -> list[str]:
    return [f"body.{at}" for at in range(layers)]


def _rrdb_names(layers: int) -> list[str]:
    blocks = (layers - 6) // 15
    dense = [f"body.{block}.rdb{part}.conv{at}" for block in range(blocks) for part in (1, 2, 3) for at in range(1, 6)]
    return ["conv_first", *dense, "conv_body", "conv_up1", "conv_up2", "conv_hr", "conv_last"]


def _numbers(data: bytes, at: int, count: int, kind: str) -> tuple[numpy.ndarray, int]:
    """So many numbers from the byte `at` on, and where they end."""
    end = at + count * numpy.dtype(kind).itemsize
    if not at <= end <= len(data):
        raise Refused(f"cut short: {len(data)} bytes")
    return numpy.frombuffer(data, kind, count, at), end
