"""Files of a training run: each is whole under its name or not there, and what is read is checked before it is used."""

import fcntl
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn


class Unusable(RuntimeError):
    """A file that training cannot go on from, in one line. It is left as it is."""


@contextmanager
def whole(path: Path) -> Iterator[BinaryIO]:
    """A file to write that gets the name `path` when the block ends without error, on the disk by then, in place of what had it.

    OSError says in one line why it could not be written.
    """
    temporary = path.with_name(path.name + ".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except (OSError, RuntimeError) as error:
        cause = error if isinstance(error, OSError) else error.__context__  # torch.save turns the disk's errors into its own
        if not isinstance(cause, OSError) or cause.strerror is None:
            raise
        raise OSError(f"{path} cannot be written: {cause.strerror}") from error
    finally:
        with suppress(OSError):  # renamed, or never there
            temporary.unlink()


def save(state: object, path: Path) -> None:
    """Write with torch.save so that `path` holds either the old or the new state, never a part."""
    with whole(path) as file:
        torch.save(state, file)


def load(path: Path, mmap: bool = False) -> dict[str, Any]:
    """What `save` wrote: plain containers of tensors, on the CPU. Raises Unusable."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu", mmap=mmap)
    except OSError:
        raise
    except Exception as error:  # whatever a reader of pickles stumbles over in other files
        raise Unusable(f"{path} is damaged or no state of Easel's training: move it away to begin again") from error
    if not isinstance(state, dict):
        raise Unusable(f"{path} is no state of Easel's training: move it away to begin again")
    return state


def needed(folder: Path, step: str) -> Path:
    """The state of a step. Raises FileNotFoundError where it is missing."""
    path = folder / f"{step}.pt"
    if not path.exists():
        raise FileNotFoundError(f"{path} is missing: run `train {step}` first")
    return path


def load_networks(networks: Mapping[str, nn.Module], state: Mapping[str, Any], path: Path) -> None:
    """Give the networks their weights in the state. Raises Unusable, with nothing changed, where names or shapes differ."""
    for name, network in networks.items():
        weights = weights_of(state, name, path)
        own = {key: tensor.shape for key, tensor in network.state_dict().items()}
        wrong = sorted(key for key in own.keys() | weights.keys() if own.get(key) != getattr(weights.get(key), "shape", None))
        if wrong:
            raise Unusable(f"{path} was trained with other sizes ({wrong[0]} differs): move it away, or choose another --folder")
    for name, network in networks.items():
        network.load_state_dict(state["networks"][name])


def weights_of(state: Mapping[str, Any], name: str, path: Path) -> dict[str, torch.Tensor]:
    """The tensors of one network in the state. Raises Unusable."""
    networks = state.get("networks")
    weights = networks.get(name) if isinstance(networks, dict) else None
    if not isinstance(weights, dict):
        raise Unusable(f"{path} holds no network called {name}: move it away to begin again")
    return weights


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """One training a folder: OSError where another has it."""
    path = folder / "training.lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = path.open("a")
    except OSError as error:
        raise OSError(f"{folder} cannot be used as a folder to write to: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise OSError(f"another training works in {folder}: stop it, or choose another --folder") from None
        yield
