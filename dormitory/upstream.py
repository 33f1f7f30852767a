"""Ask the back ends over UDP: repeat each request under the same id until its reply comes, and skip what is down.

A back end that stays silent is marked as down: requests for it are refused at once, while a thread probes it.
"""

import errno
import logging
import socket
import struct
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from typing import Any

from dormitory.wire import MAX_DATAGRAM_BYTES, Action, BadDatagram, Datagram, new_request, pack, shortened, unpack
from net.addresses import FamilyAndAddress
from net.command_line import reason, shown_address
from net.log import LOG

PAUSES_SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # between repetitions; 3 seconds in all
SHORT_PAUSES_SECONDS = PAUSES_SECONDS[:5]  # for a client who has already waited for another back end in vain
PROBE_PAUSES_SECONDS = (0.1, 0.3)  # a back end that is up again is found within two seconds
PROBE_AGAIN_SECONDS = 0.2
# For SO_RCVTIMEO: recv() returns after 50 ms. With settimeout(), each recv() and send() would first call poll().
RECEIVE_TICK = struct.pack("ll", 0, 50_000)
OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)  # or of other resources


class NoAnswer(Exception):
    """A back end does not answer; it may or may not have carried out the request."""


class OutOfDescriptors(Exception):
    """This process cannot open a socket, so nothing is known about the back end; the text says why."""


class UdpClient:
    """One thread's UDP sockets: one for each back end, opened for the first request to it.

    Each socket is connected, so it receives datagrams from its back end alone, and only on the local address that leads
    to that back end. The thread calls `before_repeating` when a request or its reply may be lost: it may wait longer.
    """

    def __init__(self, key: bytes, before_repeating: Callable[[], None] = lambda: None) -> None:
        self._key = key
        self._before_repeating = before_repeating
        self._sockets: dict[FamilyAndAddress, socket.socket] = {}

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            sock.close()

    def ask(self, address: FamilyAndAddress, request: Datagram, pauses: Sequence[float]) -> Datagram:
        """Send a request before each pause, in seconds, until the reply comes; raise NoAnswer or OutOfDescriptors."""
        data = pack(self._key, request)
        sock = self._socket(address)
        for pause in pauses:
            try:
                sock.send(data)
            except OSError:  # the request counts as lost, and is sent again
                self._before_repeating()
            if reply := self._wait_for_reply(sock, request, pause):
                return reply
            self._before_repeating()
        raise NoAnswer

    def _wait_for_reply(self, sock: socket.socket, request: Datagram, seconds: float) -> Datagram | None:
        """Return the reply to a request, or None if it does not come in time; discard all other datagrams."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            try:
                reply = unpack(self._key, sock.recv(MAX_DATAGRAM_BYTES))
            except (OSError, BadDatagram):  # nothing came, the back end is not running, or it is forged
                continue
            if reply.action == Action.REPLY and reply.request_id == request.request_id:
                return reply
        return None

    def _socket(self, address: FamilyAndAddress) -> socket.socket:
        if address not in self._sockets:
            try:
                self._sockets[address] = _connect(*address)
            except OSError as error:
                if error.errno in OUT_OF_DESCRIPTORS:
                    raise OutOfDescriptors(reason(error)) from error
                raise NoAnswer from error
        return self._sockets[address]


def _connect(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TICK)
        sock.connect(address)
    except OSError:
        sock.close()
        raise
    return sock


class Upstream:
    """One back end. Its host may have several addresses, as localhost has ::1 and 127.0.0.1; one of them is in use."""

    def __init__(self, letter: str, addresses: Sequence[FamilyAndAddress], key: bytes) -> None:
        self._letter = letter
        self._addresses = addresses
        self._key = key
        self._lock = threading.Lock()  # guards changes to the rest
        self._address = addresses[0]  # then the one that answered last
        self._is_down = threading.Event()
        self._database: bytes | None = None  # then the id of the one that answered first
        self._refused: set[bytes] = set()  # other databases, which were reported

    def __str__(self) -> str:
        addresses = " or ".join(shown_address(*address[:2]) for _, address in self._addresses)
        return f"Server {self._letter} at {addresses}"

    def ask(self, client: UdpClient, action: Action, text: str, pauses: Sequence[float]) -> str:
        """Return the texts of all pages of the answer; raise NoAnswer if the back end is down or silent."""
        if not self._is_down.is_set():
            try:
                return self._ask_at(self._address, client, action, text, pauses)
            except NoAnswer:
                self._mark_down()
        raise NoAnswer(f"Server {self._letter} is not answering")

    def _ask_at(
        self, address: FamilyAndAddress, client: UdpClient, action: Action, text: str, pauses: Sequence[float]
    ) -> str:
        texts: list[str] = []
        page = 0
        while page or not texts:
            reply = client.ask(address, new_request(action, text, self._database, page), pauses)
            if reply.database != self._database:
                self._check_database(reply.database)
            texts.append(reply.text)
            page = reply.page
        return " ".join(filter(None, texts))

    def _check_database(self, database: bytes) -> None:
        """Raise NoAnswer unless this is the database that answered first; report each other one once."""
        with self._lock:
            self._database = self._database or database
            if database == self._database:
                return
            if database not in self._refused:
                self._refused.add(database)
                until = "its answers are refused until the former one is back or serverM is restarted"
                LOG.write(f"{self} now has database {database.hex()} instead of {self._database.hex()}: {until}")
        raise NoAnswer

    def _mark_down(self) -> None:
        with self._lock:
            if not self._is_down.is_set():
                LOG.write(f"{self} is not answering")
                self._is_down.set()

    def start_probe(self) -> None:
        """Start the thread that asks the back end for its rooms until it answers, and again whenever it was silent."""
        threading.Thread(target=self._probe_for_ever, name=f"probe {self._letter}", daemon=True).start()

    def _probe_for_ever(self) -> None:
        while True:
            try:
                self._probe()
                self._is_down.wait()
            except OutOfDescriptors:
                pass  # nothing is known about the back end
            except Exception:
                logging.exception("probe %s", self._letter)
            time.sleep(PROBE_AGAIN_SECONDS)

    def _probe(self) -> None:
        for address in self._addresses:
            with closing(UdpClient(self._key)) as client, suppress(NoAnswer):
                rooms = self._ask_at(address, client, Action.LIST, self._letter, PROBE_PAUSES_SECONDS)
                with self._lock:
                    self._address = address
                    self._is_down.clear()
                LOG.write(f"Server {self._letter} has sent its room status: {shortened(rooms)}")
                return
        self._mark_down()
