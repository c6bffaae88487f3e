"""An engine or a server that is killed in the middle of a job: nothing is lost, and the picture is the same."""

import signal
import time

from modules.jobs.desk import engine_arguments
from modules.jobs.queue import Queue
from modules.jobs.supervisor import Supervisor
from modules.recipe.fields import Recipe
from modules.settings import Settings
from modules.store import Store
from tests.servers import MODELS, started


def drawing(step=1):
    return lambda state: state["running"] and state["running"]["step"] > step


def test_a_killed_engine_is_restarted_and_draws_the_same_picture(server):
    recipe = {"steps": 60, "seed": 11}
    calm = server.draw(**recipe)
    assert server.wait_for_job(calm)["state"] == "done"
    shaken, after = server.draw(**recipe), server.draw(steps=2)
    server.wait(drawing())
    server.engine().send_signal(signal.SIGKILL)
    server.wait(lambda state: state["running"] and (state["running"]["job"], state["running"]["attempt"]) == (shaken, 2))
    assert server.wait_for_job(after)["state"] == "done"
    first, second = (server.ask(server.pictures(job)[0]["url"])[1] for job in (calm, shaken))
    assert first == second


def test_a_job_that_loses_its_engine_twice_has_failed_and_the_others_go_on(server):
    poison, after = server.draw(steps=150, batch_count=10), server.draw(steps=2)
    for attempt in (1, 2):
        server.wait(lambda state, attempt=attempt: drawing()(state) and state["running"]["attempt"] == attempt)
        server.engine().send_signal(signal.SIGKILL)
    server.wait(lambda state: state["last"]["job"] == poison)
    assert server.state()["last"]["state"] == "failed" and "signal 9" in server.state()["last"]["reason"]
    assert server.wait_for_job(after)["state"] == "done"


def test_interrupt_is_obeyed_and_an_engine_that_does_not_obey_is_replaced(server):
    job, after = server.draw(steps=150, batch_count=10), server.draw(steps=2)
    server.wait(drawing())
    server.engine().send_signal(signal.SIGSTOP)
    assert server.ask("/api/v1/interrupt", {})[1] == {"interrupted": True}
    assert server.wait(lambda state: state["last"]["job"] == job)["last"]["state"] == "cancelled"
    assert server.wait_for_job(after)["state"] == "done"


def test_jobs_of_a_killed_server_run_after_the_restart(tmp_path):
    with started(tmp_path) as server:
        running = server.draw(steps=150, batch_count=3)
        waiting = [server.draw(steps=2, seed=seed) for seed in (5, 6)]
        server.wait(drawing())
        server.process.kill()
        server.process.wait()
    with started(tmp_path) as again:
        assert again.wait_for_job(waiting[-1])["state"] == "done"
        assert [picture["seed"] for job in (running, *waiting) for picture in again.pictures(job)] == [1, 2, 3, 5, 6]


def test_without_a_place_for_pictures_they_are_still_shown(tmp_path):
    (tmp_path / "outputs").write_text("a file where the folder should be")
    with started(tmp_path) as server:
        job = server.draw(steps=2)
        assert server.wait_for_job(job)["state"] == "done"
        (picture,) = server.pictures(job)
        assert picture["file"] is None and picture["problem"] and server.state()["notices"]
        assert server.ask(picture["url"])[1].startswith(b"\x89PNG")
        (tmp_path / "outputs").unlink()
        saved = server.ask(f"/api/v1/pictures/{picture['id']}/save", {})[1]
        assert (tmp_path / "outputs" / saved["file"]).read_bytes() == server.ask(picture["url"])[1]
        assert not server.state()["notices"]


def test_whatever_goes_wrong_beside_the_engine_there_is_a_next_one(tmp_path):
    settings = Settings(data_dir=tmp_path, models_dir=MODELS)
    queue = Queue(Store(settings.state / "easel.sqlite3"))
    kept = []

    def keep(picture, kind):
        kept.append(picture)
        if len(kept) == 1:
            raise RuntimeError("nobody foresaw this")
        return len(kept)

    supervisor = Supervisor(queue, engine_arguments(settings), keep, changed=lambda: None)
    job = queue.add(Recipe(prompt="a red apple", steps=1, width=64, height=64, seed=1, checkpoint="starter.safetensors"))
    supervisor.start()
    try:
        deadline = time.monotonic() + 90
        while queue.job(job).state not in ("done", "failed"):
            assert time.monotonic() < deadline
            time.sleep(0.05)
    finally:
        supervisor.stop()
    assert queue.job(job).state == "done" and queue.job(job).attempt == 2


def test_a_folder_that_takes_nothing_still_draws(tmp_path):
    for name in ("state", "outputs"):
        (tmp_path / name).write_text("a file where the folder should be")
    with started(tmp_path) as server:
        job = server.draw(steps=2)
        assert server.wait_for_job(job)["state"] == "done"
        assert server.ask(server.pictures(job)[0]["url"])[1].startswith(b"\x89PNG")
        assert any("memory" in notice for notice in server.state()["notices"])
