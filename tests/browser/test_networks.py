"""The folded part Networks: LoRAs into the prompt and out again."""

import time

from playwright.sync_api import expect


def newest(studio):
    pictures = studio.ask("/api/v1/pictures?limit=1")[1]
    return pictures[0]["infotext"] if pictures else ""


def test_a_press_puts_a_lora_into_the_prompt_and_the_next_takes_it_out(visit):
    visit.type(prompt="a fox")
    title = visit.page.locator(".networks > summary")
    expect(title).to_have_text("Networks")
    title.click()
    press = visit.page.get_by_role("button", name="my style", exact=True)
    press.click()
    visit.page.get_by_role("button", name="other", exact=True).click()
    expect(visit.box("prompt")).to_have_value("a fox <lora:my style:1> <lora:other:1>")
    expect(press).to_have_attribute("aria-pressed", "true")
    expect(title).to_have_text("Networks · my style, other")
    expect(visit.page.locator("#field-prompt .tokens")).to_have_text("2 / 75")
    visit.box("prompt").fill("a fox <lora:my style:0.7> <lora:other:1>")
    press.click()
    expect(visit.box("prompt")).to_have_value("a fox <lora:other:1>")
    expect(press).to_have_attribute("aria-pressed", "false")
    expect(visit.page.locator(".loras .refused b")).to_have_text("page.pt")
    expect(visit.page.locator(".loras .refused span")).to_contain_text("a web page, not a model")


def test_a_picture_is_drawn_with_its_lora_and_says_so(visit, studio):
    visit.choose("tiny")
    visit.ask_for("a fox<lora:my style:1>", width=64, height=64, steps=2)
    deadline = time.monotonic() + 60
    while not (drawn := 'Lora hashes: "my style: ' in newest(studio)) and time.monotonic() < deadline:
        visit.page.wait_for_timeout(200)
    assert drawn
    visit.ask_for("a fox<lora:my stile:1>", width=64, height=64)
    expect(visit.page.locator("#problem [role=alert]")).to_have_text("Prompt: there is no LoRA my stile; did you mean my style?")
    expect(visit.box("prompt")).to_be_focused()
    visit.choose("starter")
    visit.ask_for("a fox<lora:my style:1>")
    expect(visit.page.locator("#problem [role=alert]")).to_contain_text("my style.safetensors cannot be used: for a model of another size")
