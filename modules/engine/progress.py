"""What is told about a job while it is drawn: where it stands, how long it takes still, what it looks like."""

import time
from collections.abc import Callable

from PIL.Image import Image

from modules.engine import preview
from modules.jobs.messages import Loading, Message, Preview, Progress
from modules.recipe.fields import Recipe
from modules.recipe.plan import passes, steps_drawn

Emit = Callable[[Message], None]
"""Takes each message; those of a run bear job 0 and attempt 0, for whoever knows better to replace."""

SHORTEST = 0.2  # seconds between two previews, and between two words on loading
SHARE = 0.015  # of the time, at most, for previews


class Reporter:
    """Tells of one run through `emit`."""

    def __init__(self, recipe: Recipe, emit: Emit) -> None:
        self._recipe, self._emit = recipe, emit
        self._steps = max(steps_drawn(recipe), 1)
        self._drawing_since: float | None = None
        self._sizes = [one.recipe.width * one.recipe.height for one in passes(recipe) for _ in range(one.drawn)]  # of each step
        self._at, self._drawn = (0, 0), 0  # where the job stands, and how many pixels were really drawn on the way, step by step
        self._next_preview = self._next_loading = 0.0

    def phase(self, phase: str, picture: int = 0, step: int = 0) -> None:
        """Which phase begins, or at which step of it the job stands."""
        if phase == "draw" and self._drawing_since is None:
            self._drawing_since = time.monotonic()
        steps, pictures = self._steps, len(self._recipe.seeds)
        if self._at[0] == picture:
            self._drawn += sum(self._sizes[self._at[1] : step])
        self._at = picture, step
        self._emit(Progress(0, 0, picture, pictures, step, steps, phase, self._seconds_left(picture, step)))

    def loading(self, fraction: float) -> None:
        """How much of the checkpoint is read."""
        if time.monotonic() >= self._next_loading:
            self._next_loading = time.monotonic() + SHORTEST
            self._emit(Loading(self._recipe.checkpoint, fraction))

    def preview(self, picture: int, shown: Callable[[], Image]) -> None:
        """What the picture looks like, if the last time is long enough ago."""
        begun = time.monotonic()
        if begun < self._next_preview:
            return
        self._emit(Preview(0, 0, picture, preview.jpeg(shown())))
        now = time.monotonic()
        self._next_preview = now + max(SHORTEST, (now - begun) / SHARE)

    def _seconds_left(self, picture: int, step: int) -> float | None:
        """At the speed so far, decoding included once a picture is decoded."""
        if self._drawing_since is None or not self._drawn:
            return None
        left = sum(self._sizes) * (len(self._recipe.seeds) - picture - 1) + sum(self._sizes[step:])
        return (time.monotonic() - self._drawing_since) / self._drawn * left
