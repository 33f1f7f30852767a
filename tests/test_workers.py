"""Threads that take one task after another."""

import threading
from collections.abc import Iterator
from queue import Empty

import pytest
from conftest import wait_until

import workers
from workers import Workers


@pytest.fixture
def crew() -> Iterator[Workers]:
    """Give workers, and wait until none is left."""
    others = threading.active_count()
    yield Workers()
    wait_until(lambda: threading.active_count() == others, "the end of idle threads")


def test_every_task_has_a_thread_at_once(crew: Workers) -> None:
    meeting = threading.Barrier(21)

    def meet() -> None:
        meeting.wait(10)

    for _ in range(20):
        crew.run(meet)
    meeting.wait(10)


def test_a_task_is_run_by_the_thread_whose_own_has_ended(crew: Workers) -> None:
    runners: list[threading.Thread] = []

    def work() -> None:
        runners.append(threading.current_thread())

    for _ in range(3):
        crew.run(work)
        wait_until(lambda: crew._idle == 1, "an idle thread")
    assert len(runners) == 3
    assert len(set(runners)) == 1


def test_a_task_that_comes_while_a_thread_gives_up_is_run(crew: Workers) -> None:
    ran = threading.Event()
    queue = crew._tasks

    class Late:
        """A queue that a task reaches when its reader has just lost patience."""

        def __init__(self) -> None:
            self.put = queue.put

        def get(self, timeout: float | None = None) -> workers.Task:
            if timeout is not None and not ran.is_set():
                crew.run(ran.set)
                raise Empty
            return queue.get(timeout=timeout or 10.0)

    crew._tasks = Late()  # type: ignore[assignment]
    crew.run(lambda: None)
    assert ran.wait(5)


def test_who_cannot_have_a_thread_is_told(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        with pytest.raises(RuntimeError):
            crew.run(lambda: None)
    done = threading.Event()
    crew.run(done.set)
    assert done.wait(10)
