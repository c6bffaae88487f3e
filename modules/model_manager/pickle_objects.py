"""What the objects in a checkpoint's pickle are described as: tensors and dictionaries as such, everything else as OPAQUE."""

from dataclasses import dataclass, replace

from modules.model_manager.pickle_names import Global, check_call
from modules.model_manager.stored import MAX_DIMENSIONS, MAX_NAME

MAX_NUMBER = 2**48


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """A tensor as torch.save describes it; `numel` is the length of its whole storage, `offset` and `strides` count elements."""

    storage_type: str
    key: str
    numel: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Storage:
    """torch's persistent id for a storage: its type's name, the member that holds it, its number of elements."""

    kind: str
    key: str
    numel: int


class Opaque:
    """Stands for an object that is not understood and not needed."""


OPAQUE = Opaque()
BYTE_FORMATS = {"float8_e4m3fn", "float8_e5m2"}  # an element a byte, as UntypedStorage counts
DICTIONARIES = {Global("collections", "OrderedDict"), Global("collections", "defaultdict"), Global("builtins", "dict")}
TENSORS = {Global("torch._utils", "_rebuild_tensor"), Global("torch._utils", "_rebuild_tensor_v2")}
TYPED_TENSOR = Global("torch._utils", "_rebuild_tensor_v3")  # of the formats younger than typed storages: float8
PARAMETERS = {Global("torch._utils", "_rebuild_parameter"), Global("torch._utils", "_rebuild_parameter_with_state")}


def stored(persistent_id: object) -> Storage:
    """The storage that one of torch's persistent ids names. Raises TypeError for any other id."""
    match persistent_id:
        case ("storage", Global(module="torch" | "torch.storage", name=kind), str(key), _, numel, *rest) if len(key) <= MAX_NAME:
            if _counts(numel) and rest in ([], [None]):  # the legacy format ends with what once described views, and is None
                return Storage(kind, key, numel)
    raise TypeError


def made(called: object, arguments: tuple[object, ...]) -> object:
    """What calling this would make, of which nothing is called. Raises Refused for what a checkpoint has no use for."""
    if isinstance(called, Global) and called in TENSORS:
        return _tensor(arguments)
    if called == TYPED_TENSOR:
        return _typed_tensor(arguments)
    if isinstance(called, Global) and called in PARAMETERS and arguments:
        return arguments[0]
    check_call(called)
    return _pairs(arguments) if called in DICTIONARIES else OPAQUE


def _tensor(arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Storage() as storage, offset, tuple(shape), tuple(strides), *_) if len(shape) == len(strides) <= MAX_DIMENSIONS:
            if _counts(offset, *shape, *strides):
                return StoredTensor(storage.kind, storage.key, storage.numel, offset, shape, strides)
    raise TypeError


def _typed_tensor(arguments: tuple[object, ...]) -> object:
    match arguments:
        case (Storage(kind="UntypedStorage") as bytes_, offset, shape, strides, _, _, Global(module="torch", name=dtype), *_):
            if dtype in BYTE_FORMATS:
                return _tensor((replace(bytes_, kind=dtype), offset, shape, strides))
    raise TypeError


def _counts(*values: object) -> bool:
    """Whether these are numbers that can count elements."""
    return all(type(value) is int and 0 <= value < MAX_NUMBER for value in values)


def _pairs(arguments: tuple[object, ...]) -> dict[str, object]:
    """A dictionary from the list of pairs that old protocols pass; other arguments add nothing."""
    pairs = arguments[0] if arguments and isinstance(arguments[0], list) else []
    return {pair[0]: pair[1] for pair in pairs if isinstance(pair, list | tuple) and len(pair) == 2 and isinstance(pair[0], str)}
