"""Tagged datagrams over a UDP socket: what has no right tag, or is otherwise not taken, is counted and dropped."""

import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Iterator

from dormitory.wire import MAX_DATAGRAM_BYTES, BadDatagram, Datagram, pack, unpack
from net import server as tcp
from net.log import LOG

MAX_BATCH = 256
RECEIVE_BUFFER_BYTES = 1 << 20
REPORT_SECONDS = 1.0

Address = tuple[str, int]  # IPv6 has two numbers more; nobody looks at them


class Dropped:
    """How many datagrams were dropped and why; told in one status line every REPORT_SECONDS, not one a datagram."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._reasons: Counter[str] = Counter()
        self._latest: Address = ("", 0)
        self._due = 0.0

    def count(self, reason: str, address: Address) -> None:
        """Count a datagram from an address."""
        with self._lock:
            if not self._reasons:
                self._due = time.monotonic() + REPORT_SECONDS
            self._reasons[reason] += 1
            self._latest = address

    def report(self) -> None:
        """Write the status line, if there is something to tell and it is time."""
        with self._lock:
            if not self._reasons or time.monotonic() < self._due:
                return
            told = ", ".join(f"{number} {reason}" for reason, number in self._reasons.items())
            host, port = self._latest[:2]
            self._reasons.clear()
        LOG.write(f"Dropped datagrams: {told}; the latest from {host}:{port}")


class TaggedSocket:
    """A UDP socket that tags what it sends, and gives only what came with a right tag.

    Args:
        sock: the socket, which it takes over.
        key: for the tags.
        dropped: counts what comes without a right tag.
        tick_seconds: how long a wait for a datagram lasts at most.
        look_seconds: how long after sending it looks again and again for a datagram, before it sleeps.
    """

    def __init__(
        self, sock: socket.socket, key: bytes, dropped: Dropped, tick_seconds: float, look_seconds: float = 0.0
    ) -> None:
        self._sock = sock
        self._key = key
        self._dropped = dropped
        self._look_seconds = look_seconds
        self._look_until = 0.0
        timeval = struct.pack("ll", int(tick_seconds), int(tick_seconds % 1 * 1e6))
        sock.setsockopt(
            socket.SOL_SOCKET, socket.SO_RCVTIMEO, timeval
        )  # settimeout() would cost a system call each time

    @property
    def port(self) -> int:
        """The port that it has; 0 until something was sent, if it was not bound."""
        port: int = self._sock.getsockname()[1]
        return port

    def send(self, address: Address, action: int, sender: bytes, number: int, fields: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: it cannot be sent there; for who repeats what is not answered, this is as good as lost.
        """
        self._sock.sendto(pack(self._key, action, sender, number, fields), address)
        self._look_until = time.monotonic() + self._look_seconds

    def receive(self) -> tuple[Datagram, Address] | None:
        """Wait a tick for a datagram; return it and where it came from."""
        while time.monotonic() < self._look_until:
            if received := self._receive(socket.MSG_DONTWAIT):
                return received
        return self._receive()

    def receive_waiting(self) -> Iterator[tuple[Datagram, Address]]:
        """Give the datagrams that are there, up to a bound, without waiting."""
        for _ in range(MAX_BATCH):
            received = self._receive(socket.MSG_DONTWAIT)
            if received is None:
                return
            yield received

    def _receive(self, flags: int = 0) -> tuple[Datagram, Address] | None:
        try:
            data, address = self._sock.recvfrom(MAX_DATAGRAM_BYTES + 1, flags)
        except OSError:  # there is none, or the kernel tells of one that was sent and did not arrive
            return None
        try:
            return unpack(self._key, data), address
        except BadDatagram as bad:
            self._dropped.count(str(bad), address)
            return None

    def close(self) -> None:
        """Close the socket."""
        self._sock.close()


def bind(host: str, port: int) -> socket.socket:
    """Return a UDP socket on an address.

    Raises:
        OSError: it cannot be had.
    """
    family, address = tcp.resolve(host, port, socket.SOCK_DGRAM)
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
