"""Reads the pickle inside a PyTorch checkpoint as data: a machine for its opcodes that imports nothing and calls nothing.

Tensors come out as descriptions (number format, shape, where their bytes are), plain values and containers as themselves,
and every other object as OPAQUE, whatever the pickle wanted done to make it. See CPython's Lib/pickletools.py for the opcodes.
"""

import io
import pickletools
from collections.abc import Callable
from typing import BinaryIO

from modules.model_manager.pickle_names import check_call, mention
from modules.model_manager.pickle_objects import OPAQUE, Storage, made, stored
from modules.model_manager.stored import MAX_NAME, Refused

MAX_WORK = 400_000


class CutShort(Refused):
    """The pickle has no end."""


def read_pickle(data: bytes) -> object:
    """What the pickle describes. Raises Refused when it is malformed, too much work or holds what no checkpoint needs."""
    stream = io.BytesIO(data)
    root, _ = read_next(stream)
    if stream.tell() != len(data):
        raise Refused("damaged: there is something after the end of its pickle")
    return root


def read_next(stream: BinaryIO) -> tuple[object, dict[str, Storage]]:
    """What the pickle that begins here describes, and every storage it speaks of, by key; the stream then stands behind it.

    Raises Refused like `read_pickle`, CutShort where the stream ends within the pickle.
    """
    machine = _Machine()
    try:
        for opcode, argument, _ in pickletools.genops(stream):
            machine.step(opcode.name, argument)
        return machine.result(), machine.storages
    except Refused:
        raise
    except (ValueError, IndexError, KeyError, TypeError, OverflowError, EOFError) as error:
        kind = Refused if stream.read(1) else CutShort
        raise kind("damaged: its pickle cannot be read; download it again") from error


class _Machine:
    """The pickle machine's stack, marks and memo. Each opcode costs one unit of work, unpacked sequences one an item."""

    def __init__(self) -> None:
        self.stack: list[object] = []
        self.marks: list[int] = []
        self.memo: dict[int, object] = {}
        self.storages: dict[str, Storage] = {}
        self.work = 0

    def step(self, name: str, argument: object) -> None:
        self.spend(1)
        if name in PUSHES:
            self.stack.append(argument)
        elif name in CONSTANTS:
            self.stack.append(CONSTANTS[name]())
        elif name in ACTIONS:
            ACTIONS[name](self, argument)
        else:
            raise Refused(f"its pickle uses {name}, which no checkpoint has: save it again with a present PyTorch")

    def spend(self, work: int) -> None:
        self.work += work
        if self.work > MAX_WORK:
            raise Refused("its pickle is far longer than a checkpoint's: not read to the end")

    def pop(self) -> object:
        """The topmost value; never one below the last mark."""
        if len(self.stack) <= (self.marks[-1] if self.marks else 0):
            raise IndexError
        return self.stack.pop()

    def top(self) -> object:
        value = self.pop()
        self.stack.append(value)
        return value

    def to_mark(self) -> list[object]:
        at = self.marks.pop()
        values = self.stack[at:]
        del self.stack[at:]
        return values

    def result(self) -> object:
        if len(self.stack) != 1 or self.marks:
            raise IndexError
        return self.stack[0]


def _nothing(machine: _Machine, argument: object) -> None:
    """PROTO, FRAME and STOP change no value."""


def _mark(machine: _Machine, argument: object) -> None:
    machine.marks.append(len(machine.stack))


def _pop(machine: _Machine, argument: object) -> None:
    if machine.marks and machine.marks[-1] == len(machine.stack):
        machine.marks.pop()
    else:
        machine.pop()


def _pop_mark(machine: _Machine, argument: object) -> None:
    machine.to_mark()


def _duplicate(machine: _Machine, argument: object) -> None:
    machine.stack.append(machine.top())


def _put(machine: _Machine, argument: object) -> None:
    machine.memo[argument] = machine.top()  # type: ignore[index]


def _memoize(machine: _Machine, argument: object) -> None:
    machine.memo[len(machine.memo)] = machine.top()


def _get(machine: _Machine, argument: object) -> None:
    machine.stack.append(machine.memo[argument])  # type: ignore[index]


def _tuple(machine: _Machine, argument: object) -> None:
    machine.stack.append(tuple(machine.to_mark()))


def _tuple_of(length: int) -> Callable[[_Machine, object], None]:
    def make(machine: _Machine, argument: object) -> None:
        values = [machine.pop() for _ in range(length)]
        machine.stack.append(tuple(reversed(values)))

    return make


