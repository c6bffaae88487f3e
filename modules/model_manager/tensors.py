"""The one way by which the bytes of a tensor are read: to check a file and to load it alike."""

import zlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy

from modules.model_manager.stored import ITEM_SIZE, Header, Refused, Stretch, TensorInfo, identify, open_regular, read_into, shown
from modules.model_manager.zip_reader import inflate

CHUNK = 2**20
Bytes = numpy.ndarray


class Tensors:
    """The tensors of open files, by their names in the header. Not for several threads at once."""

    def __init__(self, files: Mapping[str, BinaryIO], header: Header) -> None:
        self.files = files
        self.tensors = header.tensors
        self.checked: set[Stretch] = set()
        self.unpacked: tuple[Stretch, Bytes] | None = None

    def read(self, name: str, into: Bytes | None = None) -> Bytes:
        """The bytes (uint8, little-endian, contiguous, `TensorInfo.size` of them) of this tensor: in `into` if given, else in new memory.

        A member's checksum is checked the first time that it is touched. Raises Refused when the file is damaged or cut short.
        """
        tensor = self.tensors[name]
        target = numpy.empty(tensor.size, numpy.uint8) if into is None else into
        if target.dtype != numpy.uint8 or target.shape != (tensor.size,) or not target.flags.c_contiguous:
            raise ValueError(f"{name} needs a flat uint8 buffer of {tensor.size} bytes")
        try:
            self._fill(tensor, target)
        except Refused as refusal:
            raise Refused(f"{shown(name)}: {refusal}") from refusal
        return target

    def _fill(self, tensor: TensorInfo, target: Bytes) -> None:
        stretch = tensor.stretch
        if tensor.strides is not None or stretch.deflated:
            target[:] = _gather(self._storage(stretch), tensor)
        elif tensor.size == stretch.size:
            self._read(stretch, memoryview(target))
        else:
            self._verify(stretch)
            read_into(self.files[stretch.file], stretch.offset + tensor.start, memoryview(target))

    def _read(self, stretch: Stretch, target: memoryview) -> None:
        if stretch.crc is None or stretch in self.checked:
            read_into(self.files[stretch.file], stretch.offset, target)
        else:
            self._stream(stretch, (target[at : at + CHUNK] for at in range(0, stretch.size, CHUNK)))

    def _verify(self, stretch: Stretch) -> None:
        if stretch.crc is not None and stretch not in self.checked:
            scratch = memoryview(bytearray(min(CHUNK, stretch.size)))
            self._stream(stretch, (scratch[: stretch.size - at] for at in range(0, stretch.size, CHUNK)))

    def _stream(self, stretch: Stretch, pieces: Iterable[memoryview]) -> None:
        """Reads the stretch piece by piece, each still in the processor's cache when its checksum is taken."""
        at, crc = stretch.offset, 0
        for piece in pieces:
            read_into(self.files[stretch.file], at, piece)
            crc = zlib.crc32(piece, crc)
            at += len(piece)
        self._compare(stretch, crc)

    def _compare(self, stretch: Stretch, crc: int) -> None:
        if crc != stretch.crc:
            raise Refused("damaged: its checksum does not match; download the file again")
        self.checked.add(stretch)

    def _storage(self, stretch: Stretch) -> Bytes:
        """A whole storage in memory; the last one is kept, for tensors that share it follow each other."""
        if self.unpacked is None or self.unpacked[0] != stretch:
            self.unpacked = None
            packed = numpy.empty(stretch.packed, numpy.uint8)
            read_into(self.files[stretch.file], stretch.offset, memoryview(packed))
            plain = numpy.frombuffer(inflate(memoryview(packed), stretch.size), numpy.uint8) if stretch.deflated else packed
            if stretch.crc is not None:
                self._compare(stretch, zlib.crc32(plain))
            self.unpacked = stretch, plain
        return self.unpacked[1]


@contextmanager
def open_tensors(path: Path, header: Header) -> Iterator[Tensors]:
    """The tensors that `header` describes. Raises Refused if this is no longer the file that was checked, before or after reading."""
    with ExitStack() as opened:
        files = {name: opened.enter_context(open_regular(path / name)) for name in header.files}
        _same(files, header)
        yield Tensors(files, header)
        _same(files, header)


def _same(files: Mapping[str, BinaryIO], header: Header) -> None:
    if {name: identify(file) for name, file in files.items()} != header.files:
        raise Refused("the file has changed since it was looked at: refresh the list of models and try again")


def _gather(storage: Bytes, tensor: TensorInfo) -> Bytes:
    """The tensor's bytes out of its storage, put in order when it is a strided view. The header was checked to stay inside."""
    if tensor.strides is None:
        return storage[tensor.start : tensor.start + tensor.size]
    item = ITEM_SIZE[tensor.dtype]
    elements = storage.view(f"V{item}")[tensor.start // item :]
    view = numpy.lib.stride_tricks.as_strided(elements, tensor.shape, [item * stride for stride in tensor.strides], writeable=False)
    return numpy.ascontiguousarray(view).reshape(-1).view(numpy.uint8)
