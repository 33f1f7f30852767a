"""Threads that take a task each, and then the next: to start a thread costs as much as a short conversation."""

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

IDLE_SECONDS = 0.02

Task = Callable[[], None]


class Workers:
    """As many threads as there are tasks; a thread whose task has ended waits IDLE_SECONDS for another one."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards _idle
        self._idle = 0  # threads that wait and to which no task is on its way
        self._tasks: SimpleQueue[Task] = SimpleQueue()

    def run(self, task: Task) -> None:
        """Have a task run at once, in a thread of its own.

        Raises:
            RuntimeError: there are no more threads.
        """
        with self._lock:
            found = self._idle > 0
            self._idle -= found
        if found:
            self._tasks.put(task)
        else:
            threading.Thread(target=self._work, args=(task,), daemon=True).start()

    def _work(self, task: Task | None) -> None:
        while task:
            task()
            task = self._next_task()

    def _next_task(self) -> Task | None:
        """Wait for a task; return None if the thread is not needed any more."""
        with self._lock:
            self._idle += 1
        try:
            return self._tasks.get(timeout=IDLE_SECONDS)
        except Empty:
            with self._lock:
                if self._idle:
                    self._idle -= 1
                    return None
            return self._tasks.get()  # one is on its way


WORKERS = Workers()
