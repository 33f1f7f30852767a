"""The pool of threads that are reused."""

import threading
import time
from collections.abc import Iterator

import pytest
from conftest import WAIT_SECONDS, new_threads, wait_until

from net import workers
from net.workers import Workers


@pytest.fixture
def crew() -> Iterator[Workers]:
    """Provide a pool; after the test, wait until all its threads have ended."""
    before = threading.enumerate()
    yield Workers()
    wait_until(lambda: not new_threads(before), "the end of idle threads")


def test_every_task_has_a_thread_at_once_even_with_more_tasks_than_idle_threads(
    crew: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.2)
    for tasks in (3, 1, 6, 2, 12):
        meeting = threading.Barrier(tasks + 1)

        def meet(meeting: threading.Barrier = meeting) -> None:
            meeting.wait(WAIT_SECONDS)

        for _ in range(tasks):
            crew.run(meet)
        meeting.wait(WAIT_SECONDS)


def test_a_thread_whose_task_has_ended_takes_another_one(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.5)
    threads: list[threading.Thread] = []

    def is_one_reused() -> bool:
        ran = threading.Event()

        def work() -> None:
            threads.append(threading.current_thread())
            ran.set()

        crew.run(work)
        assert ran.wait(WAIT_SECONDS)
        return len(set(threads)) < len(threads)

    wait_until(is_one_reused, "a task that runs in a thread of an earlier task", seconds=1.0)


def test_every_task_that_arrives_while_idle_threads_end_is_run(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.001)
    for number in range(200):
        ran = threading.Event()
        crew.run(ran.set)
        assert ran.wait(WAIT_SECONDS), f"task {number} was not run"
        time.sleep(number % 10 * 0.0002)


def test_run_raises_if_no_thread_can_be_started_and_later_tasks_are_run(
    crew: Workers, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            crew.run(lambda: None)
    done = threading.Event()
    crew.run(done.set)
    assert done.wait(WAIT_SECONDS)
