import json
import urllib.request

import pytest

from modules.jobs.desk import Desk
from modules.model_manager.architecture import SD15
from modules.recipe.fields import BadField
from modules.settings import Settings
from tests.checkpoints import write_checkpoint
from tests.loras import TO_K, weights, write_lora


def test_a_job_is_drawn_and_its_picture_served_by_id(server):
    job = server.draw(prompt="a red <script>alert(1)</script> apple", steps=2, seed=41, batch_count=2)
    last = server.wait_for_job(job)
    assert last["state"] == "done" and last["pictures"] == 2 and last["seconds"] > 0
    first, second = server.pictures(job)
    assert (first["seed"], second["seed"]) == (41, 42)
    assert server.state()["newest_picture"] == second["id"]
    png = server.ask(first["url"])[1]
    assert png == (server.data / "outputs" / first["file"]).read_bytes()
    assert server.ask(first["thumbnail"])[1][:4] == b"RIFF"
    assert first["infotext"].startswith("a red <script>alert(1)</script> apple\nSteps: 2")


@pytest.mark.parametrize(
    ("request_", "field"),
    [
        ({"prompt": "x", "steps": 10**9}, "steps"),
        ({"prompt": "x", "width": 0}, "width"),
        ({"prompt": "x", "cfg_scale": "inf"}, "cfg_scale"),
        ({"prompt": 5}, "prompt"),
        ({"prompt": "x", "checkpoint": "../../etc/passwd"}, "checkpoint"),
        ({"prompt": "x", "job": 5}, "job"),
        ({"prompt": "x", "seed": {"a": []}}, "seed"),
    ],
)
def test_bad_requests_name_the_field_and_leave_no_job(server, request_, field):
    before = server.state()["queued_count"], server.state()["last"]
    status, answer = server.ask("/api/v1/jobs", request_)
    assert status == 422 and answer["field"] == field and answer["message"].count("\n") == 0
    assert (server.state()["queued_count"], server.state()["last"]) == before


@pytest.mark.parametrize("body", [b"", b"[]", b"null", b"{", b'{"a":' * 10_000, b"\xff\xfe", b'{"steps": NaN}'])
def test_bodies_that_are_no_request_are_refused(server, body):
    request = urllib.request.Request(server.url + "/api/v1/jobs", body, {"Content-Type": "application/json"})
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(request, timeout=10)
    assert refused.value.code in (400, 422)


def test_a_form_from_another_site_makes_no_job(server):
    for kind in ("text/plain", "application/x-www-form-urlencoded", "application/json"):
        assert server.ask("/api/v1/jobs", {"prompt": "x"}, **{"Content-Type": kind, "Origin": "http://evil.example"})[0] == 403
    assert server.ask("/api/v1/jobs", {"prompt": "x"}, **{"Content-Type": "text/plain"})[0] == 422


@pytest.mark.parametrize(
    "path",
    [
        "/api/v1/pictures/999999",
        "/api/v1/pictures/../../../etc/passwd",
        "/api/v1/pictures/..%2f..%2fetc%2fpasswd",
        "/gradio_api/file=/etc/passwd",
        "/gradio_api/file=../../etc/passwd",
        "/file=/etc/passwd",
        "/%2e%2e/%2e%2e/etc/passwd",
        "//etc/passwd",
        "/static/../../../../../../etc/passwd",
        "/assets/%2e%2e/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "/app.py",
        "/state/easel.sqlite3",
    ],
)
def test_no_path_leads_to_a_file(server, path):
    status, content = server.ask(path)
    assert status >= 400 and b"root:" not in (content if isinstance(content, bytes) else b"")


@pytest.mark.parametrize("number", [10**30, -1, "x"])
def test_numbers_beyond_all_ids_are_refused(server, number):
    assert server.ask(f"/api/v1/jobs/{number}", method="DELETE")[0] == 422
    assert server.ask(f"/api/v1/pictures/{number}/save", {})[0] == 422
    for path in (f"/pictures/{number}", f"/pictures/{number}/thumbnail", f"/pictures?before={number}"):
        assert server.ask("/api/v1" + path)[0] == 422


def test_a_draft_keeps_only_what_a_form_can_hold(tmp_path):
    desk = Desk(Settings(data_dir=tmp_path))
    desk.keep_draft({"prompt": "a fox 🦊", "steps": 20, "seed": "-1", "vae": None, "cfg_scale": 7.5})
    assert desk.draft() == {"prompt": "a fox 🦊", "steps": 20, "seed": "-1", "vae": None, "cfg_scale": 7.5}
    desk.keep_draft({"prompt": "a \ud83d", "steps": 10**400, "seed": float("nan"), "vae": ["x"], "width": 128})
    assert desk.draft() == {"width": 128}


