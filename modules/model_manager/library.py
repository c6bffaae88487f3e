"""The checkpoints and VAE files below the model folders: what each is, or why it is not used."""

import difflib
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Literal, TypeVar

from modules.model_manager.architecture import Architecture, VaeShape
from modules.model_manager.config import read_defaults
from modules.model_manager.folders import is_vae, model_files
from modules.model_manager.hashes import known_hash
from modules.model_manager.headers import read_header
from modules.model_manager.recognise import recognise, recognise_vae
from modules.model_manager.stored import Refused

AUTOMATIC, NONE = "Automatic", "None"
BRACKET = re.compile(r"(?P<name>.*\S)\s*\[(?P<hash>[0-9a-fA-F]{8,64})\]")
HASH = re.compile("[0-9a-fA-F]{8,64}")


@dataclass(frozen=True)
class Checkpoint:
    """A file in a checkpoint folder. `name` is its path below that folder; a refused one has a reason and no architecture.

    `defaults` are values of recipe fields that its own `.yaml` recommends.
    """

    name: str
    path: Path
    status: Literal["ok", "refused"]
    family: str
    reason: str
    architecture: Architecture | None
    size_bytes: int
    native_size: int
    defaults: Mapping[str, str | int | float] = field(default_factory=dict)


@dataclass(frozen=True)
class VaeFile:
    """An autoencoder in a file of its own; `prefix` stands before the names of its tensors."""

    name: str
    path: Path
    status: Literal["ok", "refused"]
    reason: str
    shape: VaeShape | None
    prefix: str
    size_bytes: int


Kind = TypeVar("Kind", Checkpoint, VaeFile)
Stamp = tuple[object, ...]
_known: dict[tuple[Callable[..., object], str, Path], tuple[Stamp, Checkpoint | VaeFile]] = {}


def scan(roots: Sequence[Path]) -> list[Checkpoint]:
    """Every checkpoint below these folders, refused ones too, sorted by name. Files that did not change are not read again."""
    found = [_remembered(_look_at_checkpoint, name, path) for name, path in model_files(roots) if not is_vae(path)]
    return sorted(found, key=lambda checkpoint: checkpoint.name.casefold())


def scan_vaes(roots: Sequence[Path], checkpoint_roots: Sequence[Path] = ()) -> list[VaeFile]:
    """Every VAE file: all below `roots`, and those called `*.vae.*` beside checkpoints."""
    beside = [(name, path) for name, path in model_files(checkpoint_roots) if is_vae(path)]
    found = [_remembered(_look_at_vae, name, path) for name, path in [*model_files(roots), *beside]]
    return sorted(found, key=lambda vae: vae.name.casefold())


def find(checkpoints: Sequence[Checkpoint], wanted: str, hashes: Path | None = None) -> Checkpoint:
    """The checkpoint meant by a name, a stem, `name [hash]` or a hash (of those in the store `hashes`); usable before refused.

    Raises LookupError with one line: no such checkpoint (and which are close), or more than one.
    """
    wanted = wanted.strip()
    bracket = BRACKET.fullmatch(wanted)
    name = bracket["name"] if bracket else wanted
    for matches in (
        [found for found in checkpoints if found.name == name],
        [found for found in checkpoints if _same(name, found.name, _stem(found.name))],
        [found for found in checkpoints if _same(name, PurePosixPath(found.name).name, PurePosixPath(found.name).stem)],
        _by_hash(checkpoints, bracket["hash"] if bracket else wanted, hashes),
    ):
        usable = [found for found in matches if found.status == "ok"] or matches
        if len(usable) > 1:
            raise LookupError(f"{wanted} could be {' or '.join(found.name for found in usable[:4])}: say which")
        if usable:
            return usable[0]
    raise LookupError(_nothing(wanted, [found.name for found in checkpoints if found.status == "ok"]))


def find_vae(vaes: Sequence[VaeFile], wanted: str, checkpoint: str) -> VaeFile | None:
    """The VAE file meant for a checkpoint, None for the checkpoint's own. LookupError when there is no such file.

    "Automatic" takes the first usable one whose name begins with the checkpoint's stem, if any, as people name them.
    """
    if wanted in (NONE, ""):
        return None
    if wanted == AUTOMATIC:
        stem = PurePosixPath(checkpoint).stem
        return next((vae for vae in vaes if vae.status == "ok" and PurePosixPath(vae.name).name.startswith(stem)), None)
    found = next((vae for vae in vaes if _same(wanted, vae.name, _stem(vae.name), PurePosixPath(vae.name).name)), None)
    if found is None:
        raise LookupError(_nothing(wanted, [vae.name for vae in vaes if vae.status == "ok"]))
    if found.status == "refused":
        raise LookupError(f"{found.name} cannot be used: {found.reason}")
    return found


def yaml_beside(path: Path) -> Path | None:
    """The configuration with the same stem, if there is one."""
    beside = path.with_suffix(".yaml")
    return beside if os.path.lexists(beside) else None


def _look_at_checkpoint(name: str, path: Path) -> Checkpoint:
    size = _size(path)
    try:
        beside = yaml_beside(path)
        architecture = recognise(read_header(path), beside)
        defaults = read_defaults(beside)
    except Refused as refusal:
        return Checkpoint(name, path, "refused", "", str(refusal), None, size, 0)
    return Checkpoint(name, path, "ok", architecture.family, "", architecture, size, architecture.native_size, defaults)


def _look_at_vae(name: str, path: Path) -> VaeFile:
    size = _size(path)
    try:
        shape, prefix = recognise_vae(read_header(path), yaml_beside(path))
    except Refused as refusal:
        return VaeFile(name, path, "refused", str(refusal), None, "", size)
    return VaeFile(name, path, "ok", "", shape, prefix, size)


def _remembered(look: Callable[[str, Path], Kind], name: str, path: Path) -> Kind:
    """What `look` says, asked again only when the file or the `.yaml` beside it is another than last time."""
    stamp = (*_stamp(path), *_stamp(path.with_suffix(".yaml")))
    key = (look, name, path)
    if key not in _known or _known[key][0] != stamp:
        _known[key] = stamp, look(name, path)
    return _known[key][1]  # type: ignore[return-value]


def _stamp(path: Path) -> Stamp:
    try:
        now = os.stat(path)
    except OSError as error:
        return (error.errno,)
    return now.st_dev, now.st_ino, now.st_mode, now.st_size, now.st_mtime_ns, now.st_ctime_ns


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _by_hash(checkpoints: Sequence[Checkpoint], prefix: str, hashes: Path | None) -> list[Checkpoint]:
    if hashes is None or not HASH.fullmatch(prefix):
        return []
    return [found for found in checkpoints if (known_hash(found.path, hashes) or "").startswith(prefix.lower())]


def _same(wanted: str, *names: str) -> bool:
    return wanted.casefold() in (name.casefold() for name in names)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def _nothing(wanted: str, names: list[str]) -> str:
    stems = {PurePosixPath(name).stem.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(PurePosixPath(wanted[:200]).stem.casefold(), stems, n=3)
    hint = f"; did you mean {' or '.join(stems[stem] for stem in close)}?" if close else ""
    return f"there is no {wanted[:100]}{hint}"
