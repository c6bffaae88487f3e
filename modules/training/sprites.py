"""Emoji art out of npm packages, rendered to pixels.

The packages are fetched with `npm pack` and only read, never installed: @iconify-json/noto (Apache-2.0) and
@iconify-json/fluent-emoji-flat (MIT), both a table of SVG bodies.
"""

import io
import json
import subprocess
import tarfile
from colorsys import rgb_to_hsv
from functools import cache
from pathlib import Path

import numpy as np
import resvg_py
from PIL import Image

from modules.training.classes import COLOURS

PACKAGES = {"flat": "@iconify-json/fluent-emoji-flat@1.2.6", "noto": "@iconify-json/noto@1.2.9"}


def fetch(style: str, folder: Path) -> Path:
    """The package's archive in `folder`, downloaded once. Raises RuntimeError with npm's last line if it cannot be had."""
    folder.mkdir(parents=True, exist_ok=True)
    package, version = PACKAGES[style].removeprefix("@").replace("/", "-").split("@")
    archive = folder / f"{package}-{version}.tgz"
    if not archive.exists():
        done = subprocess.run(["npm", "pack", PACKAGES[style]], cwd=folder, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"npm could not fetch {PACKAGES[style]}: {done.stderr.strip().splitlines()[-1:]}")
    return archive


class Icons:
    """One package's drawings; `render` gives an icon as premultiplied RGBA."""

    def __init__(self, archive: Path) -> None:
        with tarfile.open(archive) as tar:
            member = tar.extractfile("package/icons.json")
            assert member is not None
            table = json.load(member)
        self._icons: dict[str, dict[str, str | int]] = table["icons"]
        self._side: int = table["width"]

    def __contains__(self, icon: str) -> bool:
        return icon in self._icons

    @property
    def names(self) -> list[str]:
        return sorted(self._icons)

    def render(self, icon: str, size: int) -> np.ndarray:
        """(size, size, 4) uint8, colours multiplied by alpha. Raises KeyError for an icon the package lacks."""
        entry = self._icons[icon]
        side = entry.get("width", self._side), entry.get("height", self._side)
        return _pixels(str(entry["body"]), f"0 0 {side[0]} {side[1]}", size)


def _pixels(body: str, view: str, size: int) -> np.ndarray:
    svg = (
        '<svg xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink" '
        f'viewBox="{view}" width="{size}" height="{size}">{body}</svg>'
    )
    png = bytes(resvg_py.svg_to_bytes(svg_string=svg))
    rgba = np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"), np.uint16)
    colour = (rgba[..., :3] * rgba[..., 3:] + 127) // 255
    return np.concatenate([colour, rgba[..., 3:]], axis=2).astype(np.uint8)


NEAR = 26 / 256  # how far, on a circle of hues of length 1, a colour may be from the main one to be repainted with it


def recoloured(sprite: np.ndarray, colour: str) -> np.ndarray:
    """The premultiplied sprite with its main hue, the one most strongly coloured pixels have, turned into `colour`."""
    alpha = sprite[..., 3:].astype(np.float32) / 255
    plain = np.clip(sprite[..., :3] / np.maximum(alpha, 1 / 255), 0, 255).astype(np.uint8)
    hsv = np.asarray(Image.fromarray(plain).convert("HSV"), np.float32) / 255  # (S, S, 3)
    strength = hsv[..., 1] * hsv[..., 2] * alpha[..., 0]
    counts, edges = np.histogram(hsv[..., 0], 32, (0, 1), weights=strength)
    around = counts + np.roll(counts, 1) + np.roll(counts, -1)
    main = edges[int(around.argmax())] + 1 / 64
    away = np.abs((hsv[..., 0] - main + 0.5) % 1 - 0.5)
    chosen = (away < NEAR) & (hsv[..., 1] > 0.25)
    middle = np.median(hsv[chosen], axis=0)
    hue, saturation, value = rgb_to_hsv(*(part / 255 for part in COLOURS[colour]))
    hsv[chosen, 0] = (hue + (hsv[chosen, 0] - middle[0])) % 1
    hsv[chosen, 1] = np.clip(hsv[chosen, 1] * saturation / middle[1], 0, 1)
    hsv[chosen, 2] = np.clip(hsv[chosen, 2] * value / middle[2], 0, 1)
    painted = np.asarray(Image.fromarray((hsv * 255).round().astype(np.uint8), "HSV").convert("RGB"), np.float32)
    return np.concatenate([(painted * alpha).round(), sprite[..., 3:]], axis=2).astype(np.uint8)


@cache
def backdrop(body: str, size: int = 128) -> np.ndarray:
    """An SVG body on the 128 x 128 canvas as (size, size, 3) uint8."""
    return _pixels(body, "0 0 128 128", size)[..., :3]


def paste(picture: np.ndarray, sprite: np.ndarray, left: int, top: int) -> None:
    """Lay a premultiplied sprite over `picture` (H, W, 3) in place; what lies outside is cut off."""
    height, width = picture.shape[:2]
    size = sprite.shape[0]
    x0, y0, x1, y1 = max(left, 0), max(top, 0), min(left + size, width), min(top + size, height)
    part = sprite[y0 - top : y1 - top, x0 - left : x1 - left].astype(np.uint16)
    under = picture[y0:y1, x0:x1]
    picture[y0:y1, x0:x1] = part[..., :3] + (under * (255 - part[..., 3:]) + 127) // 255
