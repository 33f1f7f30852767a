"""How the main server asks the back ends, and what it knows about them.

A thread asks over UDP sockets of its own. It repeats a request under the same id, with growing pauses, until the answer
comes; the back end carries the request out once. A back end that stays silent is marked as down: requests for it are
answered at once, while one thread of the main server keeps asking it for its rooms.
"""

import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

from dormitory.wire import (
    ANY_DATABASE,
    KINDS,
    MAX_DATAGRAM_BYTES,
    RECEIVE_TICK,
    Action,
    BadDatagram,
    Datagram,
    new_request,
    pack,
    shortened,
    unpack,
)
from net.command_line import shown_address
from net.log import LOG

PAUSES_SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # between repetitions; 3 seconds in all
SEARCH_PAUSES_SECONDS = (0.1, 0.3)  # for each of three back ends: one that is back is found within two seconds
SEARCH_AGAIN_SECONDS = 0.2

FamilyAndAddress = tuple[int, Any]


class NoAnswer(Exception):
    """A back end does not answer; whether it carried out the request is unknown."""

    def __init__(self, letter: str) -> None:
        super().__init__(f"Server {letter} is not answering")


class BackEnds:
    """Where the back ends are, which of them are down, and which database each of them answers from.

    Args:
        addresses: the family and the address of each back end, by letter.
        key: the key for the tags.
    """

    def __init__(self, addresses: dict[str, FamilyAndAddress], key: bytes) -> None:
        self.addresses = addresses
        self.key = key
        self._changed = threading.Condition()  # guards the rest
        self._down: set[str] = set()
        self._databases: dict[str, bytes] = {}  # by letter: the first that answered
        self._refused: set[bytes] = set()  # other databases that were reported

    def start_search(self) -> None:
        """Start the thread that asks silent back ends for their rooms; at first it asks all of them."""
        threading.Thread(target=self._search_for_ever, name="search", daemon=True).start()

    def is_down(self, letter: str) -> bool:
        """Return whether a back end did not answer the last time."""
        return letter in self._down

    def mark_down(self, letter: str) -> None:
        """Remember that a back end is silent, and report it once."""
        with self._changed:
            if letter not in self._down:
                LOG.write(f"Server {letter} at {self._shown(letter)} is not answering")
                self._down.add(letter)
                self._changed.notify()

    def database(self, letter: str) -> bytes:
        """Return the id of a back end's database, or ANY_DATABASE before its first answer."""
        return self._databases.get(letter, ANY_DATABASE)

    def accepts(self, letter: str, database: bytes) -> bool:
        """Return whether an answer from this database counts: all must come from the one that answered first."""
        with self._changed:
            expected = self._databases.setdefault(letter, database)
            if database == expected:
                return True
            if database not in self._refused:
                self._refused.add(database)
                LOG.write(
                    f"Server {letter} at {self._shown(letter)} now has database {database.hex()} instead of"
                    f" {expected.hex()}: its answers are refused until the former one is back or serverM is restarted"
                )
            return False

    def _shown(self, letter: str) -> str:
        _, address = self.addresses[letter]
        return shown_address(*address[:2])

    def _search_for_ever(self) -> None:
        letters = list(KINDS)
        while True:
            for letter in letters:
                try:
                    self._search(letter)
                except Exception:
                    logging.exception("search")
            with self._changed:
                self._changed.wait_for(lambda: self._down)
                letters = sorted(self._down)
            time.sleep(SEARCH_AGAIN_SECONDS)

    def _search(self, letter: str) -> None:
        try:
            with closing(BackEndClient(self)) as client:
                rooms = client.ask_pages(letter, Action.LIST, letter, SEARCH_PAUSES_SECONDS)
        except NoAnswer:
            self.mark_down(letter)
            return
        with self._changed:
            self._down.discard(letter)
        LOG.write(f"Server {letter} has sent its room status: {shortened(rooms)}")


class BackEndClient:
    """The UDP sockets with which one thread asks the back ends: one for each, from the first request to it.

    A connected socket has the local address that leads to the back end, and receives from that back end alone.

    Args:
        back_ends: what all threads share.
        before_repeating: called before a request is sent again: the thread is going to wait.
    """

    def __init__(self, back_ends: BackEnds, before_repeating: Callable[[], None] = lambda: None) -> None:
        self._back_ends = back_ends
        self._before_repeating = before_repeating
        self._sockets: dict[str, socket.socket] = {}

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            sock.close()

    def ask(self, letter: str, action: Action, text: str) -> str:
        """Return a back end's answer, with all its pages.

        Raises:
            NoAnswer: the back end is down, or does not answer within the sum of PAUSES_SECONDS.
        """
        if self._back_ends.is_down(letter):
            raise NoAnswer(letter)
        try:
            return self.ask_pages(letter, action, text, PAUSES_SECONDS)
        except NoAnswer:
            self._back_ends.mark_down(letter)
            raise

    def ask_pages(self, letter: str, action: Action, text: str, pauses: Sequence[float]) -> str:
        """Return a back end's answer as ask() does, but ask it even if it is down.

        Raises:
            NoAnswer: a page did not come within the sum of the pauses.
        """
        texts = []
        page = 0
        while True:
            reply = self._ask_page(letter, new_request(action, text, self._back_ends.database(letter), page), pauses)
            texts.append(reply.text)
            page = reply.page
            if not page:
                return " ".join(filter(None, texts))

    def _ask_page(self, letter: str, request: Datagram, pauses: Sequence[float]) -> Datagram:
        """Send a request again and again until its reply comes; return the reply."""
        data = pack(self._back_ends.key, request)
        try:
            sock = self._socket(letter)
        except OSError:  # no network leads there at present
            raise NoAnswer(letter) from None
        for number, pause in enumerate(pauses):
            if number:
                self._before_repeating()
            with suppress(OSError):  # as if the request were lost: it is sent again
                sock.send(data)
            reply = self._wait_for_reply(sock, request, pause)
            if reply and self._back_ends.accepts(letter, reply.database):
                return reply
        raise NoAnswer(letter)

    def _wait_for_reply(self, sock: socket.socket, request: Datagram, seconds: float) -> Datagram | None:
        """Return the reply to a request, or None if it does not come in time; discard whatever else comes."""
        end = time.monotonic() + seconds
        while True:
            with suppress(OSError, BadDatagram):  # nothing came, nobody listens there at present, or it is forged
                reply = unpack(self._back_ends.key, sock.recv(MAX_DATAGRAM_BYTES + 1))
                if reply.action == Action.REPLY and reply.request_id == request.request_id:
                    return reply
            if time.monotonic() >= end:
                return None

    def _socket(self, letter: str) -> socket.socket:
        if letter not in self._sockets:
            family, address = self._back_ends.addresses[letter]
            sock = socket.socket(family, socket.SOCK_DGRAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TICK)
            try:
                sock.connect(address)
            except OSError:
                sock.close()
                raise
            self._sockets[letter] = sock
        return self._sockets[letter]
