"""What is told of how a picture was made."""

import contextlib
import time
from collections.abc import Iterator
from importlib.metadata import version

from modules.version import VERSION

LIBRARIES = ("torch", "diffusers", "transformers")

Facts = dict[str, object]


def versions() -> dict[str, str]:
    """What the picture's numbers depend on."""
    return {"easel": VERSION, **{name: version(name) for name in LIBRARIES}}


class Clock:
    """Seconds by phase."""

    def __init__(self) -> None:
        self._begun = time.monotonic()
        self._seconds: dict[str, float] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        begun = time.monotonic()
        try:
            yield
        finally:
            self._seconds[name] = self._seconds.get(name, 0) + time.monotonic() - begun

    def rounded(self) -> dict[str, float]:
        return {name: round(seconds, 3) for name, seconds in {**self._seconds, "total": time.monotonic() - self._begun}.items()}
