"""How well each way restores photos that were reduced to a quarter: the table of docs/super-resolution.md.

    python benchmarks/upscale_quality.py PHOTO... [--crop 256]

Each photo (the middle of it) is reduced four times by bicubic resampling, enlarged again in every way there is, and compared: PSNR
and SSIM (Wang et al. 2004) of the luma, and sharpness, the mean gradient as a share of the photo's own. Networks that were trained
against an adversary invent detail: they are sharper, and further from the photo pixel by pixel.
"""

import argparse
import sys
import tempfile
from pathlib import Path

import numpy
import torch
from PIL import Image
from scipy.ndimage import gaussian_filter

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from modules.engine.machine import usable_cores  # noqa: E402
from modules.engine.upscalers.rack import Rack  # noqa: E402
from modules.model_manager.upscalers import provide, scan_upscalers  # noqa: E402

FACTOR = 4
BORDER = 8  # pixels that are not compared


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", nargs="+", type=Path)
    parser.add_argument("--crop", type=int, default=0, help="side of the middle part that is used (default: all)")
    options = parser.parse_args()
    torch.set_num_threads(usable_cores())
    print("| photo | way | PSNR, dB | SSIM | sharpness |\n|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        provide(Path(folder))
        rack = Rack([Path(folder)], Path(folder) / "store", torch.device("cpu"))
        for path in options.photos:
            original = opened(path, options.crop)
            small = original.resize((original.width // FACTOR, original.height // FACTOR), Image.Resampling.BICUBIC)
            for upscaler in scan_upscalers([Path(folder)]):
                restored = rack.enlarger(upscaler.name, lambda: None).enlarged(small, original.size, lambda: None)
                noise, likeness, sharp = compared(luma(original), luma(restored))
                print(f"| {path.stem} | {upscaler.name} | {noise:.2f} | {likeness:.3f} | {sharp:.2f} |", flush=True)


def opened(path: Path, crop: int) -> Image.Image:
    """The middle of a photo, its sides multiples of the factor."""
    with Image.open(path) as image:
        photo = image.convert("RGB")
    width, height = (side // FACTOR * FACTOR for side in (min(photo.width, crop or photo.width), min(photo.height, crop or photo.height)))
    left, top = (photo.width - width) // 2, (photo.height - height) // 2
    return photo.crop((left, top, left + width, top + height))


def luma(image: Image.Image) -> numpy.ndarray:
    return numpy.asarray(image.convert("L"), numpy.float64)[BORDER:-BORDER, BORDER:-BORDER]


def compared(original: numpy.ndarray, restored: numpy.ndarray) -> tuple[float, float, float]:
    """(PSNR in dB, SSIM, sharpness as a share of the original's)."""
    noise = 10 * numpy.log10(255**2 / numpy.square(original - restored).mean())
    return noise, ssim(original, restored), gradient(restored) / gradient(original)


def ssim(one: numpy.ndarray, other: numpy.ndarray) -> float:
    """Structural similarity, with a Gaussian window of 1.5 pixels."""

    def mean(values: numpy.ndarray) -> numpy.ndarray:
        return gaussian_filter(values, 1.5, truncate=3.5)

    a, b = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    m, n = mean(one), mean(other)
    spread, other_spread, together = mean(one * one) - m * m, mean(other * other) - n * n, mean(one * other) - m * n
    return float((((2 * m * n + a) * (2 * together + b)) / ((m * m + n * n + a) * (spread + other_spread + b))).mean())


def gradient(values: numpy.ndarray) -> float:
    return float(numpy.hypot(*numpy.gradient(values)).mean())


if __name__ == "__main__":
    main()
