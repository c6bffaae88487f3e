"""Pictures as they come: every format that is taken shows the right pixels, everything else is refused in one line."""

import io
import subprocess
import sys
import zlib

import numpy
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.incoming.reader import MAX_PIXELS, MAX_TEXT, BadPicture, read, read_mask
from modules.jobs.messages import Picture, write_frame
from tests.pictures import BAD, COLOURS, GOOD, PROFILE, chunk, colours, file, png, sixteen_bits, with_alpha


@pytest.mark.parametrize("name", GOOD)
def test_formats_show_the_right_colours(name):
    data, mode, off = GOOD[name]
    image = read(data).image
    assert (image.mode, image.size) == (mode, (64, 64))
    assert abs(numpy.asarray(image.convert("RGB")).astype(int) - COLOURS).max() <= off


@pytest.mark.parametrize("mode", ["L", "1", "LA"])
def test_grey_pictures_become_colour(mode):
    grey = colours("LA" if mode == "LA" else "L").convert(mode)
    image = read(file(grey)).image
    assert image.mode == ("RGBA" if mode == "LA" else "RGB")
    assert (numpy.asarray(image)[..., 1] == numpy.asarray(grey.convert("L"))).all()


def test_sixteen_bits_become_eight():
    wanted = numpy.asarray(sixteen_bits()) >> 8
    for kind in ("PNG", "TIFF"):
        assert (numpy.asarray(read(file(sixteen_bits(), kind)).image)[..., 0] == wanted).all()
    colour = png(4, 2, chunk(b"IDAT", zlib.compress((b"\0" + b"\x80\x40\x20\x10\xf0\xff" * 4) * 2)), depth=16)
    assert (numpy.asarray(read(colour).image) == [0x80, 0x20, 0xF0]).all()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_are_turned_upright(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    data = file(colours(), "JPEG", exif=exif, quality=95, subsampling=0)
    with Image.open(io.BytesIO(data)) as image:
        from PIL import ImageOps

        wanted = ImageOps.exif_transpose(image)
        assert (numpy.asarray(read(data).image) == numpy.asarray(wanted)).all()
        assert (wanted.tobytes() == image.tobytes()) == (orientation == 1)


def test_notes_that_are_nonsense_do_not_spoil_the_picture():
    for exif in (b"Exif\0\0nonsense", b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\xff\xff\xff\xff\0\0\0\0" * 3):
        assert read(file(colours(), "JPEG", exif=exif)).image.size == (64, 64)


def test_the_profile_is_kept_where_it_fits():
    assert read(file(colours(), icc_profile=PROFILE)).profile == PROFILE
    assert read(file(with_alpha(), icc_profile=PROFILE)).profile == PROFILE
    assert read(file(colours("L"), icc_profile=PROFILE)).profile is None
    assert read(file(colours("CMYK"), "TIFF", icc_profile=PROFILE)).profile is None
    assert read(file(colours())).profile is None


def test_a_mask_is_its_brightness_or_its_opacity():
    assert numpy.unique(numpy.asarray(read_mask(file(Image.new("RGB", (4, 4), "white"))))).tolist() == [255]
    painted = Image.new("RGBA", (4, 4), (0, 0, 0, 0))
    painted.paste((0, 0, 0, 255), (0, 0, 2, 4))
    assert numpy.unique(numpy.asarray(read_mask(file(painted)))[:, :2]).tolist() == [255]
    assert numpy.asarray(read_mask(file(colours("RGBA")))).tolist() == numpy.asarray(colours("L")).tolist()


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_plain_picture_is_refused_in_one_line(name):
    data, says = BAD[name]
    with pytest.raises(BadPicture, match=says) as refused:
        read(data)
    assert "\n" not in str(refused.value) and len(str(refused.value)) < 300


def test_jpegs_with_a_second_view_are_taken_as_the_first():
    two = file(colours(), "MPO", save_all=True, append_images=[colours().rotate(90)], quality=95, subsampling=0)
    assert abs(numpy.asarray(read(two).image).astype(int) - COLOURS).max() <= 12


@pytest.mark.parametrize("character", ["a", "\1", "\N{FOX FACE}"])
def test_however_long_a_parameters_text_is_it_fits_into_a_message_or_is_left_out(character):
    for length in (MAX_TEXT, MAX_TEXT + 1, 1_000_000):
        info = PngInfo()
        info.add_itxt("parameters", character * length)
        text = read(file(colours(), "PNG", pnginfo=info)).infotext
        assert len(text) in (length, 0)
        write_frame(io.BytesIO(), Picture(1, 1, 0, 0, 64, 64, f"{text}, Postprocess upscale by: 4", b""))
    assert text == ""


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own peak")
def test_the_largest_picture_stays_below_512_mb():
    """Measured in a process of its own, with colours, transparency and an orientation that turns it."""
    side = int(MAX_PIXELS**0.5)
    script = f"""
import io
from PIL import Image
from modules.incoming.reader import read
exif = Image.Exif()
exif[0x0112] = 6
file = io.BytesIO()
Image.new("RGB", ({side}, {side}), "red").save(file, "JPEG", exif=exif)
assert read(file.getvalue()).image.size == ({side}, {side})
print(next(line.split()[1] for line in open("/proc/self/status") if line.startswith("VmHWM")))
"""
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert int(result.stdout) < 512 * 1024


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage_anywhere_is_a_picture_or_a_refusal(data):
    good = GOOD[data.draw(st.sampled_from(sorted(GOOD)))][0]
    place = data.draw(st.integers(0, len(good) - 1))
    broken = good[:place] + data.draw(st.binary(max_size=8)) + good[data.draw(st.integers(place, len(good))) :]
    try:
        assert read(broken).image.mode in ("RGB", "RGBA")
    except BadPicture as refusal:
        assert "\n" not in str(refusal)
