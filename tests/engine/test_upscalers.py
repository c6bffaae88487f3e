"""Pictures made larger: the networks, the tiles, and the whole way from recipe to file."""

import io
from dataclasses import replace

import numpy
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from modules.engine.stop import Cancelled, CannotDraw
from modules.engine.upscalers import networks, rack, run, tiles
from modules.engine.upscalers.rack import Rack, tiling_of
from modules.engine.upscalers.tiles import FADE, Tiling, spans
from modules.incoming.shelf import Shelf
from modules.jobs.messages import Picture, Progress
from modules.model_manager.upscalers import provide
from modules.recipe.upscaling import DEFAULT, Upscaling
from tests.servers import MODELS
from tests.upscalers import COMPACT, SMALL, middle, oldest, random_weights, write_upscaler

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def upscalers(tmp_path_factory):
    """Small random networks, and the ones that come with the program."""
    folder = tmp_path_factory.mktemp("upscalers")
    weights = random_weights(SMALL, 1)
    write_upscaler(folder / "new.safetensors", weights)
    write_upscaler(folder / "middle.pth", middle(weights), "params_ema")
    write_upscaler(folder / "oldest.pth", oldest(weights))
    write_upscaler(folder / "half.safetensors", random_weights(SMALL, 1, "float16"))
    for name, unshuffle in (("x2", 2), ("x1", 4)):
        write_upscaler(folder / f"{name}.safetensors", random_weights(replace(SMALL, unshuffle=unshuffle), 2))
    write_upscaler(folder / "compact.pth", random_weights(COMPACT, 3))
    write_upscaler(folder / "broken.safetensors", {name: values * numpy.nan for name, values in random_weights(COMPACT, 3).items()})
    provide(folder)
    return folder


@pytest.fixture(scope="module")
def at_hand(upscalers, tmp_path_factory):
    return Rack([upscalers], tmp_path_factory.mktemp("state") / "store.sqlite3", CPU)


@pytest.fixture
def shelf(tmp_path):
    return Shelf(tmp_path / "incoming")


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.inference_mode():
        yield


def noise(width, height, seed=0):
    return Image.fromarray(numpy.random.default_rng(seed).integers(0, 256, (height, width, 3), numpy.uint8))


def photo():
    """What the starter drew, which has all that pictures have."""
    with Image.open(MODELS / "Stable-diffusion" / "starter.png") as image:
        return image.convert("RGB").crop((0, 0, 256, 256))


def difference(one, other):
    return numpy.abs(numpy.asarray(one, int) - numpy.asarray(other, int))


def kept(shelf, image, **options):
    file = io.BytesIO()
    image.save(file, "PNG", **options)
    return shelf.keep(file.getvalue())


def test_a_file_is_the_same_network_in_every_spelling(at_hand):
    picture = tiles.tensor(noise(20, 14))
    new, *others = [at_hand.enlarger(name, lambda: None).network(picture) for name in ("new", "middle", "oldest", "half")]
    assert new.shape == (1, 3, 56, 80) and new.std() > 0.05
    assert torch.equal(new, others[0]) and torch.equal(new, others[1])
    assert (new - others[2]).abs().max() < 0.01


@pytest.mark.parametrize(("name", "scale"), [("x1", 1), ("x2", 2), ("compact", 4)])
@pytest.mark.parametrize("size", [(1, 1), (21, 14), (8, 13)])
def test_pictures_of_any_size_go_in(at_hand, name, scale, size):
    way = at_hand.enlarger(name, lambda: None)
    assert way.network(tiles.tensor(noise(*size))).shape == (1, 3, size[1] * scale, size[0] * scale)


def test_a_compact_network_without_weights_enlarges_as_it_is(at_hand):
    network = networks.built(COMPACT).to_empty(device=CPU)
    for values in network.parameters():
        values.zero_()
    picture = noise(5, 4)
    assert tiles.picture(network(tiles.tensor(picture)), "RGB").tobytes() == picture.resize((20, 16), Image.Resampling.NEAREST).tobytes()


def test_the_upper_layers_see_the_same_strip_by_strip(at_hand, monkeypatch):
    whole = at_hand.enlarger("x2", lambda: None).network(tiles.tensor(noise(40, 64)))
    monkeypatch.setattr(networks, "TOP_BYTES", 1)
    assert torch.allclose(at_hand.enlarger("x2", lambda: None).network(tiles.tensor(noise(40, 64))), whole, atol=1e-5)


@pytest.mark.parametrize("step", [1, 2, 4])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 66, 100, 129, 1000, 1001])
def test_tiles_cover_a_picture_and_overlap_by_what_is_not_sound(length, step):
    tiling = Tiling(64, 8, step)
    found = spans(length, tiling)
    assert found[0].first == 0 and found[-1].last == found[-1].end == length
    assert all(span.start % step == 0 and span.end - span.start <= 64 + step for span in found)
    for before, after in zip(found, found[1:], strict=False):
        assert before.last - after.first >= FADE and after.fades
        assert after.first - after.start >= 8 and before.end - before.last >= 8
    assert not found[0].fades


