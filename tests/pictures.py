"""Pictures as they come from anywhere: those that are taken, and those that are refused with what must be said of them."""

import io
import struct
import zlib

import numpy
from PIL import Image, ImageCms

COLOURS = numpy.array([[[250, 10, 20], [20, 240, 30]], [[10, 30, 230], [240, 230, 30]]], numpy.uint8).repeat(32, 0).repeat(32, 1)
PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def file(image, kind="PNG", **options):
    data = io.BytesIO()
    image.save(data, kind, **options)
    return data.getvalue()


def colours(mode="RGB"):
    return Image.fromarray(COLOURS).convert(mode)


def with_alpha(alpha=128):
    image = colours("RGBA")
    image.putalpha(alpha)
    return image


def sixteen_bits():
    return Image.fromarray((numpy.linspace(0, 65535, 1024).reshape(32, 32)).astype(numpy.uint16))


def chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png(width, height, *chunks, depth=8, colour=2):
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + chunk(b"IEND", b"")


def rows(width, height, bytes_a_pixel):
    return zlib.compress((b"\0" + b"\x10\x80" * (width * bytes_a_pixel // 2)) * height)


GOOD = {
    "png": (file(colours()), "RGB", 0),
    "jpeg": (file(colours(), "JPEG", quality=95, subsampling=0), "RGB", 12),
    "webp": (file(colours(), "WEBP", lossless=True), "RGB", 0),
    "bmp": (file(colours(), "BMP"), "RGB", 0),
    "tiff": (file(colours(), "TIFF"), "RGB", 0),
    "gif": (file(colours().quantize(), "GIF"), "RGB", 0),
    "palette": (file(colours().quantize()), "RGB", 0),
    "palette with a transparent colour": (file(colours().quantize(), transparency=0), "RGBA", 0),
    "rgba": (file(with_alpha()), "RGBA", 0),
    "cmyk jpeg": (file(colours("CMYK"), "JPEG", quality=95, subsampling=0), "RGB", 14),
    "cmyk tiff": (file(colours("CMYK"), "TIFF"), "RGB", 3),
}


def animated(kind):
    return file(colours(), kind, save_all=True, append_images=[colours().rotate(90)])


BAD = {
    "empty": (b"", "empty"),
    "text": (b"hello, this is a picture", "not a picture of a kind that is known"),
    "svg": (b'<?xml version="1.0"?><svg xmlns="http://www.w3.org/2000/svg"><script/></svg>', "SVG"),
    "html": (b"<!doctype html><html>Sign in</html>", "web page"),
    "gif animation": (animated("GIF"), "several pictures"),
    "png animation": (animated("PNG"), "several pictures"),
    "webp animation": (animated("WEBP"), "several pictures"),
    "tiff pages": (animated("TIFF"), "several pictures"),
    "bomb": (png(50_000, 50_000, chunk(b"IDAT", zlib.compress(bytes(1000)))), "pixels"),
    "wide bomb": (png(10_000, 9_000, chunk(b"IDAT", zlib.compress(bytes(1000)))), "pixels"),
    "long": (png(1, 20_000, chunk(b"IDAT", rows(1, 20_000, 3))), "pixels"),
    "no size": (png(0, 10, chunk(b"IDAT", b"")), "not a picture"),
    "truncated png": (file(colours().resize((300, 300)))[:400], "damaged"),
    "truncated jpeg": (file(colours().resize((300, 300)), "JPEG")[:900], "damaged"),
    "truncated webp": (file(colours().resize((300, 300)), "WEBP", lossless=True)[:60], "damaged|not a picture"),
    "text bomb": (png(8, 8, chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(80 << 20))), chunk(b"IDAT", rows(8, 8, 3))), "damaged"),
    "transparent": (file(with_alpha(0)), "transparent everywhere"),
    "floating point": (file(Image.new("F", (8, 8)), "TIFF"), "32 bits"),
    "eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n", "not a picture of a kind"),
    "too heavy": (b"\x89PNG\r\n\x1a\n" + bytes(65 << 20), "65 MB"),
}
