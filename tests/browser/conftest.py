"""A real browser on a real server with the real engine and the project's own checkpoint."""

import os
import shutil
from pathlib import Path

import pytest
from playwright.sync_api import sync_playwright

from tests import servers
from tests.browser.visit import Visit
from tests.checkpoints import write_checkpoint
from tests.loras import write_lora

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
ARGUMENTS += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]


@pytest.fixture(scope="session")
def browser():
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here: apt install chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def models(tmp_path_factory):
    """The project's own models, a small one of another native size (random weights) with two LoRAs for it, and files that are none."""
    models = tmp_path_factory.mktemp("models")
    checkpoints = models / "Stable-diffusion"
    checkpoints.mkdir()
    for own in (servers.MODELS / "Stable-diffusion").glob("starter.*"):
        os.symlink(own, checkpoints / own.name)
    write_checkpoint(checkpoints / "tiny.safetensors")
    Path(checkpoints / "page.ckpt").write_text("<html>Sign in to download</html>")
    write_lora(models / "Lora" / "my style.safetensors")
    write_lora(models / "Lora" / "other.safetensors")
    Path(models / "Lora" / "page.pt").write_text("<html>Sign in to download</html>")
    return models


@pytest.fixture(scope="session")
def studio(browser, models, tmp_path_factory):
    """The server that is visited, without a picture at first."""
    with servers.started(tmp_path_factory.mktemp("data"), models=models) as server:
        yield server


@pytest.fixture
def tabs(browser, studio):
    """Opens tabs of one and the same browser. None of them may complain, or ask another host for anything."""
    context = browser.new_context(viewport={"width": 1400, "height": 900}, color_scheme="light", reduced_motion="reduce")
    context.set_default_timeout(15_000)
    opened = []

    def tab():
        opened.append(Visit(context.new_page(), studio.url))
        return opened[-1].open()

    yield tab
    context.close()
    studio.ask("/api/v1/interrupt", {})
    assert [(visit.errors, visit.foreign) for visit in opened] == [([], [])] * len(opened)


@pytest.fixture
def visit(tabs):
    return tabs()
