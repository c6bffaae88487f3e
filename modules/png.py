"""Writes PNG files: usual ones small, large ones fast."""

import io
import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy
from PIL import Image
from PIL.PngImagePlugin import PngInfo, putchunk

LEVEL = 4  # a third of the time of zlib's usual 6, for a few percent more bytes
LARGE = 4_000_000  # pixels from which trying every filter on every row, as Pillow does, takes longer than drawing
ROWS = 256  # packed at a time
UP = 2  # the filter that stores a row as its difference to the one above
ADLER = 65521  # the largest prime below 2^16
COLOUR_TYPES = {"L": 0, "RGB": 2, "RGBA": 6}


def packed(picture: Image.Image, text: str = "", profile: bytes | None = None, exif: bytes = b"") -> bytes:
    """The file of a picture (L, RGB or RGBA) that carries `text` as its parameters, if any, its colour profile, and its camera's notes."""
    about = PngInfo()
    if text:
        about.add_text("parameters", text)
    if picture.width * picture.height >= LARGE:
        return _packed_fast(picture, about, profile, exif)
    file = io.BytesIO()
    picture.save(file, "PNG", compress_level=LEVEL, pnginfo=about, icc_profile=profile, exif=exif or None)
    return file.getvalue()


def _packed_fast(picture: Image.Image, about: PngInfo, profile: bytes | None, exif: bytes) -> bytes:
    """With one filter for all rows, which leaves photographs as small as the best of five, row by row."""
    file = io.BytesIO(b"\x89PNG\r\n\x1a\n")
    file.seek(0, io.SEEK_END)
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", *picture.size, 8, COLOUR_TYPES[picture.mode], 0, 0, 0))
    if profile:
        putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(profile))
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    for kind, content, *_ in about.chunks:
        putchunk(file, kind, content)
    putchunk(file, b"IDAT", *_deflated(picture))
    putchunk(file, b"IEND")
    return file.getvalue()


def _deflated(picture: Image.Image) -> Iterator[bytes]:
    """The picture's rows as a zlib stream: bands of them are filtered and packed at the same time, each on its own, as pigz does."""

    def band(top: int) -> tuple[bytes, int, int]:
        """Packed, and of what was packed the checksum and the length. Only runs are looked for: little else is left of photographs."""
        bottom = min(top + ROWS, picture.height)
        pixels = numpy.asarray(picture.crop((0, top - 1, picture.width, bottom)))  # with the row above, which is 0 for the first
        rows = pixels.reshape(len(pixels), -1)
        filtered = numpy.full((bottom - top, rows.shape[1] + 1), UP, numpy.uint8)
        filtered[:, 1:] = numpy.diff(rows, axis=0)
        packer = zlib.compressobj(1, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL, zlib.Z_RLE)
        packed = packer.compress(filtered) + packer.flush(zlib.Z_FINISH if bottom == picture.height else zlib.Z_FULL_FLUSH)
        return packed, zlib.adler32(filtered), filtered.size

    yield b"\x78\x01"
    checksum = zlib.adler32(b"")
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for packed, own, length in pool.map(band, range(0, picture.height, ROWS)):
            yield packed
            checksum = _together(checksum, own, length)
    yield checksum.to_bytes(4)


def _together(first: int, second: int, length: int) -> int:
    """The Adler-32 checksum of two runs of bytes, one behind the other, from theirs and the second one's length."""
    low = (first & 0xFFFF) + (second & 0xFFFF) - 1
    high = (first >> 16) + (second >> 16) + ((first & 0xFFFF) - 1) * length
    return high % ADLER << 16 | low % ADLER
