"""A second process that descends on the same weights, without locks (Hogwild!, Niu et al. 2011).

Two processes of one thread each do more than one process of two threads, which wait for each other within every layer; and they
keep their speed when something else takes one of the cores.
"""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import parent_process
from multiprocessing.sharedctypes import Synchronized
from typing import TYPE_CHECKING

import torch
from diffusers import UNet2DConditionModel

from modules.training.loop import Trainer

if TYPE_CHECKING:
    from modules.training.denoiser import Course
    from modules.training.latents import Cache

SEED = 1_000_003


def _descend(
    network: UNet2DConditionModel,
    kept: "Cache",
    course: "Course",
    spent: "Synchronized[float]",
    steps: "Synchronized[int]",
) -> None:
    """Train until `spent`, the fraction of the budget, is 1 or the parent is gone; counts into `steps`.

    Starts with a warm-up, its optimiser being new.
    """
    from modules.training.denoiser import updater

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    torch.set_num_threads(1)
    _, update = updater(network, kept, SEED, course)
    started = steps.value
    parent = parent_process()
    while spent.value < 1 and parent is not None and parent.is_alive():
        update(steps.value, steps.value - started, spent.value)
        steps.value += 1


@contextmanager
def helped(training: Trainer, kept: "Cache", course: "Course") -> Iterator[None]:
    """While inside, a helper trains `training`'s network too. Its steps are logged as `helper`; it ends with the block."""
    spawn = torch.multiprocessing.get_context("spawn")
    spent, steps = spawn.Value("d", 0.0), spawn.Value("q", training.done)
    network = training.networks["network"].share_memory()
    own = training.step

    def step(number: int, fraction: float) -> dict[str, float]:
        spent.value = fraction
        return own(number, fraction) | {"helper": float(steps.value)}

    training.step = step
    process = spawn.Process(target=_descend, args=(network, kept, course, spent, steps), daemon=True)
    process.start()
    try:
        yield
    finally:
        spent.value = 1.0
        process.join(30)
        process.kill()
        training.step = own
