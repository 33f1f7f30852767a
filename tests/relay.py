"""A relay that loses, duplicates and delays datagrams between the main server and one back end.

The main server sends to the relay's port as if the back end were there. For each socket of the main server, the relay
opens a socket that exchanges datagrams with the back end.
"""

import heapq
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

Address = tuple[str, int]

LOST, DUPLICATED, DELAYED = 0.20, 0.15, 0.15  # probabilities
LONGEST_DELAY_SECONDS = 0.4
TICK_SECONDS = 0.01


class Relay:
    """The sockets and the thread that forwards datagrams from the main server's port, which may be lossy."""

    def __init__(self, back_end_port: int) -> None:
        self.lossy = False
        self._back_end = ("127.0.0.1", back_end_port)
        self._random = random.Random(4)
        self._selector = selectors.DefaultSelector()
        self._front = self._open(None)
        self.port: int = self._front.getsockname()[1]
        self._by_client: dict[Address, socket.socket] = {}
        self._delayed: list[tuple[float, int, socket.socket, bytes, Address]] = []
        self._count = 0
        self._running = True
        self._thread = threading.Thread(target=self._forward_for_ever)
        self._thread.start()

    def close(self) -> None:
        """Stop, and close all sockets."""
        self._running = False
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _open(self, client: Address | None) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self._selector.register(sock, selectors.EVENT_READ, client)
        return sock

    def _forward_for_ever(self) -> None:
        while self._running:
            for key, _ in self._selector.select(TICK_SECONDS):
                with suppress(ConnectionError):  # the other side is not running at present
                    self._forward(key.fileobj, key.data)  # type: ignore[arg-type]
            while self._delayed and self._delayed[0][0] <= time.monotonic():
                _, _, sock, data, target = heapq.heappop(self._delayed)
                with suppress(ConnectionError):
                    sock.sendto(data, target)

    def _forward(self, sock: socket.socket, client: Address | None) -> None:
        data, source = sock.recvfrom(1 << 16)
        if client:
            self._send(data, self._front, client)
            return
        if source not in self._by_client:
            self._by_client[source] = self._open(source)
        self._send(data, self._by_client[source], self._back_end)

    def _send(self, data: bytes, sock: socket.socket, target: Address) -> None:
        for _ in range(1 + (self.lossy and self._random.random() < DUPLICATED)):
            if not self.lossy:
                sock.sendto(data, target)
            elif self._random.random() >= LOST:
                late = self._random.random() < DELAYED
                due = time.monotonic() + (self._random.uniform(0, LONGEST_DELAY_SECONDS) if late else 0)
                self._count += 1
                heapq.heappush(self._delayed, (due, self._count, sock, data, target))


@contextmanager
def relay_to(back_end_port: int) -> Iterator[Relay]:
    """Provide a relay to a back end, and close it."""
    relay = Relay(back_end_port)
    try:
        yield relay
    finally:
        relay.close()
