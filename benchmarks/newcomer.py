"""What a newcomer waits for, in seconds on this machine: `python benchmarks/newcomer.py`. Close other programs first."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PORT = 7990
URL = f"http://127.0.0.1:{PORT}"
DRAWN = {"prompt": "a red apple on the grass", "seed": 1, "steps": 20}


def ask(path: str, body: dict[str, object] | None = None) -> bytes:
    data = None if body is None else json.dumps(body).encode()
    with urllib.request.urlopen(urllib.request.Request(URL + path, data, {"Content-Type": "application/json"}), timeout=30) as answer:
        return answer.read()


def state() -> dict[str, object]:
    return json.loads(ask("/api/v1/state"))


def until(holds: Callable[[], object]) -> float:
    """The moment from which on `holds` is true; not being answered counts as false."""
    while True:
        with contextlib.suppress(OSError, urllib.error.URLError):
            if holds():
                return time.monotonic()
        time.sleep(0.01)


def drawn() -> float:
    """Seconds from pressing Generate to the finished picture."""
    begun = time.monotonic()
    job = json.loads(ask("/api/v1/jobs", DRAWN))["job"]
    return until(lambda: (state()["last"] or {}).get("job") == job) - begun


def served(data: str) -> dict[str, float]:
    begun = time.monotonic()
    places = [f"--port={PORT}", f"--data-dir={data}", f"--models-dir={ROOT / 'models'}"]
    server = subprocess.Popen([sys.executable, str(ROOT / "app.py"), *places])
    try:
        figures = {
            "something answers": until(lambda: ask("/")) - begun,
            "the page is there": until(lambda: b"gradio" in ask("/")) - begun,
            "the engine is ready, starter loaded": until(lambda: state()["engine"]["state"] == "ready") - begun,
        }
        figures["first picture, 20 steps"] = drawn()
        figures["next picture, 20 steps"] = min(drawn() for _ in range(3))
        ask("/api/v1/jobs", DRAWN | {"steps": 150, "batch_count": 20})
        until(lambda: (state()["running"] or {}).get("step", 0) > 1)
        begun = time.monotonic()
        ask("/api/v1/interrupt", {})
        figures["Interrupt to idle"] = until(lambda: state()["running"] is None) - begun
    finally:
        begun = time.monotonic()
        server.send_signal(signal.SIGTERM)
        server.wait()
    return figures | {"stopping": time.monotonic() - begun}


def commanded(data: str) -> dict[str, float]:
    begun = time.monotonic()
    command = [str(ROOT / "webui.sh"), "generate", str(DRAWN["prompt"]), "--seed=1", "--steps=20", f"-o={data}"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ)
    return {"cold ./webui.sh generate to the file": time.monotonic() - begun}


def main() -> None:
    with tempfile.TemporaryDirectory() as data:
        first, second = served(data), served(data)
        figures = {name: f"{first[name]:6.2f} {second[name]:6.2f}" for name in first}
        figures |= {name: f"{seconds:6.2f}" for name, seconds in commanded(data).items()}
    print(f"{'seconds':40} first second start")
    for name, seconds in figures.items():
        print(f"{name:40}{seconds}")


if __name__ == "__main__":
    main()
