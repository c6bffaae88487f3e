import pytest
import torch
from torch import Tensor

from modules.engine.guides import finite, guided, watched
from modules.engine.stop import CannotDraw

SIGMAS = torch.tensor([4.0, 2.0, 1.0, 0.0])
X = torch.zeros(1, 1, 2, 2)


def two_answers(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.cat([x + 3, x + 1])


@pytest.mark.parametrize(("scale", "wanted"), [(0, 1), (1, 3), (7, 15)])
def test_guidance_goes_from_the_unwanted_through_the_wanted(scale: float, wanted: float) -> None:
    assert torch.equal(guided(scale)(two_answers)(X, SIGMAS[0]), X + wanted)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_what_is_no_number_ends_drawing(bad: float) -> None:
    values = X.clone()
    assert torch.equal(finite(lambda x, sigma: values)(X, SIGMAS[0]), values)
    values[0, 0, 1, 1] = bad
    with pytest.raises(CannotDraw, match="no numbers"):
        finite(lambda x, sigma: values)(X, SIGMAS[0])


def test_progress_is_where_sigma_stands() -> None:
    """For a sampler that calls once a step, twice at ever lower sigmas, or between two levels."""
    told: list[tuple[int, bool]] = []
    denoise = watched(SIGMAS, lambda done, denoised: told.append((done, denoised is not None)))(lambda x, sigma: x + 1)
    for sigma in (4.0, 2.0, 2.0, 1.5, 1.0):
        assert torch.equal(denoise(X, torch.tensor(sigma)), X + 1)
    assert told == [(done, after) for done in (0, 1, 1, 2, 2) for after in (False, True)]
