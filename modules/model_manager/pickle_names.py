"""Which names a checkpoint's pickle may mention. Nothing is ever imported or called: this only decides what is worth refusing.

The rule, in three lines:
- what tensors and plain containers are made of is understood (pickle_reader.py);
- of Python's own library only plain data types may appear: anything else there is code that a checkpoint has no use for;
- elsewhere a class may be named, made and filled in (training frameworks leave theirs in the metadata), a function may not be called.
"""

import re
import sys
from dataclasses import dataclass

from modules.model_manager.stored import Refused, shown


@dataclass(frozen=True, slots=True)
class Global:
    """A name in a pickle. Only a name: what it stands for is never looked up."""

    module: str
    name: str

    def __str__(self) -> str:
        return f"{self.module}.{self.name}"


STANDARD_LIBRARY = sys.stdlib_module_names | {"__builtin__", "commands", "copy_reg", "cPickle", "nt", "ntpath", "popen2", "posixsubprocess"}

PLAIN_TYPES = {
    "__builtin__": {"bool", "bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "long", "object", "set", "slice"},
    "_codecs": {"encode"},
    "argparse": {"Namespace"},
    "collections": {"Counter", "OrderedDict", "defaultdict", "deque"},
    "copyreg": {"_reconstructor"},
    "datetime": {"date", "datetime", "time", "timedelta", "timezone"},
    "decimal": {"Decimal"},
    "fractions": {"Fraction"},
    "pathlib": {"Path", "PosixPath", "PurePosixPath", "PureWindowsPath", "WindowsPath"},
    "types": {"SimpleNamespace"},
    "typing": {"Any", "Dict", "List", "Optional", "Tuple", "Union"},
    "uuid": {"UUID"},
}
PLAIN_TYPES["__builtin__"] |= {"range", "str", "tuple", "unicode"}
PLAIN_TYPES["builtins"] = PLAIN_TYPES["__builtin__"]
PLAIN_TYPES["copy_reg"] = PLAIN_TYPES["copyreg"]

INERT_FUNCTIONS = {
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "torch.device",
    "torch.dtype",
    "torch.serialization._get_layout",
}

CLASS_NAME = re.compile(r"_*[A-Z]\w*(\._*[A-Z]\w*)*")


def mention(module: str, name: str) -> Global:
    """A name that the pickle mentions. Raises Refused for one out of Python's own library that is not a plain data type."""
    mentioned = Global(module, name)
    root = module.partition(".")[0]
    if root in STANDARD_LIBRARY and name not in PLAIN_TYPES.get(module, ()):
        raise Refused(f"holds {shown(str(mentioned))}, code that a checkpoint has no use for: do not use this file")
    return mentioned


def check_call(called: object) -> None:
    """Raises Refused when a pickle wants this called and it is neither a plain type, a class nor known to be harmless."""
    if not isinstance(called, Global):
        raise Refused("asks for calling something that is not a name, code that a checkpoint has no use for: do not use this file")
    if called.module in PLAIN_TYPES or str(called) in INERT_FUNCTIONS or CLASS_NAME.fullmatch(called.name):
        return
    if called.module in ("torch._utils", "torch._tensor") and called.name.startswith("_rebuild"):
        raise Refused(f"holds a kind of tensor that is not supported ({shown(str(called))}): save it as a plain dense one")
    raise Refused(f"asks for calling {shown(str(called))}, code that a checkpoint has no use for: do not use this file")
