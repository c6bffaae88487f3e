"""The page is a viewer of the server's state: interrupting, reloading, second tabs."""

from playwright.sync_api import expect

LONG = {"steps": 150, "batch_count": 20}

_INTERRUPT = """() => new Promise((resolve) => {
  const started = performance.now();
  const look = () => (document.querySelector(".bar").hidden ? resolve(performance.now() - started) : requestAnimationFrame(look));
  [...document.querySelectorAll("#stage button")].find((button) => button.textContent === "Interrupt").click();
  look();
})"""


def test_interrupt_leaves_the_page_ready_within_half_a_second(visit):
    visit.ask_for("a red apple on the grass", width=1024, height=1024)  # a step takes longer than that
    visit.wait_for_drawing()
    assert visit.page.evaluate(_INTERRUPT) < 500
    expect(visit.note("Interrupted")).to_be_visible()
    before = visit.count()
    visit.ask_for("a red apple on the grass", steps=5)
    visit.wait_for_count(before + 1)


def test_a_reload_in_the_middle_of_a_run_sees_it_go_on(visit):
    visit.ask_for("a fox in the snow", **LONG)
    visit.wait_for_drawing(0.01)
    reached = visit.progress()
    visit.reload()
    expect(visit.box("prompt")).to_have_value("a fox in the snow")
    visit.wait_for_drawing(reached)
    assert visit.page.locator(".room").get_attribute("data-view") == "drawing"
    visit.page.keyboard.press("Escape")
    visit.wait_for_rest()


def test_two_tabs_show_the_same_and_either_may_interrupt(tabs):
    one, two = tabs(), tabs()
    one.ask_for("a sailboat on the sea", **LONG)
    two.wait_for_drawing()
    two.page.get_by_role("button", name="Interrupt").click()
    for tab in (one, two):
        tab.wait_for_rest()
        expect(tab.note("Interrupted")).to_be_visible()
    two.wait_for_count(one.count())


def test_what_was_typed_survives_a_reload(visit):
    visit.type(prompt="half a thought", negative_prompt="blurry", steps=33)
    visit.page.wait_for_timeout(1000)
    visit.reload()
    expect(visit.box("prompt")).to_have_value("half a thought")
    expect(visit.box("negative_prompt")).to_have_value("blurry")
    expect(visit.box("steps")).to_have_value("33")


def test_rarer_options_are_folded_away_drawn_with_and_kept(visit, studio):
    title = visit.page.locator("#more > .label-wrap > span:not(.icon)")
    expect(title).to_have_text("More")
    title.click()
    visit.type(subseed=2**53 + 1, subseed_strength=0.25, eta_noise_seed_delta=0, cfg_rescale=0.5)
    visit.page.locator("#field-always_discard_next_to_last_sigma input").check()
    differing = f"variation seed {2**53 + 1}, variation strength 0.25, CFG rescale 0.5, discard penultimate sigma"
    expect(title).to_have_text(f"More · {differing}")
    before = visit.count()
    visit.ask_for("a red apple on the grass", steps=5, seed=60)
    visit.wait_for_count(before + 1)
    text = visit.page.locator(".parameters-text").text_content()
    assert f"Variation seed: {2**53 + 1}, Variation seed strength: 0.25, RNG: CPU" in text
    assert "Discard penultimate sigma: True, CFG rescale: 0.5" in text
    visit.reload()
    expect(title).to_have_text(f"More · {differing}")
    expect(visit.page.locator("#field-always_discard_next_to_last_sigma input")).to_be_checked()
    visit.type(subseed=-1, subseed_strength=0, cfg_rescale=0)
    visit.page.locator("#field-always_discard_next_to_last_sigma input").uncheck()
    expect(title).to_have_text("More")


def test_a_waiting_job_can_be_taken_out_of_the_queue(visit):
    visit.ask_for("the first", **LONG)
    visit.ask_for("the second")
    visit.page.locator("#engine summary").click()
    expect(visit.page.locator(".waiting li")).to_have_count(1)
    visit.page.get_by_role("button", name="Remove from the queue").click()
    expect(visit.page.locator(".waiting li")).to_have_count(0)
    visit.page.keyboard.press("Escape")
    visit.page.keyboard.press("Escape")
    visit.wait_for_rest()
