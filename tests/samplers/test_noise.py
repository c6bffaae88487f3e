from dataclasses import replace

import numpy
import pytest
import torch

from modules.recipe.catalogue import SAMPLERS
from modules.recipe.fields import Recipe
from modules.samplers import philox
from modules.samplers.chosen import first_noise, later_noise
from modules.samplers.noise import between, brownian, cpu, fresh, nv, pasted

SHAPE = (4, 8, 8)
SIGMAS = torch.tensor([10.0, 3.0, 1.0, 0.1, 0.0])
RECIPE = Recipe(sampler="Euler a", seed=5, subseed=9)
NV = replace(RECIPE, randn_source="NV")


def test_the_first_draw_is_what_torch_draws_from_the_seed() -> None:
    """So a seed means the same noise here as elsewhere on the CPU, alone or as one of a batch."""
    assert torch.equal(first_noise(RECIPE, SHAPE), torch.randn((1, *SHAPE), generator=torch.Generator().manual_seed(5)))


def test_later_draws_continue() -> None:
    both = cpu(5)((2, 4, 64))[0]
    later = later_noise(RECIPE, SHAPE, SIGMAS)
    assert torch.equal(torch.cat([first_noise(RECIPE, SHAPE), later(SIGMAS[0], SIGMAS[1])]), both.view(2, *SHAPE))
    assert not torch.equal(later(SIGMAS[0], SIGMAS[1]), later(SIGMAS[0], SIGMAS[1]))


def test_ensd_begins_anew_for_all_noise_but_the_first() -> None:
    with_delta = replace(RECIPE, eta_noise_seed_delta=31337)
    assert torch.equal(first_noise(with_delta, SHAPE), first_noise(RECIPE, SHAPE))
    assert torch.equal(later_noise(with_delta, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]), cpu(5 + 31337)(SHAPE))
    path = replace(with_delta, sampler="DPM++ SDE")
    assert torch.equal(later_noise(path, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]), brownian(5, cpu, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]))


