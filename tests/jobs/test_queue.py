import sqlite3

import pytest

from modules.jobs.queue import Queue, QueueFull
from modules.jobs.training import Training, from_dict
from modules.recipe.fields import Recipe
from modules.store import Store


@pytest.fixture
def path(tmp_path):
    return tmp_path / "state" / "easel.sqlite3"


def recipes(queue):
    return [job.recipe.prompt for job in queue.waiting(100)]


def test_jobs_are_claimed_in_order_and_end_once(path):
    queue = Queue(Store(path))
    first, second = (queue.add(Recipe(prompt=p, seed=1)) for p in ("a", "b"))
    assert queue.claim().id == first and queue.claim().id == second and queue.claim() is None
    assert queue.end(first, "done", facts={"device": "cpu"}) and not queue.end(first, "failed", "late")
    assert queue.job(first).state == "done" and queue.job(first).facts == {"device": "cpu"}
    assert queue.last_ended().id == first


def test_waiting_jobs_survive_a_restart_in_order_and_the_running_one_is_tried_again(path):
    queue = Queue(Store(path))
    for prompt in "abc":
        queue.add(Recipe(prompt=prompt, seed=1))
    running = queue.claim()
    again = Queue(Store(path))  # the first store is not closed: its process was killed
    again.put_back()
    assert recipes(again) == ["a", "b", "c"]
    assert again.claim() == running


def test_a_job_that_kills_the_engine_twice_has_failed_and_the_others_go_on(path):
    queue = Queue(Store(path))
    poison = queue.add(Recipe(prompt="poison", seed=1))
    queue.add(Recipe(prompt="next", seed=1))
    for _ in range(2):
        assert queue.claim().id == poison
        queue.died(poison, "the engine died (killed by signal 9)")
    assert queue.job(poison).state == "failed" and "signal 9" in queue.job(poison).reason
    assert recipes(queue) == ["next"]


def test_a_server_that_stops_in_order_does_not_use_up_an_attempt(path):
    queue = Queue(Store(path))
    job = queue.add(Recipe(seed=1))
    for _ in range(5):
        queue.claim()
        queue.put_back()
    assert queue.claim().id == job and queue.job(job).attempt == 1


@pytest.mark.parametrize("state", ["queued", "running", "done"])
@pytest.mark.parametrize("recipe", ["{", "[]", '{"no_such_field": 2}', '{"steps": "many"}'])
def test_a_row_that_cannot_be_read_is_ended_and_the_others_go_on(path, state, recipe):
    store = Store(path)
    queue = Queue(store)
    broken, after = queue.add(Recipe(prompt="broken", seed=1)), queue.add(Recipe(prompt="after", seed=1))
    store.write("UPDATE jobs SET recipe = ?, state = ?, ending = ? WHERE id = ?", (recipe, state, 1 if state == "done" else None, broken))
    queue.put_back()
    queue.last_ended()
    assert queue.claim().id == after
    assert queue.job(broken).state == "failed" and "cannot be read" in queue.job(broken).reason
    assert queue.last_ended().id == broken


def test_what_ended_last_does_not_depend_on_the_clock(path):
    store = Store(path)
    queue = Queue(store)
    first, second = queue.add(Recipe(seed=1)), queue.add(Recipe(seed=2))
    queue.claim()
    queue.end(first, "done")
    store.write("UPDATE jobs SET ended = ended + 86400 WHERE id = ?", (first,))
    queue.claim()
    queue.end(second, "failed", "why")
    assert queue.last_ended().id == second


def test_another_program_at_the_file_does_not_send_the_queue_to_memory(path, monkeypatch):
    store = Store(path)
    store._connection.execute("PRAGMA busy_timeout = 50")
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        Queue(store).add(Recipe(seed=1))
    other.execute("COMMIT")
    assert Queue(store).add(Recipe(seed=1)) and not store.notice


def test_only_waiting_jobs_can_be_dropped(path):
    queue = Queue(Store(path))
    running, waiting = queue.add(Recipe(seed=1)), queue.add(Recipe(seed=2))
    queue.claim()
    assert not queue.drop(running) and queue.drop(waiting) and not queue.drop(waiting)


