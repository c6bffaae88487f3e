import io
import os
import time

from PIL import Image

from modules.incoming.shelf import FRESH
from modules.jobs.desk import Desk
from modules.settings import Settings
from tests.checkpoints import write_checkpoint


def file(colour):
    data = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(data, "PNG")
    return data.getvalue()


def test_pictures_stay_while_a_job_or_the_draft_needs_them(tmp_path):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "tiny.safetensors")
    settings = Settings(data_dir=tmp_path)
    desk = Desk(settings)
    desk.refresh_checkpoints()
    queued, mask, drafted, nobodys = (desk.take_in(file(colour)) for colour in ("red", "white", "green", "blue"))
    job = desk.submit({"prompt": "x", "init_image": queued, "mask": mask})
    desk.keep_draft({"init_image": drafted})
    for id in os.listdir(settings.incoming):
        os.utime(settings.incoming / id, (time.time() - FRESH - 1,) * 2)
    fresh = desk.take_in(file("black"))
    assert set(os.listdir(settings.incoming)) == {queued, mask, drafted, fresh} and nobodys != fresh
    desk.drop(job)
    desk.keep_draft({"init_image": ""})
    again = desk.take_in(file("black"))
    assert os.listdir(settings.incoming) == [again]


def test_a_picture_is_extended_into_two_that_can_be_drawn_with(tmp_path):
    desk = Desk(Settings(data_dir=tmp_path))
    picture, mask = desk.extend(desk.take_in(file("red")), 0, 0, 24, 0)
    assert desk.shelf.size_of(picture) == desk.shelf.size_of(mask) == (88, 64)
