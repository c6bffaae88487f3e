"""Whatever happens to a file, the readers answer with Refused or with tensors inside the file; they never raise anything else."""

import io
import pickle
import pickletools
import struct
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from modules.model_manager.config import Config
from modules.model_manager.headers import Refused, read_header
from modules.model_manager.pickle_reader import read_pickle
from modules.model_manager.recognise import recognise
from modules.model_manager.tensors import open_tensors
from tests.model_manager.bad_zips import tensor_pickle, zipped


def legacy_bytes() -> bytes:
    buffer = io.BytesIO()
    weights = {"w": torch.zeros(4, 4), "v": torch.zeros(8, dtype=torch.float64)}
    torch.save({"state_dict": weights}, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


MANY = settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
ONE = b"K\x01\x85"
SMALL_ZIP = zipped({"a/data.pkl": tensor_pickle(b"K\x10\x85", ONE), "a/data/0": bytes(range(64)), "a/byteorder": b"little"})
W, V = b'{"dtype":"F32","shape":[4,4],"data_offsets":[0,64]}', b'{"dtype":"U8","shape":[],"data_offsets":[64,65]}'
HEADER = b'{"__metadata__":{"a":"b"},"w":' + W + b',"v":' + V + b"}"
SMALL_SAFETENSORS = struct.pack("<Q", len(HEADER)) + HEADER + bytes(65)
SMALL_LEGACY = legacy_bytes()
GOOD = {"zip": SMALL_ZIP, "safetensors": SMALL_SAFETENSORS, "legacy": SMALL_LEGACY}
OPCODES = [opcode.code.encode("latin-1") for opcode in pickletools.opcodes]


def read_everything(path: Path) -> int:
    """Bytes of all tensors; anything but Refused fails the test."""
    total = 0
    try:
        header = read_header(path)
        with open_tensors(path, header) as tensors:
            for name in header.tensors:
                total += len(tensors.read(name))
        recognise(header, Config({}, ""))
    except Refused as refusal:
        assert str(refusal)
        assert "\n" not in str(refusal)
    return total


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_the_good_ones_are_good(tmp_path: Path, good: bytes) -> None:
    (tmp_path / "a").write_bytes(good)
    assert read_everything(tmp_path / "a") in (32, 65, 128)


@MANY
@given(data=st.data(), good=st.sampled_from(list(GOOD.values())))
def test_garbled_files(tmp_path: Path, data: st.DataObject, good: bytes) -> None:
    changed = bytearray(good)
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(changed) - 1))
        changed[at : at + data.draw(st.integers(0, 4))] = data.draw(st.binary(max_size=6))
    (tmp_path / "a").write_bytes(changed)
    assert read_everything(tmp_path / "a") <= 2**20


@pytest.mark.parametrize("good", GOOD.values(), ids=GOOD)
def test_files_cut_at_every_byte(tmp_path: Path, good: bytes) -> None:
    for length in range(len(good)):
        (tmp_path / "a").write_bytes(good[:length])
        with pytest.raises(Refused):
            read_header(tmp_path / "a")


@MANY
@given(st.lists(st.one_of(st.sampled_from(OPCODES), st.binary(max_size=5), st.just(b"ctorch._utils\n_rebuild_tensor_v2\n")), max_size=60))
def test_pickles_of_any_opcodes(pieces: list[bytes]) -> None:
    try:
        read_pickle(b"\x80\x04" + b"".join(pieces) + b".")
    except Refused as refusal:
        assert "\n" not in str(refusal)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.tuples(inner, inner) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=30,
)


@MANY
@given(value=PLAIN, protocol=st.integers(0, 5))
def test_plain_values_read_as_python_reads_them(value: object, protocol: int) -> None:
    assert read_pickle(pickle.dumps(value, protocol)) == value