@pytest.mark.parametrize(("name", "side"), [("compact", 32), (DEFAULT, 64)])
def test_tiles_are_exactly_the_whole_where_they_see_all_that_counts(at_hand, name, side):
    way, picture = at_hand.enlarger(name, lambda: None), photo().crop((60, 60, 150, 130))
    whole = way.enlarged(picture, (360, 280), lambda: None)
    seen = []
    tiled = tiles.enlarged(picture, way.network, 4, replace(way.tiling, side=side), lambda: seen.append(1))
    assert len(seen) == tiles.count(picture.size, replace(way.tiling, side=side)) > 4
    assert difference(whole, tiled).max() <= 1


@pytest.mark.parametrize(("name", "scale"), [("new", 4), ("x2", 2), ("x1", 1)])
def test_tiles_of_an_esrgan_begin_where_its_folding_does(at_hand, name, scale):
    way, picture = at_hand.enlarger(name, lambda: None), noise(181, 47)
    whole = tiles.enlarged(picture, way.network, scale, Tiling(1000, 0), lambda: None)
    tiled = tiles.enlarged(picture, way.network, scale, replace(way.tiling, side=150, margin=60), lambda: None)
    assert difference(whole, tiled).max() <= 1


def test_real_esrgan_in_tiles_is_the_whole_to_within_one_level(at_hand):
    way = at_hand.enlarger("R-ESRGAN 4x+ Anime6B", lambda: None)
    picture = photo().crop((40, 100, 210, 124))
    whole = way.enlarged(picture, (680, 96), lambda: None)
    tiled = tiles.enlarged(picture, way.network, 4, replace(way.tiling, side=132), lambda: None)
    assert tiles.count(picture.size, replace(way.tiling, side=132)) == 2
    assert difference(whole, tiled).max() <= 1


def test_grey_goes_through_as_grey(at_hand):
    way, grey = at_hand.enlarger(DEFAULT, lambda: None), photo().convert("L").crop((0, 0, 40, 30))
    large = way.enlarged(grey, (160, 120), lambda: None)
    assert large.mode == "L" and difference(large, grey.resize((160, 120), Image.Resampling.BICUBIC)).mean() < 12


def test_the_usual_network_is_sharper_than_resampling_and_the_same_picture(at_hand):
    original = photo()
    small = original.resize((64, 64), Image.Resampling.BICUBIC)
    restored, resampled = (at_hand.enlarger(name, lambda: None).enlarged(small, (256, 256), lambda: None) for name in (DEFAULT, "Bicubic"))

    def sharpness(image):
        grey = numpy.asarray(image.convert("L"), float)
        return numpy.abs(numpy.diff(grey, axis=0)).mean() + numpy.abs(numpy.diff(grey, axis=1)).mean()

    assert sharpness(resampled) < 0.9 * sharpness(restored)
    assert difference(restored, original).mean() < 9 and difference(restored.resize((64, 64), Image.Resampling.BOX), small).mean() < 6


def made(upscaling, at_hand, shelf, check=lambda: None):
    said = []
    facts = run.run(upscaling, at_hand, shelf, said.append, check)
    return said, facts


def test_a_recipe_becomes_a_picture_with_all_that_the_old_one_carried(at_hand, shelf):
    picture = photo().crop((0, 0, 60, 40)).convert("RGBA")
    picture.putalpha(Image.linear_gradient("L").resize((60, 40)))
    exif = Image.Exif()
    exif[0x010F], exif[0x0112] = "a camera", 6
    info = PngInfo()
    info.add_text("parameters", "a fox\nSteps: 20, Sampler: Euler, Seed: 1")
    id = kept(shelf, picture, exif=exif, icc_profile=b"a profile", pnginfo=info)
    said, facts = made(Upscaling(picture=id, upscaler="compact", factor=4), at_hand, shelf)
    assert isinstance(said[-1], Picture) and facts["pictures"] == 1
    large = Image.open(io.BytesIO(said[-1].png))
    assert large.size == (said[-1].width, said[-1].height) == (160, 240)  # it was held upright
    assert large.info["icc_profile"] == b"a profile" and dict(large.getexif()) == {0x010F: "a camera"}
    assert large.text["parameters"] == said[-1].infotext
    assert said[-1].infotext.startswith("a fox\nSteps: 20, Sampler: Euler, Seed: 1, Postprocess upscale by: 4, ")
    assert large.getchannel("A").getextrema()[0] < 40 < 200 < large.getchannel("A").getextrema()[1]
    again = made(Upscaling(picture=id, upscaler="compact", factor=4), at_hand, shelf)[0][-1]
    assert again.png == said[-1].png


