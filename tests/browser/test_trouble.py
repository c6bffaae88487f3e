"""What the page says when something goes wrong: a disk that takes no picture, an engine that dies, a server that goes away."""

import pytest
from playwright.sync_api import expect

from tests import servers
from tests.browser.visit import PATIENCE, Visit


@pytest.fixture(scope="module")
def in_the_way(tmp_path_factory):
    """A file where the outputs folder should be."""
    path = tmp_path_factory.mktemp("disk") / "outputs"
    path.write_text("in the way")
    return path


@pytest.fixture(scope="module")
def studio(browser, models, in_the_way, tmp_path_factory):
    with servers.started(tmp_path_factory.mktemp("data"), f"--outdir={in_the_way}", models=models) as server:
        yield server


def test_a_picture_that_could_not_be_saved_is_shown_and_can_be_saved_again(visit, in_the_way):
    visit.ask_for("a fox in the snow", steps=5)
    says = visit.page.locator(".says")
    expect(says).to_contain_text("Not saved", timeout=PATIENCE)
    expect(visit.page.locator(".frame img")).to_have_js_property("naturalWidth", 128)
    expect(visit.note("could not be saved")).to_be_visible()
    in_the_way.unlink()
    visit.page.get_by_role("button", name="Save again").click()
    expect(says).to_contain_text("txt2img-images/")
    expect(visit.note("could not be saved")).to_have_count(0)


def test_the_engines_death_is_said_and_a_job_that_kills_it_twice_has_failed(visit, studio):
    visit.ask_for("a red apple on the grass", steps=150, batch_count=20)
    visit.wait_for_drawing()
    studio.engine().kill()
    expect(visit.note("The engine stopped")).to_be_visible()
    expect(visit.page.locator(".says")).to_contain_text("Second attempt", timeout=PATIENCE)
    visit.wait_for_drawing()
    studio.engine().kill()
    expect(visit.note("Not drawn")).to_be_visible()
    visit.note("Not drawn").get_by_role("button", name="Close").click()
    expect(visit.note("Not drawn")).to_have_count(0)


def test_a_lost_connection_is_said_and_found_again(browser, studio, models):
    page = browser.new_page()
    page.goto(studio.url)
    visit = Visit(page, studio.url).ready()
    visit.type(prompt="kept")
    page.wait_for_timeout(1000)
    before = visit.count()
    studio.process.terminate()
    expect(visit.note("connection to Easel is lost")).to_be_visible(timeout=10_000)
    studio.process.wait()
    port = studio.url.rsplit(":", 1)[1]
    with servers.started(studio.data, f"--port={port}", models=models):
        expect(visit.note("connection to Easel is lost")).to_be_hidden(timeout=20_000)
        expect(visit.box("prompt")).to_have_value("kept")
        visit.ask_for("found", steps=5)
        visit.wait_for_count(before + 1)
    page.close()
