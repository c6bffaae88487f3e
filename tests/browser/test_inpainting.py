"""Pictures that are changed, as a person does it: dropped, painted over with the mouse, sent from tab to tab, extended."""

import base64
import io
import re

import numpy
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.pictures import BAD, COLOURS, GOOD, sixteen_bits

GREEN, RED = (90, 150, 80), (250, 30, 30)
SQUARE = (60, 50, 90, 80)

_DROP = """async ([name, data]) => {
  const bytes = Uint8Array.from(atob(data), (c) => c.charCodeAt(0));
  const files = new DataTransfer();
  files.items.add(new File([bytes], name, { type: "image/png" }));
  for (const kind of ["dragover", "drop"]) {
    const event = new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true });
    document.querySelector("#stage").dispatchEvent(event);
  }
}"""


def scene(size=(150, 130)):
    """Grass with a red square on it."""
    rng = numpy.random.default_rng(0)
    picture = Image.fromarray((numpy.full((size[1], size[0], 3), GREEN) + rng.integers(-4, 5, (size[1], size[0], 1))).astype(numpy.uint8))
    picture.paste(RED, SQUARE)
    return picture


def encoded(picture):
    file = io.BytesIO()
    picture.save(file, "PNG")
    return file.getvalue()


class Bench:
    """The tab *Inpainting* with its mask editor."""

    def __init__(self, visit):
        self.visit, self.page = visit, visit.page

    def open(self, tab="Inpainting"):
        self.page.get_by_role("tab", name=tab).click()
        self.visit.type(batch_count=1)  # what is typed is kept from visit to visit
        return self

    def drop(self, picture, name="picture.png"):
        self.page.evaluate(_DROP, [name, base64.b64encode(encoded(picture)).decode()])
        expect(self.page.locator(".sheet-of-paper")).to_be_visible()
        expect(self.page.locator("#source .about")).to_have_text(f"{picture.width} × {picture.height}")

    def paint(self, left, top, right, bottom):
        """Moves the brush over a box of the picture (pixels), row by row, as one stroke."""
        room = self.page.locator("canvas.mask").bounding_box()
        width, height = map(int, self.page.locator("#source .about").text_content().split(" × "))
        points = [(x, y) for y in range(top, bottom, 4) for x in (left, right)]
        for i, (x, y) in enumerate(points):
            self.page.mouse.move(room["x"] + x * room["width"] / width, room["y"] + y * room["height"] / height)
            if i == 0:
                self.page.mouse.down()
        self.page.mouse.up()

    def mask(self):
        """The mask that the form names, as the server has it; None while nothing is painted."""
        self.page.wait_for_timeout(700)
        id = self.page.locator("#field-mask :is(textarea, input)").input_value()
        if not id:
            return None
        answer = self.page.request.get(f"{self.visit.url}/api/v1/incoming/{id}")
        return numpy.asarray(Image.open(io.BytesIO(answer.body())).convert("L")).astype(int)


@pytest.fixture
def bench(visit):
    return Bench(visit)


def newest(studio):
    (picture,) = studio.pictures(studio.state()["last"]["job"])
    return picture, numpy.asarray(Image.open(studio.data / "outputs" / picture["file"]).convert("RGB")).astype(int)


def test_a_dropped_pictures_object_is_painted_over_and_gone_and_all_else_is_untouched(bench, studio):
    visit, before = bench.visit, scene()
    bench.open().drop(before)
    count = visit.count()
    expect(visit.box("width")).to_have_value("150")
    bench.paint(60, 50, 90, 80)
    visit.page.locator("#remove").click()  # at once: the mask that is seen is the mask that counts
    visit.wait_for_count(count + 1)
    visit.wait_for_rest()
    picture, after = newest(studio)
    mask = bench.mask()
    assert mask[50:80, 60:90].min() == 255 and mask.shape == (130, 150)
    assert picture["file"].startswith("img2img-images/") and (picture["width"], picture["height"]) == (150, 130)
    reach = 10  # of the mask's blur of 4
    near = numpy.zeros((130, 150), bool)
    for y, x in numpy.argwhere(mask > 127):
        near[max(0, y - reach) : y + reach + 1, max(0, x - reach) : x + reach + 1] = True
    assert near.mean() < 0.5 and (after == numpy.asarray(before))[~near].all()
    assert abs(after[50:80, 60:90] - GREEN).mean() < 30, "the red square is gone"


