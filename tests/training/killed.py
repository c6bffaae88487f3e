"""Small trainings that tests stop in every way, each in a process of its own."""

import time
from pathlib import Path

import torch
from torch import nn

from modules.training.denoiser import Course, teach, trainer
from modules.training.helper import helped
from modules.training.latents import Cache
from modules.training.loop import Budget, Trainer, generators, train

STEPS = 300


def tiny(notes: Path) -> Trainer:
    """A linear network that learns something random; every step's loss is written down at once."""
    torch.manual_seed(0)
    network = nn.Linear(4, 4)
    optimiser = torch.optim.AdamW(network.parameters(), 1e-2)

    def step(number: int, fraction: float) -> dict[str, float]:
        x = torch.randn(8, 4, generator=generators(7, number)[1])
        loss = (network(x) - x.flip(1)).pow(2).mean()
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        time.sleep(0.01)
        with notes.open("a") as file:
            file.write(f"{number} {loss.item()!r}\n")
        return {"loss": loss.item(), "fraction": fraction}

    return Trainer("tiny", {"network": network}, optimiser, step)


def run(folder: Path) -> None:
    """Train with a checkpoint after every step."""
    torch.set_num_threads(1)
    train(tiny(folder / "notes"), Budget(STEPS), folder, every=0, report=lambda *_: None)


def denoise(folder: Path, kept: Path) -> None:
    """A small denoiser with a helper; `folder`/steps counts what the helper does."""
    course = Course(batch=2)
    cache = Cache.of(torch.load(kept, weights_only=True))
    training = trainer(cache, lambda latents: latents[:, :3], channels=(32, 64), course=course)
    training.picture = None
    with helped(training, cache, course):
        own = training.step

        def step(number: int, fraction: float) -> dict[str, float]:
            values = own(number, fraction)
            (folder / "steps").write_text(str(int(values["helper"])))
            return values

        training.step = step
        train(training, Budget(1e6), folder, report=lambda *_: None)


def together(folder: Path, kept: Path) -> None:
    """One of several processes that train one denoiser; each writes down the weights that it ends with."""
    from modules.training.hardware import accelerator

    course = Course(batch=2)
    training = trainer(Cache.of(torch.load(kept, weights_only=True)), lambda latents: latents[:, :3], channels=(32, 64), course=course)
    training.picture = None
    own, losses = training.step, []

    def step(number: int, fraction: float) -> dict[str, float]:
        values = own(number, fraction)
        losses.append(values["loss"])
        return values

    training.step = step
    assert teach(training, Cache.of(torch.load(kept, weights_only=True)), course, Budget(3), folder, None)
    rank = accelerator().process_index
    weights = training.networks["network"].state_dict()
    torch.save({"weights": weights, "losses": losses, "processes": accelerator().num_processes}, folder / f"rank{rank}.pt")


if __name__ == "__main__":
    import sys

    together(Path(sys.argv[1]), Path(sys.argv[2]))
