"""Upscaler files: recognised in every spelling, or refused with what they are; and the ones that come in ncnn's format."""

from dataclasses import replace

import numpy
import pytest

from modules.model_manager.check import check_file
from modules.model_manager.ncnn import HALF, convert, read
from modules.model_manager.stored import Refused
from modules.model_manager.tensors import open_tensors
from modules.model_manager.upscaler_file import CompactShape, RrdbShape, UnknownArchitecture, expected, read_upscaler
from modules.model_manager.upscalers import PACKAGE, find_upscaler, provide, scan_upscalers
from tests.checkpoints import write_checkpoint
from tests.loras import write_lora
from tests.upscalers import COMPACT, SMALL, middle, oldest, random_weights, write_upscaler


@pytest.mark.parametrize("spelled", [dict, middle, oldest])
@pytest.mark.parametrize(("doublings", "unshuffle"), [(0, 1), (1, 1), (2, 1), (3, 1), (2, 2), (2, 4)])
def test_the_esrgan_family_is_known_in_every_spelling_and_size(tmp_path, spelled, doublings, unshuffle):
    shape = replace(SMALL, doublings=doublings, unshuffle=unshuffle)
    weights = random_weights(shape)
    _, found, names = read_upscaler(write_upscaler(tmp_path / "x.safetensors", spelled(weights)))
    assert found == shape and found.scale == 2**doublings // unshuffle
    assert names.keys() == expected(shape).keys()


@pytest.mark.parametrize("wrapper", [None, "params", "params_ema"])
@pytest.mark.parametrize("shape", [SMALL, COMPACT, replace(COMPACT, scale=2), replace(COMPACT, scale=1)])
def test_pickles_are_read_with_and_without_a_table_around_them(tmp_path, wrapper, shape):
    path = write_upscaler(tmp_path / "x.pth", random_weights(shape), wrapper)
    header, found, names = read_upscaler(path)
    assert found == shape
    with open_tensors(path, header) as tensors:
        for name, values in random_weights(shape).items():
            assert (tensors.read(names[name]).view(numpy.float32) == values.reshape(-1)).all()
    assert check_file(path).startswith(f"usable: {shape}, ")


def test_the_average_over_a_training_counts_before_its_end(tmp_path):
    import torch

    tables = {
        name: {k: torch.from_numpy(v) for k, v in random_weights(COMPACT, seed).items()}
        for name, seed in (("params", 1), ("params_ema", 2))
    }
    torch.save(tables, tmp_path / "x.pth")
    header, _, names = read_upscaler(tmp_path / "x.pth")
    with open_tensors(tmp_path / "x.pth", header) as tensors:
        first = tensors.read(names["body.0.weight"]).view(numpy.float32)
    assert (first == random_weights(COMPACT, 2)["body.0.weight"].reshape(-1)).all()


def changed(weights, **changes):
    return {name: values for name, values in {**weights, **changes}.items() if values is not None}


WRONG = numpy.zeros((3, 3), numpy.float32)
STRANGE = [
    ({"block.weight": WRONG}, "unknown architecture, or none"),
    (changed(random_weights(SMALL), **{"body.0.rdb1.conv1x1.weight": WRONG}), "conv1x1"),
    (changed(random_weights(SMALL), **{"body.1.rdb2.conv3.weight": None}), "missing"),
    (changed(random_weights(SMALL), **{"conv_hr.weight": WRONG}), "another shape"),
    (changed(random_weights(SMALL), **{"conv_first.weight": numpy.zeros((8, 4, 3, 3), numpy.float32)}), "4 channels"),
    (random_weights(replace(SMALL, channels=2, growth=2, blocks=1, doublings=4, unshuffle=16)), "768 channels"),
    (changed(random_weights(COMPACT), **{"body.1.weight": None}), "unknown architecture, or none"),
    (changed(random_weights(COMPACT), **{"body.6.weight": numpy.zeros((47, 8, 3, 3), numpy.float32)}), "47 channels"),
]