def test_a_checkpoint_that_went_since_it_was_listed_is_a_bad_field(tmp_path):
    folder = tmp_path / "models" / "Stable-diffusion"
    folder.mkdir(parents=True)
    write_checkpoint(folder / "gone.safetensors")
    desk = Desk(Settings(data_dir=tmp_path))
    desk.refresh_checkpoints()
    (folder / "gone.safetensors").unlink()
    with pytest.raises(BadField, match="cannot be used"):
        desk.resolve({"prompt": "x", "checkpoint": "gone.safetensors"})


def test_loras_are_resolved_when_a_job_is_taken(tmp_path):
    folder = tmp_path / "models"
    (folder / "Stable-diffusion").mkdir(parents=True)
    write_checkpoint(folder / "Stable-diffusion" / "small.safetensors")
    write_lora(folder / "Lora" / "style.safetensors", sshs_model_hash="a" * 64)
    write_lora(folder / "LyCORIS" / "wide.safetensors", weights([TO_K], architecture=SD15))
    desk = Desk(Settings(data_dir=tmp_path))
    desk.refresh_checkpoints()
    recipe = desk.resolve({"prompt": "x<lora:style:0.5>", "lora_hashes": "made up: 0"})
    assert (recipe.prompt, recipe.lora_hashes) == ("x<lora:style:0.5>", f"style: {'a' * 12}")
    assert desk.resolve({"prompt": "x"}).lora_hashes == ""
    for tag, problem in {
        "<lora:stile:1>": "Prompt: there is no LoRA stile; did you mean style",
        "<lora:style:x>": "Prompt: the weight 'x' of <lora:style> is not a number",
        "<lora:wide:1>": "Prompt: wide.safetensors cannot be used: for a model of another size",
    }.items():
        with pytest.raises(BadField, match=problem) as refused:
            desk.resolve({"prompt": f"x{tag}"})
        assert refused.value.field == "prompt"


def test_waiting_jobs_can_be_dropped_and_a_batch_skipped(server):
    running, dropped = server.draw(steps=150, batch_count=2, seed=50), server.draw(steps=2)
    assert server.ask(f"/api/v1/jobs/{dropped}", method="DELETE")[1] == {"dropped": True}
    server.wait(lambda state: state["running"] and state["running"]["step"] > 1)
    assert server.ask("/api/v1/skip", {})[1] == {"skipped": True}
    server.wait(lambda state: state["running"] and state["running"]["picture"] == 1 and state["running"]["step"] > 1)
    assert server.ask("/api/v1/interrupt", {})[1] == {"interrupted": True}
    assert server.wait_for_job(running)["state"] == "cancelled"
    assert server.pictures(running) == [] and server.pictures(dropped) == []
    assert server.ask("/api/v1/interrupt", {})[1] == {"interrupted": False}


def test_events_show_the_state_at_once_and_every_change(server):
    with urllib.request.urlopen(server.url + "/api/v1/events", timeout=60) as stream:

        def next_event():
            kind = data = None
            for line in stream:
                text = line.decode().rstrip("\n")
                if text.startswith("event: "):
                    kind = text[7:]
                elif text.startswith("data: "):
                    data = json.loads(text[6:])
                elif not text and kind:
                    return kind, data
            raise AssertionError("the stream ended")

        assert next_event()[0] == "state"
        job = server.draw(steps=100)
        seen, previews, steps = set(), 0, set()
        while "ended" not in seen:
            kind, data = next_event()
            if kind == "preview":
                previews += 1
                assert data["job"] == job and data["image"].startswith("data:image/jpeg;base64,")
            elif data["running"]:
                steps.add(data["running"]["step"])
            elif data["last"] and data["last"]["job"] == job:
                seen.add("ended")
        assert len(steps) > 3 and previews >= 1


def test_tokens_are_counted(server):
    assert server.ask("/api/v1/tokens", {"text": "a (red:1.2) fox"})[1] == {"tokens": 3, "limit": 75}
    assert server.ask("/api/v1/tokens", {"text": "fox " * 80})[1] == {"tokens": 80, "limit": 150}


def test_models_are_listed(server):
    models = server.ask("/api/v1/models/refresh", {})[1]
    assert models == server.ask("/api/v1/models")[1]
    assert {"name": "starter.safetensors", "status": "ok", "reason": "", "family": "sd1", "native_size": 128} in models


def test_no_get_changes_anything(server):
    before = server.state()
    api = server.ask("/api/v1/openapi.json")[1]["paths"]
    gets = [path for path, methods in api.items() if "get" in methods and path != "/api/v1/events"]
    for path in gets:
        server.ask(path.replace("{id}", "1"))
    assert len(gets) >= 5 and server.state() == before
