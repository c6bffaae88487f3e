"""What every training step shares: a budget, a log, checkpoints that survive a kill, and pictures to look at.

All randomness of a step is drawn from generators seeded with (seed, step), so a run that was stopped and resumed is the same
run, and no generator state has to be kept.
"""

import csv
import io
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from modules.training.files import Unusable, load, load_networks, save, whole
from modules.training.hardware import accelerator, agree, average_gradients

REPORTED_EVERY = 5.0  # seconds
Report = Callable[[float, float, Mapping[str, float], Path | None], None]
"""Told while a step works: the fraction that is done, about how many seconds are left, the figures of now by their names in
the log ({} while there are none), and the file of a new sample picture where there is one."""


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
    """One network in training. `step(step, fraction)` does one update and returns what to log.

    `about` is what weights do not tell and a run cannot change half-way ("prediction": "v").
    """

    name: str
    networks: dict[str, nn.Module]
    optimiser: torch.optim.Optimizer
    step: Callable[[int, float], dict[str, float]]
    picture: Callable[[], np.ndarray] | None = None  # what to look at, (H, W, 3) uint8
    batch: int = 1
    about: Mapping[str, str] = field(default_factory=dict)
    done: int = 0
    seconds: float = 0.0
    _stop: bool = field(default=False, repr=False)

    def state(self) -> dict[str, object]:
        return {
            "networks": {name: network.state_dict() for name, network in self.networks.items()},
            "optimiser": self.optimiser.state_dict(),
            "about": dict(self.about),
            "done": self.done,
            "seconds": self.seconds,
        }

    def restore(self, path: Path) -> bool:
        """Go on from the checkpoint at `path`; False where there is none. Raises Unusable, with nothing changed, where it does not fit."""
        if not path.exists():
            return False
        state = load(path)
        other = {key: value for key, value in state.get("about", {}).items() if self.about.get(key, value) != value}
        if other:
            said = " and ".join(f"{key} {value}" for key, value in other.items())
            raise Unusable(f"{path} was trained with {said}: leave the option out to go on, or choose another --folder")
        load_networks(self.networks, state, path)
        try:
            self.optimiser.load_state_dict(state["optimiser"])
            self.done, self.seconds = int(state["done"]), float(state["seconds"])
        except (KeyError, ValueError, TypeError) as error:
            raise Unusable(f"{path} is damaged: move it away to begin again") from error
        return True


def terminal(name: str) -> Report:
    """A line on the terminal for each report; the next one overwrites it where that is possible."""
    end = "\r" if sys.stdout.isatty() else "\n"

    def report(fraction: float, left: float, values: Mapping[str, float], picture: Path | None) -> None:
        figures = " ".join(f"{key} {value:.4g}" for key, value in values.items())
        looks = f" {picture}" if picture else ""
        line = f"{name} {fraction:6.1%} {figures} {left / 60:.1f} min left{looks}"
        print(line.ljust(100), end="\n" if picture or fraction >= 1 else end, flush=True)

    return report


def generators(seed: int, step: int) -> tuple[np.random.Generator, torch.Generator]:
    """The random numbers of one step, of the CPU wherever the network is; other ones in each process."""
    rng = np.random.default_rng((seed, step, accelerator().process_index))
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


def descend(total: Tensor, network: nn.Module, optimiser: torch.optim.Optimizer) -> None:
    """One update down the gradient of the loss `total`, averaged over all processes, of norm 1 at most."""
    total.backward()
    average_gradients(network)
    nn.utils.clip_grad_norm_(network.parameters(), 1.0)
    optimiser.step()
    optimiser.zero_grad()


@torch.no_grad()
def follow(ema: nn.Module, network: nn.Module, step: int, most: float) -> None:
    """Exponential moving average of the weights, with LDM's warm-up min(most, (1 + n) / (10 + n))."""
    keep = min(most, (1 + step) / (10 + step))
    torch._foreach_lerp_(list(ema.parameters()), list(network.parameters()), 1 - keep)


