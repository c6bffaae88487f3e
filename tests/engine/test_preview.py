import io

import numpy
import pytest
import torch
from PIL import Image

from modules.engine.preview import fit, glimpse, jpeg, sample
from modules.engine.progress import Reporter
from modules.jobs.messages import Message
from modules.recipe.fields import Recipe

MAP = torch.tensor([[0.5, 0, 0], [0, 0.4, 0], [0, 0, 0.3], [0.1, 0.1, 0.1], [0.2, 0, -0.2]])  # 4 channels and the constant


def decoded(latent: torch.Tensor) -> torch.Tensor:
    """An autoencoder whose cells are 8 x 8 pixels of the colour that MAP gives them."""
    colours = torch.einsum("bchw,cd->bdhw", latent, MAP[:4]) + MAP[4][None, :, None, None]
    return colours.repeat_interleave(8, 2).repeat_interleave(8, 3)


def test_the_fit_finds_a_linear_autoencoder() -> None:
    latent = sample(4)
    torch.testing.assert_close(fit(latent, decoded(latent)), MAP, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(("width", "height", "shown"), [(64, 64, (64, 64)), (512, 256, (256, 128)), (72, 4096, (4, 256))])
def test_a_preview_has_the_pictures_colours_and_proportions(width: int, height: int, shown: tuple[int, int]) -> None:
    latent = torch.ones(1, 4, height // 8, width // 8) * torch.tensor([1.0, -1.0, 0.0, 0.5])[None, :, None, None]
    image = Image.open(io.BytesIO(jpeg(glimpse(latent, MAP, (width, height)))))
    assert image.size == shown
    wanted = (decoded(latent)[0, :, 0, 0] + 1) * 127.5
    assert abs(numpy.asarray(image, dtype=float).mean((0, 1)) - wanted.numpy()).max() < 4


def test_previews_are_rare_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    """None within 0.2 s of the last one."""
    now = [100.0]
    monkeypatch.setattr("modules.engine.progress.time.monotonic", lambda: now[0])
    messages: list[Message] = []
    reporter = Reporter(Recipe(width=64, height=64), messages.append)
    for _ in range(10):
        reporter.preview(0, lambda: glimpse(torch.zeros(1, 4, 8, 8), MAP, (64, 64)))
        now[0] += 0.11
    assert len(messages) == 5
