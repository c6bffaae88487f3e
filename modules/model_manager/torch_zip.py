"""The header of a `.ckpt` as torch.save writes it since PyTorch 1.6: a zip of one pickle and one stored member a storage."""

import math
from typing import BinaryIO

from modules.model_manager.pickle_objects import StoredTensor
from modules.model_manager.pickle_reader import read_pickle
from modules.model_manager.stored import (
    ITEM_SIZE,
    MAX_NAME,
    MAX_TENSORS,
    Header,
    Identity,
    Refused,
    Stretch,
    TensorInfo,
    check_shape,
    shown,
)
from modules.model_manager.zip_reader import read_members, unpack

MAX_PICKLE = 8 * 2**20
STORAGES = {
    "HalfStorage": "F16",
    "BFloat16Storage": "BF16",
    "FloatStorage": "F32",
    "DoubleStorage": "F64",
    "LongStorage": "I64",
    "IntStorage": "I32",
    "ShortStorage": "I16",
    "CharStorage": "I8",
    "ByteStorage": "U8",
    "BoolStorage": "BOOL",
    "ComplexFloatStorage": "C64",
}


def read_torch_zip(file: BinaryIO, identity: Identity) -> Header:
    """The tensors of its `state_dict` (or of the outermost table). Raises Refused unless each lies inside its own member."""
    members = read_members(file, identity)
    folder = _folder(members)
    if f"{folder}byteorder" in members and unpack(file, members[f"{folder}byteorder"], 64) != b"little":
        raise Refused("saved on a big-endian machine: save it again on a common one")
    root = read_pickle(unpack(file, members[f"{folder}data.pkl"], MAX_PICKLE))
    if not isinstance(root, dict):
        raise Refused("holds a whole Python object instead of a table of tensors: save its state_dict() instead")
    tensors = _tensors(root)
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"holds {len(tensors)} tensors, more than the {MAX_TENSORS} that are read")
    described = {name: _describe(name, tensor, folder, members) for name, tensor in tensors.items()}
    metadata = {key: str(value) for key, value in root.items() if isinstance(value, int | float) and key.isprintable() and _short(value)}
    return Header("zip", described, metadata, identity)


def _folder(members: dict[str, Stretch]) -> str:
    pickles = [name for name in members if name == "data.pkl" or name.endswith("/data.pkl")]
    if not pickles:
        raise Refused("a zip archive, not a checkpoint: unpack it")
    if len(pickles) > 1:
        raise Refused("damaged: its zip holds two checkpoints in one")
    folder = pickles[0].removesuffix("data.pkl")
    if f"{folder}constants.pkl" in members:
        raise Refused("a TorchScript program, not a checkpoint: a state dict is needed")
    return folder


def _tensors(root: dict[str, object]) -> dict[str, StoredTensor]:
    """Tensors by name: of `state_dict` where there is one, else of the table itself, else of the tables in it (`params_ema.x`)."""
    table = root["state_dict"] if isinstance(root.get("state_dict"), dict) else root
    assert isinstance(table, dict)
    tensors = {name: value for name, value in table.items() if isinstance(value, StoredTensor)}
    if tensors:
        return tensors
    inner = {key: value for key, value in table.items() if isinstance(value, dict)}
    return {f"{key}.{name}": value for key in inner for name, value in inner[key].items() if isinstance(value, StoredTensor)}


def _describe(name: str, tensor: StoredTensor, folder: str, members: dict[str, Stretch]) -> TensorInfo:
    if len(name) > MAX_NAME or not name.isprintable():
        raise Refused(f"damaged: {shown(name)} is not a tensor's name")
    dtype = STORAGES.get(tensor.storage_type)
    if dtype is None:
        raise Refused(f"{shown(name)} is in a number format that is not known: {shown(tensor.storage_type)}")
    check_shape(name, tensor.shape)
    member = members.get(f"{folder}data/{tensor.key}")
    if member is None:
        raise Refused(f"damaged: the numbers of {shown(name)} are missing; download it again")
    needed = tensor.numel * ITEM_SIZE[dtype]
    if member.size != needed:
        raise Refused(f"damaged: {member.size} bytes are stored for {shown(name)}, its number format needs {needed}")
    _check_view(name, tensor)
    return TensorInfo(dtype, tensor.shape, member, tensor.offset * ITEM_SIZE[dtype], _strides(tensor))


def _check_view(name: str, tensor: StoredTensor) -> None:
    """The view must lie inside its storage and show no more elements than there are (stride 0 would repeat them without end)."""
    elements = math.prod(tensor.shape)
    last = tensor.offset + sum((extent - 1) * stride for extent, stride in zip(tensor.shape, tensor.strides, strict=True))
    if elements and last >= tensor.numel or tensor.offset > tensor.numel:
        raise Refused(f"damaged: {shown(name)} reaches beyond its storage")
    if elements > tensor.numel:
        raise Refused(f"damaged: {shown(name)} claims {elements} numbers, {tensor.numel} are stored")


def _strides(tensor: StoredTensor) -> tuple[int, ...] | None:
    """None when the elements follow each other in order, as nearly always; strides of extents below 2 say nothing."""
    expected = 1
    for extent, stride in zip(reversed(tensor.shape), reversed(tensor.strides), strict=True):
        if extent > 1 and stride != expected:
            return tensor.strides
        expected *= extent
    return None


def _short(value: int | float) -> bool:
    return abs(value) < 2**63
