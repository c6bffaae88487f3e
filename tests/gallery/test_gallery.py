import os
import stat
from concurrent.futures import ThreadPoolExecutor

import pytest

from modules.gallery.pictures import Gallery, today
from modules.gallery.writer import save, sweep
from modules.jobs.messages import Picture
from modules.store import Store

PNG = b"\x89PNG not really, the writer does not look"


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path / "state" / "easel.sqlite3")
    yield store
    store.close()


def picture(job=1, index=0, seed=5):
    return Picture(job, 1, index, seed, 64, 64, "a fox\nSteps: 20", PNG)


def test_numbers_go_on_after_the_highest(tmp_path):
    assert save(PNG, tmp_path, 7).name == "00000-7.png"
    (tmp_path / "00041-x.jpg").touch()
    (tmp_path / "99-notes.txt").touch()
    assert save(PNG, tmp_path, 7).name == "00100-7.png"
    assert save(PNG, tmp_path, 8).read_bytes() == PNG


def test_two_writers_never_overwrite(tmp_path):
    with ThreadPoolExecutor(8) as pool:
        paths = list(pool.map(lambda i: save(str(i).encode(), tmp_path, 1), range(64)))
    assert {path.read_bytes() for path in paths} == {str(i).encode() for i in range(64)}
    assert sorted(os.listdir(tmp_path)) == sorted(path.name for path in paths)


def test_a_taken_name_is_not_overwritten_without_hard_links(tmp_path, monkeypatch):
    def no_links(*_):
        raise PermissionError("no hard links here")

    monkeypatch.setattr(os, "link", no_links)
    assert [save(PNG, tmp_path, 1).name for _ in range(2)] == ["00000-1.png", "00001-1.png"]


@pytest.mark.parametrize("operation", ["fsync", "link"])
def test_a_failing_disk_leaves_nothing_half_written(tmp_path, monkeypatch, operation):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, operation, full)
    if operation == "link":
        monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        save(PNG, tmp_path, 1)
    assert [name for name in os.listdir(tmp_path) if (tmp_path / name).stat().st_size] == []


def test_leftovers_are_swept_but_not_young_ones(tmp_path):
    folder = tmp_path / "txt2img-images" / "2026-01-01"
    folder.mkdir(parents=True)
    old, young = folder / ".old.tmp", folder / ".young.tmp"
    old.touch()
    young.touch()
    os.utime(old, (1, 1))
    sweep(tmp_path, older_than=young.stat().st_mtime)
    assert os.listdir(folder) == [".young.tmp"]


def test_the_gallery_keeps_a_picture_once_and_serves_it_by_id(store, tmp_path):
    gallery = Gallery(store, tmp_path / "outputs")
    first = gallery.keep(picture(), "txt2img")
    assert gallery.keep(picture(), "txt2img") == first
    second = gallery.keep(picture(index=1, seed=6), "txt2img")
    assert [entry.id for entry in gallery.latest(10)] == [second, first]
    assert [entry.id for entry in gallery.latest(10, before=second)] == [first]
    assert gallery.png(first) == PNG
    assert gallery.entry(first).file == (today(tmp_path, "txt2img") / "00000-5.png").relative_to(tmp_path).as_posix()
    with pytest.raises(LookupError):
        gallery.png(99)


def test_what_the_disk_refuses_stays_in_memory_and_can_be_saved_later(store, tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    gallery = Gallery(store, tmp_path / "outputs")
    id = gallery.keep(picture(), "txt2img")
    assert gallery.png(id) == PNG and gallery.unsaved() == 1
    assert gallery.entry(id).file is None and gallery.entry(id).problem
    (tmp_path / "outputs").unlink()
    assert gallery.save_again(id).problem is None and gallery.unsaved() == 0
    assert gallery.png(id) == PNG


def test_links_and_pipes_in_a_pictures_place_are_not_followed(store, tmp_path):
    gallery = Gallery(store, tmp_path / "outputs")
    secret = tmp_path / "secret"
    secret.write_bytes(b"secret")
    id = gallery.keep(picture(), "txt2img")
    path = tmp_path / "outputs" / gallery.entry(id).file
    path.unlink()
    path.symlink_to(secret)
    with pytest.raises(LookupError, match="cannot be read"):
        gallery.png(id)
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(LookupError, match="not a picture any more"):
        gallery.png(id)
    path.unlink()
    with pytest.raises(LookupError, match="cannot be read"):
        gallery.png(id)


def test_the_outputs_may_lie_on_another_disk_behind_a_link(store, tmp_path):
    (tmp_path / "big disk").mkdir()
    (tmp_path / "outputs").mkdir()
    (tmp_path / "outputs" / "txt2img-images").symlink_to(tmp_path / "big disk")
    gallery = Gallery(store, tmp_path / "outputs")
    assert gallery.png(gallery.keep(picture(), "txt2img")) == PNG


def test_pictures_may_be_read_as_the_users_own_files(tmp_path):
    mode = save(PNG, tmp_path, 1).stat().st_mode
    assert stat.S_IMODE(mode) & 0o600 == 0o600
