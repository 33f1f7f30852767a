"""Threads that take a task each, and then the next: to start a thread costs as much as a short conversation."""

import threading
from collections import deque
from collections.abc import Callable

IDLE_SECONDS = 0.02

Task = Callable[[], None]


class Workers:
    """A thread for each task; when its task has ended, it waits IDLE_SECONDS for another one before it ends."""

    def __init__(self) -> None:
        self._filled = threading.Condition()  # guards both below
        self._idle = 0  # threads that wait
        self._tasks: deque[Task] = deque()  # never more than there are idle threads, each of which takes one

    def run(self, task: Task) -> None:
        """Have a task run at once, in a thread of its own.

        Raises:
            RuntimeError: there are no more threads.
        """
        with self._filled:
            if self._idle > len(self._tasks):
                self._tasks.append(task)
                self._filled.notify()
                return
        threading.Thread(target=self._work, args=(task,), daemon=True).start()

    def _work(self, task: Task | None) -> None:
        while task:
            task()
            task = self._next_task()

    def _next_task(self) -> Task | None:
        """Wait for a task; return None if none comes, and the thread is not needed any more."""
        with self._filled:
            self._idle += 1
            self._filled.wait_for(lambda: self._tasks, IDLE_SECONDS)
            self._idle -= 1
            return self._tasks.popleft() if self._tasks else None


WORKERS = Workers()
