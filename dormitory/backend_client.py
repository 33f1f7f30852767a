"""How one client's thread asks a back end: over a UDP socket of its own, so who asks is who waits.

A request is repeated under the same id, with growing pauses, until it is answered; the back end carries it out once.
"""

import secrets
import socket
import time
from collections.abc import Callable
from contextlib import suppress

from dormitory.directory import Directory
from dormitory.udp import Dropped, TaggedSocket
from dormitory.wire import WORD_BYTES, Action

PAUSES_SECONDS = [0.05 * 1.5**n for n in range(9)]  # 3.7 seconds: the last is cut short by PATIENCE_SECONDS


class NoAnswer(Exception):
    """A back end does not answer; whether it did what it was asked for is not known."""

    def __init__(self, letter: str) -> None:
        super().__init__(f"Server {letter} is not answering")


class Caller:
    """A client's connection, as the back ends see it; used by that connection's thread.

    Args:
        directory: where the back ends are.
        family: of their addresses.
        key: for the tags.
        dropped: counts what comes and is not taken.

    Attributes:
        port: where the answers arrive.
    """

    def __init__(self, directory: Directory, family: int, key: bytes, dropped: Dropped) -> None:
        self._directory = directory
        self._dropped = dropped
        sock = socket.socket(family, socket.SOCK_DGRAM)
        sock.bind(("", 0))
        self.port: int = sock.getsockname()[1]
        self._sock = TaggedSocket(sock, key, dropped, PAUSES_SECONDS[0])
        self._name = secrets.token_bytes(WORD_BYTES)
        self._number = 0

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()

    def ask(self, letter: str, action: int, fields: str, deadline: float, on_silence: Callable[[], None]) -> str:
        """Return a back end's answer, which must come by the time.monotonic() of the deadline.

        If it does not come at once, on_silence is called while it is waited for.

        Raises:
            NoAnswer: none came.
        """
        self._number += 1
        text = fields.encode()
        for pause in PAUSES_SECONDS:
            self._send(letter, action, text)
            answer = self._receive(min(time.monotonic() + pause, deadline))
            if answer is not None:
                return answer
            if pause == PAUSES_SECONDS[0]:
                on_silence()
            if time.monotonic() >= deadline:
                break
        answer = self._receive(0.0)  # on_silence may have taken long
        if answer is None:
            raise NoAnswer(letter)
        return answer

    def _send(self, letter: str, action: int, text: bytes) -> None:
        """Send the request to where the back end is now, if that is known."""
        place = self._directory.find(letter)
        if place is not None:
            with suppress(OSError):  # as good as lost: it is sent again
                self._sock.send(place.address, action, self._name, self._number, place.session + text)

    def _receive(self, until: float) -> str | None:
        """Return the answer to the present request, or None if it has not come by then."""
        while True:
            received = self._sock.receive()
            if received is not None:
                datagram, address = received
                if datagram[:3] == (Action.REPLY, self._name, self._number):
                    return datagram.fields.decode()
                self._dropped.count("that nobody asked for", address)
            if time.monotonic() >= until:
                return None