def train(trainer: Trainer, budget: Budget, folder: Path, every: float = 120.0, report: Report | None = None) -> bool:
    """Train until the budget is spent (True) or a signal asks to stop (False); either way the state is on disk afterwards.

    Goes on from `folder`/NAME.pt where that is there. Writes it, NAME.csv and NAME.png, every `every` seconds. `report` (default:
    the terminal) hears of every line of the log. Of several processes the first one writes and reports. Raises OSError and Unusable.
    """
    resumed = trainer.restore(folder / f"{trainer.name}.pt")
    accelerator().wait_for_everyone()
    if not accelerator().is_main_process:
        return _train(trainer, budget, every, lambda means: None, lambda: None)
    if not resumed:
        save(trainer.state(), folder / f"{trainer.name}.pt")  # where that fails it fails before the work
    tell = report or terminal(trainer.name)
    log = _log(folder / f"{trainer.name}.csv", trainer.done)

    def note(means: dict[str, float]) -> None:
        log({"step": trainer.done, "seconds": round(trainer.seconds, 1), **{key: round(mean, 6) for key, mean in means.items()}})
        _tell(tell, trainer, budget, means)

    def keep() -> None:
        save(trainer.state(), folder / f"{trainer.name}.pt")
        _tell(tell, trainer, budget, {}, _show(trainer, folder))

    return _train(trainer, budget, every, note, keep)


def _train(trainer: Trainer, budget: Budget, every: float, note: Callable[[dict[str, float]], None], keep: Callable[[], None]) -> bool:
    """The loop itself: `note` hears the means of what steps return, `keep` puts the state on disk."""
    start = time.monotonic() - trainer.seconds
    kept, noted, sums, counted = time.monotonic(), -1e9, {}, 0
    with _signals(trainer):
        while True:
            spent, stop = agree(budget.fraction(trainer.done, trainer.seconds), trainer._stop)
            if stop or spent >= 1:
                break
            for key, value in trainer.step(trainer.done, spent).items():
                sums[key] = sums.get(key, 0.0) + value
            counted += 1
            trainer.done += 1
            now = time.monotonic()
            trainer.seconds = now - start
            if now - noted > REPORTED_EVERY:
                note({key: value / counted for key, value in sums.items()})
                noted, sums, counted = now, {}, 0
            if now - kept > every:
                keep()
                kept = now
        keep()
    return not stop


def _tell(tell: Report, trainer: Trainer, budget: Budget, means: dict[str, float], picture: Path | None = None) -> None:
    spent = budget.fraction(trainer.done, trainer.seconds)
    rate = trainer.done * trainer.batch / max(trainer.seconds, 1e-6)
    tell(spent, trainer.seconds * (1 - spent) / max(spent, 1e-6), {"step": trainer.done, **means, "per_second": rate}, picture)


def _show(trainer: Trainer, folder: Path) -> Path | None:
    if not trainer.picture:
        return None
    path = folder / f"{trainer.name}.png"
    with whole(path) as file:
        Image.fromarray(trainer.picture()).save(file, "PNG")
    return path


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


def _log(path: Path, done: int) -> Callable[[dict[str, float]], None]:
    """A CSV with a heading. That of a resumed run goes on, without what it says of steps after the checkpoint: they are done again."""
    rows = _rows(path, done) if done and path.exists() else []
    names = list(rows[0]) if rows else []
    with whole(path) as file:
        file.write(_lines(names, rows, heading=bool(names)).encode())

    def log(row: dict[str, float]) -> None:
        nonlocal names
        lines = _lines(names or list(row), [row], heading=not names)
        names = names or list(row)
        try:
            with path.open("a", newline="") as file:
                file.write(lines)
        except OSError as error:
            raise OSError(f"{path} cannot be written: {error.strerror}; the last state is kept") from error

    return log


def _rows(path: Path, done: int) -> list[dict[str, str]]:
    with path.open(newline="", errors="replace") as file:
        rows = [row for row in csv.DictReader(file) if None not in row and None not in row.values()]
    return [row for row in rows if row.get("step", "").isdigit() and int(row["step"]) <= done]


def _lines(names: list[str], rows: Sequence[Mapping[str, object]], heading: bool) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, names, extrasaction="ignore")
    if heading:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def sheet(pictures: Tensor, columns: int) -> np.ndarray:
    """(N, 3, H, W) in [-1, 1] -> one picture (rows x H, columns x W, 3) uint8; missing cells are black."""
    count, _, height, width = pictures.shape
    cells = torch.zeros(-(-count // columns) * columns, 3, height, width)
    cells[:count] = (pictures.float().clamp(-1, 1) + 1) / 2
    grid = cells.view(-1, columns, 3, height, width).permute(0, 3, 1, 4, 2).reshape(-1, columns * width, 3)
    return (grid * 255).round().to(torch.uint8).numpy()
