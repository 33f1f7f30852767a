"""Where the back ends are: the main server's side of announcements.

A back end is taken to be where an announcement came from only if that repeats the token that this run of the main
server gives to that address. Otherwise it gets the token for its address, and nothing else happens: a real back end
repeats it at once; who has merely recorded an announcement cannot, for he has no key. And an announcement that was
heard before is not even answered.
"""

import hashlib
import logging
import secrets
import threading
from typing import NamedTuple

from dormitory.udp import Address, Dropped, TaggedSocket
from dormitory.wire import WORD_BYTES, Action, Announcement, BadDatagram, Datagram, unpack_announcement
from net.log import LOG

TICK_SECONDS = 0.1  # how long it may wait for announcements without looking at anything else


class Place(NamedTuple):
    """Where a back end is, and which session its requests must name."""

    address: Address
    session: bytes


class Directory:
    """The place of each back end, and the thread that listens to their announcements."""

    def __init__(self, sock: TaggedSocket, dropped: Dropped) -> None:
        self._sock = sock
        self._dropped = dropped
        self._secret = secrets.token_bytes(16)
        self._heard: dict[bytes, int] = {}  # the highest number from each run of a back end
        self._places: dict[str, Place] = {}  # written by the listening thread alone, each entry as a whole
        self._rooms_told: dict[str, tuple[Address, bytes]] = {}  # whose status lines were written
        self._thread = threading.Thread(target=self._listen_for_ever, name="announcements", daemon=True)

    def start(self) -> None:
        """Begin to listen, until the process ends."""
        self._thread.start()

    def find(self, letter: str) -> Place | None:
        """Return where a back end is, if it has announced itself."""
        return self._places.get(letter)

    def _listen_for_ever(self) -> None:
        while True:
            try:
                if received := self._sock.receive():
                    self._take(*received)
            except Exception:
                logging.exception("announcements")
            self._dropped.report()

    def _take(self, datagram: Datagram, address: Address) -> None:
        try:
            token = self._hear(datagram, address)
        except BadDatagram as bad:
            self._dropped.count(str(bad), address)
            return
        try:
            self._sock.send(address, Action.CONFIRM, datagram.sender, datagram.number, token)
        except OSError as error:
            LOG.write(f"Cannot send to a back end at {address[0]}:{address[1]}: {error.strerror}")

    def _hear(self, datagram: Datagram, address: Address) -> bytes:
        """Learn from an announcement; return the token for its sender's address.

        Raises:
            BadDatagram: it is none, or it was heard before.
        """
        if datagram.action != Action.ANNOUNCE:
            raise BadDatagram("that nobody asked for")
        announcement = unpack_announcement(datagram.fields)
        if datagram.number <= self._heard.get(datagram.sender, 0):
            raise BadDatagram("that had come before")
        self._heard[datagram.sender] = datagram.number
        token = hashlib.blake2b(repr(address).encode(), key=self._secret, digest_size=WORD_BYTES).digest()
        if announcement.token == token:
            self._adopt(announcement, datagram.sender, address)
        return token

    def _adopt(self, announcement: Announcement, run: bytes, address: Address) -> None:
        letter = announcement.letter
        self._places[letter] = Place(address, announcement.session)
        if self._rooms_told.get(letter) != (address, run):
            self._rooms_told[letter] = (address, run)
            LOG.write(f"Server {letter} at {address[0]}:{address[1]} has sent its room status: {announcement.rooms}")
