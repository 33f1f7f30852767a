"""Hosts of a network that is nowhere but in this machine: network namespaces, and a switch that may lose frames.

What is made here is gone when the Network is closed, or, but for the namespaces' names, when this process ends.
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
IPV4 = b"\x08\x00"  # where a frame says what it holds
TICK_SECONDS = 0.1
NUMBERS = itertools.count()  # for the hosts of all networks


def ip(*arguments: str) -> None:
    """Run the `ip` command.

    Raises:
        OSError: it is not there, or this may not be done here; the text says why.
    """
    done = subprocess.run(["ip", *arguments], capture_output=True, text=True)
    if done.returncode:
        raise OSError(f"ip {' '.join(arguments)}: {done.stderr.strip()}")


class Network:
    """Hosts, and the switch between them.

    Attributes:
        loss: which part of the frames the switch loses, but never three in a row on the same way: TCP, which waits
            longer each time, would take minutes. Those that ask for hardware addresses (ARP) always arrive.
        lost: how many it has lost.
    """

    def __init__(self) -> None:
        self.loss = 0.0
        self.lost = 0
        self._hosts: list[str] = []  # names of namespaces
        self._in_a_row: Counter[tuple[int, int]] = Counter()
        self._random = random.Random(7)
        self._cards: list[int] = []
        self._closing = threading.Event()
        self._switch = threading.Thread(target=self._forward_for_ever)

    def add_host(self, address: str = "") -> tuple[str, ...]:
        """Make a host; return what to put before a command to run it there.

        Without an address it is connected to nothing but itself.

        Raises:
            OSError: this may not be done here.
        """
        name = f"dorm{os.getpid()}-{next(NUMBERS)}"
        ip("netns", "add", name)
        self._hosts.append(name)
        ip("-n", name, "link", "set", "lo", "up")
        if address:
            self._connect(name, address)
        return "ip", "netns", "exec", name

    def _connect(self, name: str, address: str) -> None:
        """Give a host a network card, whose cable ends here: what is read and written are its frames."""
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
        """Switch on."""
        self._switch.start()

    def close(self) -> None:
        """Take all away."""
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
                        os.write(other, frame)  # a host passes over what is for another one

    def _loses(self, frame: bytes, way: tuple[int, int]) -> bool:
        loses = frame[12:14] == IPV4 and self._in_a_row[way] < 2 and self._random.random() < self.loss
        self._in_a_row[way] = self._in_a_row[way] + 1 if loses else 0
        self.lost += loses
        return loses
