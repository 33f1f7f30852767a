"""Run password checks one at a time, so that clients who guess passwords cannot lock members out.

A check is slow and needs memory on purpose, so a single thread runs all of them; the clients' addresses take turns
(round robin). A client that has ended its side of the connection may still read, as `nc -N` does, or may have left. The
server cannot tell before it sends something; the check of such a client runs when no other check waits.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass, field

from net.process import use_all_processors

MAX_WAIT_SECONDS = 5.0
FIRST_ESTIMATE_SECONDS = 0.05  # the duration of a check until one has been measured


class TooManyLogins(Exception):
    """A password cannot be checked within MAX_WAIT_SECONDS."""


@dataclass(eq=False)
class _Check:
    """A check in the queue; checks of a lower round run first, and an address has only one check in a round."""

    verify: Callable[[], bool]
    address: str
    has_ended_input: Callable[[], bool]  # whether the client has ended its side
    round: int
    ended_input: bool  # what has_ended_input() last returned; if it is true, the check runs when no other waits
    result: Future[bool] = field(default_factory=Future)

    @property
    def priority(self) -> tuple[bool, int]:
        return self.ended_input, self.round


class LoginQueue:
    """The password checks that wait, and the thread that runs them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._waiting: list[_Check] = []  # in order of arrival
        self._round = 0  # of the check that was started last
        self._seconds = FIRST_ESTIMATE_SECONDS  # the duration of the last check
        self._thread = ThreadPoolExecutor(1, "passwords")
        self._thread.submit(use_all_processors)  # busy connections could fill the one that they share

    def run(self, verify: Callable[[], bool], address: str, has_ended_input: Callable[[], bool]) -> bool:
        """Return the result of a check; raise TooManyLogins if its turn does not come within MAX_WAIT_SECONDS."""
        with self._lock:
            rounds = (other.round for other in self._waiting if other.address == address and not other.ended_input)
            check = _Check(verify, address, has_ended_input, max(rounds, default=self._round) + 1, has_ended_input())
            ahead = sum(other.priority <= check.priority for other in self._waiting)
            if ahead * self._seconds > MAX_WAIT_SECONDS:
                raise TooManyLogins
            self._waiting.append(check)
        self._thread.submit(self._run_next)
        wait([check.result], MAX_WAIT_SECONDS)
        with self._lock:
            if check in self._waiting:  # the estimate was wrong
                self._waiting.remove(check)
                raise TooManyLogins
        return check.result.result()

    def _run_next(self) -> None:
        with self._lock:
            for waiting in self._waiting:
                waiting.ended_input = waiting.ended_input or waiting.has_ended_input()
            check = min(self._waiting, key=lambda waiting: waiting.priority, default=None)
            if check is None:  # a check was given up, so there are fewer checks than calls of this method
                return
            self._waiting.remove(check)
            self._round = check.round
        began = time.monotonic()
        try:
            check.result.set_result(check.verify())
        except Exception as error:  # such as MemoryError: pass it on to the thread that waits for the result
            check.result.set_exception(error)
        with self._lock:
            self._seconds = time.monotonic() - began
