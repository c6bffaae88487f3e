"""Reads pictures that come from anywhere. What is no plain picture, or would take too much memory, is refused in one line."""

import contextlib
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy
from PIL import Image, ImageCms, ImageOps

MAX_FILE = 64 << 20  # bytes
MAX_PIXELS = 50_000_000  # a phone's largest; 200 MB in memory
MAX_SIDE = 16_384
MAX_PROFILE = 4 << 20  # bytes
MAX_NOTES = 1 << 20  # bytes of EXIF
MAX_TEXT = 1 << 19  # characters of parameters, each of which is up to six bytes of a message
FORMATS = {"PNG": "PNG", "JPEG": "JPEG", "WEBP": "WebP", "BMP": "BMP", "TIFF": "TIFF", "GIF": "GIF"}
SIXTEEN_BITS = ("I;16", "I;16B", "I;16L", "I;16N")


class BadPicture(ValueError):
    """This file cannot be used as a picture. The message is one line: what it is instead, or what to do."""


@dataclass(frozen=True)
class Incoming:
    """A picture as it is looked at: upright, RGB or RGBA with 8 bits, and its colour profile (ICC) if it has one.

    `exif` is what its camera noted, without which way up it was held; `infotext` the parameters text of a PNG. Both may be empty.
    """

    image: Image.Image
    profile: bytes | None
    exif: bytes = b""
    infotext: str = ""


def contents(path: Path) -> bytes:
    """A file's bytes. BadPicture if it is longer than any picture, or no plain file: then nothing is read. OSError if that fails."""
    if not path.is_file():
        raise BadPicture("it is no plain file")
    _check_length(path.stat().st_size)
    return path.read_bytes()


def read(data: bytes) -> Incoming:
    """The picture in a file's bytes, whatever its name. BadPicture if there is none."""
    with _opened(data) as image:
        return _plain(image)


def read_mask(data: bytes) -> Image.Image:
    """A mask ("L"; white is drawn anew) from the file's brightness, or from its opacity where parts of it are transparent."""
    with _opened(data) as opened:
        if opened.mode in ("1", "L") and not opened.has_transparency_data:
            return _upright(opened).convert("L")  # without a detour over colours, of which a large mask would take notice
        image = _plain(opened).image
    if image.mode == "RGBA" and image.getchannel("A").getextrema()[0] < 255:
        return image.getchannel("A")
    return image.convert("L")


@contextlib.contextmanager
def _opened(data: bytes) -> Iterator[Image.Image]:
    """The undecoded picture, once its header shows nothing to fear. Whatever goes wrong with it inside is BadPicture."""
    _check_length(len(data))
    if not data:
        raise BadPicture("the file is empty")
    try:
        with Image.open(io.BytesIO(data), formats=list(FORMATS)) as image:
            _check(image)
            yield image
    except BadPicture:
        raise
    except Image.UnidentifiedImageError:
        raise BadPicture(_what_it_is(data)) from None
    except Image.DecompressionBombError:
        raise BadPicture(f"more than {MAX_PIXELS / 1e6:.0f} million pixels: make it smaller first") from None
    except Exception as error:  # decoders raise anything there is on a damaged file
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise BadPicture(f"damaged or cut short ({reason[:120]})") from error


def _check_length(length: int) -> None:
    if length > MAX_FILE:
        raise BadPicture(f"{length >> 20} MB: pictures of more than {MAX_FILE >> 20} MB are not taken")


def _check(image: Image.Image) -> None:
    width, height = image.size
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        limit = f"{MAX_PIXELS / 1e6:.0f} million pixels, {MAX_SIDE} a side"
        raise BadPicture(f"{width} x {height} pixels: more than is taken ({limit}); make it smaller first")
    frames = getattr(image, "n_frames", 1) if image.format in ("TIFF", "GIF") else int(getattr(image, "is_animated", False)) + 1
    if frames > 1 and image.format != "MPO":  # MPO: a JPEG with a second view behind it, as phones write them
        raise BadPicture("it holds several pictures (an animation, or pages): save the one that is meant by itself")
    if image.mode == "F" or image.mode == "I" and image.format == "TIFF":
        raise BadPicture("its colours have 32 bits: save it with 8 or 16")


def _plain(image: Image.Image) -> Incoming:
    profile = image.info.get("icc_profile") or None
    image = _upright(image)
    exif, infotext = _notes(image)
    plain = "RGBA" if image.has_transparency_data else "RGB"
    if image.mode in (*SIXTEEN_BITS, "I"):
        image = Image.fromarray((numpy.asarray(image).astype(numpy.uint32) >> 8).clip(0, 255).astype(numpy.uint8))
    if image.mode == "CMYK":
        image, profile = _from_print(image, profile), None
    if image.mode not in ("RGB", "RGBA", "P", "PA"):
        profile = None  # a profile of grey values says nothing of colours
    image = image if image.mode == plain else image.convert(plain)  # which would be a copy, of up to 200 MB
    if plain == "RGBA" and image.getchannel("A").getextrema()[1] == 0:
        raise BadPicture("it is transparent everywhere: there is nothing to see on it")
    return Incoming(image, profile if profile and len(profile) <= MAX_PROFILE else None, exif, infotext)


def _notes(image: Image.Image) -> tuple[bytes, str]:
    """EXIF and parameters text, where they can be read and are no longer than such notes are."""
    infotext = image.info.get("parameters")
    exif = b""
    with contextlib.suppress(Exception):
        exif = image.getexif().tobytes() if image.getexif() else b""
    return exif if len(exif) <= MAX_NOTES else b"", infotext if isinstance(infotext, str) and len(infotext) <= MAX_TEXT else ""


def _upright(image: Image.Image) -> Image.Image:
    with contextlib.suppress(Exception):  # whatever is wrong with its notes, the picture itself may be sound
        ImageOps.exif_transpose(image, in_place=True)
    image.load()
    return image


def _from_print(image: Image.Image, profile: bytes | None) -> Image.Image:
    """CMYK as sRGB, by its own profile where that can be used."""
    with contextlib.suppress(ImageCms.PyCMSError, OSError):
        if profile:
            source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
            return ImageCms.profileToProfile(image, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    return image.convert("RGB")


def _what_it_is(data: bytes) -> str:
    start = data[:1000].lstrip().lower()
    if b"<svg" in start:
        return "an SVG is a drawing, not a picture of pixels: export it as PNG"
    if start.startswith(b"<"):
        return "a web page, not a picture: save the picture itself"
    return f"not a picture of a kind that is known: {', '.join(FORMATS.values())} are"
