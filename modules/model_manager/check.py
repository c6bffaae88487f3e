"""Reads a whole checkpoint, LoRA or upscaler as the engine would and says in one line whether it can be used."""

from collections import Counter
from pathlib import Path

import numpy

from modules.model_manager.headers import read_header
from modules.model_manager.layout import TEXT, UNET, VAE, expected_tensors
from modules.model_manager.lora_file import about, adapters_of, is_lora
from modules.model_manager.reading import described
from modules.model_manager.stored import Header, Refused, amount
from modules.model_manager.tensors import Tensors, open_tensors
from modules.model_manager.upscaler_file import is_upscaler, read_upscaler

PIECE = 2**18
BITS = {"F16": numpy.uint16, "BF16": numpy.uint16, "F32": numpy.uint32, "F64": numpy.uint64}
BITS |= {"F8_E4M3": numpy.uint8, "F8_E5M2": numpy.uint8}
INFINITY = {"F16": 0x7C00, "BF16": 0x7F80, "F32": 0x7F800000, "F64": 0x7FF0000000000000}
INFINITY |= {"F8_E4M3": 0x7F, "F8_E5M2": 0x7C}  # E4M3 has no infinity, but NaN
SIGN = {"F16": 0x8000, "BF16": 0x8000, "F32": 0x80000000, "F64": 0x8000000000000000, "F8_E4M3": 0x80, "F8_E5M2": 0x80}
PARTS = {UNET: "U-Net", VAE: "VAE", TEXT: "text encoder"}


def check_file(path: Path) -> str:
    """One line about a usable file, every tensor of which was read. Raises Refused with the reason when it is not usable."""
    if path.is_file() and is_lora((lora := read_header(path)).tensors):
        return f"usable: {about(adapters_of(lora))}, {_read_all(path, lora)}"
    if path.is_file() and is_upscaler(path):
        upscaler, shape, _ = read_upscaler(path)
        return f"usable: {shape}, {_read_all(path, upscaler)}"
    header, architecture = described(path)
    needed = expected_tensors(architecture)
    nonzero = set()
    with open_tensors(path, header) as tensors:
        for name, tensor in header.tensors.items():
            data = _read(tensors, name)
            if name in needed and _largest(name, tensor.dtype, data):
                nonzero.add(_part(name))
    empty = [part for part in PARTS.values() if part not in nonzero]
    if empty:
        raise Refused(f"all numbers of its {' and '.join(empty)} are zero: a failed conversion or download")
    native = f"native size {architecture.native_size}x{architecture.native_size}"
    return f"usable: {architecture.family}, {len(header.tensors)} tensors, {_size(header)}, {_formats(header)}, {native}"


def _read_all(path: Path, header: Header) -> str:
    """The size and number formats of a file, once all of its numbers were found to be finite."""
    with open_tensors(path, header) as tensors:
        for name, tensor in header.tensors.items():
            data = _read(tensors, name)
            if tensor.dtype in BITS:
                _largest(name, tensor.dtype, data)
    return f"{len(header.tensors)} tensors, {_size(header)}, {_formats(header)}"


def _largest(name: str, dtype: str, data: numpy.ndarray) -> int:
    """The largest magnitude in a tensor, as its bits. Raises Refused if it is not finite."""
    largest = largest_bits(dtype, data)
    if largest >= INFINITY[dtype]:
        raise Refused(f"{name} holds numbers that are not finite (NaN or infinity): the pictures would be black")
    return largest


def _read(tensors: Tensors, name: str) -> numpy.ndarray:
    try:
        return tensors.read(name)
    except MemoryError:
        raise Refused(f"{name} is larger than the memory of this machine") from None


def largest_bits(dtype: str, data: numpy.ndarray) -> int:
    """The largest magnitude among floating-point numbers, as its bits: these order like the numbers, with infinity and NaN last."""
    bits = data.view(BITS[dtype])
    mask = BITS[dtype](SIGN[dtype] - 1)
    pieces = (bits[at : at + PIECE] for at in range(0, len(bits), PIECE))  # masked copies that stay in the cache
    return max((int((piece & mask).max()) for piece in pieces), default=0)


def _part(name: str) -> str:
    return next(part for prefix, part in PARTS.items() if name.startswith(prefix))


def _size(header: Header) -> str:
    return amount(sum(tensor.size for tensor in header.tensors.values()))


def _formats(header: Header) -> str:
    counts = Counter(tensor.dtype for tensor in header.tensors.values())
    return " and ".join(dtype for dtype, _ in counts.most_common())
