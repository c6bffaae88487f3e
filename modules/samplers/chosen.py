"""What a recipe chooses here: the sampler with its options, the levels it stops at, and the noise."""

from functools import partial

import torch
from torch import Tensor

from modules.recipe.catalogue import SAMPLERS, ZERO_TERMINAL, schedule_in_force
from modules.recipe.fields import Recipe
from modules.samplers import noise
from modules.samplers.registry import Noise, Sampler, sampler_named, schedule_named
from modules.samplers.sigmas import SigmaTable, downcast, zero_terminal

CELL = 8  # pixels a side of the picture of old that a cell of its noise stood for


def levels(recipe: Recipe, table: SigmaTable) -> SigmaTable:
    """The model's levels as this recipe has them."""
    if recipe.use_downcasted_alpha_bar:
        table = downcast(table)
    if recipe.sd_noise_schedule == ZERO_TERMINAL:
        table = zero_terminal(table)
    return sampler_named(recipe.sampler).levels(table)


def sigmas(recipe: Recipe, table: SigmaTable) -> Tensor:
    """Where the sampler stops, descending."""
    named = schedule_in_force(recipe.sampler, recipe.schedule)
    options = {name: getattr(recipe, name) for name in named.options} if named else {}
    discards = SAMPLERS[recipe.sampler].discards or recipe.always_discard_next_to_last_sigma
    stops = schedule_named(recipe.schedule, for_sampler=recipe.sampler)(recipe.steps + discards, table, **options)
    return torch.cat([stops[:-2], stops[-1:]]) if discards else stops


def sampler(recipe: Recipe) -> Sampler:
    """The sampler with its options: (denoise, x, sigmas, noise) -> x."""
    options = {name: getattr(recipe, name) for name in SAMPLERS[recipe.sampler].options}
    return partial(sampler_named(recipe.sampler).sample, **options)


def start_deviation(recipe: Recipe, sigma: Tensor) -> Tensor:
    """How strong pure noise is at the first level."""
    unit = sampler_named(recipe.sampler).unit_start or recipe.sgm_noise_multiplier
    return (sigma**2 + 1).sqrt() if unit else sigma


def first_noise(recipe: Recipe, shape: noise.Shape) -> Tensor:
    """What a picture begins with, of deviation 1: (1, C, H, W), for the recipe of that picture alone."""
    source = noise.SOURCES[recipe.randn_source]
    whole = source(recipe.seed)(shape)
    resized = recipe.seed_resize_from_w > 0 and recipe.seed_resize_from_h > 0
    inner = (shape[0], recipe.seed_resize_from_h // CELL, recipe.seed_resize_from_w // CELL) if resized else shape
    first = source(recipe.seed)(inner) if inner != shape else whole
    if recipe.subseed_strength:
        first = noise.between(recipe.subseed_strength, first, source(recipe.subseed)(inner))
    return noise.pasted(first, whole) if inner != shape else first


def later_noise(recipe: Recipe, shape: noise.Shape, stops: Tensor) -> Noise:
    """What the sampler draws on its way through all levels `stops`, for the recipe of one picture."""
    source = noise.SOURCES[recipe.randn_source]
    if SAMPLERS[recipe.sampler].brownian:
        return noise.brownian(recipe.seed, source, shape, stops)
    numbers = source(recipe.seed + recipe.eta_noise_seed_delta)
    if not recipe.eta_noise_seed_delta:
        numbers(shape)  # the first noise
    return noise.fresh(numbers, shape)
