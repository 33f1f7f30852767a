"""Threads that take one task after another."""

import threading
from collections.abc import Iterator

import pytest
from conftest import wait_until

from net import workers
from net.workers import Workers


@pytest.fixture
def crew() -> Iterator[Workers]:
    """Give workers, and wait until none is left."""
    others = threading.active_count()
    yield Workers()
    wait_until(lambda: threading.active_count() == others, "the end of idle threads")


def test_every_task_has_a_thread_at_once_also_if_fewer_are_idle(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.5)
    for tasks in (3, 6):
        meeting = threading.Barrier(tasks + 1)

        def meet(meeting: threading.Barrier = meeting) -> None:
            meeting.wait(10)

        for _ in range(tasks):
            crew.run(meet)
        meeting.wait(5)
        wait_until(lambda: crew._idle >= 3, "idle threads")


def test_a_task_is_run_by_the_thread_whose_own_has_ended(crew: Workers) -> None:
    runners: list[threading.Thread] = []
    ran = threading.Semaphore(0)

    def work() -> None:
        runners.append(threading.current_thread())
        ran.release()

    for _ in range(3):
        crew.run(work)
        assert ran.acquire(timeout=10)
        wait_until(lambda: crew._idle == 1, "an idle thread")
    assert len(runners) == 3
    assert len(set(runners)) == 1


def test_a_task_that_comes_while_a_thread_gives_up_is_run(crew: Workers, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = threading.Event()
    wait = crew._filled.wait

    def wait_too_long(seconds: float | None = None) -> bool:
        """Lose patience just before a task comes."""
        if not ran.is_set() and not crew._tasks:
            wait(0.0)
            crew.run(ran.set)
            return False
        return wait(seconds)

    monkeypatch.setattr(workers, "IDLE_SECONDS", 0.0)
    monkeypatch.setattr(crew._filled, "wait", wait_too_long)
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
