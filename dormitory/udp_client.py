"""Exchange datagrams with the back ends: send a request, and repeat it under the same id until its reply comes."""

import errno
import socket
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from dormitory.wire import MAX_DATAGRAM_BYTES, RECEIVE_TICK, Action, BadDatagram, Datagram, pack, unpack
from net.addresses import FamilyAndAddress
from net.command_line import reason

OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EAGAIN)  # or of other resources


class NoAnswer(Exception):
    """A back end does not answer; it may or may not have carried out the request."""


class OutOfDescriptors(Exception):
    """This process cannot open a socket, so nothing is known about the back end; the text says why."""


class UdpClient:
    """One thread's UDP sockets: one for each back end, opened for the first request to it.

    Each socket is connected, so it receives datagrams from its back end alone, and only on the local address that leads
    to that back end. The thread calls `before_repeating` before it sends a request again, because the wait for the
    reply may still take seconds.
    """

    def __init__(self, key: bytes, before_repeating: Callable[[], None] = lambda: None) -> None:
        self._key = key
        self._before_repeating = before_repeating
        self._sockets: dict[FamilyAndAddress, socket.socket] = {}

    def close(self) -> None:
        """Close the sockets."""
        for sock in self._sockets.values():
            sock.close()

    def ask(
        self, address: FamilyAndAddress, request: Datagram, pauses: Sequence[float], accepts: Callable[[Datagram], bool]
    ) -> Datagram:
        """Send a request, once before each pause in seconds, until an acceptable reply comes; return the reply.

        Raises:
            NoAnswer: no such reply came within the sum of the pauses, or no route leads to the address.
            OutOfDescriptors: the request was not sent.
        """
        data = pack(self._key, request)
        sock = self._socket(address)
        for number, pause in enumerate(pauses):
            if number:
                self._before_repeating()
            with suppress(OSError):  # such a request counts as lost, and is sent again
                sock.send(data)
            reply = self._wait_for_reply(sock, request, pause)
            if reply and accepts(reply):
                return reply
        raise NoAnswer

    def _wait_for_reply(self, sock: socket.socket, request: Datagram, seconds: float) -> Datagram | None:
        """Return the reply to a request, or None if it does not come in time; discard all other datagrams."""
        end = time.monotonic() + seconds
        while True:
            try:
                reply = unpack(self._key, sock.recv(MAX_DATAGRAM_BYTES + 1))
            except (OSError, BadDatagram):  # nothing came, the back end is not running, or the datagram is forged
                reply = None
            if reply and reply.action == Action.REPLY and reply.request_id == request.request_id:
                return reply
            if time.monotonic() >= end:
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
