"""The LoRA files below the model folders: what each is, how a prompt calls it, and which one a prompt means."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Literal

from modules.model_manager.architecture import Architecture
from modules.model_manager.folders import model_files
from modules.model_manager.hashes import sha256
from modules.model_manager.headers import read_header
from modules.model_manager.index import Kind, remembered
from modules.model_manager.library import nothing_like
from modules.model_manager.lora_file import about, adapters_of, fitted
from modules.model_manager.stored import Header, Refused, shown
from modules.recipe.prompt import Network

SHORT = 12
HASH = re.compile("[0-9a-f]{12,64}")
UNSPEAKABLE = re.compile("[:<>]")


@dataclass(frozen=True)
class Lora:
    """A file in a LoRA folder. `name` is its path below that folder, `alias` what its trainer called it ("" for nothing).

    `about` says what it changes; a refused one has a `reason` instead.
    """

    name: str
    path: Path
    status: Literal["ok", "refused"]
    reason: str
    alias: str
    about: str


def scan_loras(roots: Sequence[Path], store: Path | None = None) -> list[Lora]:
    """Every LoRA file below these folders, refused ones too, sorted by name. What did not change since it was last read, by this
    process or by one that remembered it in `store`, is not read again."""
    return sorted(remembered(LORAS, model_files(roots), store), key=lambda lora: lora.name.casefold())


def called(loras: Iterable[Lora]) -> dict[str, Lora]:
    """The usable ones by the shortest name that a prompt can call each by: its stem, or more of its path where others have that too."""
    usable = [lora for lora in loras if lora.status == "ok"]
    taken = Counter(call.casefold() for lora in usable for call in dict.fromkeys(_calls(lora.name)))
    return {next((call for call in _calls(lora.name) if taken[call.casefold()] == 1), lora.name): lora for lora in usable}


def find_lora(roots: Sequence[Path], wanted: str, store: Path | None = None) -> Lora:
    """The usable LoRA that a prompt calls so: by its path, its stem, or what its trainer called it.

    Reads no more files than it must: there may be thousands. Raises LookupError with one line: none (and which are close),
    more than one, or why it cannot be used.
    """
    files = dict(model_files(roots))
    word = wanted.strip().casefold()
    for found in _meant(files, word, store):
        usable = [lora for lora in found if lora.status == "ok"]
        if len(usable) > 1:
            raise LookupError(f"{shown(wanted)} could be {' or '.join(lora.name for lora in usable[:4])}: say which")
        if usable:
            return usable[0]
        if found:
            raise LookupError(f"{found[0].name} cannot be used: {found[0].reason}")
    raise LookupError(nothing_like(wanted, [_calls(name)[1] for name in files], "LoRA "))


def _meant(files: Mapping[str, Path], word: str, store: Path | None) -> Iterator[list[Lora]]:
    """What a word may mean, the likeliest first; a file is looked at only when it is asked for."""
    for call in (1, 2, 0):
        yield remembered(LORAS, [(name, path) for name, path in files.items() if _calls(name)[call].casefold() == word], store)
    yield [lora for lora in remembered(LORAS, files.items(), store) if lora.alias.casefold() == word]


def lora_hashes(networks: Sequence[Network], roots: Sequence[Path], architecture: Architecture, hashes: Path) -> str:
    """Which files these are, as pictures' parameters say it: `name: hash, name: hash`.

    Raises LookupError for one that is not there, or was not made for models like this one.
    """
    known: dict[str, str] = {}
    for network in networks:
        lora = find_lora(roots, network.name, hashes)
        try:
            header = read_header(lora.path)
            fitted(adapters_of(header), architecture)
            known[network.name.replace(",", "")] = _hash(lora.path, header, hashes)
        except Refused as refusal:
            raise LookupError(f"{lora.name} cannot be used: {refusal}") from None
    return ", ".join(f"{name}: {digest}" for name, digest in known.items())


def _look_at_lora(name: str, path: Path) -> Lora:
    alias = ""
    try:
        if UNSPEAKABLE.search(name):
            raise Refused("no prompt can call a file with one of : < > in its name: rename it")
        header = read_header(path)
        alias = _alias(header.metadata)
        return Lora(name, path, "ok", "", alias, about(adapters_of(header)))
    except Refused as refusal:
        return Lora(name, path, "refused", str(refusal), alias, "")


def _alias(metadata: Mapping[str, str]) -> str:
    """What kohya's scripts wrote as its name."""
    alias = metadata.get("ss_output_name", "")
    return "" if alias == "None" or UNSPEAKABLE.search(alias) else shown(alias)


def _hash(path: Path, header: Header, hashes: Path) -> str:
    """The first 12 digits of what kohya's scripts wrote as its hash, or of the SHA-256 of its tensors without the header before them.

    So a LoRA whose title was edited is still the same one.
    """
    claimed = header.metadata.get("sshs_model_hash", "").lower()
    if HASH.fullmatch(claimed):
        return claimed[:SHORT]
    start = min(tensor.stretch.offset for tensor in header.tensors.values()) if header.format == "safetensors" else 0
    return sha256(path, hashes, start)[:SHORT]


def _calls(name: str) -> tuple[str, str, str]:
    """What a prompt may call a file: its stem, the whole path to it without ending, and with."""
    path = PurePosixPath(name)
    return path.stem, path.with_suffix("").as_posix(), name


def _pack(lora: Lora) -> dict[str, str]:
    return {name: value for name, value in vars(lora).items() if name not in ("name", "path")}


def _unpack(name: str, path: Path, plain: dict[str, str]) -> Lora:
    return Lora(name=name, path=path, **plain)


LORAS = Kind("LoRA", lambda path: [str(path)], _look_at_lora, _pack, _unpack)