def test_an_opaque_picture_stays_opaque_and_a_target_is_met(at_hand, shelf):
    picture = photo().crop((0, 0, 60, 40)).convert("RGBA")
    id = kept(shelf, picture)
    for upscaler, size in (("Lanczos", (100, 100)), ("compact", (100, 100)), ("x1", (33, 7))):
        said, _ = made(Upscaling(picture=id, upscaler=upscaler, width=size[0], height=size[1]), at_hand, shelf)
        large = Image.open(io.BytesIO(said[-1].png))
        assert large.size == size and large.getchannel("A").getextrema() == (255, 255)


def test_two_ways_are_blended_by_weight(at_hand, shelf):
    id = kept(shelf, photo().crop((0, 0, 32, 32)))
    one, other, both = (
        numpy.asarray(Image.open(io.BytesIO(made(Upscaling(picture=id, **how), at_hand, shelf)[0][-1].png)), float)
        for how in (
            {"upscaler": "compact"},
            {"upscaler": "Nearest"},
            {"upscaler": "compact", "upscaler_2": "Nearest", "upscaler_2_weight": 0.25},
        )
    )
    assert numpy.abs(0.75 * one + 0.25 * other - both).max() <= 1 and numpy.abs(one - other).max() > 30


def test_a_network_runs_again_until_it_is_large_enough(at_hand, shelf):
    id = kept(shelf, photo().crop((0, 0, 12, 9)))
    said, _ = made(Upscaling(picture=id, upscaler="x2", factor=7.5), at_hand, shelf)
    assert (said[-1].width, said[-1].height) == (90, 67)


def test_every_tile_is_told_with_the_time_left(at_hand, shelf, monkeypatch):
    monkeypatch.setattr(rack, "SIDE", 60)
    way = tiling_of(COMPACT)
    fresh = Rack(at_hand._roots, at_hand._store, CPU)
    said, _ = made(Upscaling(picture=kept(shelf, noise(100, 90)), upscaler="compact"), fresh, shelf)
    told = [each for each in said if isinstance(each, Progress) and each.phase == "upscale"]
    count = tiles.count((100, 90), way)
    assert [each.step for each in told] == list(range(count + 1)) and {each.steps for each in told} == {count} and count == 4
    assert told[0].seconds_left is None and told[-1].seconds_left == 0


def test_an_interrupt_is_heard_in_the_middle_of_a_tile(at_hand, shelf):
    calls = []

    def check():
        calls.append(1)
        if len(calls) > 12:
            raise Cancelled

    said = []
    with pytest.raises(Cancelled):
        run.run(Upscaling(picture=kept(shelf, noise(30, 30)), upscaler="new"), at_hand, shelf, said.append, check)
    assert len(calls) == 13 and not any(isinstance(each, Picture) for each in said)


@pytest.mark.parametrize(
    ("how", "says"),
    [
        ({"upscaler": "nothing like it"}, "there is no upscaler nothing like it"),
        ({"upscaler": "broken"}, "broken gave values that are no numbers"),
        ({"picture": "0" * 64}, "the picture to enlarge cannot be used"),
    ],
)
def test_what_cannot_be_is_one_line(at_hand, shelf, how, says):
    id = kept(shelf, noise(8, 8))
    with pytest.raises(CannotDraw, match=says):
        made(Upscaling(**{"picture": id, "upscaler": "compact", **how}), at_hand, shelf)


def test_what_does_not_fit_is_refused_before_any_work_with_what_it_would_need(at_hand, shelf, monkeypatch):
    upscaling = Upscaling(picture=kept(shelf, noise(1000, 500)), upscaler="compact", factor=16)
    monkeypatch.setattr(run, "free_memory", lambda device: 2_000_000_000)
    with pytest.raises(CannotDraw, match=r"16000x8000 needs 2\.21 GB of memory, 2\.00 GB are free"):
        made(upscaling, at_hand, shelf)
    transparent = noise(1000, 500)
    transparent.putalpha(7)
    with pytest.raises(CannotDraw, match=r"24000x12000 would be a file of up to 1\.15 GB"):
        made(Upscaling(picture=kept(shelf, transparent), upscaler="Lanczos", width=24000), at_hand, shelf)


def test_a_changed_file_is_loaded_anew(upscalers, at_hand):
    path = write_upscaler(upscalers / "changing.safetensors", random_weights(COMPACT, 5))
    picture = tiles.tensor(noise(6, 6))
    before = at_hand.enlarger("changing", lambda: None).network(picture)
    write_upscaler(path, random_weights(COMPACT, 6))
    assert not torch.equal(at_hand.enlarger("changing", lambda: None).network(picture), before)