def _list(machine: _Machine, argument: object) -> None:
    machine.stack.append(machine.to_mark())


def _dictionary(machine: _Machine, argument: object) -> None:
    values = machine.to_mark()
    machine.stack.append({})
    _fill(machine, values)


def _opaque_from_mark(machine: _Machine, argument: object) -> None:
    machine.to_mark()
    machine.stack.append(OPAQUE)


def _append(machine: _Machine, argument: object) -> None:
    _extend(machine, [machine.pop()])


def _appends(machine: _Machine, argument: object) -> None:
    _extend(machine, machine.to_mark())


def _extend(machine: _Machine, values: list[object]) -> None:
    target = machine.top()
    if isinstance(target, list):
        target.extend(values)
    elif target is not OPAQUE:
        raise TypeError


def _set_item(machine: _Machine, argument: object) -> None:
    value, key = machine.pop(), machine.pop()
    _fill(machine, [key, value])


def _set_items(machine: _Machine, argument: object) -> None:
    _fill(machine, machine.to_mark())


def _fill(machine: _Machine, values: list[object]) -> None:
    """Puts key, value, key, value ... into the dictionary on top; entries whose key is no text are of no use and left out."""
    target = machine.top()
    if isinstance(target, dict):
        target.update((key, value) for key, value in zip(values[::2], values[1::2], strict=True) if isinstance(key, str))
    elif target is not OPAQUE:
        raise TypeError


def _global(machine: _Machine, argument: object) -> None:
    module, _, name = str(argument).partition(" ")
    _push_global(machine, module, name)


def _stack_global(machine: _Machine, argument: object) -> None:
    name, module = machine.pop(), machine.pop()
    _push_global(machine, module, name)


def _push_global(machine: _Machine, module: object, name: object) -> None:
    if not isinstance(module, str) or not isinstance(name, str) or len(module) + len(name) > MAX_NAME:
        raise TypeError
    machine.stack.append(mention(module, name))


def _instance(machine: _Machine, argument: object) -> None:
    module, _, name = str(argument).partition(" ")
    machine.to_mark()
    check_call(mention(module, name))
    machine.stack.append(OPAQUE)


def _reduce(machine: _Machine, argument: object) -> None:
    arguments, called = machine.pop(), machine.pop()
    if not isinstance(arguments, tuple):
        raise TypeError
    machine.spend(sum(len(argument) for argument in arguments[:1] if isinstance(argument, list)))
    machine.stack.append(made(called, arguments))


def _new_object_with_keywords(machine: _Machine, argument: object) -> None:
    machine.pop()
    _reduce(machine, argument)


def _build(machine: _Machine, argument: object) -> None:
    """State given to an object after it was made: torch's state dicts carry `_metadata` this way. Not needed."""
    machine.pop()
    machine.top()


def _persistent(machine: _Machine, argument: object) -> None:
    storage = stored(machine.pop())
    if machine.storages.setdefault(storage.key, storage) != storage:
        raise ValueError
    machine.stack.append(storage)


PUSHES = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT",
    "STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8",
    "BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8",
}  # fmt: skip
CONSTANTS: dict[str, Callable[[], object]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_TUPLE": tuple,
    "EMPTY_LIST": list,
    "EMPTY_DICT": dict,
    "EMPTY_SET": lambda: OPAQUE,
}
ACTIONS: dict[str, Callable[[_Machine, object], None]] = {
    "PROTO": _nothing,
    "FRAME": _nothing,
    "STOP": _nothing,
    "MARK": _mark,
    "POP": _pop,
    "POP_MARK": _pop_mark,
    "DUP": _duplicate,
    "PUT": _put,
    "BINPUT": _put,
    "LONG_BINPUT": _put,
    "MEMOIZE": _memoize,
    "GET": _get,
    "BINGET": _get,
    "LONG_BINGET": _get,
    "TUPLE": _tuple,
    "TUPLE1": _tuple_of(1),
    "TUPLE2": _tuple_of(2),
    "TUPLE3": _tuple_of(3),
    "LIST": _list,
    "DICT": _dictionary,
    "FROZENSET": _opaque_from_mark,
    "ADDITEMS": _pop_mark,
    "APPEND": _append,
    "APPENDS": _appends,
    "SETITEM": _set_item,
    "SETITEMS": _set_items,
    "GLOBAL": _global,
    "STACK_GLOBAL": _stack_global,
    "INST": _instance,
    "REDUCE": _reduce,
    "NEWOBJ": _reduce,
    "NEWOBJ_EX": _new_object_with_keywords,
    "BUILD": _build,
    "BINPERSID": _persistent,
}