@pytest.mark.parametrize(("weights", "says"), STRANGE)
def test_what_is_like_an_upscaler_but_none_of_ours_is_left_to_others(tmp_path, weights, says):
    with pytest.raises(UnknownArchitecture, match=says):
        read_upscaler(write_upscaler(tmp_path / "x.safetensors", weights))


def test_what_is_no_upscaler_is_refused_with_what_it_is(tmp_path):
    folder = tmp_path / "ESRGAN"
    folder.mkdir()
    write_checkpoint(folder / "sd.safetensors")
    write_lora(folder / "lora.safetensors")
    (folder / "page.pth").write_text("<html>Sign in</html>")
    (folder / "cut.pth").write_bytes(write_upscaler(tmp_path / "x.pth", random_weights(SMALL)).read_bytes()[:-500])
    write_upscaler(folder / "whole.safetensors", random_weights(SMALL))
    write_upscaler(folder / "swin.safetensors", {"layers.0.residual_group.weight": WRONG})
    listed = {each.name: each for each in scan_upscalers([folder], tmp_path / "store.sqlite3") if each.path}
    assert {name: each.status for name, each in listed.items()} == {
        **dict.fromkeys(("sd", "lora", "page", "cut", "swin"), "refused"),
        "whole": "ok",
    }
    assert "belongs in models/Stable-diffusion" in listed["sd"].reason and "a LoRA" in listed["lora"].reason
    assert "a web page" in listed["page"].reason and "spandrel" in listed["swin"].reason
    with pytest.raises(LookupError, match="sd cannot be used: a checkpoint"):
        find_upscaler(list(listed.values()), "sd")
    with pytest.raises(LookupError, match="did you mean whole"):
        find_upscaler(list(listed.values()), "whol")
    assert find_upscaler(list(listed.values()), "").name == "whole"  # the usual one is not there
    assert find_upscaler(scan_upscalers([]), "None").name == "Lanczos"
    assert find_upscaler(scan_upscalers([]), "lanczos").name == find_upscaler(scan_upscalers([]), "").name == "Lanczos"


def test_files_of_one_name_are_told_apart(tmp_path):
    folders = [tmp_path / "ESRGAN", tmp_path / "RealESRGAN"]
    for name in ("ESRGAN/twin.pth", "RealESRGAN/twin.safetensors", "ESRGAN/lanczos.pth", "ESRGAN/None.pth", "ESRGAN/RealESRGAN_x4plus.pth"):
        write_upscaler(tmp_path / name, random_weights(COMPACT))
    write_upscaler(tmp_path / "RealESRGAN" / "RealESRGAN_x4plus.safetensors", {"block.weight": WRONG})
    for _ in range(2):  # as it is seen, and as it is remembered
        listed = scan_upscalers(folders, tmp_path / "store.sqlite3")
        found = {each.name: each.path for each in listed if each.path}
        assert sorted(found) == [
            *("ESRGAN/None.pth", "ESRGAN/lanczos.pth", "R-ESRGAN 4x+"),
            *("RealESRGAN/RealESRGAN_x4plus.safetensors", "RealESRGAN/twin.safetensors", "twin"),
        ]
        for name, path in found.items():
            if "x4plus." not in name:
                assert find_upscaler(listed, name).path == path
    (tmp_path / "ESRGAN" / "twin.pth").unlink()
    assert find_upscaler(scan_upscalers(folders, tmp_path / "store.sqlite3"), "twin").path == tmp_path / "RealESRGAN" / "twin.safetensors"


def packed(shape, weights):
    """The two files of ncnn's format."""
    lines, data = ["7767517", "1 1", "Input in 0 1 data"], b""
    for name, values in weights.items():
        if values.ndim == 4:
            lines.append(f"Convolution c 1 1 a b 0={values.shape[0]} 1=3 4=1 5=1 6={values.size}")
            half = values.astype("<f2").tobytes()
            data += HALF.to_bytes(4, "little") + half + b"\0" * (-len(half) % 4)
        else:
            lines += [f"PReLU p 1 1 a b 0={values.size}"] if not name.endswith("bias") else []
            data += values.astype("<f4").tobytes()
    return "\n".join(lines), data


