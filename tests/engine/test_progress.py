import time

from modules.engine.progress import Reporter
from modules.jobs.messages import Message, Progress
from modules.recipe.fields import Recipe


def test_skipped_steps_do_not_count_as_drawn_in_no_time() -> None:
    told: list[Message] = []
    reporter = Reporter(Recipe(steps=10, batch_count=20, seed=1), told.append)
    begun = time.monotonic()
    for step in range(6):
        reporter.phase("draw", 0, step)
        time.sleep(0.01)
    reporter.phase("draw", 19, 0)  # the batches between were skipped
    spent = time.monotonic() - begun
    last = told[-1]
    assert isinstance(last, Progress) and last.seconds_left is not None
    assert 10 * 0.05 / 5 <= last.seconds_left <= 10 * spent / 5
