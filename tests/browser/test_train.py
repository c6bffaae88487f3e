"""The tab Train: a training from its start to its resumption, as a person sees it."""

import pytest
from playwright.sync_api import expect

from tests.browser.visit import PATIENCE
from tests.datasets import write_pictures

TRAIN = 120_000  # milliseconds until a training has taken its first steps on a busy machine


@pytest.fixture
def pictures(studio):
    """A folder of pictures to train on."""
    return write_pictures(studio.data / "datasets" / "squares")


def choose(page, field, option):
    page.locator(f"#train-{field} input").click()
    page.get_by_role("option", name=option).click()


def test_a_training_is_started_watched_cancelled_and_resumed(visit, pictures):
    page = visit.page
    page.get_by_role("tab", name="Train").click()
    board = page.locator("#trainings")
    choose(page, "base", "tiny.safetensors")
    expect(page.locator("#train-data input")).to_have_value("squares")
    page.get_by_role("button", name="Start").click()
    expect(page.locator("#train-problem")).to_contain_text("what shall it be called?")
    expect(page.locator("#train-name :is(input, textarea)")).to_be_focused()
    page.locator("#train-name :is(input, textarea)").fill("browser squares")
    page.get_by_role("button", name="Start").click()
    expect(board.locator("h2")).to_have_text("browser squares: LoRA of tiny.safetensors on squares", timeout=PATIENCE)
    expect(board).to_contain_text("Loss", timeout=TRAIN)
    expect(board).to_contain_text("Time left")
    board.get_by_role("button", name="Cancel").click()
    expect(board.locator("li", has_text="browser squares")).to_contain_text("Cancelled at")
    expect(board.locator("h2")).to_have_count(0)
    board.get_by_role("button", name="Resume").click()
    expect(board.locator("h2")).to_be_visible(timeout=PATIENCE)
    visit.reload()
    page.get_by_role("tab", name="Train").click()
    board.get_by_role("button", name="Cancel").click()
    expect(board.locator("li", has_text="browser squares")).to_contain_text("Cancelled")


def test_a_new_model_needs_no_pictures(visit):
    page = visit.page
    page.get_by_role("tab", name="Train").click()
    choose(page, "what", "New small model")
    expect(page.locator("#train-data")).to_be_hidden()
    expect(page.locator("#train-base")).to_be_hidden()
    choose(page, "what", "Fine-tune")
    expect(page.locator("#train-data")).to_be_visible()
