"""A network of hosts inside this machine: network namespaces, and a switch that may lose frames.

Closing the Network removes all of it. If this process is killed, the names of the namespaces remain (`ip netns`).
"""

import fcntl
import itertools
import os
import random
import select
import struct
import subprocess
import threading
from collections import Counter

TUN_DEVICE = "/dev/net/tun"
TUNSETIFF = 0x400454CA  # linux/if_tun.h
IFF_TAP, IFF_NO_PI = 0x0002, 0x1000
FRAME_BYTES = 1 << 16
IPV4 = b"\x08\x00"  # the EtherType of a frame that holds an IPv4 packet
TICK_SECONDS = 0.1
NUMBERS = itertools.count()  # for the hosts of all networks


def ip(*arguments: str) -> None:
    """Run the `ip` command; OSError says why it failed."""
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """Hosts, and the switch between them, which may lose IPv4 frames.

    It never loses three in a row between the same two hosts: TCP's exponential backoff would then take minutes.
    """

    def __init__(self) -> None:
        self.loss = 0.0  # the probability that the switch loses a frame
        self.lost = 0  # frames so far
        self._hosts: list[str] = []  # names of namespaces
        self._in_a_row: Counter[tuple[int, int]] = Counter()
        self._random = random.Random(7)
        self._cards: list[int] = []
        self._closing = threading.Event()
        self._switch = threading.Thread(target=self._forward_for_ever)

    def add_host(self, address: str = "") -> tuple[str, ...]:
        """Create a host; return the prefix that makes a command run there; OSError: this user may not create hosts.

        A host without an address has a loopback interface only.
        """
        name = f"dorm{os.getpid()}-{next(NUMBERS)}"
        ip("netns", "add", name)
        self._hosts.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        if address:
            self._connect(name, address)
        return "ip", "netns", "exec", name

    def _connect(self, name: str, address: str) -> None:
        """Give a host a network card (a TAP device), whose frames the switch reads and writes."""
        card = os.open(TUN_DEVICE, os.O_RDWR | os.O_NONBLOCK)
        try:
            fcntl.ioctl(card, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TAP | IFF_NO_PI))
        except OSError:
            os.close(card)
            raise
        self._cards.append(card)
        ip("link", "set", name, "netns", name)
        ip("-n", name, "address", "add", f"{address}/24", "dev", name)
        ip("-n", name, "link", "set", name, "up")

    def start(self) -> None:
        """Start the switch."""
        self._switch.start()

    def close(self) -> None:
        """Stop the switch; remove all hosts."""
        self._closing.set()
        if self._switch.is_alive():
            self._switch.join()
        for card in self._cards:
            os.close(card)
        for name in self._hosts:
            ip("netns", "delete", name)

    def _forward_for_ever(self) -> None:
        while not self._closing.is_set():
            readable, _, _ = select.select(self._cards, [], [], TICK_SECONDS)
            for card in readable:
                frame = os.read(card, FRAME_BYTES)
                for other in self._cards:
                    if other != card and not self._loses(frame, (card, other)):
                        os.write(other, frame)  # each host ignores frames for others

    def _loses(self, frame: bytes, way: tuple[int, int]) -> bool:
        loses = frame[12:14] == IPV4 and self._in_a_row[way] < 2 and self._random.random() < self.loss
        self._in_a_row[way] = self._in_a_row[way] + 1 if loses else 0
        self.lost += loses
        return loses
