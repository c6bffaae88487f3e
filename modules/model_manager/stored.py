"""What a model file holds and where its bytes lie: the words every reader of one shares."""

import errno
import math
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

ITEM_SIZE = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "I16": 2, "U16": 2, "F16": 2, "BF16": 2,
    "I32": 4, "U32": 4, "F32": 4,
    "I64": 8, "U64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
MAX_TENSORS = 50_000
MAX_DIMENSIONS = 8
MAX_EXTENT = 2**40
MAX_NAME = 500


class Refused(ValueError):
    """This file is not used; the message is one line that says why and what to do."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Bytes in a file: `packed` of them from `offset` on, which are (or unpack to) `size`. `crc` is None where the format has none.

    `file` says which of the header's files they are in.
    """

    offset: int
    packed: int
    size: int
    deflated: bool = False
    crc: int | None = None
    file: str = ""


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """A tensor: its elements begin `start` bytes into the stretch; `strides` (in elements) is None when they simply follow each other."""

    dtype: str
    shape: tuple[int, ...]
    stretch: Stretch
    start: int = 0
    strides: tuple[int, ...] | None = None

    @property
    def size(self) -> int:
        """Bytes of the tensor, once it is contiguous."""
        return ITEM_SIZE[self.dtype] * math.prod(self.shape)


@dataclass(frozen=True)
class Identity:
    """What tells that a file is still the one that was checked."""

    device: int
    inode: int
    size: int
    mtime_ns: int


@dataclass(frozen=True)
class Header:
    """All that a file says about its tensors. Every `TensorInfo` in it lies inside its file.

    `files` are by name below the path that was read: only "" for a file, several for a folder in diffusers' layout.
    """

    format: Literal["safetensors", "zip", "legacy", "folder"]
    tensors: dict[str, TensorInfo]
    metadata: dict[str, str]
    files: dict[str, Identity]


def open_regular(path: Path) -> BinaryIO:
    """Opens a plain file for unbuffered reading; never blocks on a pipe or device. Raises Refused with the reason."""
    try:
        _only_regular(os.stat(path).st_mode)
        descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    except OSError as error:
        raise Refused(_why_unreadable(path, error)) from error
    file = os.fdopen(descriptor, "rb", buffering=0)
    try:
        _only_regular(os.fstat(descriptor).st_mode)
    except Refused:
        file.close()
        raise
    return file


def identify(file: BinaryIO) -> Identity:
    """The identity of an open file, now."""
    now = os.fstat(file.fileno())
    return Identity(now.st_dev, now.st_ino, now.st_size, now.st_mtime_ns)


def read_exactly(file: BinaryIO, offset: int, size: int) -> bytes:
    """`size` bytes at `offset`; the caller has bounded the size. Raises Refused when the file ends before."""
    buffer = bytearray(size)
    read_into(file, offset, memoryview(buffer))
    return bytes(buffer)


def read_into(file: BinaryIO, offset: int, buffer: memoryview) -> None:
    """Fills the buffer from `offset` on. Raises Refused when the file ends before or cannot be read."""
    done = 0
    try:
        file.seek(offset)
        while done < len(buffer):
            got = file.readinto(buffer[done:])  # type: ignore[attr-defined]
            if not got:
                raise Refused("the file ends early: it was cut short, download it again")
            done += got
    except OSError as error:
        raise Refused(f"unreadable: {error.strerror or error}") from error


def shown(name: str) -> str:
    """A name out of a file, fit for one line on a terminal: printable and not long."""
    text = "".join(character if character.isprintable() else "?" for character in name[:81])
    return text if len(text) <= 80 else text[:79] + "…"


def amount(size: int) -> str:
    """Bytes for a person: `1.2 GB`."""
    for unit, scale in (("GB", 10**9), ("MB", 10**6), ("kB", 10**3)):
        if size >= scale:
            return f"{size / scale:.2f} {unit}" if unit == "GB" else f"{size / scale:.1f} {unit}"
    return f"{size} bytes"


def check_shape(name: str, shape: tuple[int, ...]) -> None:
    """Raises Refused for a shape that no weight has."""
    if len(shape) > MAX_DIMENSIONS or any(not 0 <= extent <= MAX_EXTENT for extent in shape):
        raise Refused(f"damaged: the shape of {shown(name)} is not one a tensor can have")


def _only_regular(mode: int) -> None:
    for is_kind, kind in (
        (stat.S_ISFIFO, "a named pipe"),
        (stat.S_ISSOCK, "a socket"),
        (stat.S_ISDIR, "a folder"),
        (stat.S_ISCHR, "a device"),
        (stat.S_ISBLK, "a device"),
    ):
        if is_kind(mode):
            raise Refused(f"{kind}, not a file: remove it")


def _why_unreadable(path: Path, error: OSError) -> str:
    if error.errno == errno.ENOENT and path.is_symlink():
        return "a link to a file that is not there"
    if error.errno == errno.ELOOP:
        return "a link that leads back to itself"
    return f"unreadable: {error.strerror or error}"
