"""Run tasks in threads that are reused, because starting a thread costs as much as a short conversation."""

import threading
from collections import deque
from collections.abc import Callable

IDLE_SECONDS = 0.02

Task = Callable[[], None]


class Workers:
    """A pool that starts a thread for a task whenever no thread is idle; an idle thread ends after IDLE_SECONDS."""

    def __init__(self) -> None:
        self._filled = threading.Condition()  # guards both below; notified when a task is added
        self._idle = 0  # threads that wait for a task
        self._tasks: deque[Task] = deque()  # never more than there are idle threads, each of which takes one

    def run(self, task: Task) -> None:
        """Run a task at once, in a thread that runs no other task meanwhile.

        Raises:
            RuntimeError: no thread can be started.
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
        """Wait for a task; return None, which ends the thread, if no task has come within IDLE_SECONDS."""
        with self._filled:
            self._idle += 1
            self._filled.wait_for(lambda: self._tasks, IDLE_SECONDS)
            self._idle -= 1
            return self._tasks.popleft() if self._tasks else None


WORKERS = Workers()
