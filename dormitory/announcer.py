"""How a back end tells the main server where it is: until that confirms, and again every two seconds.

An announcement repeats the token that the main server gave in its last confirmation; at first, and after a restart of
the main server, it is the wrong one. Then the confirmation brings the right one, and the back end announces itself
again at once. directory.py says what the token is for.
"""

import secrets
import time

from dormitory.udp import Address, TaggedSocket
from dormitory.wire import WORD_BYTES, Action, BadDatagram, Datagram, pack_announcement
from net.log import LOG

AGAIN_SECONDS = 0.5
CONFIRMED_AGAIN_SECONDS = 2.0


class Announcer:
    """What a back end has announced, and what the main server has confirmed."""

    def __init__(self, letter: str, sock: TaggedSocket, main_address: Address) -> None:
        self._name = f"Server {letter}"
        self._letter = letter
        self._sock = sock
        self._main_address = main_address
        self._run = secrets.token_bytes(WORD_BYTES)
        self._announced = 0  # the number of the last announcement
        self._confirmed = 0  # the highest number that was confirmed
        self._token = bytes(WORD_BYTES)
        self._status = ""
        self.due_at = time.monotonic()

    def announce(self, session: bytes, rooms: str) -> None:
        """Send an announcement; the next is due soon, unless this one is confirmed."""
        self.due_at = time.monotonic() + AGAIN_SECONDS
        if self._announced > self._confirmed:
            self._tell(f"{self._name} waits for the main server at {self._main}")
        self._announced += 1
        fields = pack_announcement(self._letter, session, self._token, rooms)
        try:
            self._sock.send(self._main_address, Action.ANNOUNCE, self._run, self._announced, fields)
        except OSError as error:
            self._tell(f"{self._name} cannot send to the main server at {self._main}: {error.strerror}")

    def confirm(self, datagram: Datagram) -> None:
        """Take a confirmation: its token, or the time until the next announcement if the token was right.

        Raises:
            BadDatagram: it is for none of the latest announcements.
        """
        if datagram.sender != self._run or not self._confirmed < datagram.number <= self._announced:
            raise BadDatagram("that nobody asked for")
        self._confirmed = datagram.number
        if datagram.fields != self._token:
            self._token = datagram.fields[:WORD_BYTES].ljust(WORD_BYTES, b"\0")
            self.due_at = 0.0
            return
        self._confirmed = self._announced
        self.due_at = time.monotonic() + CONFIRMED_AGAIN_SECONDS
        self._tell(f"{self._name} has sent its room status to the main server at {self._main}")

    @property
    def _main(self) -> str:
        return f"{self._main_address[0]}:{self._main_address[1]}"

    def _tell(self, status: str) -> None:
        """Write a status line, unless it is the same as the last."""
        if status != self._status:
            LOG.write(status)
            self._status = status
