"""Guides: each takes a denoise and returns a denoise, and knows neither the sampler nor the other guides."""

from collections.abc import Callable

import torch
from torch import Tensor

from modules.engine.stop import CannotDraw
from modules.samplers.registry import Denoise

Guide = Callable[[Denoise], Denoise]


def guided(scale: float) -> Guide:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6) of a denoise that answers for two conditionings, wanted and unwanted."""

    def guide(denoise: Denoise) -> Denoise:
        def guided_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            wanted, unwanted = denoise(x, sigma).chunk(2)
            return unwanted + scale * (wanted - unwanted)

        return guided_denoise

    return guide


def finite(denoise: Denoise) -> Denoise:
    """Ends drawing as soon as the network answers with what is no number, which would end as a black picture."""

    def finite_denoise(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(x, sigma)
        require_finite(denoised, "the denoiser")
        return denoised

    return finite_denoise


def watched(sigmas: Tensor, report: Callable[[int, Tensor | None], None]) -> Guide:
    """Calls report(steps done, None) before and report(steps done, denoised latent) after each call of the denoiser.

    How far a sampler is can be seen from sigma, whichever way it calls.
    """
    levels = sigmas.tolist()

    def guide(denoise: Denoise) -> Denoise:
        def watched_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            done = sum(level > float(sigma) for level in levels)
            report(done, None)
            denoised = denoise(x, sigma)
            report(done, denoised)
            return denoised

        return watched_denoise

    return guide


def require_finite(values: Tensor, source: str) -> None:
    """CannotDraw if any value is NaN or infinite."""
    if not torch.isfinite(values).all():
        raise CannotDraw(
            f"{source} of this checkpoint gave values that are no numbers: its weights may be damaged (see `models check`), "
            "or too large for the number format (try --precision float32)"
        )
