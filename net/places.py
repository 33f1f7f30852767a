"""Admission control: how many clients may be connected at once, in total and from each address."""

import threading
from collections import Counter

from net.addresses import network_of


class NoPlace(Exception):
    """A client finds no free place; the text says why."""


class Places:
    """The places for connections, which several servers may share; all IPv6 addresses of a /64 count as one address."""

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._lock = threading.Lock()  # guards _taken
        self._taken: Counter[str] = Counter()  # by network

    def take(self, address: str, is_proxy: bool = False) -> None:
        """Take a place, or raise NoPlace; only the total limits a proxy."""
        with self._lock:
            if self._taken.total() >= self._total:
                raise NoPlace("Too many connections")
            self._take(network_of(address), is_proxy)

    def move(self, old: str, new: str) -> None:
        """Move a place to another address, which a proxy has named, or raise NoPlace."""
        with self._lock:
            self._take(network_of(new))
            self._taken[network_of(old)] -= 1

    def release(self, address: str) -> None:
        """Release a place that was taken for an address."""
        network = network_of(address)
        with self._lock:
            self._taken[network] -= 1
            if not self._taken[network]:
                del self._taken[network]

    def _take(self, network: str, is_proxy: bool = False) -> None:
        if self._taken[network] >= self._per_address and not is_proxy:
            raise NoPlace("Too many connections from your address")
        self._taken[network] += 1
