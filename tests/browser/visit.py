"""A visit to the page: what a person does and sees there, in the words of the page."""

from dataclasses import dataclass, field

from playwright.sync_api import Locator, Page

PATIENCE = 60_000  # milliseconds: other work may share the machine
USUAL = {"width": 128, "height": 128, "steps": 20, "seed": -1, "batch_count": 1}

_WATCH = """() => {
  window.seen = { progress: [], previews: [], rooms: [] };
  const look = () => {
    const bar = document.querySelector(".bar"), image = document.querySelector(".frame img"), room = document.querySelector(".room");
    const drawing = room.dataset.view === "drawing";
    const note = (list, value) => list.at(-1) !== value && list.push(value);
    if (!bar.hidden) note(seen.progress, bar.value);
    if (drawing && image.getAttribute("src")) note(seen.previews, image.getAttribute("src"));
    note(seen.rooms, JSON.stringify(room.getBoundingClientRect()));
  };
  new MutationObserver(look).observe(document.querySelector("#stage"), { subtree: true, childList: true, attributes: true });
}"""


@dataclass
class Visit:
    """One tab. `errors` is what its console complained of, `foreign` the addresses it asked other hosts for."""

    page: Page
    url: str
    errors: list[str] = field(default_factory=list)
    foreign: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._is_ours(request.url) or self.foreign.append(request.url))

    def _is_ours(self, address: str) -> bool:
        return address.startswith((f"{self.url}/", "data:", "blob:"))

    def open(self) -> "Visit":
        """Opens the page at its first tab: the page itself goes on where the visit before ended."""
        self.page.goto(self.url)
        self.ready().page.get_by_role("tab", name="Text to image").click()
        return self

    def reload(self) -> "Visit":
        self.page.reload()
        return self.ready()

    def ready(self) -> "Visit":
        """Waits until the form is filled in and the stage is drawn."""
        self.page.wait_for_function("document.querySelector('#form:not([inert])') && document.querySelector('.room')?.dataset.view")
        return self

    def box(self, field_name: str) -> Locator:
        return self.page.locator(f"#field-{field_name} :is(textarea, input:not([type=range]))")

    def type(self, **values: object) -> "Visit":
        for name, value in values.items():
            self.box(name).fill(str(value))
        return self

    def choose(self, checkpoint: str) -> None:
        self.box("checkpoint").click()
        self.page.get_by_role("option", name=checkpoint).click()

    def generate(self) -> None:
        self.page.locator("#generate").click()

    def ask_for(self, prompt: str, **values: object) -> None:
        """Types the prompt and the values (what is left out gets its usual value) and presses Generate."""
        self.type(prompt=prompt, **{**USUAL, **values})
        self.generate()

    def tiles(self) -> Locator:
        return self.page.locator(".tile:not(.drawing)")

    def count(self) -> int:
        """How many pictures the strip shows."""
        return self.tiles().count()

    def wait_for_count(self, count: int) -> None:
        self.page.wait_for_function("n => document.querySelectorAll('.tile:not(.drawing)').length === n", arg=count, timeout=PATIENCE)

    def wait_for_drawing(self, beyond: float = 0) -> None:
        """Waits until a job's progress is beyond this fraction."""
        moves = "least => { const bar = document.querySelector('.bar'); return bar && !bar.hidden && bar.value > least }"
        self.page.wait_for_function(moves, arg=beyond, timeout=PATIENCE)

    def wait_for_rest(self) -> None:
        """Waits until nothing is drawn."""
        self.page.wait_for_function("document.querySelector('.bar')?.hidden", timeout=PATIENCE)

    def progress(self) -> float:
        return self.page.evaluate("document.querySelector('.bar').value")

    def note(self, words: str) -> Locator:
        return self.page.locator(".note", has_text=words)

    def watch(self) -> None:
        """Begins to write down how progress, preview and the room of the picture change; `seen` gives it."""
        self.page.evaluate(_WATCH)

    def seen(self) -> dict[str, list]:
        return self.page.evaluate("seen")
