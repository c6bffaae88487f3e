"""What trains: the processor, a GPU, or all processes of `accelerate launch`, and the number format that is fast there.

Networks are trained as they are, not wrapped: a step computes its own gradients, which are then averaged over the processes. So
one path through serves a single processor and many GPUs.
"""

from datetime import timedelta
from functools import cache

import torch
from accelerate import Accelerator, PartialState
from accelerate.utils import parse_flag_from_env
from torch import Tensor, nn

from modules.engine.precision import choose
from modules.model_manager.architecture import UNetShape
from modules.settings import PROGRAM

PATIENCE = timedelta(hours=6)  # of processes that wait for the first one to encode the scenes
# The denoiser's shape at the size it is trained at decides which number format is the faster one.
MEASURED = UNetShape(4, 4, (64, 128, 256), 1, (False, True, True), 192, 8, True, False)
SIDE = 16


@cache
def accelerator() -> Accelerator:
    """The device, the processes, and their number format, bfloat16 where that is faster. The same object on every call."""
    cpu = parse_flag_from_env("ACCELERATE_USE_CPU") or not torch.accelerator.is_available()
    device = PartialState(cpu, timeout=PATIENCE).device
    return Accelerator(cpu=cpu, mixed_precision="bf16" if _fast_bfloat16(device) else "no")


def _fast_bfloat16(device: torch.device) -> bool:
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    return choose("auto", device, MEASURED, SIDE, PROGRAM / "state" / "precision.json", worth=1.0).dtype == torch.bfloat16


def average_gradients(network: nn.Module) -> None:
    """Replace each gradient by its mean over all processes."""
    if accelerator().num_processes == 1:
        return
    gradients = [parameter.grad for parameter in network.parameters() if parameter.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    mean = accelerator().reduce(flat.to(accelerator().device), "mean")
    for gradient, part in zip(gradients, mean.split([gradient.numel() for gradient in gradients]), strict=True):
        gradient.copy_(part.view_as(gradient))


def agree(spent: float, stop: bool) -> tuple[float, bool]:
    """The first process's fraction of the budget, and whether any process was asked to stop: the same answer in all of them."""
    if accelerator().num_processes == 1:
        return spent, stop
    first = accelerator().is_main_process
    said: Tensor = accelerator().reduce(torch.tensor([spent * first, float(stop)], device=accelerator().device), "sum")
    return float(said[0]), bool(said[1])
