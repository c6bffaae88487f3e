"""Guides: each takes a denoise and returns a denoise, and knows neither the sampler nor the other guides."""

from collections.abc import Callable

import torch
from torch import Tensor

from modules.engine.stop import CannotDraw
from modules.samplers.registry import Denoise

Guide = Callable[[Denoise], Denoise]


def guided(scale: float, rescale: float = 0, apart: bool = False) -> Guide:
    """Classifier-free guidance (Ho & Salimans 2022, eq. 6) of a denoise that answers for two conditionings, wanted and unwanted.

    `rescale` takes back, in part (to 1), what guidance adds to the deviation of v (Lin et al. 2023, eq. 15 and 16).
    `apart`: the answer is (2, C, H, W), the guided latent and the unwanted one.
    """

    def guide(denoise: Denoise) -> Denoise:
        def guided_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            wanted, unwanted = denoise(x, sigma).chunk(2)
            answer = unwanted + scale * (wanted - unwanted)
            if rescale:
                answer = rescaled(answer, wanted, x, sigma, rescale)
            return torch.cat([answer, unwanted]) if apart else answer

        return guided_denoise

    return guide


def rescaled(denoised: Tensor, wanted: Tensor, x: Tensor, sigma: Tensor, share: float) -> Tensor:
    """`denoised`, with v's deviation in each picture brought to that of `wanted`, by this share of the way."""
    still = x / (sigma**2 + 1)  # what x adds to x0 = still - v sigma / sqrt(sigma^2 + 1); the factor cancels
    v, aim = still - denoised, still - wanted
    axes = tuple(range(1, x.ndim))
    factor = aim.std(axes, keepdim=True) / v.std(axes, keepdim=True)
    return still - v * (share * factor + 1 - share)


def only_between(low: float, high: float, otherwise: Denoise) -> Guide:
    """Guidance in an interval (Kynkaanniemi et al. 2024): for sigmas above `low` and up to `high`; elsewhere `otherwise` answers."""

    def guide(denoise: Denoise) -> Denoise:
        return lambda x, sigma: (denoise if low < sigma <= high else otherwise)(x, sigma)

    return guide


def masked(mask_at: Callable[[Tensor], Tensor], known: Tensor, noise: Tensor, first: Tensor) -> Guide:
    """Keeps a picture where the mask of this sigma is 0: there it is seen at the noise level of the moment, and answered as it is.

    At the `first` sigma x is taken as it was begun, which at full strength is noise all over.

    The mask is (1, 1, H, W) in 0 to 1, `known` and `noise` are (1, C, H, W) (Avrahami et al. 2022, "Blended Latent Diffusion").
    """

    def guide(denoise: Denoise) -> Denoise:
        def masked_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            mask = mask_at(sigma)
            seen = x if sigma == first else (known + sigma * noise).lerp(x, mask)
            denoised = denoise(seen, sigma)
            return known.lerp(denoised, mask)

        return masked_denoise

    return guide


def twice(denoise: Denoise) -> Denoise:
    """The one answer in both places where guided and unwanted are asked for apart."""
    return lambda x, sigma: denoise(x, sigma).repeat(2, 1, 1, 1)


def finite(denoise: Denoise) -> Denoise:
    """Ends drawing as soon as the network answers with what is no number, which would end as a black picture."""

    def finite_denoise(x: Tensor, sigma: Tensor) -> Tensor:
        denoised = denoise(x, sigma)
        require_finite(denoised, "the denoiser")
        return denoised

    return finite_denoise


def watched(sigmas: Tensor, report: Callable[[int, Tensor | None], None]) -> Guide:
    """Calls report(steps done, None) before and report(steps done, denoised latent) after each call of the denoiser.

    How far a sampler is can be seen from sigma, whichever way it calls; where it goes up again, nothing more is done until it is back.
    """
    levels = sigmas.tolist()

    def guide(denoise: Denoise) -> Denoise:
        done = 0

        def watched_denoise(x: Tensor, sigma: Tensor) -> Tensor:
            nonlocal done
            done = max(done, sum(level > float(sigma) for level in levels))
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


def require_descent(sigmas: Tensor) -> None:
    """CannotDraw if the levels do not fall from first to last."""
    if not bool((sigmas.diff() < 0).all()):
        raise CannotDraw(
            f"Schedule: from sigma {float(sigmas[0]):.4g} its levels do not fall all the way to {float(sigmas[-1]):.4g}: "
            "raise Schedule max sigma or lower Schedule min sigma (0 leaves them to the model), or take fewer steps"
        )
