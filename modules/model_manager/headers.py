"""What lies in a model file, decided by its first bytes and never by its name."""

from dataclasses import replace
from pathlib import Path
from typing import BinaryIO

from modules.model_manager.canonical import canonical
from modules.model_manager.safetensors_header import read_safetensors
from modules.model_manager.stored import Header, Refused, Stretch, TensorInfo, identify, open_regular, read_exactly
from modules.model_manager.torch_legacy import read_torch_legacy
from modules.model_manager.torch_zip import read_torch_zip

__all__ = ["Header", "Refused", "Stretch", "TensorInfo", "read_header"]

NOT_MODELS = (
    (b"GGUF", "a GGUF file: not supported; get the .safetensors of this model"),
    (b"version https://git-lfs", "a Git LFS pointer, not the model itself: run `git lfs pull`, or download the file"),
    (b"\x89HDF", "a Keras (HDF5) file: not supported; get the .safetensors of this model"),
    (b"\x1f\x8b", "a gzip archive: unpack it"),
    (b"7z\xbc\xaf", "a 7z archive: unpack it"),
    (b"Rar!", "a RAR archive: unpack it"),
    (b"\x89PNG", "a picture, not a model"),
    (b"\xff\xd8\xff", "a picture, not a model"),
    (b"{", "a JSON text, not a model: the download failed, or it is a configuration"),
)
PICKLE_PROTOCOL = b"\x05"  # the highest there is


def read_header(path: Path) -> Header:
    """What the file says about its tensors, under their canonical names. Raises Refused with a line for the user."""
    header = read_stored_header(path)
    return replace(header, tensors=canonical(header.tensors))


def read_stored_header(path: Path) -> Header:
    """What the file says, as it says it; reads no weights and executes nothing. Raises Refused with a line for the user."""
    with open_regular(path) as file:
        identity = identify(file)
        if not identity.size:
            raise Refused("an empty file: download it again")
        first = read_exactly(file, 0, min(512, identity.size))
        if first[4:9] == b"\0\0\0\0{":
            return read_safetensors(file, identity)
        if first.startswith(b"PK\x03\x04"):
            return read_torch_zip(file, identity)
        if first[:1] == b"\x80" and b"\0" <= first[1:2] <= PICKLE_PROTOCOL:
            return read_torch_legacy(file, identity)
        raise Refused(_what_else(first, file, identity.size))


def _what_else(first: bytes, file: BinaryIO, size: int) -> str:
    text = first.lstrip().lower()
    if text.startswith((b"<!doctype", b"<html", b"<?xml", b"<error", b"<head")):
        return "a web page, not a model: the download failed (does it need a login?)"
    for magic, reason in NOT_MODELS:
        if first.startswith(magic):
            return reason
    if size < 64:
        return f"only {size} bytes: download it again"
    if first[8:9] == b"{":
        return "damaged: its header would be longer than any; download it again"
    if not first.strip(b"\0"):
        return "begins with zeros: an unfinished download; download it again"
    if size >= 22 and read_exactly(file, size - 22, 4) == b"PK\x05\x06":
        return "damaged: there are bytes before the beginning of its zip"
    return "not a model file: neither .safetensors nor written by torch.save"
