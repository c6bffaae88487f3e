"""The tab Super-resolution: a real photo, a slider, and many pictures one of which is none."""

import io

import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from playwright.sync_api import expect

from tests.browser.visit import PATIENCE
from tests.servers import ROOT

PHOTO = ROOT / "tests" / "chelsea.jpg"  # Chelsea the cat, by Stéfan van der Walt, in the public domain (CC0)


@pytest.fixture
def bench(visit):
    visit.page.get_by_role("tab", name="Super-resolution").click()
    expect(visit.page.locator("#upscale-upscaler input")).to_have_value("realesr-animevideov3")
    return visit.page


def give(page, *files):
    page.locator("#upscale-pictures input[type=file]").first.set_input_files(list(files))


def small(at):
    file = io.BytesIO()
    Image.new("RGB", (12 + at, 10), (5 * at, 90, 40)).save(file, "PNG")
    return {"name": f"small {at}.png", "mimeType": "image/png", "buffer": file.getvalue()}


def seen(page):
    """The share of the picture, from the right, that shows the one after."""
    return page.locator(".compare-after").evaluate("image => getComputedStyle(image).clipPath")


def test_a_photo_is_enlarged_compared_under_the_slider_and_saved(bench, studio, tmp_path):
    expect(bench.locator(".upscale-hint")).to_be_visible()
    expect(bench.locator("#generate")).to_be_hidden()
    bench.locator("#upscale-start").click()
    expect(bench.locator("#upscale-problem [role=alert]")).to_have_text("Pictures: drop some first, or choose them")
    give(bench, PHOTO)
    expect(bench.locator(".upscale-item")).to_have_text("chelsea.jpgready")
    bench.get_by_label("3×").check()
    bench.locator("#upscale-start").click()
    expect(bench.locator(".upscale-item")).to_have_text("chelsea.jpgdone · 480 × 360", timeout=PATIENCE)
    expect(bench.locator(".compare .about")).to_contain_text("480 × 360 · extras-images/")
    slider = bench.get_by_label("Before and after", exact=True).last
    box = slider.bounding_box()
    assert seen(bench) == "inset(0px 0px 0px 50%)"
    bench.mouse.move(box["x"] + box["width"] / 2, box["y"] + 40)
    bench.mouse.down()
    bench.mouse.move(box["x"] + box["width"] / 4, box["y"] + 40)
    bench.mouse.up()
    assert 20 < float(seen(bench).removeprefix("inset(0px 0px 0px ").removesuffix("%)")) < 30
    slider.focus()
    bench.keyboard.press("Home")
    assert seen(bench) == "inset(0px)" or seen(bench) == "inset(0px 0px 0px 0%)"
    bench.get_by_role("button", name="2:1").click()
    assert slider.bounding_box()["width"] == 960
    with bench.expect_download() as download:
        bench.locator(".compare a[download]").click()
    assert download.value.suggested_filename == "chelsea-480x360.png"
    download.value.save_as(tmp_path / "saved.png")
    with Image.open(tmp_path / "saved.png") as picture:
        assert picture.size == (480, 360)
        assert "Postprocess upscale by: 3, Postprocess upscaler: realesr-animevideov3" in picture.text["parameters"]


def test_of_fifty_pictures_the_broken_one_is_reported_and_the_others_are_enlarged(bench, visit):
    broken = {"name": "broken.png", "mimeType": "image/png", "buffer": b"no picture"}
    give(bench, *[small(at) for at in range(20)], broken, *[small(at) for at in range(20, 49)])
    expect(bench.locator(".upscale-item")).to_have_count(50)
    expect(bench.locator(".upscale-item", has_text="ready")).to_have_count(49, timeout=PATIENCE)
    expect(bench.locator(".upscale-item", has_text="broken.png")).to_contain_text("not a picture of a kind that is known")
    visit.errors.clear()  # the browser itself notes the 422
    bench.get_by_label("2×").check()
    bench.locator("#upscale-start").click()
    expect(bench.locator(".upscale-item", has_text="done")).to_have_count(49, timeout=2 * PATIENCE)
    expect(bench.locator(".upscale-item", has_text="small 48.png")).to_have_text("small 48.pngdone · 120 × 20")
    expect(bench.locator("#upscale-pictures .about")).to_have_text("50 pictures")


def test_a_size_that_no_file_holds_is_said_and_an_interrupt_stops_the_rest(bench, studio):
    give(bench, PHOTO)
    give(bench, small(1))
    expect(bench.locator(".upscale-item", has_text="ready")).to_have_count(2)
    bench.get_by_label("A size").check()
    bench.locator("#upscale-width input").fill("60000")
    bench.locator("#upscale-start").click()
    expect(bench.locator("#upscale-problem [role=alert]")).to_contain_text("a file holds 333 million pixels at most", timeout=PATIENCE)
    bench.get_by_role("button", name="Remove small 1.png").click()
    bench.locator("#upscale-width input").fill("2000")
    bench.locator("#upscale-upscaler input").click()
    bench.get_by_role("option", name="R-ESRGAN 4x+", exact=True).click()
    bench.locator("#upscale-start").click()
    expect(bench.locator(".upscale-item")).to_contain_text("at work", timeout=PATIENCE)
    bench.locator("#upscale-pictures").get_by_role("button", name="Interrupt", exact=True).click()
    expect(bench.locator(".upscale-item")).to_contain_text("interrupted", timeout=PATIENCE)
    expect(bench.locator("#upscale-pictures").get_by_role("button", name="Interrupt", exact=True)).to_be_hidden()


def test_a_picture_that_is_there_twice_is_enlarged_once_and_says_nothing_of_how_long_drawing_takes(bench, studio):
    file, info = io.BytesIO(), PngInfo()
    info.add_text("parameters", "twins\nSteps: 20, Sampler: Euler, Size: 12x10, Model: elsewhere")
    Image.new("RGB", (12, 10), "teal").save(file, "PNG", pnginfo=info)
    give(bench, *({"name": f"{name}.png", "mimeType": "image/png", "buffer": file.getvalue()} for name in ("one", "other")))
    expect(bench.locator(".upscale-item", has_text="ready")).to_have_count(2, timeout=PATIENCE)
    bench.locator("#upscale-start").click()
    expect(bench.locator(".upscale-item", has_text="done · 48 × 40")).to_have_count(2, timeout=PATIENCE)
    newest = studio.ask("/api/v1/pictures?limit=5")[1]
    assert len([picture for picture in newest if picture["infotext"].startswith("twins\n")]) == 1
    assert "elsewhere" not in (bench.evaluate("localStorage.getItem('easel:rates')") or "")
