import io
import os
import time

import pytest
from PIL import Image

from modules.incoming.reader import BadPicture
from modules.incoming.shelf import FRESH, Shelf


def file(colour, size=(4, 2)):
    data = io.BytesIO()
    Image.new("RGB", size, colour).save(data, "PNG")
    return data.getvalue()


def test_a_picture_is_kept_once_under_its_hash(tmp_path):
    shelf = Shelf(tmp_path / "incoming")
    id = shelf.keep(file("red"))
    assert shelf.keep(file("red")) == id != shelf.keep(file("blue"))
    assert len(os.listdir(tmp_path / "incoming")) == 2
    assert shelf.size_of(id) == (4, 2) and shelf.data(id) == file("red")
    assert shelf.mask_extremes(shelf.keep(file("white"))) == (255, 255)


def test_what_is_no_picture_is_not_put_there(tmp_path):
    with pytest.raises(BadPicture):
        Shelf(tmp_path / "incoming").keep(b"<svg>")
    assert not (tmp_path / "incoming").exists()


@pytest.mark.parametrize("id", ["", "../../etc/passwd", "a" * 63, "A" * 64, "0" * 64, "0" * 64 + "\n", "/etc/passwd", "\0"])
def test_only_ids_lead_to_pictures(id, tmp_path):
    with pytest.raises(LookupError):
        Shelf(tmp_path).data(id)


def test_what_nobody_needs_goes_after_a_while(tmp_path):
    shelf = Shelf(tmp_path / "incoming")
    shelf.sweep(set())
    old, needed, fresh = (shelf.keep(file(colour)) for colour in ("red", "green", "blue"))
    for id in (old, needed):
        os.utime(tmp_path / "incoming" / id, (time.time() - FRESH - 1,) * 2)
    shelf.sweep({needed})
    assert sorted(os.listdir(tmp_path / "incoming")) == sorted([needed, fresh])
    os.utime(tmp_path / "incoming" / fresh, (time.time() - FRESH - 1,) * 2)
    assert shelf.keep(file("blue")) == fresh
    shelf.sweep(set())
    assert os.listdir(tmp_path / "incoming") == [fresh]
