"""Listing, finding and hashing the files that people drop into folders."""

import hashlib
import os
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.numpy

from modules.model_manager import library
from modules.model_manager.choice import STARTER, first_choice, inpaints, usable
from modules.model_manager.hashes import known_hash, short_hash
from modules.model_manager.library import find, find_vae, scan, scan_vaes
from modules.model_manager.stored import Refused
from tests.checkpoints import random_weights, write_checkpoint
from tests.model_manager.bad_zips import TINY

VAE = "first_stage_model."


def write(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    return write_checkpoint(path, TINY, dtype="float16")


def write_vae(path: Path, prefix: str = "") -> None:
    weights = {prefix + n.removeprefix(VAE): values for n, values in random_weights(TINY, 3, "float16") if n.startswith(VAE)}
    path.parent.mkdir(parents=True, exist_ok=True)
    safetensors.numpy.save_file(weights, path)


def test_names_are_paths_below_the_root_in_order(tmp_path: Path) -> None:
    for name in ("b.safetensors", "sub/dir/A.SafeTensors", "C.safetensors", ".hidden/x.ckpt", ".hidden.ckpt", "notes.md", "picture.png"):
        write(tmp_path / name)
    assert [(c.name, c.status) for c in scan([tmp_path, tmp_path / "missing", tmp_path])] == [
        ("b.safetensors", "ok"),
        ("C.safetensors", "ok"),
        ("sub/dir/A.SafeTensors", "ok"),
    ]
    found = scan([tmp_path])[2]
    assert (found.family, found.architecture, found.native_size) == ("sd1", TINY, 512)
    assert (found.path, found.size_bytes, found.reason) == (tmp_path / "sub/dir/A.SafeTensors", found.path.stat().st_size, "")


def test_a_name_in_two_roots_stays_unique(tmp_path: Path) -> None:
    write(tmp_path / "one/a.safetensors")
    write(tmp_path / "two/a.safetensors")
    assert [c.name for c in scan([tmp_path / "one", tmp_path / "two"])] == ["a.safetensors", "two/a.safetensors"]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write(tmp_path / "elsewhere/a.safetensors")
    root.mkdir()
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere/back").symlink_to(root)
    (root / "self").symlink_to(root / "self")
    assert [c.name for c in scan([root])] == ["linked/a.safetensors"]


def test_a_name_that_is_no_text_is_listed_all_the_same(tmp_path: Path) -> None:
    os.rename(write(tmp_path / "a.safetensors"), os.fsencode(tmp_path) + b"/\xff.safetensors")
    assert [(c.name, c.status) for c in scan([tmp_path])] == [("?.safetensors", "ok")]


def test_an_unchanged_file_is_not_read_again_and_a_changed_one_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write(tmp_path / "a.safetensors")
    first = scan([tmp_path])[0]
    reads = []
    read = library.described
    monkeypatch.setattr(library, "described", lambda path: reads.append(path) or read(path))
    assert scan([tmp_path])[0] is first
    assert not reads
    write_checkpoint(path, replace(TINY, prediction="v"), dtype="float16")
    assert scan([tmp_path])[0].architecture == replace(TINY, prediction="v")
    path.with_suffix(".yaml").unlink()
    assert scan([tmp_path])[0].architecture == TINY
    assert len(reads) == 2


def test_the_yaml_recommends_how_to_draw(tmp_path: Path) -> None:
    path = write(tmp_path / "a.safetensors")
    with path.with_suffix(".yaml").open("a") as file:
        file.write("defaults: {steps: 12, cfg_scale: 3.5, sampler: Euler a, clip_skip: null}\n")
    assert scan([tmp_path])[0].defaults == {"steps": 12, "cfg_scale": 3.5, "sampler": "Euler a"}


def test_vaes_lie_in_their_own_folder_or_beside_checkpoints(tmp_path: Path) -> None:
    write(tmp_path / "models/photo.safetensors")
    write_vae(tmp_path / "models/photo.vae.SAFETENSORS")
    write_vae(tmp_path / "vae/other.safetensors", VAE)
    (tmp_path / "vae/bad.pt").write_bytes(b"hello" * 20)
    assert [c.name for c in scan([tmp_path / "models"])] == ["photo.safetensors"]
    vaes = scan_vaes([tmp_path / "vae"], [tmp_path / "models"])
    assert [(v.name, v.status, v.prefix, v.shape) for v in vaes] == [
        ("bad.pt", "refused", "", None),
        ("other.safetensors", "ok", VAE, TINY.vae),
        ("photo.vae.SAFETENSORS", "ok", "", TINY.vae),
    ]
    assert find_vae(vaes, "Automatic", "photo.safetensors") is vaes[2]
    assert find_vae(vaes, "Automatic", "sub/another.safetensors") is None
    assert find_vae(vaes, "None", "photo.safetensors") is None
    assert find_vae(vaes, "Other", "photo.safetensors") is vaes[1]
    with pytest.raises(LookupError, match="there is no othr; did you mean other.safetensors"):
        find_vae(vaes, "othr", "photo.safetensors")
    with pytest.raises(LookupError, match="bad.pt cannot be used: not a model file"):
        find_vae(vaes, "bad.pt", "photo.safetensors")


def test_a_checkpoint_is_found_by_every_name_people_give_it(tmp_path: Path) -> None:
    path = write(tmp_path / "sub/dreamy_v1.5.safetensors")
    write(tmp_path / "plain.safetensors")
    (tmp_path / "broken.ckpt").write_bytes(b"")
    store = tmp_path / "state/hashes.sqlite3"
    digest = short_hash(path, store)
    checkpoints = scan([tmp_path])
    wanted = next(c for c in checkpoints if c.path == path)
    names = ("sub/dreamy_v1.5.safetensors", "sub/dreamy_v1.5", "dreamy_v1.5.safetensors", "dreamy_v1.5", "DREAMY_v1.5", " dreamy_v1.5 ")
    for name in (*names, f"dreamy_v1.5 [{digest}]", f"renamed.ckpt [{digest}]", digest, digest.upper(), known_hash(path, store)):
        assert find(checkpoints, name, store) is wanted
    assert find(checkpoints, "broken").reason == "an empty file: download it again"
    with pytest.raises(LookupError, match="there is no dreamy; did you mean sub/dreamy_v1.5.safetensors"):
        find(checkpoints, "dreamy")
    with pytest.raises(LookupError, match="there is no 0123456789$"):
        find(checkpoints, "0123456789", store)


def test_a_name_that_could_be_two_is_not_guessed(tmp_path: Path) -> None:
    write(tmp_path / "a/x.safetensors")
    write(tmp_path / "b/x.safetensors")
    with pytest.raises(LookupError, match="x could be a/x.safetensors or b/x.safetensors: say which"):
        find(scan([tmp_path]), "x")


def test_a_usable_file_goes_before_a_refused_one_of_the_same_name(tmp_path: Path) -> None:
    write(tmp_path / "x.safetensors")
    (tmp_path / "x.ckpt").write_bytes(b"")
    assert find(scan([tmp_path]), "x").name == "x.safetensors"


def test_the_hash_is_that_of_the_whole_file_and_remembered_until_it_changes(tmp_path: Path) -> None:
    path, store = tmp_path / "a.ckpt", tmp_path / "hashes.sqlite3"
    path.write_bytes(b"one")
    assert short_hash(path, None) == hashlib.sha256(b"one").hexdigest()[:10]
    assert known_hash(path, store) is None
    assert short_hash(path, store) == short_hash(path, None)
    assert known_hash(path, store) == hashlib.sha256(b"one").hexdigest()
    with sqlite3.connect(store) as connection:
        connection.execute("UPDATE hashes SET sha256 = 'remembered'")
    assert short_hash(path, store) == "remembered"
    path.write_bytes(b"other")
    assert known_hash(path, store) is None
    assert short_hash(path, store) == hashlib.sha256(b"other").hexdigest()[:10]


def test_a_damaged_store_of_hashes_is_begun_anew(tmp_path: Path) -> None:
    path, store = tmp_path / "a.ckpt", tmp_path / "hashes.sqlite3"
    path.write_bytes(b"one")
    store.write_bytes(b"this is no database" * 100)
    assert short_hash(path, store) == hashlib.sha256(b"one").hexdigest()[:10]
    assert known_hash(path, store)


def test_hashing_a_pipe_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.ckpt")
    with pytest.raises(Refused, match="named pipe"):
        short_hash(tmp_path / "a.ckpt", None)


def test_whether_a_checkpoint_was_made_for_inpainting(tmp_path: Path) -> None:
    write(tmp_path / "plain.safetensors")
    write_checkpoint(tmp_path / "sees.safetensors", replace(TINY, unet=replace(TINY.unet, in_channels=9)), dtype="float16")
    found = scan([tmp_path])
    assert [inpaints(found, name) for name in ("sees", "plain", "", "nothing")] == [True, False, False, False]


def test_somebody_who_has_chosen_none_begins_with_the_starter(tmp_path: Path) -> None:
    for name in ("another.safetensors", "starter-inpainting.safetensors", STARTER):
        write(tmp_path / name)
    found = scan([tmp_path])
    assert usable(found, "").name == first_choice([checkpoint.name for checkpoint in found]) == STARTER
    assert first_choice(["b.ckpt", "a.ckpt"]) == "b.ckpt" and first_choice([]) is None
