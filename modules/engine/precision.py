"""Which number format draws fastest here: measured on this CPU at the network's own widths, never assumed.

bfloat16 is twice as fast as float32 on a CPU that has instructions for it and 500 times slower on one that has not, and on
small networks even the instructions do not pay.
"""

import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from modules.engine.machine import cpu_name
from modules.model_manager.architecture import UNetShape

WORTH = 2.0  # how many times faster than float32 a coarser format must be: attention on large latents, not measured, gains nothing
HOPELESS = 4.0  # slower than float32 by this on a tiny product: not measured further
LARGEST_SIDE = 16  # latent cells: a larger latent is measured at this side
ROUNDS, ENOUGH = (2, 20), 0.1  # fewest and most rounds of measuring, and the seconds after which it may end

log = logging.getLogger("easel.engine")
Seconds = dict[str, float]


@dataclass(frozen=True)
class NumberFormat:
    """A format for weights and activations, and in a sentence why this one."""

    name: str
    why: str

    @property
    def dtype(self) -> torch.dtype:
        return getattr(torch, self.name)


def choose(wanted: str, device: torch.device, shape: UNetShape, side: int, cache: Path, worth: float = WORTH) -> NumberFormat:
    """The format for a denoiser of this shape on latents `side` cells wide; `wanted` other than "auto" decides.

    A coarser format has to be `worth` times as fast as float32. Measured times are kept in the JSON file `cache`, by CPU, torch and
    network.
    """
    if wanted != "auto":
        return NumberFormat(wanted, f"{wanted}: asked for with --precision")
    if device.type == "cuda":
        return NumberFormat("float16", "float16: the fastest format of every CUDA device")
    if device.type != "cpu":
        return NumberFormat("float32", f"float32: the safe format on {device.type}")
    key = f"{cpu_name()}, {torch.get_num_threads()} threads, torch {torch.__version__}, {shape.channels} at {min(side, LARGEST_SIDE)}"
    known = _read(cache)
    if key not in known:
        known[key] = measure(shape, side)
        _write(cache, known)
    return _fastest(known[key], worth)


def _fastest(seconds: Seconds, worth: float) -> NumberFormat:
    if "bfloat16" not in seconds:
        return NumberFormat("float32", "float32: this CPU computes bfloat16 far slower, for it has no instructions for it")
    gain = seconds["float32"] / seconds["bfloat16"]
    if gain >= worth:
        return NumberFormat("bfloat16", f"bfloat16: measured {gain:.1f} times as fast as float32 on this CPU for this network")
    return NumberFormat("float32", f"float32: bfloat16 measured only {gain:.1f} times as fast on this CPU for this network")


def measure(shape: UNetShape, side: int) -> Seconds:
    """Seconds that a block of each of the network's levels takes, in total, by format. bfloat16 is left out where it is hopeless."""
    with torch.inference_mode():
        product = {dtype: _best([_product(dtype)]) for dtype in (torch.float32, torch.bfloat16)}
        if product[torch.bfloat16] > HOPELESS * product[torch.float32]:
            return {"float32": product[torch.float32]}
        side = min(side, LARGEST_SIDE)
        levels = [
            (channels, max(side >> level, 1), attends, shape.heads_at(level))
            for level, (channels, attends) in enumerate(zip(shape.channels, shape.attention, strict=True))
        ]
        return {
            name: _best([_block(*level, dtype) for level in levels])
            for name, dtype in (("float32", torch.float32), ("bfloat16", torch.bfloat16))
        }


def _best(work: list[Callable[[], Tensor]]) -> float:
    """The sum over all work of the shortest time out of several rounds, after one that warms up.

    Time that this process computed, not time that passed: what else the machine is doing must not decide.
    """
    fewest, most = ROUNDS
    times = [[_timed(one) for one in work]]
    while len(times) <= fewest or (len(times) <= most and sum(map(sum, times)) < ENOUGH):
        times.append([_timed(one) for one in work])
    return sum(min(rounds) for rounds in zip(*times[1:], strict=True))


def _timed(one: Callable[[], Tensor]) -> float:
    start = time.process_time()
    one()
    return time.process_time() - start


def _product(dtype: torch.dtype) -> Callable[[], Tensor]:
    a = torch.full((64, 64), 0.01, dtype=dtype)
    return lambda: a @ a


def _block(channels: int, side: int, attends: bool, heads: int, dtype: torch.dtype) -> Callable[[], Tensor]:
    """A residual block, and a self-attention block with its feed-forward where the level attends, as the U-Net has them."""
    x = torch.full((2, channels, side, side), 0.01, dtype=dtype)
    kernel, matrix = (torch.full(extents, 0.01, dtype=dtype) for extents in ((channels, channels, 3, 3), (channels, channels)))
    if dtype == torch.bfloat16:
        x, kernel = (t.contiguous(memory_format=torch.channels_last) for t in (x, kernel))
    wide, narrow = matrix.repeat(8, 1), matrix.repeat(1, 4)

    def run() -> Tensor:
        y = x
        for _ in range(2):
            y = F.conv2d(F.silu(F.group_norm(y, 32 if channels % 32 == 0 else 1)), kernel, padding=1)
        if not attends:
            return y
        tokens = F.layer_norm(y.flatten(2).transpose(1, 2), (channels,))  # (2, side^2, channels)
        query, key, value = (F.linear(tokens, matrix).unflatten(2, (heads, -1)).transpose(1, 2) for _ in range(3))
        tokens = F.linear(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2), matrix)
        gate, through = F.linear(F.layer_norm(tokens, (channels,)), wide).chunk(2, dim=2)
        return F.linear(F.gelu(gate) * through, narrow)

    return run


def _read(cache: Path) -> dict[str, Seconds]:
    try:
        known = json.loads(cache.read_text())
        return {key: {name: float(seconds) for name, seconds in times.items()} for key, times in known.items()}
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        log.warning("%s cannot be used and is measured again: %s", cache, error)
        return {}


def _write(cache: Path, known: dict[str, Seconds]) -> None:
    try:
        cache.parent.mkdir(parents=True, exist_ok=True)
        temporary = cache.with_suffix(f".{os.getpid()}.tmp")
        temporary.write_text(json.dumps(known, indent=1))
        os.replace(temporary, cache)
    except OSError as error:
        log.warning("the number format is measured again next time, for %s cannot be written: %s", cache, error.strerror)
