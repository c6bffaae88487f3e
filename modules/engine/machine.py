"""The machine that draws: its cores, its device, its memory."""

import contextlib
import ctypes
import gc
import os
import platform
import resource
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import torch

from modules.engine.stop import CannotDraw


def usable_cores() -> int:
    """Physical cores that this process may use: no more than its affinity or its container's quota allow."""
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    if hasattr(os, "sched_getaffinity"):
        cores = min(cores, len(os.sched_getaffinity(0)))
    return max(1, min(cores, _container_quota()))


def _container_quota() -> int:
    """Whole cores that a cgroup grants (version 2's `cpu.max`: microseconds in each period), or very many."""
    try:
        granted, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return int(granted) // int(period)
    except (OSError, ValueError):
        return sys.maxsize


def pick_device(wanted: str) -> torch.device:
    """The device called `wanted`; "auto" is the fastest there is. CannotDraw if the one asked for is not there."""
    there = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if wanted == "auto":
        return torch.device(next(name for name, usable in there.items() if usable))
    if not there[wanted]:
        raise CannotDraw(f"--device {wanted}: there is none, or this build of torch does not support it; leave --device out")
    return torch.device(wanted)


def cpu_name() -> str:
    """What tells this kind of CPU from others: name, model numbers, and the instructions that torch uses on it."""
    wanted = ("model name", "cpu family", "model", "CPU part")
    try:
        lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
        known = dict(line.split("\t", 1) for line in lines if "\t" in line)
        name = " ".join(known[key].strip(": \t") for key in wanted if key in known)
    except OSError:
        name = platform.processor()
    return f"{name or platform.machine()} {torch.backends.cpu.get_cpu_capability()}"


def peak_memory() -> int:
    """The most bytes this process has ever held in main memory."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def free_memory(device: torch.device) -> int:
    """Bytes that may still be filled on this device: in main memory with its swap space, or on the graphics card."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0]
    return min(psutil.virtual_memory().available + psutil.swap_memory().free, _container_memory()[1])


def total_memory(device: torch.device) -> int:
    """Bytes of main memory, or of the graphics card."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[1]
    return min(psutil.virtual_memory().total, _container_memory()[0])


def held_memory(device: torch.device) -> int:
    """Bytes that this process fills now, on this device."""
    return torch.cuda.memory_allocated(device) if device.type == "cuda" else psutil.Process().memory_info().rss


def _container_memory() -> tuple[int, int]:
    """What a cgroup (version 2) grants and how much of that is left, caches of files not counted; or very much."""
    here = Path("/sys/fs/cgroup")
    try:
        granted = int((here / "memory.max").read_text())
        held = dict(line.split() for line in (here / "memory.stat").read_text().splitlines())
        return granted, granted - int((here / "memory.current").read_text()) + int(held["file"])
    except (OSError, ValueError, KeyError):
        return sys.maxsize, sys.maxsize


def give_back_memory() -> None:
    """Returns freed memory to the system, which the C library would keep otherwise."""
    gc.collect()
    if sys.platform == "linux":
        trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # glibc has it, musl has not
        if trim:
            trim(0)
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


@contextlib.contextmanager
def memory_errors_explained(what: str) -> Iterator[None]:
    """Turns every way in which memory can run out into CannotDraw, which says that there is not enough of it to do `what`."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if isinstance(error, RuntimeError) and not _is_about_memory(error):
            raise
        raise CannotDraw(f"not enough memory to {what}: choose a smaller size, or close other programs") from error


def _is_about_memory(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error) or "not enough memory" in str(error)
