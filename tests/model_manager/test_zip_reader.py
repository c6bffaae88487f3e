"""Zips as other tools and larger models have them."""

import struct
import zipfile
import zlib
from pathlib import Path

import pytest

from modules.model_manager.headers import Refused, read_header
from modules.model_manager.stored import Stretch
from tests.model_manager.bad_zips import tensor_pickle, tiny_members, tiny_weights, zipped

GIB = 2**30
FULL = 0xFFFFFFFF
CRC = 0x12345678


def test_members_and_where_they_are(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    path.write_bytes(zipped(tiny_members()))
    whole = path.read_bytes()
    bias = tiny_weights()["model.diffusion_model.out.2.bias"].numpy().tobytes()
    found = read_header(path).tensors["model.diffusion_model.out.2.bias"]
    assert found.stretch == Stretch(whole.index(bias), 8, 8, False, zlib.crc32(bias))


def test_zip64_headers_of_small_members(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in tiny_members().items():
            with archive.open(name, "w", force_zip64=True) as member:
                member.write(data)
    assert len(read_header(path).tensors) > 100


def test_members_written_as_a_stream(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"

    class Pipe:
        """A file that cannot seek, so that sizes follow each member."""

        def __init__(self) -> None:
            self.data = bytearray()

        def write(self, data: bytes) -> int:
            self.data += data
            return len(data)

        def flush(self) -> None:
            """Nothing is held back."""

    pipe = Pipe()
    with zipfile.ZipFile(pipe, "w") as archive:  # type: ignore[call-overload]
        for name, data in tiny_members().items():
            archive.writestr(name, data)
    path.write_bytes(pipe.data)
    assert len(read_header(path).tensors) > 100


def local(name: bytes, size: int, crc: int) -> bytes:
    wide = struct.pack("<2H2Q", 1, 16, size, size) if size >= FULL else b""
    short = min(size, FULL)
    return struct.pack("<4s5H3I2H", b"PK\x03\x04", 45, 0, 0, 0, 0, crc, short, short, len(name), len(wide)) + name + wide


def central(name: bytes, size: int, crc: int, offset: int) -> bytes:
    wide = struct.pack("<2H3Q", 1, 24, size, size, offset) if size >= FULL else b""
    short, at = (FULL, FULL) if wide else (size, offset)
    fixed = struct.pack("<4s6H3I5H2I", b"PK\x01\x02", 45, 45, 0, 0, 0, 0, crc, short, short, len(name), len(wide), 0, 0, 0, 0, at)
    return fixed + name + wide


def write_huge(path: Path, size: int) -> int:
    """A checkpoint of one tensor in a storage of `size` bytes (a hole in the file); returns where its bytes begin."""
    pickle = tensor_pickle(b"J\x00\x00\x00\x40\x85", b"K\x01\x85", numel=7)
    pickle = pickle.replace(b"J" + struct.pack("<i", 7), b"\x8a\x05" + struct.pack("<Q", size // 2)[:5])
    small = zipped({"a/data.pkl": pickle})
    first = small[: small.index(b"PK\x01\x02")]
    with path.open("wb") as file:
        file.write(first + local(b"a/data/0", size, CRC))
        begins = file.tell()
        file.seek(size, 1)
        start = file.tell()
        directory = small[small.index(b"PK\x01\x02") : small.index(b"PK\x05\x06")] + central(b"a/data/0", size, CRC, len(first))
        file.write(directory)
        end64 = file.tell()
        file.write(struct.pack("<4sQ2H2I4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 2, 2, len(directory), start))
        file.write(struct.pack("<4sIQI", b"PK\x06\x07", 0, end64, 1))
        file.write(struct.pack("<4s4H2IH", b"PK\x05\x06", 0, 0, 2, 2, len(directory), FULL, 0))
    return begins


def test_a_member_above_4_gib(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    begins = write_huge(path, 5 * GIB)
    tensor = read_header(path).tensors["a"]
    assert (tensor.stretch.offset, tensor.stretch.size, tensor.shape) == (begins, 5 * GIB, (2**30,))


def test_two_ends_that_disagree(tmp_path: Path) -> None:
    path = tmp_path / "a.ckpt"
    write_huge(path, 5 * GIB)
    with path.open("r+b") as file:
        file.seek(-12, 2)
        file.write(struct.pack("<H", 3))
    with pytest.raises(Refused, match="makes no sense|disagree"):
        read_header(path)
