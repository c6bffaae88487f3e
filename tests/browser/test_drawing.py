"""From the first visit to the picture's file, in a real browser."""

import json

from PIL import Image
from playwright.sync_api import expect


def test_the_first_visit_offers_a_picture_one_click_away(visit, studio):
    examples = visit.page.locator(".examples button")
    expect(examples).to_have_count(3)
    expect(visit.box("checkpoint")).to_have_value("starter.safetensors")
    examples.first.click()
    expect(visit.box("prompt")).to_have_value(examples.first.text_content())
    visit.wait_for_count(1)


def test_progress_and_preview_move_until_the_picture_is_there_with_its_file(visit, studio):
    before = visit.count()
    visit.watch()
    visit.ask_for("a sailboat on the sea", steps=60, seed=7)
    visit.wait_for_count(before + 1)
    visit.wait_for_rest()
    seen = visit.seen()
    assert len(seen["progress"]) >= 5 and seen["progress"] == sorted(seen["progress"])
    assert len(set(seen["previews"])) >= 3
    assert len(seen["rooms"]) == 1, "the stage moved while the picture came"

    shown = visit.page.locator(".frame img")
    expect(shown).to_have_js_property("naturalWidth", 128)
    assert shown.bounding_box()["width"] == 512  # small pictures are shown larger
    (picture,) = studio.pictures(studio.state()["last"]["job"])
    with Image.open(studio.data / "outputs" / picture["file"]) as file:
        parameters = file.text["parameters"]
    assert parameters.startswith("a sailboat on the sea\nSteps: 60,") and "Seed: 7," in parameters
    visit.page.locator(".parameters summary").click()
    expect(visit.page.locator(".parameters-text")).to_have_text(parameters)
    visit.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    visit.page.get_by_role("button", name="Copy").click()
    expect(visit.page.get_by_role("button", name="Copied")).to_be_visible()
    assert visit.page.evaluate("navigator.clipboard.readText()") == parameters


def test_generate_never_locks_and_two_presses_make_two_jobs(visit):
    before = visit.count()
    visit.ask_for("a fox in the snow", steps=10)
    visit.generate()
    visit.wait_for_count(before + 2)


def test_a_batch_counts_its_seeds_up_and_a_picture_can_be_skipped(visit, studio):
    before = visit.count()
    visit.ask_for("a red apple", steps=40, seed=40, batch_count=3)
    visit.wait_for_drawing(0.02)
    visit.page.get_by_role("button", name="Skip").click()
    visit.wait_for_count(before + 2)
    visit.wait_for_rest()
    assert [picture["seed"] for picture in studio.pictures(studio.state()["last"]["job"])] == [41, 42]


def test_the_newest_comes_first_and_arrows_walk_the_strip(visit):
    visit.ask_for("a red apple", steps=5, seed=50)
    visit.wait_for_rest()
    visit.ask_for("a red apple", steps=5, seed=51)
    says = visit.page.locator(".says")
    expect(says).to_contain_text("seed 51")
    visit.tiles().first.focus()
    visit.page.keyboard.press("ArrowRight")
    expect(says).to_contain_text("seed 50")
    visit.page.locator("#reuse-seed").click()
    expect(visit.box("seed")).to_have_value("50")
    visit.page.locator("#random-seed").click()
    expect(visit.box("seed")).to_have_value("-1")


def test_the_viewer_enlarges_walks_and_leaves(visit):
    visit.page.locator(".frame").click()
    viewer, image = visit.page.locator("dialog.viewer"), visit.page.locator(".viewer-image")
    expect(viewer).to_be_visible()
    assert image.bounding_box()["height"] > 800
    viewer.get_by_role("button", name="1:1").click()
    assert image.bounding_box()["height"] == 128
    first = image.get_attribute("src")
    visit.page.keyboard.press("ArrowRight")
    expect(image).not_to_have_attribute("src", first)
    visit.page.keyboard.press("Escape")
    expect(viewer).to_be_hidden()


def test_the_prompt_is_text_wherever_it_is_shown(visit):
    evil = '<img src=x onerror="window.harm=1"><script>window.harm=1</script>${window.harm=1}{{window.harm=1}}'
    before = visit.count()
    visit.ask_for(evil, steps=80)
    visit.ask_for(evil, steps=5)
    visit.wait_for_drawing()
    visit.page.locator("#engine summary").click()
    expect(visit.page.locator(".waiting li span").first).to_have_text(evil)
    visit.page.locator("#brand").click()
    visit.wait_for_count(before + 2)
    visit.page.locator(".parameters summary").click()
    assert visit.page.locator(".parameters-text").text_content().startswith(evil)
    assert visit.tiles().first.get_attribute("title").startswith(evil)
    visit.ask_for("a fox", seed="<img src=x onerror=window.harm=1>")
    expect(visit.page.locator("#problem")).to_contain_text("<img src=x onerror=window.harm=1>")
    visit.reload()
    assert visit.page.evaluate("window.harm") is None


def test_a_value_that_cannot_be_is_said_at_its_field(visit, studio):
    last = studio.state()["last"]["job"]
    visit.ask_for("a fox", width=100)
    problem = visit.page.locator("#problem [role=alert]")
    expect(problem).to_have_text("Width: 100 is not a multiple of 8")
    expect(visit.box("width")).to_be_focused()
    assert "wrong" in visit.page.locator("#field-width").get_attribute("class")
    visit.ask_for("a fox", width=128, steps=5)
    expect(problem).to_have_count(0)
    visit.wait_for_rest()
    assert studio.wait_for_job(last + 1)["state"] == "done", json.dumps(studio.state())


def test_every_wrong_field_is_marked_not_only_the_first(visit):
    for field, value in (("width", 100), ("height", 99999), ("height", 99998), ("batch_count", 0)):
        visit.ask_for("a fox", **{"width": 128, "height": 128, "batch_count": 1, field: value})
        expect(visit.page.locator(f"#field-{field}.wrong")).to_be_visible()
        expect(visit.page.locator(".field.wrong")).to_have_count(1)
