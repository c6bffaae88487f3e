import io

import numpy
import pytest
from PIL import Image

from modules.incoming.extend import OVERLAP, extended
from modules.incoming.reader import BadPicture, read, read_mask


def file(image):
    data = io.BytesIO()
    image.save(data, "PNG")
    return data.getvalue()


def test_the_old_picture_stays_and_the_mask_covers_what_is_new_and_a_little_more():
    pixels = numpy.random.default_rng(0).integers(0, 256, (60, 80, 3), numpy.uint8)
    picture, mask = extended(file(Image.fromarray(pixels)), 30, 0, 0, 8)
    larger, painted = numpy.asarray(read(picture).image), numpy.asarray(read_mask(mask))
    assert larger.shape == (68, 110, 3) and (larger[:60, 30:] == pixels).all()
    assert (larger[:60, 0] == pixels[:, 0]).all()
    assert (painted[: 60 - OVERLAP, 30 + OVERLAP :] == 0).all()
    assert (painted[:, : 30 + OVERLAP] == 255).all() and (painted[60 - OVERLAP :] == 255).all()


def test_a_picture_smaller_than_the_overlap_is_drawn_anew_entirely():
    assert read_mask(extended(file(Image.new("RGB", (10, 10))), 8, 8, 8, 8)[1]).getextrema() == (255, 255)


@pytest.mark.parametrize("margins", [(0, 0, 0, 0), (-1, 5, 0, 0), (5000, 0, 0, 0)])
def test_margins_that_cannot_be_are_refused(margins):
    with pytest.raises(BadPicture, match="1 to 2048"):
        extended(file(Image.new("RGB", (10, 10))), *margins)
