"""What every training step shares: a budget, a log, checkpoints that survive a kill, and pictures to look at.

All randomness of a step is drawn from generators seeded with (seed, step), so a run that was stopped and resumed is the same
run, and no generator state has to be kept.
"""

import csv
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from tqdm import tqdm


@dataclass(frozen=True)
class Budget:
    """How long to train: until `total` steps or `total` seconds of work, whichever `unit` says."""

    total: float
    unit: str = "steps"

    def fraction(self, step: int, seconds: float) -> float:
        """The part of the budget that is spent, 0 to 1."""
        return min(1.0, (step if self.unit == "steps" else seconds) / self.total)


@dataclass
class Trainer:
    """One network in training. `step(step, fraction)` does one update and returns what to log."""

    name: str
    networks: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    step: Callable[[int, float], dict[str, float]]
    picture: Callable[[], np.ndarray] | None = None  # what to look at, (H, W, 3) uint8
    batch: int = 1
    done: int = 0
    seconds: float = 0.0
    _stop: bool = field(default=False, repr=False)

    def state(self) -> dict[str, object]:
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimiser": self.optimiser.state_dict(),
            "done": self.done,
            "seconds": self.seconds,
        }

    def restore(self, path: Path) -> bool:
        """Go on from the checkpoint at `path`; False where there is none."""
        if not path.exists():
            return False
        state = torch.load(path, weights_only=True)
        for name, network in self.networks.items():
            network.load_state_dict(state["networks"][name])
        self.optimiser.load_state_dict(state["optimiser"])
        self.done, self.seconds = state["done"], state["seconds"]
        return True


def save(state: object, path: Path) -> None:
    """Write with torch.save so that `path` holds either the old or the new state, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".part")
    with temporary.open("wb") as file:
        torch.save(state, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


def bar(name: str) -> Callable[[float], None]:
    """A progress bar for work that tells the fraction that is done."""
    shown = tqdm(total=100, desc=name, unit="%", bar_format="{desc} {percentage:3.0f}% {elapsed} <{remaining}")

    def report(fraction: float) -> None:
        shown.update(100 * fraction - shown.n)
        if fraction >= 1:
            shown.close()

    return report


def generators(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The random numbers of one step."""
    rng = np.random.default_rng((seed, step))
    return rng, torch.Generator().manual_seed(int(rng.integers(2**62)))


def learning_rate(fraction: float, step: int, warm_up: int, decay_from: float) -> float:
    """1 times the peak rate: linear over `warm_up` steps, flat, then a cosine from `decay_from` of the budget to 1 % at its end."""
    rising = min(1.0, (step + 1) / warm_up)
    falling = max(0.0, (fraction - decay_from) / (1 - decay_from))
    return rising * (0.01 + 0.99 * 0.5 * (1 + float(np.cos(np.pi * falling))))


def apply_rate(optimiser: torch.optim.Optimizer, peak: float, scale: float) -> float:
    for group in optimiser.param_groups:
        group["lr"] = peak * scale
    return peak * scale


@torch.no_grad()
def follow(ema: nn.Module, network: nn.Module, step: int, most: float) -> None:
    """Exponential moving average of the weights, with LDM's warm-up min(most, (1 + n) / (10 + n))."""
    keep = min(most, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - keep)


def train(trainer: Trainer, budget: Budget, folder: Path, every: float = 120.0) -> bool:
    """Train until the budget is spent (True) or a signal asks to stop (False); either way the state is on disk afterwards.

    Writes `folder`/NAME.pt, NAME.csv and NAME.png, every `every` seconds.
    """
    checkpoint = folder / f"{trainer.name}.pt"
    trainer.restore(checkpoint)
    before, last, logged = trainer.seconds, time.monotonic(), -1e9
    start, sums, counted = last, {}, 0
    with _signals(trainer), _log(folder / f"{trainer.name}.csv", trainer.done) as log:
        while not trainer._stop and (spent := budget.fraction(trainer.done, trainer.seconds)) < 1:
            for key, value in trainer.step(trainer.done, spent).items():
                sums[key] = sums.get(key, 0.0) + value
            counted += 1
            trainer.done += 1
            now = time.monotonic()
            trainer.seconds = before + now - start
            if now - logged > 15:
                log(_row(trainer, budget, {key: value / counted for key, value in sums.items()}))
                logged, sums, counted = now, {}, 0
            if now - last > every:
                save(trainer.state(), checkpoint)
                _show(trainer, folder)
                last = now
    save(trainer.state(), checkpoint)
    _show(trainer, folder)
    return not trainer._stop


def _row(trainer: Trainer, budget: Budget, means: dict[str, float]) -> dict[str, float]:
    spent = budget.fraction(trainer.done, trainer.seconds)
    left = trainer.seconds * (1 - spent) / max(spent, 1e-6)
    rate = trainer.done * trainer.batch / max(trainer.seconds, 1e-6)
    values = " ".join(f"{key} {value:.4g}" for key, value in means.items())
    print(f"{trainer.name} {spent:6.1%} step {trainer.done} {values} {rate:.1f} a second, {left / 60:.1f} min left", flush=True)
    return {"step": trainer.done, "seconds": round(trainer.seconds, 1), **{key: round(value, 6) for key, value in means.items()}}


def _show(trainer: Trainer, folder: Path) -> None:
    if trainer.picture:
        Image.fromarray(trainer.picture()).save(folder / f"{trainer.name}.png")


@contextmanager
def _signals(trainer: Trainer) -> Iterator[None]:
    def stop(*_: object) -> None:
        trainer._stop = True

    previous = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)


@contextmanager
def _log(path: Path, resumed: int) -> Iterator[Callable[[dict[str, float]], None]]:
    """A CSV with a heading, continued when the run is."""
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = not (resumed and path.exists())
    with path.open("w" if fresh else "a", newline="") as file:
        writer = csv.writer(file)
        headed = not fresh

        def log(row: dict[str, float]) -> None:
            nonlocal headed
            if not headed:
                writer.writerow(row)
                headed = True
            writer.writerow(row.values())
            file.flush()

        yield log


def sheet(pictures: Tensor, columns: int) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> one picture (rows x H, columns x W, 3) uint8; missing cells are black."""
    count, _, height, width = pictures.shape
    cells = torch.zeros(-(-count // columns) * columns, 3, height, width)
    cells[:count] = (pictures.float().clamp(-1, 1) + 1) / 2
    grid = cells.view(-1, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(-1, columns * width, 3)
    return (grid * 255).round().to(torch.uint8).numpy()