def test_the_mask_is_undone_inverted_erased_loaded_and_survives_a_reload(bench):
    page = bench.page
    bench.open().drop(scene())
    bench.paint(60, 50, 90, 80)
    painted = bench.mask()
    bench.paint(10, 10, 20, 14)
    assert bench.mask()[12, 15] == 255
    page.get_by_role("button", name="Undo").click()
    assert (bench.mask() == painted).all()
    page.get_by_role("button", name="Invert").click()
    assert abs(bench.mask() - (255 - painted)).max() <= 1
    page.locator("canvas.mask").focus()
    page.keyboard.press("Control+z")
    page.get_by_role("button", name="Eraser").click()
    bench.paint(60, 50, 90, 80)
    assert bench.mask().max() < 128  # what is left of the smooth edge
    page.locator(".tools input[type=file]").set_input_files(
        {"name": "mask.png", "mimeType": "image/png", "buffer": encoded(Image.fromarray(painted.astype(numpy.uint8)))}
    )
    assert abs(bench.mask() - painted).max() <= 1
    bench.visit.reload()
    expect(page.get_by_role("tab", name="Inpainting")).to_have_attribute("aria-selected", "true")
    expect(page.locator(".sheet-of-paper")).to_be_visible()
    assert abs(bench.mask() - painted).max() <= 1
    page.get_by_role("button", name="Clear").click()
    assert bench.mask() is None


def test_a_picture_goes_from_tab_to_tab_with_its_parameters(bench, studio):
    visit, page = bench.visit, bench.page
    bench.open("Text to image")
    expect(page.locator("#source")).to_be_hidden()
    count = visit.count()
    visit.ask_for("a fox in the snow", steps=4, seed=77)
    visit.wait_for_count(count + 1)
    visit.type(prompt="something else", seed=-1)
    page.locator(".send summary").click()
    page.locator(".send").get_by_role("button", name="Image to image").click()
    expect(page.get_by_role("tab", name="Image to image")).to_have_attribute("aria-selected", "true")
    expect(page.locator("#source .about")).to_have_text("128 × 128")
    expect(visit.box("prompt")).to_have_value("a fox in the snow")
    expect(visit.box("seed")).to_have_value("77")
    expect(page.locator(".tools")).to_be_hidden()
    count = visit.count()
    visit.type(prompt="a fox on the grass", denoising_strength=0.8)
    visit.generate()
    visit.wait_for_count(count + 1)
    visit.wait_for_rest()
    assert "Denoising strength: 0.8" in newest(studio)[0]["infotext"]
    bench.open("Text to image")
    visit.ask_for("a red apple", steps=2)
    visit.wait_for_count(count + 2)
    assert "Denoising" not in newest(studio)[0]["infotext"]


def test_a_picture_is_extended_without_touching_the_old_part(bench, studio):
    visit, page, before = bench.visit, bench.page, scene((100, 96))
    bench.open().drop(before)
    page.locator(".extend summary").click()
    page.get_by_label("Pixels to extend by").fill("48")
    page.get_by_role("button", name="Extend at the right").click()
    expect(page.locator("#source .about")).to_have_text("148 × 96")
    assert bench.mask()[:, 100:].min() == 255
    expect(visit.box("denoising_strength")).to_have_value("0.6")
    count = visit.count()
    visit.ask_for("grass", width=148, height=96, steps=4)
    visit.wait_for_count(count + 1)
    picture, after = newest(studio)
    assert picture["width"] == 148
    assert (after[:, : 100 - 12 - 11] == numpy.asarray(before)[:, : 100 - 12 - 11]).all()


def test_a_large_picture_is_drawn_only_where_it_is_masked(bench, studio):
    visit, before = bench.visit, scene((900, 700))
    bench.open().drop(before)
    expect(visit.page.locator("#field-inpaint_area input:checked")).to_have_value("Only masked")
    expect(visit.box("width")).to_have_value("128")
    bench.paint(60, 50, 90, 80)
    count = visit.count()
    visit.type(prompt="grass", steps=4)
    visit.generate()
    visit.wait_for_count(count + 1)
    picture, after = newest(studio)
    assert (picture["width"], picture["height"]) == (900, 700)
    assert (after[400:] == numpy.asarray(before)[400:]).all() and (after[:, 500:] == numpy.asarray(before)[:, 500:]).all()


