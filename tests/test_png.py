"""The PNG files that are written hold what they were given, whichever way they were packed."""

import io

import numpy
import pytest
from PIL import Image, ImageCms

from modules.png import LARGE, ROWS, packed

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()


def picture(mode, size):
    """Half noise, half one colour, with both ends of what a byte holds."""
    channels = len(Image.new(mode, (1, 1)).getbands())
    pixels = numpy.random.default_rng(0).integers(0, 256, (size[1], size[0], channels), numpy.uint8)
    pixels[: size[1] // 2] = 255
    return Image.fromarray(pixels.squeeze(2) if channels == 1 else pixels)


@pytest.mark.parametrize("size", [(40, 30), (LARGE // 1000, 1001), (LARGE // ROWS, ROWS), (100, 40_001)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA"])
def test_pixels_words_and_profile_come_back(mode, size):
    before = picture(mode, size)
    with Image.open(io.BytesIO(packed(before, "a fox 🦊\nSteps: 1", PROFILE))) as after:
        assert (after.mode, after.size, after.info["icc_profile"]) == (mode, size, PROFILE)
        assert after.tobytes() == before.tobytes()
        assert after.text == {"parameters": "a fox 🦊\nSteps: 1"}


@pytest.mark.parametrize("size", [(40, 30), (2000, 2000)])
def test_a_cameras_notes_come_back(size):
    notes = Image.Exif()
    notes[0x010F] = "a camera"
    with Image.open(io.BytesIO(packed(picture("RGB", size), exif=notes.tobytes()))) as image:
        assert dict(image.getexif()) == {0x010F: "a camera"}


def test_what_there_is_not_to_say_is_not_said():
    for size in ((40, 30), (2000, 2000)):
        with Image.open(io.BytesIO(packed(picture("RGB", size)))) as image:
            assert image.text == {} and "icc_profile" not in image.info


def test_the_same_picture_is_the_same_file():
    large = picture("RGB", (2100, 2000))
    assert packed(large) == packed(large)
