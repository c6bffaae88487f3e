"""`doctor`: what this machine is, what Easel chose on it and why, and what stands in the way of drawing."""

import argparse
import contextlib
import importlib.metadata
import platform
import secrets
import shutil
import sqlite3
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil

from modules.commands.options import add_settings, settings_of
from modules.model_manager.choice import usable
from modules.model_manager.library import Checkpoint, scan
from modules.settings import PROGRAM, Settings
from modules.version import VERSION

PACKAGES = ("torch", "diffusers", "transformers", "gradio", "numpy", "pillow")
LOW_DISK = 1 << 30  # bytes
GB = 1 << 30


class Trouble(Exception):
    """Something that keeps Easel from working, and what to do about it, in one line."""


def add_parser(subparsers: argparse._SubParsersAction) -> None:
    parser = subparsers.add_parser("doctor", help="look at this machine and say what is wrong", allow_abbrev=False)
    add_settings(parser, ["data_dir", "models_dir", "ckpt_dir", "outdir", "device", "precision"])


def main(arguments: argparse.Namespace) -> int:
    settings = settings_of(arguments)
    checkpoints = scan(settings.checkpoint_roots, settings.hashes)
    checks: dict[str, Callable[[], str]] = {
        "versions": _versions,
        "memory": _memory,
        "models": lambda: _models(checkpoints, settings),
        "drawing": lambda: _drawing(checkpoints, settings),
        "outputs": lambda: _folder(settings.outputs),
        "state": lambda: f"{_folder(settings.state)}, SQLite {sqlite3.sqlite_version}",
    }
    troubles = 0
    for name, check in checks.items():
        try:
            print(f"ok       {name:9}{check()}", flush=True)
        except Trouble as trouble:
            troubles += 1
            print(f"trouble  {name:9}{trouble}", flush=True)
    return 1 if troubles else 0


def _versions() -> str:
    pins = dict(line.split("==") for line in (PROGRAM / "requirements.txt").read_text().split() if "==" in line)
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            raise Trouble(f"{package} is not installed: start with ./webui.sh, which installs it") from None
        if found[package].partition("+")[0] != pins[package]:
            raise Trouble(f"{package} is {found[package]}, tested is {pins[package]}: remove venv/ and start ./webui.sh again")
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        raise Trouble(f"torchvision {importlib.metadata.version('torchvision')} breaks transformers: pip uninstall torchvision")
    listed = ", ".join(f"{package} {version}" for package, version in found.items())
    return f"Easel {VERSION}, Python {platform.python_version()}, {listed}"


def _memory() -> str:
    memory = psutil.virtual_memory()
    if memory.available < GB:
        raise Trouble(f"{memory.available / GB:.1f} GB of {memory.total / GB:.1f} GB are free: close other programs")
    return f"{memory.available / GB:.1f} GB of {memory.total / GB:.1f} GB are free"


def _models(checkpoints: list[Checkpoint], settings: Settings) -> str:
    refused = sum(checkpoint.status != "ok" for checkpoint in checkpoints)
    if len(checkpoints) == refused:
        where = ", ".join(str(root) for root in settings.checkpoint_roots)
        raise Trouble(f"no usable checkpoint ({refused} refused) in {where}: put one there; `models` says why one is refused")
    return f"{len(checkpoints) - refused} usable, {refused} refused"


def _drawing(checkpoints: list[Checkpoint], settings: Settings) -> str:
    """The device and the number format that the default checkpoint is drawn in."""
    from modules.engine.stop import CannotDraw
    from modules.engine.studio import Studio

    try:
        with contextlib.redirect_stdout(sys.stderr):
            studio = Studio.of(settings)
            drawn = usable(checkpoints, "").architecture
            chosen = studio.format_for(drawn.unet, drawn.native_size // drawn.vae.factor)
    except (CannotDraw, LookupError) as error:
        raise Trouble(str(error)) from None
    return f"on {studio.device}, in {chosen.why}"


def _folder(folder: Path) -> str:
    with _complaining(folder):
        folder.mkdir(parents=True, exist_ok=True)
        probe = folder / f".{secrets.token_hex(8)}.tmp"
        probe.write_bytes(b"x")
        probe.unlink()
        free = shutil.disk_usage(folder).free
    if free < LOW_DISK:
        raise Trouble(f"{folder}: only {free / GB:.2f} GB are free on its disk")
    return f"{folder} is writable, {free / GB:.0f} GB are free"


@contextlib.contextmanager
def _complaining(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Trouble(f"{folder} cannot be written: {error.strerror or error}") from None
