"""Run password checks one at a time, fairly, so that guessers cannot lock members out.

A check is slow and needs memory on purpose. One thread runs them all, which bounds the memory to that of one check and
leaves the other processors to the back ends.
"""

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from net.process import use_all_processors

MAX_WAIT_SECONDS = 5.0
MAX_WAIT_AFTER_END_SECONDS = 1.0  # of a client whose side has ended: most likely it does not read the reply
FIRST_ESTIMATE_SECONDS = 0.05  # the duration of a check until one has been measured
SMOOTHING = 0.25  # the weight of the latest check in the average duration


class TooManyLogins(Exception):
    """A password cannot be checked within MAX_WAIT_SECONDS."""

    def __str__(self) -> str:
        return "Too many people are logging in"


@dataclass(eq=False)
class _Check:
    """A check in the queue.

    Attributes:
        round: checks of a lower round run first, and an address has only one check in a round.
        gone: whether the client's side of the connection has ended; such a check runs when no other waits.
        deadline: the time.monotonic() at which it is given up.
    """

    verify: Callable[[], bool]
    address: str
    has_left: Callable[[], bool]
    round: int
    gone: bool = False
    deadline: float = field(default_factory=lambda: time.monotonic() + MAX_WAIT_SECONDS)
    result: "Future[bool]" = field(default_factory=Future)

    @property
    def priority(self) -> tuple[bool, int]:
        return self.gone, self.round

    def look_at_client(self) -> None:
        """Note whether the client's side has ended since the last look."""
        if not self.gone and self.has_left():
            self.gone = True
            self.deadline = min(self.deadline, time.monotonic() + MAX_WAIT_AFTER_END_SECONDS)


class LoginQueue:
    """The password checks that wait, and the thread that runs them, round robin over the clients' addresses.

    A client whose side has ended may have closed its connection, or may still read (as `nc -N` does). TCP does not tell
    which before something is sent, so such a check is not dropped; it runs when no other waits.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all below; notified when a check arrives
        self._waiting: list[_Check] = []  # in order of arrival
        self._running = 0  # checks: 0 or 1
        self._round = 0  # of the check that was started last
        self._seconds = FIRST_ESTIMATE_SECONDS  # the average duration of a check
        threading.Thread(target=self._run_checks, name="passwords", daemon=True).start()

    def run(self, verify: Callable[[], bool], address: str, has_left: Callable[[], bool]) -> bool:
        """Run a check in its turn and return its result; block until then, at most MAX_WAIT_SECONDS.

        Args:
            verify: the check.
            address: the client's address; addresses take turns.
            has_left: returns whether the client's side of the connection has ended; called until this method returns.

        Raises:
            TooManyLogins: the turn would come too late, or has not come in time.
        """
        with self._changed:
            check = _Check(verify, address, has_left, self._next_round(address))
            check.look_at_client()
            seconds = check.deadline - time.monotonic()
            if self._expected_wait(check) > seconds:
                raise TooManyLogins
            self._waiting.append(check)
            self._changed.notify()
        wait([check.result], seconds)
        with self._changed:
            if check in self._waiting:  # the estimate was wrong
                self._waiting.remove(check)
                raise TooManyLogins
        return check.result.result()

    def _next_round(self, address: str) -> int:
        rounds = (check.round for check in self._waiting if check.address == address and not check.gone)
        return max(rounds, default=self._round) + 1

    def _expected_wait(self, newcomer: _Check) -> float:
        """Return the seconds until a new check would be done."""
        ahead = sum(check.priority <= newcomer.priority for check in self._waiting)
        return (self._running + ahead + 1) * self._seconds

    def _run_checks(self) -> None:
        use_all_processors()  # hundreds of busy connections leave little of the one that they share
        while True:
            check = self._take_next()
            began = time.monotonic()
            try:
                check.result.set_result(check.verify())
            except Exception as error:  # such as MemoryError: it belongs to the thread that waits for the result
                check.result.set_exception(error)
            with self._changed:
                self._running = 0
                self._seconds += SMOOTHING * (time.monotonic() - began - self._seconds)

    def _take_next(self) -> _Check:
        """Wait for a check and take the one whose turn it is; give up those whose clients left some time ago."""
        with self._changed:
            self._changed.wait_for(lambda: self._waiting)
            for check in self._waiting:
                check.look_at_client()
            # Of a round the latest: a member who has just come need not wait for a guesser's next check.
            taken = min(reversed(self._waiting), key=lambda check: check.priority)
            self._waiting.remove(taken)
            self._running = 1
            if not taken.gone:
                self._round = taken.round
            for late in [check for check in self._waiting if check.deadline < time.monotonic()]:
                self._waiting.remove(late)
                late.result.set_exception(TooManyLogins())
            return taken
