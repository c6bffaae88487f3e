import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import psutil
import pytest

from tests.servers import ROOT, started


def served(*arguments, **environment):
    command = [sys.executable, str(ROOT / "app.py"), *arguments]
    return subprocess.run(command, cwd="/", capture_output=True, text=True, timeout=60, env={**os.environ, **environment})


def test_the_server_never_imports_torch(server):
    maps = Path(f"/proc/{server.process.pid}/maps").read_text()
    assert "libtorch" not in maps and "tokenizers" not in maps.replace("instant_clip_tokenizer", "")
    looks = (
        "import sys; from pathlib import Path; from modules.jobs.desk import Desk; from modules.settings import Settings;"
        "from modules.commands.serve import _house; import types;"
        "_house(Desk(Settings(data_dir=Path(sys.argv[1]))), types.SimpleNamespace(should_exit=False));"
        "assert not {'torch', 'diffusers', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", looks, str(server.data / "elsewhere")], cwd=ROOT, check=True, timeout=60)


def test_something_answers_before_gradio_is_there(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "app.py"), f"--data-dir={tmp_path}", f"--port={port}"], stdout=subprocess.PIPE, text=True
    )
    try:
        text = ""
        while not text:
            try:
                text = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=5).read().decode()
            except OSError:
                assert process.poll() is None
        assert "Easel is starting" in text
        for line in process.stdout:
            if "Running on local URL" in line:
                break
        page = urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=30).read().decode()
        assert "Easel is starting" not in page and "gradio" in page
    finally:
        process.kill()
        process.wait()


def test_a_port_that_was_asked_for_and_is_taken_is_an_error(server):
    port = server.url.rpartition(":")[2]
    refused = served("--port", port, f"--data-dir={server.data / 'other'}")
    assert refused.returncode == 1 and refused.stderr == f"easel: port {port} is taken: choose another with --port, or leave --port out\n"


def test_two_servers_on_one_folder_are_refused(server):
    refused = served(f"--data-dir={server.data}")
    assert refused.returncode == 1
    assert server.url in refused.stderr and str(server.process.pid) in refused.stderr and refused.stderr.count("\n") == 1


def test_the_next_free_port_is_taken(server, tmp_path):
    with started(tmp_path) as second:
        assert second.url != server.url and second.ask("/api/v1/state")[0] == 200


@pytest.mark.parametrize(
    ("arguments", "environment", "says"),
    [
        (["--port", "0"], {}, "port"),
        (["--port", "abc"], {}, "port"),
        (["--theme", "pink"], {}, "pink"),
        (["--auth", "nocolon"], {}, "auth: must be user:password"),
        (["--no-such-flag"], {}, "no-such-flag"),
        ([], {"EASEL_PORT": "abc"}, "EASEL_"),
        ([], {"COMMANDLINE_ARGS": "--port abc"}, "port"),
    ],
)
def test_bad_settings_are_one_line_and_code_2(arguments, environment, says):
    refused = served(*arguments, **environment)
    assert refused.returncode == 2 and says in refused.stderr.splitlines()[-1] and "Traceback" not in refused.stderr


def test_flags_that_only_other_uis_need_are_ignored_with_a_word(server):
    refused = served(f"--data-dir={server.data}", "--xformers", COMMANDLINE_ARGS="--medvram --no-half")
    assert "ignored" in refused.stderr and "already runs" in refused.stderr


def test_a_broken_config_file_is_named(tmp_path):
    (tmp_path / "config.yaml").write_text("port: [1, 2")
    refused = served(f"--data-dir={tmp_path}")
    assert refused.returncode == 2 and "config.yaml" in refused.stderr and refused.stderr.count("\n") == 1


def gone(processes, seconds=5):
    return not psutil.wait_procs(processes, timeout=seconds)[1]


@pytest.mark.parametrize("ending", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_stopping_leaves_no_process_behind(tmp_path, ending):
    with started(tmp_path) as server:
        everyone = [psutil.Process(server.process.pid), *psutil.Process(server.process.pid).children(recursive=True)]
        assert len(everyone) >= 2
        job = server.draw(steps=150, batch_count=20)
        server.wait(lambda state: state["running"] and state["running"]["step"] > 1)
        with urllib.request.urlopen(server.url + "/api/v1/events"):  # a page that still looks
            server.process.send_signal(ending)
            server.process.wait(5)
            assert gone(everyone)
    if ending != signal.SIGKILL:
        assert server.process.returncode == 0
    with started(tmp_path) as again:
        running = again.wait(lambda state: state["running"] and state["running"]["phase"] == "draw")["running"]
        assert running["job"] == job and running["attempt"] == 1


def test_listening_to_others_takes_a_token(tmp_path):
    with started(tmp_path, "--listen") as server:
        while not any("token=" in line for line in server.said):
            time.sleep(0.05)
        token = next(line for line in server.said if "token=" in line).partition("token=")[2]
        assert server.ask("/api/v1/state")[0] == 401
        assert server.ask("/api/v1/state", Authorization=f"Bearer {token}")[0] == 200
