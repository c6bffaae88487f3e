"""Takes the README's pictures of the page: `python -m tests.browser.screenshots docs`. Real server, real engine, real pictures."""

import sys
import tempfile
from pathlib import Path

from playwright.sync_api import sync_playwright

from tests import servers
from tests.browser.conftest import ARGUMENTS, CHROMIUM
from tests.browser.visit import Visit

PROMPTS = (
    "a sunflower",
    "a lion in the meadow",
    "a red car",
    "a penguin on a white background",
    "a rocket in the night sky",
    "a small house in the snow",
    "a sailboat on the sea",
    "a red apple on the grass",
)
LAST = "a fox in the snow"


def main(folder: str) -> None:
    with servers.started(tempfile.mkdtemp()) as studio, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        page = browser.new_page(viewport={"width": 1400, "height": 900}, color_scheme="dark")
        visit = Visit(page, studio.url).open()
        for seed, prompt in enumerate(PROMPTS):
            visit.ask_for(prompt, seed=seed)
        visit.wait_for_count(len(PROMPTS))
        visit.ask_for(LAST, seed=7)
        visit.wait_for_count(len(PROMPTS) + 1)
        visit.type(seed=-1)
        for scheme, name in (("dark", "screenshot-dark.png"), ("light", "screenshot.png")):
            page.emulate_media(color_scheme=scheme)
            page.wait_for_timeout(1000)
            page.screenshot(path=Path(folder) / name)
        visit.ask_for(LAST, seed=7, steps=150)
        visit.wait_for_drawing(0.6)
        page.set_viewport_size({"width": 400, "height": 800})
        page.evaluate("scrollTo(0, 0)")
        page.wait_for_timeout(500)
        page.screenshot(path=Path(folder) / "screenshot-phone.png")
        browser.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
