"""The inpainting denoiser: the denoiser fine-tuned with five more inputs, the mask and the latents of the masked picture.

As Stable Diffusion's inpainting model was made (Rombach et al. 2022): it starts as the trained denoiser, which ignores them.
"""

import time
from pathlib import Path

import torch
from torch import Tensor

from modules.training import denoiser
from modules.training.denoiser import Course
from modules.training.files import needed
from modules.training.loop import Budget, Report, Trainer
from modules.training.sources import Source

PEAK_RATE = 5e-4


@torch.no_grad()
def start_from(training: Trainer, weights: dict[str, Tensor]) -> None:
    """Give both networks a denoiser's weights; the inputs that it lacks start at zero."""
    for network in training.networks.values():
        first = torch.zeros_like(network.conv_in.weight)  # (width, C + 1 + C, 3, 3)
        first[:, : weights["conv_in.weight"].shape[1]] = weights["conv_in.weight"]
        network.load_state_dict(weights | {"conv_in.weight": first})


def run(source: Source, folder: Path, budget: Budget, report: Report | None = None) -> bool:
    """Fine-tune what is in denoiser.pt. Raises FileNotFoundError naming the step that is missing."""
    began = time.monotonic()
    taught, prediction = denoiser.load_denoiser(needed(folder, "denoiser"))
    kept, network = denoiser.load_cache(source, folder, report, masked=True)
    course = Course(prediction, begins=denoiser.SIMPLE_UNTIL, peak=PEAK_RATE)
    training = denoiser.trainer(
        kept, denoiser.decoder(network, kept), channels=taught.config.block_out_channels, course=course, name="inpainting"
    )
    start_from(training, taught.state_dict())
    training.seconds = time.monotonic() - began
    return denoiser.teach(training, kept, course, budget, folder, report)