@pytest.mark.parametrize("shape", [SMALL, COMPACT])
def test_ncnns_numbers_come_out_under_the_names_that_are_known(shape):
    weights = random_weights(shape)
    text, data = packed(shape, weights)
    found = read(f"{text}\n\n", data)
    assert {name: values.shape for name, values in found.items()} == expected(shape)
    for name, values in weights.items():
        assert numpy.allclose(found[name], values, atol=1e-3)
    for bad in (data[:-4], data + b"\0\0\0\0", b"\1" + data[1:]):
        with pytest.raises(Refused):
            read(text, bad)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: "",
        lambda text: text.replace("7767517\n", ""),
        lambda text: text.replace("0=8", "8"),
        lambda text: text.replace("0=8", "0=eight"),
        lambda text: text.replace("0=8", "0=0"),
        lambda text: text.replace("0=8", "0=-1"),
        lambda text: text.replace("0=8", "0=7"),
        lambda text: text.replace("6=216", "6=-1"),
        lambda text: text.replace("6=216", f"6={2**62}"),
        lambda text: text.rpartition("\n")[0],
    ],
)
@pytest.mark.parametrize("shape", [SMALL, COMPACT])
def test_a_list_of_layers_with_wild_numbers_is_refused(shape, spoil):
    text, data = packed(shape, random_weights(shape))
    with pytest.raises(Refused):
        read(spoil(text), data)


def test_a_damaged_package_does_not_keep_models_from_being_listed(tmp_path, caplog):
    text, data = packed(COMPACT, random_weights(COMPACT))
    (tmp_path / "realesrgan-x4plus.param").write_bytes(b"7767517\nConvolution \xff\xfe 0\n")
    (tmp_path / "realesrgan-x4plus.bin").write_bytes(data)
    (tmp_path / "realesr-animevideov3-x4.param").write_text(text)
    (tmp_path / "realesr-animevideov3-x4.bin").write_bytes(data)
    provide(tmp_path / "RealESRGAN", tmp_path)
    assert [path.name for path in (tmp_path / "RealESRGAN").iterdir()] == ["realesr-animevideov3.safetensors"]
    assert "RealESRGAN_x4plus.safetensors cannot be made" in caplog.text


def test_the_packages_networks_are_put_where_upscalers_lie(tmp_path):
    assert PACKAGE.is_dir(), "requirements-weights.txt is not installed: start ./webui.sh once"
    folder = tmp_path / "RealESRGAN"
    provide(folder)
    found = {each.name: each for each in scan_upscalers([folder]) if each.path}
    assert found.keys() == {"realesr-animevideov3", "R-ESRGAN 4x+", "R-ESRGAN 4x+ Anime6B"}
    assert all(each.scale == 4 and each.status == "ok" for each in found.values())
    assert read_upscaler(found["R-ESRGAN 4x+"].path)[1] == RrdbShape(64, 32, 23, 2, 1)
    assert read_upscaler(found["realesr-animevideov3"].path)[1] == CompactShape(64, 16, 4)
    assert find_upscaler(list(found.values()), "realesrgan_x4plus").name == "R-ESRGAN 4x+"
    (folder / "realesr-animevideov3.safetensors").write_bytes(b"kept as it is")
    provide(folder)
    assert (folder / "realesr-animevideov3.safetensors").read_bytes() == b"kept as it is"
    assert [path for path in folder.iterdir() if path.name.startswith(".")] == []


def test_without_the_package_there_is_nothing_to_provide(tmp_path):
    provide(tmp_path / "RealESRGAN", tmp_path / "nothing")
    assert not (tmp_path / "RealESRGAN").exists()
    (tmp_path / "p.param").write_text("a web page")
    (tmp_path / "p.bin").write_bytes(b"")
    with pytest.raises(Refused):
        convert(tmp_path / "p.param", tmp_path / "out" / "x.safetensors", {})
