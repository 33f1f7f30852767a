"""A network that loses, doubles and delays: what goes between the main server and back ends, datagram by datagram.

Back ends are told that the main server is at the relay's port. To each side the relay looks like the other one: every
address on one side has a socket of its own on the other.
"""

import heapq
import math
import random
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

Address = tuple[str, int]

LOST, DOUBLED, DELAYED = 0.20, 0.15, 0.15
LONGEST_DELAY_SECONDS = 0.4
TICK_SECONDS = 0.01


class Relay:
    """The sockets and the thread that forwards.

    Attributes:
        port: where back ends find what looks like the main server.
        lossy: whether datagrams are lost, doubled and delayed.
        lets_through: how many go on before all the others are lost.
        to_main: every datagram that came from a back end.
        to_back_end: every datagram that came from the main server.
    """

    def __init__(self, main_port: int, seed: int = 4) -> None:
        self.lossy = False
        self.lets_through = math.inf
        self.to_main: list[bytes] = []
        self.to_back_end: list[bytes] = []
        self._main = ("127.0.0.1", main_port)
        self._random = random.Random(seed)
        self._selector = selectors.DefaultSelector()
        self._entrance = self._open(None)
        self.port: int = self._entrance.getsockname()[1]
        self._twins: dict[tuple[Address, Address | None], socket.socket] = {}
        self._delayed: list[tuple[float, int, socket.socket, bytes, Address]] = []
        self._requests: list[tuple[bytes, socket.socket, Address]] = []
        self._count = 0
        self._running = True
        self._thread = threading.Thread(target=self._forward_for_ever)
        self._thread.start()

    def repeat(self, action: int) -> None:
        """Send what the main server sent with an action once more, each from where it had come."""
        for data, sock, target in list(self._requests):
            if data[16] == action:
                sock.sendto(data, target)

    def close(self) -> None:
        """Stop, and close all sockets."""
        self._running = False
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()  # type: ignore[union-attr]
        self._selector.close()

    def _open(self, way: tuple[Address, Address] | Address | None) -> socket.socket:
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind(("127.0.0.1", 0))
        self._selector.register(sock, selectors.EVENT_READ, way)
        return sock

    def _forward_for_ever(self) -> None:
        while self._running:
            for key, _ in self._selector.select(TICK_SECONDS):
                sock: socket.socket = key.fileobj  # type: ignore[assignment]
                data, source = sock.recvfrom(1 << 16)
                self._send(data, *self._way_on(data, source, key.data))
            while self._delayed and self._delayed[0][0] <= time.monotonic():
                _, _, sock, data, target = heapq.heappop(self._delayed)
                sock.sendto(data, target)

    def _way_on(
        self, data: bytes, source: Address, way: tuple[Address, Address] | Address | None
    ) -> tuple[socket.socket, Address]:
        """Return the socket and the address with which a datagram goes on."""
        if way is None:  # a back end announces itself
            self.to_main.append(data)
            return self._twin(source, None, source), self._main
        if isinstance(way[1], int):  # the main server, or a client's socket of its, speaks to a back end
            sock = self._twin(source, way, (way, source))
            self.to_back_end.append(data)
            self._requests.append((data, sock, way))
            return sock, way
        self.to_main.append(data)
        back_end, asker = way
        return self._twin(back_end, None, back_end), asker

    def _twin(self, source: Address, beside: Address | None, way: tuple[Address, Address] | Address) -> socket.socket:
        """Return the socket that stands for an address on the other side."""
        if (source, beside) not in self._twins:
            self._twins[source, beside] = self._open(way)
        return self._twins[source, beside]

    def _send(self, data: bytes, sock: socket.socket, target: Address) -> None:
        if not self.lets_through:
            return
        self.lets_through -= 1
        for _ in range(1 + (self.lossy and self._random.random() < DOUBLED)):
            if not self.lossy:
                sock.sendto(data, target)
            elif self._random.random() >= LOST:
                late = self._random.random() < DELAYED
                due = time.monotonic() + (self._random.uniform(0, LONGEST_DELAY_SECONDS) if late else 0)
                self._count += 1
                heapq.heappush(self._delayed, (due, self._count, sock, data, target))


@contextmanager
def relay_to(main_port: int) -> Iterator[Relay]:
    """Give a relay to a main server, and close it."""
    relay = Relay(main_port)
    try:
        yield relay
    finally:
        relay.close()
