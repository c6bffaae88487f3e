import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import rescale_noise_cfg
from torch import Tensor

from modules.engine.guides import finite, guided, masked, only_between, require_descent, twice, watched
from modules.engine.stop import CannotDraw

SIGMAS = torch.tensor([4.0, 2.0, 1.0, 0.0])
X = torch.zeros(1, 1, 2, 2)


def two_answers(x: Tensor, sigma: Tensor) -> Tensor:
    return torch.cat([x + 3, x + 1])


@pytest.mark.parametrize(("scale", "wanted"), [(0, 1), (1, 3), (7, 15)])
def test_guidance_goes_from_the_unwanted_through_the_wanted(scale: float, wanted: float) -> None:
    assert torch.equal(guided(scale)(two_answers)(X, SIGMAS[0]), X + wanted)


def test_for_cfgpp_the_unwanted_answer_is_kept_apart() -> None:
    assert torch.equal(guided(0.6, apart=True)(two_answers)(X, SIGMAS[0]), torch.cat([X + 1 + 0.6 * 2, X + 1]))
    assert torch.equal(twice(lambda x, sigma: x + 2)(X, SIGMAS[0]), torch.cat([X + 2, X + 2]))


def test_rescaling_is_that_of_v() -> None:
    """Against diffusers, which rescales the network's answer, here v."""
    x, wanted, unwanted = torch.randn(3, 1, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    sigma = SIGMAS[1]

    def v(denoised: Tensor) -> Tensor:
        return (x / (sigma**2 + 1) - denoised) * (sigma**2 + 1).sqrt() / sigma

    ours = guided(7.0, rescale=0.7)(lambda x, sigma: torch.cat([wanted, unwanted]))(x, sigma)
    theirs = rescale_noise_cfg(v(unwanted + 7 * (wanted - unwanted)), v(wanted), guidance_rescale=0.7)
    torch.testing.assert_close(v(ours), theirs)


def test_outside_an_interval_the_other_denoise_answers() -> None:
    denoise = only_between(1.0, 2.0, lambda x, sigma: x - 1)(lambda x, sigma: x + 1)
    assert [float(denoise(X, sigma).mean()) for sigma in SIGMAS] == [-1, 1, -1, -1]


def test_levels_must_fall() -> None:
    require_descent(SIGMAS)
    for wrong in ([1.0, 1.0], [1.0, 2.0, 0.0], [1.0, float("nan")]):
        with pytest.raises(CannotDraw, match="do not fall"):
            require_descent(torch.tensor(wrong))


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
    for sigma in (4.0, 2.0, 2.0, 1.5, 1.0, 3.0):  # the last after going up again
        assert torch.equal(denoise(X, torch.tensor(sigma)), X + 1)
    assert told == [(done, after) for done in (0, 1, 1, 2, 2, 2) for after in (False, True)]


def test_outside_the_mask_the_known_is_seen_at_the_noise_of_the_moment_and_answered_as_it_is() -> None:
    known, noise, mask = torch.full((1, 1, 2, 2), 5.0), torch.full((1, 1, 2, 2), 3.0), torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]])
    seen: list[Tensor] = []

    def denoise(x: Tensor, sigma: Tensor) -> Tensor:
        seen.append(x)
        return x + 1

    guide = masked(lambda sigma: mask, known, noise, first=SIGMAS[0])(denoise)
    assert torch.equal(guide(X, SIGMAS[1]), torch.tensor([[[[1.0, 5.0], [5.0, (5.5 + 1 + 5) / 2]]]]))
    assert torch.equal(seen[0], torch.tensor([[[[0.0, 11.0], [11.0, 5.5]]]]))
    guide(X, SIGMAS[0])
    assert torch.equal(seen[1], X)
