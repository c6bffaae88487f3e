import torch

from modules.samplers.noise import brownian, draw, fresh, generator

SHAPE = (4, 8, 8)
SIGMAS = torch.tensor([10.0, 3.0, 1.0, 0.1, 0.0])


def test_the_first_draw_is_what_torch_draws_from_the_seed() -> None:
    """So a seed means the same noise here as elsewhere on the CPU, alone or as one of a batch."""
    assert torch.equal(draw(generator(5), SHAPE), torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(5)))


def test_later_draws_continue() -> None:
    numbers = generator(5)
    both = torch.randn((2, *SHAPE), generator=generator(5))
    first, noise = draw(numbers, SHAPE), fresh(numbers, SHAPE)
    assert torch.equal(torch.cat([first, noise(SIGMAS[0], SIGMAS[1])]), both)


def test_pictures_do_not_share_noise() -> None:
    assert not torch.equal(draw(generator(5), SHAPE), draw(generator(6), SHAPE))
    assert not torch.equal(brownian(5, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]), brownian(6, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]))


def test_brownian_increments_add_up() -> None:
    noise = brownian(5, SHAPE, SIGMAS)
    parts = noise(SIGMAS[0], SIGMAS[1]) * 7**0.5 + noise(SIGMAS[1], SIGMAS[2]) * 2**0.5
    torch.testing.assert_close(parts, noise(SIGMAS[0], SIGMAS[2]) * 9**0.5, rtol=1e-4, atol=1e-5)


def test_brownian_noise_has_unit_variance_and_repeats() -> None:
    big = (4, 64, 64)
    noise = brownian(2**62, big, SIGMAS)(SIGMAS[1], SIGMAS[2])
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float(noise.mean())) < 0.03
    assert torch.equal(noise, brownian(2**62, big, SIGMAS)(SIGMAS[1], SIGMAS[2]))
