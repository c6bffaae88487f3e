"""The folded part Hires fix: a picture that is drawn twice, and parameters that are pasted."""

import re

from playwright.sync_api import expect

PASTE = """([selector, text]) => {
  const clipboard = new DataTransfer();
  clipboard.setData("text/plain", text);
  const event = new ClipboardEvent("paste", { clipboardData: clipboard, bubbles: true, cancelable: true });
  document.querySelector(selector).dispatchEvent(event);
}"""

FOLDED = re.compile(r"^Hires fix\W*$")


def newest(studio):
    return studio.ask("/api/v1/pictures?limit=1")[1][0]


def paste(visit, text):
    visit.page.evaluate(PASTE, ["#field-prompt textarea", text])


def test_a_picture_is_drawn_twice_sent_back_and_pasted(visit, studio):
    page, title = visit.page, visit.page.locator("#hires > .label-wrap")
    page.get_by_role("tab", name="Text to image").click()
    expect(title).to_have_text(FOLDED)
    title.click()
    tick = page.locator("#field-hires input")
    tick.check()
    visit.type(hires_scale=1.5, hires_strength=0.6, hires_steps=3, hires_prompt="a red fox")
    expect(title).to_contain_text("Hires fix · 1.5×, Latent")
    count = visit.count()
    visit.watch()
    visit.ask_for("a fox", width=64, height=72, steps=4, seed=5)
    visit.wait_for_count(count + 1)
    picture = newest(studio)
    assert (picture["width"], picture["height"]) == (96, 104) and "Denoising strength: 0.6" in picture["infotext"]
    assert "Hires upscale: 1.5, Hires steps: 3, Hires upscaler: Latent, Hires prompt: a red fox" in picture["infotext"]
    done = visit.seen()["progress"]
    assert done == sorted(done) and len(done) > 1  # how many are seen depends on the machine

    visit.reload()
    expect(title).to_contain_text("Hires fix · 1.5×, Latent")
    expect(tick).to_be_checked()
    page.get_by_role("tab", name="Image to image").click()
    expect(page.locator("#hires")).to_be_hidden()
    page.get_by_role("tab", name="Text to image").click()
    visit.type(hires_scale=3)
    tick.uncheck()
    expect(title).to_have_text(FOLDED)
    page.locator(".send summary").click()
    page.locator(".send").get_by_role("button", name="Text to image").click()
    expect(tick).to_be_checked()
    expect(visit.box("hires_scale")).to_have_value("1.5")
    expect(visit.box("hires_strength")).to_have_value("0.6")

    tick.uncheck()
    visit.type(prompt="something else", hires_scale=3, hires_prompt="", seed=-1, steps=9)
    paste(visit, picture["infotext"])
    expect(visit.box("prompt")).to_have_value("a fox")
    expect(visit.box("hires_prompt")).to_have_value("a red fox")
    expect(tick).to_be_checked()
    expect(visit.box("steps")).to_have_value("4")
    expect(visit.box("seed")).to_have_value("5")
    visit.generate()
    visit.wait_for_count(count + 2)
    assert newest(studio)["infotext"] == picture["infotext"]

    visit.type(hires_width=100)
    visit.generate()
    expect(page.locator("#problem [role=alert]")).to_have_text("Resize width to: 100 is not a multiple of 8")
    paste(visit, "a bird\nSteps: 7, Sampler: Eular, Seed: 3, Size: 64x64, Model: nothing, Hires upscaler: 4x-Old")
    expect(visit.box("prompt")).to_have_value("a bird")
    expect(visit.box("steps")).to_have_value("7")
    expect(visit.box("hires_upscaler")).to_have_value("Latent")
    problem = page.locator("#problem [role=alert]")
    expect(problem).to_contain_text("Not as in the text: Sampler: 'Eular' is not known")
    expect(problem).to_contain_text("Upscaler: there is no upscaler 4x-Old")
    paste(visit, "a lion, as people paste it")
    expect(visit.box("prompt")).to_have_value("a bird")
    tick.uncheck()
    expect(title).to_have_text(FOLDED)
