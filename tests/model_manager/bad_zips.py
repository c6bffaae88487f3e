"""Bad `.ckpt` files: hostile pickles in whole checkpoints that would otherwise be fine, and zips that lie."""

import builtins
import functools
import io
import operator
import os
import pickle
import pickletools
import pkgutil
import runpy
import struct
import subprocess
import webbrowser
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy
import torch

from tests.checkpoints import SMALL, random_weights

TINY = replace(
    SMALL,
    unet=replace(SMALL.unet, channels=(32,), attention=(True,)),
    vae=replace(SMALL.vae, channels=(32, 32)),
    text=replace(SMALL.text, layers=1),
    native_size=512,
)
Write = Callable[[Path], object]


class Call:
    """An object whose pickle asks for calling `function` when it is read."""

    def __init__(self, function: Callable[..., object], *arguments: object) -> None:
        self.function, self.arguments = function, arguments

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return self.function, self.arguments


@functools.cache
def tiny_weights() -> dict[str, torch.Tensor]:
    return {name: torch.from_numpy(values) for name, values in random_weights(TINY, 1, "float16")}


@functools.cache
def tiny_members() -> dict[str, bytes]:
    """The members of a good checkpoint."""
    buffer = io.BytesIO()
    torch.save({"state_dict": tiny_weights()}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def saved(root: object) -> Write:
    return lambda path: torch.save(root, path)


def legacy(root: object) -> Write:
    """As PyTorch saved before 1.6."""
    return lambda path: torch.save(root, path, _use_new_zipfile_serialization=False)


def patched_legacy(change: Callable[[bytearray], object]) -> Write:
    """A good checkpoint in the legacy format, changed byte by byte."""

    def write(path: Path) -> None:
        legacy({"state_dict": tiny_weights()})(path)
        data = bytearray(path.read_bytes())
        change(data)
        path.write_bytes(data)

    return write


def first_storage(data: bytearray) -> int:
    """Where the count of the first storage stands: behind the fifth pickle."""
    stream = io.BytesIO(data)
    for _ in range(5):
        list(pickletools.genops(stream))
    return stream.tell()


def with_extra(value: object) -> Write:
    """A whole, good checkpoint with this in its metadata."""
    return saved({"state_dict": tiny_weights(), "callbacks": value})


def zipped(members: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return buffer.getvalue()


def with_pickle(data: bytes, compression: int = zipfile.ZIP_STORED) -> Write:
    return lambda path: path.write_bytes(zipped({"archive/data.pkl": data, "archive/data/0": bytes(64)}, compression))


def tensor_pickle(shape: bytes, strides: bytes, numel: int = 32, kind: bytes = b"HalfStorage", offset: int = 0) -> bytes:
    """A checkpoint of one tensor, written opcode by opcode."""
    storage = b"(X\x07\0\0\0storagectorch\n" + kind + b"\nX\x01\0\0\x000X\x03\0\0\0cpuJ" + struct.pack("<i", numel) + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"J" + struct.pack("<i", offset) + shape + strides + b"\x89}tR"
    return b"\x80\x02}X\x01\0\0\0a" + tensor + b"s."


def patched(change: Callable[[bytearray], object]) -> Write:
    """A good zip, changed byte by byte."""

    def write(path: Path) -> None:
        data = bytearray(zipped(tiny_members()))
        change(data)
        path.write_bytes(data)

    return write


def set_bytes(data: bytearray, at: int, value: bytes) -> None:
    data[at : at + len(value)] = value


def encrypt(data: bytearray) -> None:
    set_bytes(data, data.index(b"PK\x01\x02") + 8, b"\x01\x00")
    set_bytes(data, 6, b"\x01\x00")


def with_hidden_member(path: Path) -> None:
    """Local bytes that the directory does not mention."""
    data = zipped({"archive/data.pkl": pickle.dumps({}, 2)})
    start = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    hidden = b"PK\x03\x04" + bytes(40)
    moved = data[:start] + hidden + data[start : end + 16] + struct.pack("<I", start + len(hidden)) + data[end + 20 :]
    path.write_bytes(moved)


def with_wrong_storage(path: Path) -> None:
    """Good to the eye: one number of one weight differs from its checksum."""
    data = bytearray(zipped(tiny_members()))
    weight = tiny_weights()["model.diffusion_model.out.2.weight"].numpy().tobytes()
    data[data.index(weight) + 5] ^= 1
    path.write_bytes(data)


def with_two_pickles(path: Path) -> None:
    path.write_bytes(zipped({**tiny_members(), "other/data.pkl": pickle.dumps({}, 2)}))


def with_doubled_name(path: Path) -> None:
    data = zipped({**tiny_members(), "archive/data.pkX": pickle.dumps(Call(os.system, "true"), 2)})
    path.write_bytes(data.replace(b"archive/data.pkX", b"archive/data.pkl"))


def bomb(path: Path) -> None:
    path.write_bytes(zipped({"archive/data.pkl": pickle.dumps({}, 2), "archive/data/0": bytes(600 * 2**20)}, zipfile.ZIP_DEFLATED))


def deep_bomb(path: Path) -> None:
    """A deflate stream far longer than the directory says."""
    data = bytearray(zipped({"archive/data.pkl": bytes(2**20)}, zipfile.ZIP_DEFLATED))
    for signature, at in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        set_bytes(data, data.index(signature) + at, struct.pack("<I", 10))
    path.write_bytes(data)


def contains_itself() -> dict[str, object]:
    state: dict[str, object] = {}
    state["state_dict"] = state
    return state


def int8_weights() -> dict[str, torch.Tensor]:
    return {name: weight.to(torch.int8) for name, weight in tiny_weights().items()}


def hostile(canary: Path) -> dict[str, tuple[Write, str]]:
    """Whole checkpoints that also ask for code to run; the file `canary` would appear if any of it did."""
    touch = f"touch '{canary}'"
    python = f"open({str(canary)!r}, 'w')"
    use = "no use for"
    return {
        "system.ckpt": (with_extra(Call(os.system, touch)), f"posix.system.*{use}"),
        "popen.ckpt": (with_extra([Call(subprocess.Popen, touch, -1, None, None, None, None, None, True, True)]), "Popen"),
        "eval.ckpt": (with_extra({"a": Call(builtins.eval, python)}), "__builtin__.eval"),
        "exec.pt": (with_extra(Call(builtins.exec, python)), "__builtin__.exec"),
        "import.ckpt": (with_extra(Call(__import__, "antigravity")), "__builtin__.__import__"),
        "getattr.ckpt": (with_extra(Call(getattr, Call(__import__, "os"), "system")), "__builtin__"),
        "resolve.ckpt": (with_extra(Call(pkgutil.resolve_name, "os:system")), "pkgutil.resolve_name"),
        "partial.ckpt": (with_extra(Call(functools.partial, os.system, touch)), "functools.partial|posix.system"),
        "methodcaller.ckpt": (with_extra(Call(operator.methodcaller, "system", touch)), "operator.methodcaller"),
        "run_path.ckpt": (with_extra(Call(runpy.run_path, "/etc/passwd")), "runpy.run_path"),
        "webbrowser.ckpt": (with_extra(Call(webbrowser.open, "http://127.0.0.1:9/")), "webbrowser.open"),
        "hub.ckpt": (with_extra(Call(torch.hub.load, "owner/repository", "model")), "torch.hub.load"),
        "nested_load.ckpt": (with_extra(Call(torch.storage._load_from_bytes, pickle.dumps(Call(os.system, touch)))), "_load_from_bytes"),
        "numpy_loads.ckpt": (with_extra(Call(numpy.load, str(canary))), "numpy.load"),
        "in_state_dict.ckpt": (saved({"state_dict": OrderedDict(tiny_weights(), evil=Call(os.system, touch))}), "posix.system"),
        "as_key.ckpt": (saved({**tiny_weights(), Call(os.system, touch): 1}), "posix.system"),
        "inst.ckpt": (with_pickle(b"(S'" + touch.encode().replace(b"'", b"") + b"'\nios\nsystem\n."), "os.system"),
        "stack_global.ckpt": (with_pickle(b"\x80\x04\x8c\x02os\x8c\x06system\x93\x8c\x04true\x85R."), "os.system"),
        "inside_torch.ckpt": (with_pickle(b"\x80\x04}\x8c\x01a\x8c\x05torch\x8c\x09os.system\x93\x8c\x04true\x85Rs."), "torch.os.system"),
        "extension.ckpt": (with_pickle(b"\x80\x02\x82\x01."), "EXT1"),
        "call_result.ckpt": (with_pickle(b"\x80\x02}X\x01\0\0\0acnumpy\ndtype\n)R)Rs."), "not a name"),
        "broken_tail.ckpt": (with_pickle(pickle.dumps(Call(os.system, touch), 2)[:-1] + b"\xff\xff\xff"), "posix.system"),
        "after_end.ckpt": (with_pickle(pickle.dumps({}, 2) + pickle.dumps(Call(os.system, touch), 2)), "after the end"),
        "bare.safetensors": (lambda path: path.write_bytes(pickle.dumps(Call(os.system, touch))), f"posix.system.*{use}"),
        "bare.SafeTensors": (legacy({"state_dict": tiny_weights(), "callbacks": Call(os.system, touch)}), f"posix.system.*{use}"),
    }


ORDERED = b"ccollections\nOrderedDict\nh\0\x85R0"
ONE = b"K\x01\x85"
LONG_TUPLE = b"(" + b"K\x01" * 100_000 + b"t"


def legacy_by_hand(numel: int, keys: list[str]) -> Write:
    """The legacy format with one tensor, whose storage has `numel` numbers that are not there."""
    header = b"".join(pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}))
    tensor = tensor_pickle(ONE, ONE).replace(b"J" + struct.pack("<i", 32) + b"tQ", b"\x8a\x08" + struct.pack("<q", numel) + b"NtQ")
    return lambda path: path.write_bytes(header + tensor + pickle.dumps(keys, 2) + struct.pack("<q", numel))


