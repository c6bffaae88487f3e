"""The checkpoints and VAE files below the model folders: what each is, or why it is not used."""

import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, is_dataclass
from functools import lru_cache
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from modules.model_manager.architecture import Architecture, TextShape, UNetShape, VaeShape
from modules.model_manager.config import read_defaults
from modules.model_manager.folder_checkpoint import files_of
from modules.model_manager.folders import EXTENSIONS, is_vae, model_files
from modules.model_manager.hashes import known_hash, paths_of
from modules.model_manager.headers import read_header
from modules.model_manager.index import Kind, remembered, stamp
from modules.model_manager.reading import described, yaml_beside
from modules.model_manager.recognise import recognise_vae
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


def scan(roots: Sequence[Path], store: Path | None = None) -> list[Checkpoint]:
    """Every checkpoint below these folders, refused ones too, sorted by name. What did not change since it was last read, by this
    process or by one that remembered it in `store`, is not read again."""
    named = ((name, path) for name, path in model_files(roots) if not is_vae(path))
    return sorted(remembered(CHECKPOINTS, named, store), key=lambda checkpoint: checkpoint.name.casefold())


def scan_vaes(roots: Sequence[Path], checkpoint_roots: Sequence[Path] = (), store: Path | None = None) -> list[VaeFile]:
    """Every VAE file: all below `roots`, and those called `*.vae.*` beside checkpoints."""
    beside = [(name, path) for name, path in model_files(checkpoint_roots) if is_vae(path)]
    return sorted(remembered(VAES, [*model_files(roots), *beside], store), key=lambda vae: vae.name.casefold())


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
    raise LookupError(nothing_like(wanted, [found.name for found in checkpoints if found.status == "ok"]))


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
        raise LookupError(nothing_like(wanted, [vae.name for vae in vaes if vae.status == "ok"]))
    if found.status == "refused":
        raise LookupError(f"{found.name} cannot be used: {found.reason}")
    return found


def state_of(path: Path) -> str:
    """Another text whenever a model's file, the `.yaml` beside it or a file of its folder is another than before."""
    return stamp(_files(path))


def _look_at_checkpoint(name: str, path: Path) -> Checkpoint:
    size = _size(path)
    try:
        header, architecture = described(path)
        defaults = read_defaults(yaml_beside(path))
    except Refused as refusal:
        return Checkpoint(name, path, "refused", "", str(refusal), None, size, 0)
    size = sum(file.size for file in header.files.values())
    return Checkpoint(name, path, "ok", architecture.family, "", architecture, size, architecture.native_size, defaults)


def _look_at_vae(name: str, path: Path) -> VaeFile:
    size = _size(path)
    try:
        shape, prefix = recognise_vae(read_header(path), yaml_beside(path))
    except Refused as refusal:
        return VaeFile(name, path, "refused", str(refusal), None, "", size)
    return VaeFile(name, path, "ok", "", shape, prefix, size)


def _size(path: Path) -> int:
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def _files(path: Path) -> list[str]:
    """The file and the `.yaml` beside it, or the files of a folder in diffusers' layout."""
    if path.suffix.lower() in EXTENSIONS:
        return [str(path), f"{os.path.splitext(path)[0]}.yaml"]
    return [f"{path}.yaml", *(f"{path}/{name}" for name in files_of(path))]


def _pack(found: Checkpoint | VaeFile) -> dict[str, object]:
    plain = {name: value for name, value in vars(found).items() if name not in ("name", "path")}
    return {name: json.dumps(asdict(value)) if is_dataclass(value) else value for name, value in plain.items()}


def _unpack_checkpoint(name: str, path: Path, plain: dict[str, Any]) -> Checkpoint:
    architecture = plain.pop("architecture")
    return Checkpoint(name=name, path=path, architecture=architecture and _architecture(architecture), **plain)


def _unpack_vae(name: str, path: Path, plain: dict[str, Any]) -> VaeFile:
    shape = plain.pop("shape")
    return VaeFile(name=name, path=path, shape=shape and VaeShape(**_with_tuples(json.loads(shape))), **plain)


@lru_cache
def _architecture(text: str) -> Architecture:
    plain = json.loads(text)
    parts = {"unet": UNetShape, "vae": VaeShape, "text": TextShape}
    return Architecture(**plain | {name: part(**_with_tuples(plain[name])) for name, part in parts.items()})


def _with_tuples(plain: dict[str, Any]) -> dict[str, Any]:
    return {name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()}


def _by_hash(checkpoints: Sequence[Checkpoint], prefix: str, hashes: Path | None) -> list[Checkpoint]:
    if hashes is None or not HASH.fullmatch(prefix):
        return []
    paths = paths_of(prefix.lower(), hashes)
    return [found for found in checkpoints if str(found.path.absolute()) in paths and known_hash(found.path, hashes)]


def _same(wanted: str, *names: str) -> bool:
    return wanted.casefold() in (name.casefold() for name in names)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()


def nothing_like(wanted: str, names: list[str], kind: str = "") -> str:
    """That there is no `wanted`, and which of `names` are close."""
    stems = {PurePosixPath(name).stem.casefold(): name for name in reversed(names)}
    close = difflib.get_close_matches(PurePosixPath(wanted[:200]).stem.casefold(), stems, n=3)
    hint = f"; did you mean {' or '.join(stems[stem] for stem in close)}?" if close else ""
    return f"there is no {kind}{wanted[:100]}{hint}"


CHECKPOINTS = Kind("checkpoint", _files, _look_at_checkpoint, _pack, _unpack_checkpoint)
VAES = Kind("VAE", _files, _look_at_vae, _pack, _unpack_vae)
