"""The page is a viewer of the server's state: interrupting, reloading, second tabs and lost connections."""


from playwright.sync_api import expect

from tests import servers
from tests.browser.visit import PATIENCE

LONG = {"steps": 150, "batch_count": 20}

_INTERRUPT = """() => new Promise((resolve) => {
  const started = performance.now();
  const look = () => (document.querySelector(".bar").hidden ? resolve(performance.now() - started) : requestAnimationFrame(look));
  [...document.querySelectorAll("#stage button")].find((button) => button.textContent === "Interrupt").click();
  look();
})"""


def test_interrupt_leaves_the_page_ready_within_half_a_second(visit):
    visit.ask_for("a red apple on the grass", width=1024, height=1024, steps=20)  # a step takes longer than that
    visit.wait_for_drawing()
    assert visit.page.evaluate(_INTERRUPT) < 500
    expect(visit.note("Interrupted")).to_be_visible()
    before = visit.count()
    visit.ask_for("a red apple on the grass", width=128, height=128, steps=5)
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
    assert one.count() == two.count()


def test_what_was_typed_survives_a_reload(visit):
    visit.type(prompt="half a thought", negative_prompt="blurry", steps=33)
    visit.page.wait_for_timeout(1000)
    visit.reload()
    expect(visit.box("prompt")).to_have_value("half a thought")
    expect(visit.box("negative_prompt")).to_have_value("blurry")
    expect(visit.box("steps")).to_have_value("33")


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


def test_a_picture_that_could_not_be_saved_is_shown_and_can_be_saved_again(visit, studio):
    day = studio.data / "outputs" / "txt2img-images"
    moved = day.rename(day.with_name("moved"))
    day.write_text("in the way")
    visit.ask_for("a fox in the snow", steps=5)
    expect(visit.page.locator(".says")).to_contain_text("Not saved")
    assert visit.page.locator(".frame img").evaluate("image => image.decode().then(() => image.naturalWidth)") == 128
    day.unlink()
    moved.rename(day)
    visit.page.get_by_role("button", name="Save again").click()
    expect(visit.page.locator(".says")).to_contain_text("txt2img-images/")
    expect(visit.note("could not be saved")).to_have_count(0)


def test_the_engines_death_is_said_and_a_job_that_kills_it_twice_has_failed(visit, studio):
    visit.ask_for("a red apple on the grass", **LONG)
    visit.wait_for_drawing()
    studio.engine().kill()
    expect(visit.note("The engine stopped")).to_be_visible()
    expect(visit.page.locator(".says")).to_contain_text("Second attempt", timeout=PATIENCE)
    visit.wait_for_drawing()
    studio.engine().kill()
    expect(visit.note("Not drawn")).to_be_visible()
    visit.note("Not drawn").get_by_role("button", name="Close").click()
    expect(visit.note("Not drawn")).to_have_count(0)


def test_a_lost_connection_is_said_and_found_again(browser, models, tmp_path):
    page = browser.new_page()
    with servers.started(tmp_path, models=models) as first:
        port = first.url.rsplit(":", 1)[1]
        page.goto(first.url)
        page.wait_for_selector("#field-prompt textarea")
        page.locator("#field-prompt textarea").fill("kept")
        page.wait_for_timeout(1000)
    expect(page.locator(".note", has_text="connection to Easel is lost")).to_be_visible(timeout=10_000)
    with servers.started(tmp_path, f"--port={port}", models=models):
        expect(page.locator(".note", has_text="connection to Easel is lost")).to_be_hidden(timeout=20_000)
        expect(page.locator("#field-prompt textarea")).to_have_value("kept")
        page.locator("#field-steps input[type=number]").fill("5")
        page.locator("#generate").click()
        expect(page.locator(".tile:not(.drawing)")).to_have_count(1, timeout=PATIENCE)
    page.close()
