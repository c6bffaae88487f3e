"""The header of a `.safetensors` file, checked: https://github.com/huggingface/safetensors#format."""

import json
import math
from typing import BinaryIO

from modules.model_manager.stored import (
    ITEM_SIZE,
    MAX_NAME,
    MAX_TENSORS,
    Header,
    Identity,
    Refused,
    Stretch,
    TensorInfo,
    amount,
    check_shape,
    read_exactly,
    shown,
)

MAX_HEADER = 8 * 2**20


def read_safetensors(file: BinaryIO, identity: Identity) -> Header:
    """The header of this file. Raises Refused unless its tensors cover the rest of the file exactly, each byte once."""
    length = int.from_bytes(read_exactly(file, 0, 8), "little")
    if length > MAX_HEADER:
        raise Refused(f"damaged: its header would be {amount(length)} long")
    if 8 + length > identity.size:
        raise Refused(f"incomplete: {amount(identity.size)}, not even its {amount(length)} header; download it again")
    entries = _parse(read_exactly(file, 8, length))
    metadata = _metadata(entries.pop("__metadata__", {}))
    if len(entries) > MAX_TENSORS:
        raise Refused(f"holds {len(entries)} tensors, more than the {MAX_TENSORS} that are read")
    tensors = {name: _tensor(name, entry, 8 + length) for name, entry in entries.items()}
    _cover(tensors, 8 + length, identity.size)
    return Header("safetensors", tensors, metadata, {"": identity})


def _parse(text: bytes) -> dict[str, object]:
    try:
        entries = json.loads(text.decode("utf-8"), object_pairs_hook=_without_duplicates)
    except Refused:
        raise
    except (ValueError, RecursionError) as error:
        raise Refused("damaged: its header is not readable JSON; download it again") from error
    if not isinstance(entries, dict):
        raise Refused("damaged: its header is not a table of tensors; download it again")
    return entries


def _without_duplicates(pairs: list[tuple[str, object]]) -> dict[str, object]:
    table = dict(pairs)
    if len(table) != len(pairs):
        seen: set[str] = set()
        twice = next(name for name, _ in pairs if name in seen or seen.add(name))
        raise Refused(f"damaged: {shown(twice)} is named twice in its header")
    return table


def _metadata(entry: object) -> dict[str, str]:
    if not isinstance(entry, dict) or not all(isinstance(value, str) for value in entry.values()):
        raise Refused("damaged: the metadata in its header is not plain text")
    return entry


def _tensor(name: str, entry: object, data: int) -> TensorInfo:
    if len(name) > MAX_NAME or not name.isprintable():
        raise Refused(f"damaged: {shown(name)} is not a tensor's name")
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        raise Refused(f"damaged: the header's entry for {shown(name)} is malformed")
    dtype, shape, offsets = entry["dtype"], _numbers(name, entry["shape"]), _numbers(name, entry["data_offsets"])
    if not isinstance(dtype, str) or dtype not in ITEM_SIZE:
        said = shown(dtype) if isinstance(dtype, str) else "not even named"
        raise Refused(f"{shown(name)} is in a number format that is not known: {said}")
    check_shape(name, shape)
    if len(offsets) != 2 or not 0 <= offsets[0] <= offsets[1]:
        raise Refused(f"damaged: the offsets of {shown(name)} make no sense")
    size = offsets[1] - offsets[0]
    if size != ITEM_SIZE[dtype] * math.prod(shape):
        raise Refused(f"damaged: {shown(name)} has {size} bytes, its shape and number format need {ITEM_SIZE[dtype] * math.prod(shape)}")
    return TensorInfo(dtype, shape, Stretch(data + offsets[0], size, size))


def _numbers(name: str, entry: object) -> tuple[int, ...]:
    if not isinstance(entry, list) or not all(type(number) is int for number in entry):
        raise Refused(f"damaged: the header's entry for {shown(name)} is malformed")
    if any(abs(number) >= 2**63 for number in entry):
        raise Refused(f"damaged: the numbers of {shown(name)} are out of range")
    return tuple(entry)


def _cover(tensors: dict[str, TensorInfo], start: int, end: int) -> None:
    at = start
    for name, tensor in sorted(tensors.items(), key=lambda item: (item[1].stretch.offset, item[1].stretch.size)):
        if tensor.stretch.offset != at:
            problem = "overlaps the one before it" if tensor.stretch.offset < at else "leaves a hole before it"
            raise Refused(f"damaged: {shown(name)} {problem}")
        at += tensor.stretch.size
    if at > end:
        raise Refused(f"incomplete: {amount(end)} of {amount(at)} ({at - end:,} bytes are missing); download it again")
    if at < end:
        raise Refused(f"damaged: {amount(end - at)} after its last tensor belong to nothing")