LYING: dict[str, tuple[Write, str]] = {
    "million_opcodes.ckpt": (with_pickle(b"\x80\x02" + b"N0" * 2_000_000 + b"}.", zipfile.ZIP_DEFLATED), "far longer"),
    "memo_bomb.ckpt": (with_pickle(b"\x80\x02)q\0" + b"0h\0h\0\x86q\0" * 60_000 + b"."), "whole Python object"),
    "deep.ckpt": (with_pickle(b"\x80\x02" + b"(" * 100_000 + b"t" * 100_000 + b"."), "whole Python object"),
    "deep_key.ckpt": (with_pickle(b"\x80\x02})" + b"\x85" * 300_000 + b"Ns."), "no tensors"),
    "quadratic.ckpt": (with_pickle(b"\x80\x02](" + b"N" * 90_000 + b"eq\0" + ORDERED * 60_000 + b"."), "far longer"),
    "long.ckpt": (with_pickle(b"\x80\x02\x8b" + struct.pack("<I", 2**31 - 1) + b"\x01."), "cannot be read"),
    "huge_number.ckpt": (with_pickle(b"\x80\x02\x8b" + struct.pack("<I", 2**20) + b"\x01" * 2**20 + b"."), "whole Python object"),
    "below_mark.ckpt": (with_pickle(b"\x80\x02N(0s."), "cannot be read"),
    "no_end.ckpt": (with_pickle(b"\x80\x02}"), "cannot be read|no end"),
    "itself.ckpt": (saved(contains_itself()), "no tensors"),
    "terabyte.ckpt": (with_pickle(tensor_pickle(b"J\xff\xff\xff\x7f\x85", b"K\x00\x85")), "are stored"),
    "beyond.ckpt": (with_pickle(tensor_pickle(b"K\x10\x85", ONE, offset=20)), "beyond its storage"),
    "negative.ckpt": (with_pickle(tensor_pickle(b"K\x02\x85", b"J\xff\xff\xff\xff\x85")), "cannot be read"),
    "many_dimensions.ckpt": (with_pickle(tensor_pickle(LONG_TUPLE, LONG_TUPLE)), "cannot be read"),
    "short_storage.ckpt": (with_pickle(tensor_pickle(b"K\x40\x85", ONE, numel=64)), "bytes are stored"),
    "quantised.ckpt": (with_pickle(tensor_pickle(b"K\x02\x85", ONE, kind=b"QInt8Storage")), "number format"),
    "sparse.ckpt": (saved({"state_dict": {"a": torch.eye(3).to_sparse()}}), "kind of tensor"),
    "no_storage.ckpt": (lambda path: path.write_bytes(zipped({"a/data.pkl": tensor_pickle(b"K\x02\x85", ONE)})), "are missing"),
    "module.ckpt": (saved(torch.nn.Linear(2, 2)), "whole Python object"),
    "int8.ckpt": (saved({"state_dict": int8_weights()}), "number format I8"),
    "torchscript.pt": (lambda path: torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), path), "TorchScript"),
    "two_pickles.ckpt": (with_two_pickles, "two checkpoints"),
    "doubled.ckpt": (with_doubled_name, "twice"),
    "hidden.ckpt": (with_hidden_member, "belong to no member"),
    "local_name.ckpt": (patched(lambda data: set_bytes(data, 30, b"Z")), "in one place"),
    "local_size.ckpt": (patched(lambda data: set_bytes(data, 18, b"\xff\xff")), "disagree"),
    "wrong_crc.ckpt": (patched(lambda data: set_bytes(data, data.index(b"data.pkl") + 200, b"\0\0\0\0")), "checksum"),
    "encrypted.ckpt": (patched(encrypt), "encrypted"),
    "prefixed.ckpt": (lambda path: path.write_bytes(b"#!/bin/sh\ntrue\n" + zipped(tiny_members())), "before the beginning"),
    "suffixed.ckpt": (lambda path: path.write_bytes(zipped(tiny_members()) + bytes(100)), "after the end"),
    "gap_at_start.ckpt": (lambda path: path.write_bytes(b"PK\x03\x04" + bytes(60) + zipped(tiny_members())), "damaged"),
    "bomb.ckpt": (bomb, "zip bomb"),
    "deep_bomb.ckpt": (deep_bomb, "not as long"),
    "archive.ckpt": (lambda path: path.write_bytes(zipped({"readme.txt": b"hello"})), "unpack it"),
    "big_endian.ckpt": (
        lambda path: path.write_bytes(zipped({"a/data.pkl": pickle.dumps({}, 2), "a/byteorder": b"big"})),
        "big-endian",
    ),
    "words.ckpt": (lambda path: path.write_bytes(pickle.dumps({"a": ["bare"] * 99}, 2)), "a bare pickle"),
    "legacy_cut.ckpt": (patched_legacy(lambda data: data.pop()), r"incomplete: .* of .* \(1 bytes are missing\)"),
    "legacy_cut_in_pickle.ckpt": (patched_legacy(lambda data: data.__delitem__(slice(5000, None))), "incomplete: only the first 5.0 kB"),
    "legacy_tail.ckpt": (patched_legacy(lambda data: data.append(0)), "1 bytes after its last tensor belong to nothing"),
    "legacy_count.ckpt": (patched_legacy(lambda data: set_bytes(data, first_storage(data), b"\xff")), "not as long as its tensors say"),
    "legacy_terabyte.ckpt": (legacy_by_hand(2**37, ["0"]), r"incomplete: .* of 274.88 GB"),
    "legacy_keys.ckpt": (legacy_by_hand(0, ["1"]), "its list of storages is not that of its tensors"),
    "legacy_twice.ckpt": (legacy_by_hand(0, ["0", "0"]), "its list of storages is not that of its tensors"),
    "legacy_machine.ckpt": (patched_legacy(lambda data: set_bytes(data, data.index(b"little_endian") + 15, b"\x89")), "big-endian"),
    "cut.ckpt": (lambda path: path.write_bytes(zipped(tiny_members())[:-100]), "incomplete"),
}