def test_what_is_missing_or_no_picture_is_said(bench):
    visit, page = bench.visit, bench.page
    bench.open()
    if page.locator(".sheet-of-paper").is_visible():
        page.get_by_role("button", name="Take the picture away").click()
    expect(page.locator(".invitation")).to_be_visible()
    visit.generate()
    expect(page.locator("#problem [role=alert]")).to_have_text("Picture: drop one first, or choose it")
    bench.drop(scene())
    visit.generate()
    expect(page.locator("#problem [role=alert]")).to_have_text("Mask: paint over what should be drawn anew")
    page.locator("#source input[type=file]").last.set_input_files({"name": "drawing.svg", "mimeType": "image/svg+xml", "buffer": b"<svg/>"})
    expect(visit.note("drawing.svg: an SVG is a drawing")).to_be_visible()
    visit.errors.clear()  # the browser itself notes the 422
    expect(page.locator("#source .about")).to_have_text("150 × 130")


def test_a_batch_is_drawn_under_its_masks_and_what_cannot_be_is_named(bench, studio):
    """Two pictures with masks of their names, one with a mask of another shape, one without a mask, and one that is none."""
    visit, page, before = bench.visit, bench.page, scene()
    mask, odd = Image.new("L", before.size), Image.new("L", (150, 30), 255)
    mask.paste(255, SQUARE)
    bench.open()
    page.locator(".batch summary").click()
    names = {name: encoded(before) for name in ("10.png", "2.png", "odd.png", "bare.png")} | {"drawing.png": b"<svg/>"}
    masks = {
        "2.jpg": encoded(mask),
        "10.png": encoded(mask),
        "odd.png": encoded(odd),
        "drawing.png": encoded(mask),
    }
    for kind, files in (("pictures", names), ("masks", masks)):
        page.locator(f".batch .{kind} input").first.set_input_files(
            [{"name": name, "mimeType": "image/png", "buffer": data} for name, data in files.items()]
        )
    expect(page.locator(".batch .pictures .count")).to_have_text("5 chosen")
    count = visit.count()
    visit.type(prompt="grass", steps=4, mask_blur=2)
    page.get_by_role("button", name="Draw them all").click()
    visit.wait_for_count(count + 2)
    visit.wait_for_rest()
    expect(page.locator(".batch [role=status]")).to_have_text("3 pictures handed over.")
    left_out = visit.note("Left out")
    expect(left_out).to_contain_text("bare.png: there is no mask of this name; drawing.png: an SVG is a drawing")
    expect(page.locator("#problem [role=alert]")).to_have_text("odd.png: Mask: 150x30 has another shape than the picture, 150x130")
    near = numpy.zeros((130, 150), bool)
    near[45:85, 55:95] = True
    for picture in studio.ask("/api/v1/pictures?limit=2")[1]:
        after = numpy.asarray(Image.open(studio.data / "outputs" / picture["file"]).convert("RGB")).astype(int)
        different = (after != numpy.asarray(before)).any(axis=2)
        assert not different[~near].any() and different[50:80, 60:90].mean() > 0.9
    visit.errors.clear()  # the browser itself notes the 422


def test_every_format_is_taken_or_named_with_what_is_wrong(bench, studio, tmp_path):
    visit, page = bench.visit, bench.page
    good = ("cmyk jpeg", "palette", "rgba")
    for name in good:
        (tmp_path / f"{name}.png").write_bytes(GOOD[name][0])
    sixteen_bits().resize((64, 64), Image.Resampling.NEAREST).save(tmp_path / "sixteen bits.png")
    bad = {name: data for name, (data, _) in BAD.items() if name != "too heavy"}
    for name, data in bad.items():
        (tmp_path / f"{name}.png").write_bytes(data)
    bench.open("Image to image")
    expect(page.locator(".batch .masks")).to_be_hidden()
    page.locator(".batch input[webkitdirectory]").first.set_input_files(tmp_path)
    count = visit.count()
    visit.type(prompt="grass", steps=1, denoising_strength=0)
    page.get_by_role("button", name="Draw them all").click()
    visit.wait_for_count(count + 4)
    visit.wait_for_rest()
    words = visit.note("Left out").text_content()
    for name in bad:
        assert re.search(f"{name}.png: [^;]*({BAD[name][1]})", words), name
    newest = studio.ask("/api/v1/pictures?limit=4")[1][::-1]
    *files, deep = (numpy.asarray(Image.open(studio.data / "outputs" / picture["file"]).convert("RGB")).astype(int) for picture in newest)
    for name, after in zip(good, files, strict=True):
        assert abs(after - COLOURS).max() <= GOOD[name][2], name
    assert abs(deep[::2, ::2, 0] - (numpy.asarray(sixteen_bits()) >> 8)).max() <= 1
    visit.errors.clear()
