"""Which requests a back end takes: none twice, none that is old, none that somebody recorded and sends again.

A caller (a client connection of serverM) has one request at a time under way, numbers them, and sends each from the
same address until it is answered. So the last call of each caller is all that must be remembered (Birrell and Nelson,
Implementing Remote Procedure Calls, 1984): the same number again is answered with the same reply, a smaller number is
old. But a table of callers must not grow for ever, and a restart empties it. Hence sessions: a back end tells serverM
a random word in each announcement, serverM repeats the latest that it knows in each request, and the back end takes the
last two. What was recorded in an older session is void, so the calls of its time can be forgotten.

The same makes void what waited too long. A back end that stood still, because it was stopped or the machine was busy,
finds requests whose callers may have given up; it begins two sessions, and who still waits asks again in the new one.
"""

import secrets
import time

from dormitory.udp import Address
from dormitory.wire import PATIENCE_SECONDS, WORD_BYTES, BadDatagram

SESSION_SECONDS = 30.0
STANDSTILL_SECONDS = PATIENCE_SECONDS - 0.5  # a request that waited for less still has a caller

Call = tuple[int, Address, str]  # a request's number, where it came from, its reply


class Calls:
    """The last call of each caller in this session and in the one before."""

    def __init__(self) -> None:
        self.session = secrets.token_bytes(WORD_BYTES)
        self._calls: dict[bytes, Call] = {}
        self._unsettled: dict[bytes, Call] = {}  # what they did is not on disk yet
        self._received_at = time.monotonic()
        self.renew_session()

    def renew_session(self) -> None:
        """Begin a new session; requests of the one before the last are void from now on."""
        self._last_session, self.session = self.session, secrets.token_bytes(WORD_BYTES)
        self._last_calls, self._calls = self._calls, {}
        self._ends_at = time.monotonic() + SESSION_SECONDS

    def session_ended(self) -> bool:
        """Return whether it is time for a new session."""
        return time.monotonic() >= self._ends_at

    def receive(self) -> bool:
        """Take note that what waited was received; return whether it is void now, for it may have waited long."""
        last, self._received_at = self._received_at, time.monotonic()
        stood_still = self._received_at - last > STANDSTILL_SECONDS
        if stood_still:
            self.renew_session()
            self.renew_session()
        return stood_still

    def reply_to(self, session: bytes, caller: bytes, number: int, address: Address) -> str | None:
        """Return the reply that a request got when it came before, or None if it is to be carried out.

        Raises:
            BadDatagram: it is neither new nor a repetition by its caller.
        """
        if session != self.session and session != self._last_session:
            raise BadDatagram("of an old session")
        last = self._unsettled.get(caller) or self._calls.get(caller) or self._last_calls.get(caller)
        if last is None or number > last[0]:
            return None
        last_number, last_address, reply = last
        if number < last_number or address != last_address:
            raise BadDatagram("that had come before")
        return reply

    def remember(self, caller: bytes, number: int, address: Address, reply: str) -> None:
        """Take the reply to a request that was carried out for the one it gets, unless that is undone."""
        self._unsettled[caller] = (number, address, reply)

    def settle(self) -> None:
        """Keep the replies since the last time: what they say is on disk."""
        self._calls.update(self._unsettled)
        self._unsettled.clear()

    def undo(self) -> None:
        """Forget the replies since the last time: what they say was not done."""
        self._unsettled.clear()