def test_philox_gives_the_known_answers() -> None:
    """Those that its authors publish with Random123."""
    ones, pi = 0xFFFFFFFF, [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344]
    for counter, key, known in (
        ([0] * 4, (0, 0), [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([ones] * 4, (ones, ones), [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (pi, (0xA4093822, 0x299F31D0), [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1]),
    ):
        words = philox.philox([numpy.array([word], numpy.uint64) for word in counter], key)
        assert [int(word[0]) for word in words] == known


def test_nv_is_what_an_nvidia_card_draws() -> None:
    """torch.randn((3, 4), device="cuda") after torch.manual_seed(0), to six digits: the card computes in float32."""
    card = [-0.92466259, -0.42534415, -2.6438457, 0.14518388, -0.12086647, -0.57972564]
    card += [-0.62285122, -0.32838709, -1.07454231, -0.36314407, -1.67105067, 2.26550497]
    assert nv(0)((1, 3, 4)).flatten().tolist() == pytest.approx(card, abs=1e-6)


def test_nv_continues_and_takes_any_seed() -> None:
    first, second = (draw((4, 64, 64)) for draw in [nv(2**63 - 1)] * 2)
    assert not torch.equal(first, second)
    for noise in (first, second, nv(-1)((4, 64, 64))):
        assert abs(float(noise.std()) - 1) < 0.02 and abs(float(noise.mean())) < 0.03
    assert torch.equal(first_noise(NV, SHAPE), nv(5)(SHAPE))
    assert not torch.equal(nv(5)(SHAPE), nv(5 + 2**32)(SHAPE))


def test_brownian_paths_take_their_numbers_from_the_source_that_was_chosen() -> None:
    sde = replace(NV, sampler="DPM++ SDE")
    by_card, by_cpu = (later_noise(recipe, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]) for recipe in (sde, replace(sde, randn_source="CPU")))
    assert not torch.equal(by_card, by_cpu)
    assert torch.equal(by_card, later_noise(sde, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]))
    assert torch.equal(by_cpu, brownian(5, cpu, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1])), "the library was left as it was found"


def test_a_variation_lies_between_its_seeds() -> None:
    seed, other = cpu(5)(SHAPE), cpu(9)(SHAPE)
    half = first_noise(replace(RECIPE, subseed_strength=0.5), SHAPE)
    assert abs(float(half.std()) - 1) < 0.1
    assert (half - seed).norm() < 0.9 * (other - seed).norm() > (half - other).norm()
    torch.testing.assert_close(first_noise(replace(RECIPE, subseed_strength=1.0), SHAPE), other)
    torch.testing.assert_close(first_noise(replace(RECIPE, subseed_strength=1e-6), SHAPE), seed, atol=1e-4, rtol=1e-4)


def test_variations_turn_each_column_of_a_channel_by_its_own_angle() -> None:
    """Norms are taken over the height, as in A1111."""
    a, b = torch.tensor([[1.0, 2.0], [0.0, 0.0]])[None, None], torch.tensor([[0.0, 0.0], [1.0, 2.0]])[None, None]
    torch.testing.assert_close(between(1 / 3, a, b)[0, 0], torch.tensor([[0.75**0.5, 2 * 0.75**0.5], [0.5, 1.0]]))
    assert torch.equal(between(0.25, a, a * 3), a * 0.25 + a * 3 * 0.75)  # nearly parallel: straight, and weights exchanged


def test_a_resized_seed_keeps_its_noise_in_the_middle() -> None:
    small = replace(RECIPE, seed_resize_from_w=32, seed_resize_from_h=48)
    noise, inner, around = first_noise(small, SHAPE), cpu(5)((4, 6, 4)), cpu(5)(SHAPE)
    assert torch.equal(noise[..., 1:7, 2:6], inner)
    assert torch.equal(noise[..., 0, :], around[..., 0, :]) and torch.equal(noise[..., :, :2], around[..., :, :2])
    large = replace(RECIPE, seed_resize_from_w=96, seed_resize_from_h=64)
    assert torch.equal(first_noise(large, SHAPE), cpu(5)((4, 8, 12))[..., 2:10])
    for one_side in ({"seed_resize_from_w": 32}, {"seed_resize_from_h": 32, "seed_resize_from_w": -1}):
        assert torch.equal(first_noise(replace(RECIPE, **one_side), SHAPE), around)


def test_what_is_pasted_may_be_odd_cells_larger() -> None:
    """Offsets are rounded down: of 11 columns 7 land in 8."""
    whole = pasted(torch.arange(11.0).view(1, 1, 1, 11), torch.full((1, 1, 1, 8), -1.0))
    assert whole.flatten().tolist() == [2, 3, 4, 5, 6, 7, 8, -1]


def test_the_variation_of_a_resized_seed_is_pasted_too() -> None:
    recipe = replace(RECIPE, seed_resize_from_w=32, seed_resize_from_h=32, subseed_strength=0.3)
    middle = between(0.3, cpu(5)((4, 4, 4)), cpu(9)((4, 4, 4)))
    assert torch.equal(first_noise(recipe, SHAPE)[..., 2:6, 2:6], middle)


def test_pictures_do_not_share_noise() -> None:
    assert not torch.equal(cpu(5)(SHAPE), cpu(6)(SHAPE))
    assert not torch.equal(brownian(5, cpu, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]), brownian(6, cpu, SHAPE, SIGMAS)(SIGMAS[0], SIGMAS[1]))
    assert not torch.equal(fresh(cpu(5), SHAPE)(SIGMAS[0], SIGMAS[1]), fresh(cpu(6), SHAPE)(SIGMAS[0], SIGMAS[1]))
    assert sum(info.brownian for info in SAMPLERS.values()) == 4


def test_brownian_increments_add_up() -> None:
    noise = brownian(5, cpu, SHAPE, SIGMAS)
    parts = noise(SIGMAS[0], SIGMAS[1]) * 7**0.5 + noise(SIGMAS[1], SIGMAS[2]) * 2**0.5
    torch.testing.assert_close(parts, noise(SIGMAS[0], SIGMAS[2]) * 9**0.5, rtol=1e-4, atol=1e-5)


def test_brownian_noise_has_unit_variance_and_repeats() -> None:
    big = (4, 64, 64)
    noise = brownian(2**62, cpu, big, SIGMAS)(SIGMAS[1], SIGMAS[2])
    assert abs(float(noise.std()) - 1) < 0.02
    assert abs(float(noise.mean())) < 0.03
    assert torch.equal(noise, brownian(2**62, cpu, big, SIGMAS)(SIGMAS[1], SIGMAS[2]))
