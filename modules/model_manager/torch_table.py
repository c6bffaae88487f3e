"""The table of tensors in what torch.save wrote, whichever way it was wrapped; and each tensor's place among its storages."""

import math
from collections.abc import Callable

from modules.model_manager.pickle_objects import StoredTensor
from modules.model_manager.stored import ITEM_SIZE, MAX_NAME, MAX_TENSORS, Refused, Stretch, TensorInfo, check_shape, shown

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
    "UntypedStorage": "U8",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
WRAPPERS = ("state_dict", "model_state_dict", "model", "module")
MAX_WRAPPED = 4

Table = dict[str, TensorInfo]


def described(root: object, stretch_of: Callable[[str], Stretch | None]) -> tuple[Table, dict[str, str]]:
    """The tensors by name, and the numbers beside them as metadata. `stretch_of` finds a storage by its key.

    Raises Refused unless each tensor lies inside its storage.
    """
    if not isinstance(root, dict):
        raise Refused("holds a whole Python object instead of a table of tensors: save its state_dict() instead")
    tensors = _tensors(root)
    if len(tensors) > MAX_TENSORS:
        raise Refused(f"holds {len(tensors)} tensors, more than the {MAX_TENSORS} that are read")
    metadata = {key: str(value) for key, value in root.items() if isinstance(value, int | float) and key.isprintable() and _short(value)}
    return {name: _describe(name, tensor, stretch_of(tensor.key)) for name, tensor in tensors.items()}, metadata


def number_format(name: str, storage_type: str) -> str:
    """The format of a storage's elements; `name` is whose they are, for the refusal."""
    dtype = STORAGES.get(storage_type)
    if dtype is None:
        raise Refused(f"{shown(name)} is in a number format that is not known: {shown(storage_type)}")
    return dtype


def _tensors(root: dict[str, object]) -> dict[str, StoredTensor]:
    """Tensors by name: of the table inside all wrappers; where it holds none, of the tables in it (`params_ema.x`)."""
    table = root
    for _ in range(MAX_WRAPPED):
        inner = next((table[key] for key in WRAPPERS if isinstance(table.get(key), dict)), None)
        if not isinstance(inner, dict):
            break
        table = inner
    tensors = {name: value for name, value in table.items() if isinstance(value, StoredTensor)}
    if tensors:
        return tensors
    tables = {key: value for key, value in table.items() if isinstance(value, dict)}
    return {f"{key}.{name}": value for key in tables for name, value in tables[key].items() if isinstance(value, StoredTensor)}


def _describe(name: str, tensor: StoredTensor, stretch: Stretch | None) -> TensorInfo:
    if len(name) > MAX_NAME or not name.isprintable():
        raise Refused(f"damaged: {shown(name)} is not a tensor's name")
    dtype = number_format(name, tensor.storage_type)
    check_shape(name, tensor.shape)
    if stretch is None:
        raise Refused(f"damaged: the numbers of {shown(name)} are missing; download it again")
    needed = tensor.numel * ITEM_SIZE[dtype]
    if stretch.size != needed:
        raise Refused(f"damaged: {stretch.size} bytes are stored for {shown(name)}, its number format needs {needed}")
    _check_view(name, tensor)
    return TensorInfo(dtype, tensor.shape, stretch, tensor.offset * ITEM_SIZE[dtype], _strides(tensor))


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