def test_of_jobs_that_have_no_room_together_none_is_queued(path, monkeypatch):
    monkeypatch.setattr("modules.jobs.queue.MAX_WAITING", 3)
    queue = Queue(Store(path))
    queue.add(Recipe(prompt="a", seed=1))
    with pytest.raises(QueueFull, match="1 jobs are waiting, and 3 can"):
        queue.add_all([Recipe(prompt=p, seed=1) for p in "bcd"])
    assert len(queue.add_all([Recipe(prompt=p, seed=1) for p in "bc"])) == 2 and recipes(queue) == ["a", "b", "c"]
    with pytest.raises(QueueFull):
        queue.add(Recipe(prompt="d", seed=1))


def test_a_thousand_jobs_survive(path):
    queue = Queue(Store(path))
    ids = [queue.add(Recipe(seed=i)) for i in range(1000)]
    again = Queue(Store(path))
    assert [job.id for job in again.waiting(2000)] == ids and again.waiting_count() == 1000


def test_a_damaged_file_is_moved_aside(path):
    path.parent.mkdir()
    path.write_bytes(b"this is no database, it only has its name" * 100)
    queue = Queue(Store(path))
    queue.add(Recipe(seed=1))
    assert queue.waiting_count() == 1
    assert len(list(path.parent.glob("*.damaged-*"))) == 1


def test_without_a_writable_folder_the_queue_works_in_memory_and_says_so(tmp_path):
    (tmp_path / "state").write_text("a file where the folder should be")
    store = Store(tmp_path / "state" / "easel.sqlite3")
    assert "memory" in store.notice
    queue = Queue(store)
    queue.add(Recipe(seed=1))
    assert queue.claim()


def test_a_disk_that_fills_up_moves_the_queue_to_memory_with_all_that_was_in_it(path):
    store = Store(path)
    queue = Queue(store)
    queue.add(Recipe(prompt="before", seed=1))
    store._connection.execute("PRAGMA max_page_count = 1")  # SQLite's own "database or disk is full"
    while not store.notice:
        queue.add(Recipe(prompt="x" * 50_000, seed=1))
        assert queue.waiting_count() < 100
    assert recipes(queue)[0] == "before" and "full" in store.notice
    assert sqlite3.connect(path).execute("PRAGMA quick_check").fetchone() == ("ok",)


def test_jobs_of_two_kinds_share_their_ids_and_nothing_else(path):
    store = Store(path)
    pictures, trainings = Queue(store), Queue(store, "training", from_dict)
    picture, training = pictures.add(Recipe(seed=1)), trainings.add(Training(name="cats"))
    assert picture != training and pictures.waiting_count() == trainings.waiting_count() == 1
    assert not pictures.drop(training) and pictures.job(training) is None
    assert trainings.claim().recipe.name == "cats"
    pictures.put_back()
    assert trainings.unfinished()[0].state == "running" and pictures.claim().id == picture
    trainings.end(training, "done")
    assert pictures.last_ended() is None and trainings.last_ended().id == training


def test_what_was_stopped_can_go_on(path):
    queue = Queue(Store(path), "training", from_dict)
    job = queue.add(Training(name="cats"))
    assert not queue.resume(job)
    queue.claim()
    queue.died(job, "it died twice")
    queue.claim()
    queue.died(job, "it died twice", {"fraction": 0.5})
    assert (queue.job(job).state, queue.job(job).reason, queue.job(job).facts) == ("failed", "it died twice", {"fraction": 0.5})
    assert queue.resume(job) and not queue.resume(job)
    assert (queue.claim().attempt, queue.last_ended()) == (1, None)
    queue.end(job, "cancelled")
    assert queue.resume(job) and queue.drop(job)
    queue.resume(job)
    queue.claim()
    queue.end(job, "done")
    assert not queue.resume(job)


def test_a_store_from_before_there_were_kinds_goes_on(path):
    Queue(Store(path)).add(Recipe(prompt="old", seed=1))
    with sqlite3.connect(path) as old:
        old.execute("ALTER TABLE jobs DROP COLUMN kind")
    queue = Queue(Store(path))
    queue.add(Recipe(prompt="new", seed=1))
    assert recipes(queue) == ["old", "new"]
