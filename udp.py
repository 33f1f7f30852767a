"""Tagged datagrams over a UDP socket: what has no right tag, or is otherwise not taken, is counted and dropped."""

import select
import socket
import threading
import time
from collections import Counter

import tcp
from datagram import MAX_DATAGRAM_BYTES, Action, BadDatagram, Datagram, pack, unpack
from status import LOG

MAX_BATCH = 256
RECEIVE_BUFFER_BYTES = 1 << 20
REPORT_SECONDS = 2.0

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
    """A UDP socket that tags what it sends, and gives only what came with a right tag."""

    def __init__(self, sock: socket.socket, key: bytes, dropped: Dropped) -> None:
        self.port: int = sock.getsockname()[1]
        self._sock = sock
        self._key = key
        self._dropped = dropped
        self._readable = select.poll()
        self._readable.register(sock, select.POLLIN)

    def send(self, address: Address, action: Action, sender: bytes, number: int, fields: bytes) -> None:
        """Send a datagram.

        Raises:
            OSError: it cannot be sent there; for who repeats what is not answered, this is as good as lost.
        """
        self._sock.sendto(pack(self._key, action, sender, number, fields), address)

    def receive(self, seconds: float, most: int = MAX_BATCH) -> list[tuple[Datagram, Address]]:
        """Wait, at most so many seconds, for datagrams; return those that are there and from where they came."""
        received: list[tuple[Datagram, Address]] = []
        if not self._readable.poll(max(0.0, seconds) * 1000):
            return received
        for _ in range(most):
            try:
                data, address = self._sock.recvfrom(MAX_DATAGRAM_BYTES + 1, socket.MSG_DONTWAIT)
            except OSError:  # there are no more, or the kernel tells of one that did not arrive
                break
            try:
                received.append((unpack(self._key, data), address))
            except BadDatagram as bad:
                self._dropped.count(str(bad), address)
        return received

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
