"""Ask the back ends over UDP, and remember which of them do not answer.

Each client's thread has UDP sockets of its own. It repeats a request under the same id, with growing pauses, until the
reply comes; the back end carries the request out once. The main server marks a back end that stays silent as down: it
refuses requests for it at once, while one thread keeps asking that back end for its rooms.
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
SHORT_PAUSES_SECONDS = PAUSES_SECONDS[:5]  # for a client who has already waited for another back end in vain
SEARCH_PAUSES_SECONDS = (0.1, 0.3)  # short enough for three back ends: one that is up again is found within two seconds
SEARCH_AGAIN_SECONDS = 0.2

FamilyAndAddress = tuple[int, Any]


class NoAnswer(Exception):
    """A back end does not answer; it may or may not have carried out the request."""

    def __init__(self, letter: str) -> None:
        super().__init__(f"Server {letter} is not answering")


class BackEnds:
    """The addresses of the back ends, which of them are down, and which database each of them has.

    Args:
        addresses: the family and the address of each back end, by letter.
        key: the key for the tags.
    """

    def __init__(self, addresses: dict[str, FamilyAndAddress], key: bytes) -> None:
        self.addresses = addresses
        self.key = key
        self._lock = threading.Lock()  # guards changes to the rest; reading one item needs no lock
        self._found_down = threading.Condition(self._lock)
        self._down: set[str] = set()
        self._databases: dict[str, bytes] = {}  # by letter: the first that answered
        self._refused: set[bytes] = set()  # other databases, which were reported

    def start_search(self) -> None:
        """Start the thread that asks back ends that are down for their rooms; at first it asks all of them."""
        threading.Thread(target=self._search_for_ever, name="search", daemon=True).start()

    def is_down(self, letter: str) -> bool:
        """Return whether a back end did not answer the last request."""
        return letter in self._down

    def mark_down(self, letter: str) -> None:
        """Remember that a back end does not answer, and report it once."""
        with self._lock:
            if letter not in self._down:
                LOG.write(f"Server {letter} at {self._shown(letter)} is not answering")
                self._down.add(letter)
                self._found_down.notify()

    def database(self, letter: str) -> bytes:
        """Return the id of a back end's database, or ANY_DATABASE before its first reply."""
        return self._databases.get(letter, ANY_DATABASE)

    def accepts(self, letter: str, database: bytes) -> bool:
        """Return whether a back end's first reply came from this database; if not, report the database once."""
        with self._lock:
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
            with self._lock:
                self._found_down.wait_for(lambda: self._down)
                letters = sorted(self._down)
            time.sleep(SEARCH_AGAIN_SECONDS)

    def _search(self, letter: str) -> None:
        try:
            with closing(BackEndClient(self)) as client:
                rooms = client.ask_pages(letter, Action.LIST, letter, SEARCH_PAUSES_SECONDS)
        except NoAnswer:
            self.mark_down(letter)
            return
        with self._lock:
            self._down.discard(letter)
        LOG.write(f"Server {letter} has sent its room status: {shortened(rooms)}")


class BackEndClient:
    """One thread's UDP sockets: one for each back end, opened for the first request to it.

    Each socket is connected, so it receives datagrams from its back end alone, and only on the local address that leads
    to that back end.

    Args:
        back_ends: what all threads share.
        before_repeating: called before a request is sent again, because the wait for its reply may still take seconds.
    """

    def __init__(self, back_ends: BackEnds, before_repeating: Callable[[], None] = lambda: None) -> None:
        self._back_ends = back_ends
        self._before_repeating = before_repeating
        self._sockets: dict[str, socket.socket] = {}

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            sock.close()

    def ask(self, letter: str, action: Action, text: str, pauses: Sequence[float] = PAUSES_SECONDS) -> str:
        """Return a back end's answer: the texts of all its pages.

        Raises:
            NoAnswer: the back end is down, or does not answer within the sum of the pauses.
        """
        if self._back_ends.is_down(letter):
            raise NoAnswer(letter)
        try:
            return self.ask_pages(letter, action, text, pauses)
        except NoAnswer:
            self._back_ends.mark_down(letter)
            raise

    def ask_pages(self, letter: str, action: Action, text: str, pauses: Sequence[float]) -> str:
        """Return a back end's answer as ask() does, but ask even if the back end is down.

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
        """Send a request, once before each pause, until its reply comes; return the reply."""
        data = pack(self._back_ends.key, request)
        try:
            sock = self._socket(letter)
        except OSError:  # there is no route to the back end at present
            raise NoAnswer(letter) from None
        for number, pause in enumerate(pauses):
            if number:
                self._before_repeating()
            with suppress(OSError):  # such a request counts as lost, and is sent again
                sock.send(data)
            reply = self._wait_for_reply(sock, request, pause)
            if reply and self._back_ends.accepts(letter, reply.database):
                return reply
        raise NoAnswer(letter)

    def _wait_for_reply(self, sock: socket.socket, request: Datagram, seconds: float) -> Datagram | None:
        """Return the reply to a request, or None if it does not come in time; discard all other datagrams."""
        end = time.monotonic() + seconds
        while True:
            try:
                reply = unpack(self._back_ends.key, sock.recv(MAX_DATAGRAM_BYTES + 1))
            except (OSError, BadDatagram):  # nothing came, the back end is not running, or the datagram is forged
                reply = None
            if reply and reply.action == Action.REPLY and reply.request_id == request.request_id:
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
