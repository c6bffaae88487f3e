"""The frame around the tab: models, widths, keys, light and dark."""

import pytest
from playwright.sync_api import expect

from tests.browser.visit import PATIENCE
from tests.checkpoints import write_checkpoint

_CONTRASTS = """() => {
  const channels = (text) => text.match(/[\\d.]+/g).map(Number);
  const light = (rgb) => rgb.slice(0, 3).map((c) => c / 255).map((c) => (c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
    .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0);
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const colour = channels(getComputedStyle(node).backgroundColor);
      if (colour.length < 4 || colour[3] === 1) return colour;
    }
    return channels(getComputedStyle(document.documentElement).backgroundColor);
  };
  const found = {};
  for (const node of document.querySelectorAll("#top *, #tabs *, #workspace *")) {
    const own = [...node.childNodes].some((child) => child.nodeType === 3 && child.textContent.trim());
    const style = getComputedStyle(node), seen = node.checkVisibility({ opacityProperty: true, visibilityProperty: true });
    if (!(own || node.value) || !seen || ["range", "radio"].includes(node.type)) continue;
    if (parseFloat(style.fontSize) === 0 || node.disabled) continue;
    const [a, b] = [light(channels(style.color)), light(behind(node))];
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) found[`${node.tagName}.${node.className}: ${node.value ?? node.textContent}`] = contrast;
  }
  return found;
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("tab", ["Text to image", "Inpainting"])
def test_all_text_can_be_read(visit, scheme, tab):
    visit.page.get_by_role("tab", name=tab).click()
    visit.page.emulate_media(color_scheme=scheme)
    visit.page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark")
    visit.page.wait_for_timeout(200)
    assert visit.page.evaluate(_CONTRASTS) == {}


def test_the_switch_between_light_and_dark_is_remembered(visit):
    visit.page.get_by_role("button", name="Switch between light and dark").click()
    assert visit.page.evaluate("document.body.classList.contains('dark')")
    visit.reload()
    assert visit.page.evaluate("document.body.classList.contains('dark')")


def test_every_button_has_a_name(visit):
    nameless = "() => [...document.querySelectorAll('button, summary, a')].filter((b) => b.checkVisibility() && "
    nameless += "!(b.getAttribute('aria-label') ?? b.textContent).trim()).map((b) => b.outerHTML)"
    assert visit.page.evaluate(nameless) == []


def test_nothing_of_gradios_own_furniture_is_left(visit):
    expect(visit.page.locator("footer")).to_have_count(0)
    assert visit.page.title() == "Easel"
    assert visit.page.evaluate("Object.keys(localStorage).filter((key) => key.startsWith('gradio'))") == []


def test_a_checkpoint_brings_its_own_size_and_presets_follow_it(visit):
    visit.choose("tiny.safetensors")
    expect(visit.box("width")).to_have_value("64")
    visit.page.locator("#presets").get_by_role("button", name="2:3", exact=True).click()
    expect(visit.box("height")).to_have_value("96")
    visit.page.get_by_role("button", name="Swap width and height").click()
    expect(visit.box("width")).to_have_value("96")
    expect(visit.box("height")).to_have_value("64")
    visit.type(prompt="a tree", steps=4, batch_count=1)
    visit.generate()
    expect(visit.page.locator(".says")).to_contain_text("96 × 64 · seed", timeout=PATIENCE)
    visit.choose("starter.safetensors")
    expect(visit.box("width")).to_have_value("128")
    expect(visit.box("height")).to_have_value("128")
    visit.ask_for("a tree", steps=4)
    expect(visit.page.locator(".says")).to_contain_text("128 × 128 · seed", timeout=PATIENCE)


def test_refused_files_are_shown_with_their_reason_and_new_ones_found(visit, models):
    visit.page.locator("#refused summary").click()
    expect(visit.page.locator("#refused li b")).to_have_text("page.ckpt")
    assert len(visit.page.locator("#refused li span").text_content()) > 10
    visit.page.keyboard.press("Escape")
    broken = models / "Stable-diffusion" / "empty.safetensors"
    broken.write_bytes(b"")
    visit.page.get_by_role("button", name="Look for checkpoints again").click()
    expect(visit.page.locator("#refused summary")).to_have_text("2 refused")
    broken.unlink()
    other = write_checkpoint(models / "Stable-diffusion" / "zebra.safetensors")
    visit.page.get_by_role("button", name="Look for checkpoints again").click()
    expect(visit.page.locator("#refused summary")).to_have_text("1 refused")
    visit.choose("zebra.safetensors")
    other.unlink()
    visit.page.get_by_role("button", name="Look for checkpoints again").click()
    expect(visit.box("checkpoint")).to_have_value("starter.safetensors")
    expect(visit.box("width")).to_have_value("128")


def test_a_fold_says_what_differs_from_its_default(visit):
    fold = visit.page.locator("#more > button")
    expect(fold).to_contain_text("More")
    fold.click()
    visit.page.wait_for_timeout(500)  # Gradio draws what was folded only now, and sets its values once more
    visit.type(clip_skip=2)
    expect(fold).to_contain_text("More · clip skip 2")
    visit.type(clip_skip=1)
    expect(fold).not_to_contain_text("clip skip")


def test_tokens_are_counted_while_typing(visit):
    tokens = visit.page.locator("#field-prompt .tokens")
    visit.type(prompt="a fox in the snow")
    expect(tokens).to_have_text("5 / 75")
    visit.type(prompt="fox " * 80)
    expect(tokens).to_have_text("80 / 150")


def test_a_phones_width_needs_no_sideways_scrolling(visit):
    visit.page.set_viewport_size({"width": 400, "height": 800})
    assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= 400
    box = visit.page.locator("#generate").bounding_box()
    assert box["x"] >= 0 and box["x"] + box["width"] <= 400 and 700 < box["y"] + box["height"] <= 800
    before = visit.count()
    visit.ask_for("a fox in the snow", steps=5)
    visit.wait_for_count(before + 1)
    assert visit.page.evaluate("document.scrollingElement.scrollWidth") <= 400


def test_the_keyboard_is_enough(visit):
    before = visit.count()
    for _ in range(15):
        visit.page.keyboard.press("Tab")
        if visit.box("prompt").evaluate("box => box === document.activeElement"):
            break
    visit.page.keyboard.press("Control+a")
    visit.page.keyboard.type("a sailboat on the sea")
    visit.page.keyboard.press("Control+Enter")
    visit.wait_for_count(before + 1)
    visit.wait_for_rest()
    visit.type(steps=150, batch_count=5)
    visit.page.keyboard.press("Control+Enter")
    visit.wait_for_drawing()
    visit.page.keyboard.press("Escape")
    expect(visit.note("Interrupted")).to_be_visible()


def test_lists_that_are_passed_by_tab_close(visit):
    visit.box("prompt").focus()
    for _ in range(14):
        visit.page.keyboard.press("Tab")
        visit.page.wait_for_timeout(30)
    expect(visit.page.locator("[role=combobox][aria-expanded=true]")).to_have_count(0)
    expect(visit.page.locator("[role=option]")).to_have_count(0)
