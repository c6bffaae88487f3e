"""A real server on a folder of its own, with the real engine and the project's own models."""

import contextlib
import json
import os
import queue
import re
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from dataclasses import dataclass, field
from pathlib import Path

import psutil

ROOT = Path(__file__).parent.parent
MODELS = ROOT / "models"


@dataclass
class Server:
    """A started server; `said` is what it printed so far."""

    process: subprocess.Popen
    data: Path
    said: list[str] = field(default_factory=list)
    url: str = ""

    def ask(self, path, body=None, method=None, **headers):
        """The status and the JSON (or bytes) that the server answers."""
        data = None if body is None else json.dumps(body).encode()
        method = method or ("GET" if body is None else "POST")
        request = urllib.request.Request(self.url + path, data, {"Content-Type": "application/json", **headers}, method=method)
        try:
            with urllib.request.urlopen(request, timeout=90) as answer:
                content, status, kind = answer.read(), answer.status, answer.headers.get("Content-Type", "")
        except urllib.error.HTTPError as error:
            content, status, kind = error.read(), error.code, error.headers.get("Content-Type", "")
        return status, json.loads(content) if "json" in kind else content

    def state(self):
        return self.ask("/api/v1/state")[1]

    def draw(self, **request):
        status, answer = self.ask("/api/v1/jobs", {"prompt": "a red apple", "seed": 1, **request})
        assert status == 201, answer
        return answer["job"]

    def wait(self, holds, seconds=90):
        """Wait until `holds(state)` is true and return that state."""
        deadline = time.monotonic() + seconds
        while True:
            state = self.state()
            if holds(state):
                return state
            assert time.monotonic() < deadline, state
            assert self.process.poll() is None, self.said
            time.sleep(0.05)

    def wait_for_job(self, job, seconds=90):
        return self.wait(lambda state: state["last"] and state["last"]["job"] == job, seconds)["last"]

    def pictures(self, job):
        return [picture for picture in self.ask("/api/v1/pictures?limit=500")[1] if picture["job"] == job][::-1]

    def engine(self):
        (engine,) = [child for child in psutil.Process(self.process.pid).children() if "modules.engine.worker" in child.cmdline()]
        return engine


@contextlib.contextmanager
def started(data, *arguments, models=MODELS, environment=None):
    """A server whose page answers; ended (if it still runs) on leaving."""
    command = [sys.executable, str(ROOT / "app.py"), f"--data-dir={data}", f"--models-dir={models}", *arguments]
    process = subprocess.Popen(
        command, cwd="/", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env={**os.environ, **(environment or {})}
    )
    server = Server(process, Path(data))
    lines = queue.Queue()

    def listen():
        for line in process.stdout:
            server.said.append(line.rstrip("\n"))
            if found := re.match(r"Running on local URL:  (http://\S+)$", line):
                lines.put(found[1])
        lines.put("")

    threading.Thread(target=listen, daemon=True).start()
    try:
        server.url = lines.get(timeout=120)
        assert server.url, server.said
        yield server
    finally:
        if process.poll() is None:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
