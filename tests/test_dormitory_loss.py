"""Reservations over a network that loses, duplicates and delays datagrams, while servers are killed."""

import random
import socket
import threading
import time
from collections import Counter
from typing import TextIO

from conftest import WAIT_SECONDS, wait_until
from dorm import PASSWORDS, Dormitory, ask
from relay import relay_to

CLIENTS = 8
KILLS = "SMSM"
CONFIRMED_PER_KILL = 3  # reservations of each client before the next kill, on average
TRY_LATER_SECONDS = 0.1


class Booker(threading.Thread):
    """A client that reserves until it is stopped; when the main server is killed, it logs in again."""

    def __init__(self, port: int, room: str) -> None:
        super().__init__()
        self.confirmed: Counter[str] = Counter()  # by the reservation's id
        self.unknown = 0  # requests that were not answered, or only with TRY_LATER
        self.others: list[str] = []  # the words of other replies
        self.stopping = False
        self._port = port
        self._room = room

    def run(self) -> None:
        """Reserve; connect again whenever the main server was killed."""
        address = ("127.0.0.1", self._port)
        while not self.stopping:
            try:
                with socket.create_connection(address, WAIT_SECONDS) as sock, sock.makefile("rw") as stream:
                    self._reserve(stream)
            except OSError:
                time.sleep(0.02)

    def _reserve(self, stream: TextIO) -> None:
        exchange(stream, f"LOGIN alice {PASSWORDS['alice']}")
        while not self.stopping:
            self.unknown += 1  # until it is answered
            word, *rest = exchange(stream, f"RESERVE {self._room}").split()
            if word == "TRY_LATER":
                time.sleep(TRY_LATER_SECONDS)
                continue
            self.unknown -= 1
            if word == "RESERVED":
                self.confirmed[rest[0]] += 1
            else:
                self.others.append(word)


def exchange(stream: TextIO, request: str) -> str:
    """Send a request and return the reply; raise OSError if the connection is lost."""
    stream.write(f"{request}\n")
    stream.flush()
    if not (reply := stream.readline()):
        raise ConnectionResetError
    return reply


def test_each_confirmed_reservation_is_on_disk_once_after_loss_and_kills(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "".join(f"S{number}, 9999\n" for number in range(1, CLIENTS + 1)))
    with relay_to(dormitory.port("S")) as relay:
        dormitory.ports["S"] = relay.port
        dormitory.start("S")
        bookers = [Booker(dormitory.main.port, f"S{number}") for number in range(1, CLIENTS + 1)]
        relay.lossy = True
        for booker in bookers:
            booker.start()
        try:
            for letter in KILLS:
                wait_for_reservations(bookers)
                kill_and_restart(dormitory, letter)
            wait_for_reservations(bookers)
        finally:
            for booker in bookers:
                booker.stopping = True
        for booker in bookers:
            booker.join(WAIT_SECONDS)
            assert not booker.is_alive(), "a client has no answer"
        relay.lossy = False
        dormitory.settle_main()
        check(dormitory, bookers)


def kill_and_restart(dormitory: Dormitory, letter: str) -> None:
    """Kill a server with SIGKILL and start it again."""
    if letter == "M":
        dormitory.main.kill()
        dormitory.launch_main()
    else:
        dormitory.back_ends[letter].kill()
        dormitory.start_back_end(letter)


def wait_for_reservations(bookers: list[Booker]) -> None:
    """Wait for CONFIRMED_PER_KILL more reservations of each client, on average; then for a random moment."""

    def confirmed() -> int:
        return sum(len(booker.confirmed) for booker in bookers)

    goal = confirmed() + CONFIRMED_PER_KILL * len(bookers)
    wait_until(lambda: confirmed() >= goal, "reservations in spite of lost datagrams", 20)
    time.sleep(random.uniform(0, 0.1))


def check(dormitory: Dormitory, bookers: list[Booker]) -> None:
    """Compare what was confirmed with what is on disk."""
    rows = dormitory.rows("S")
    dormitory.wait_until_found("S")
    guest = dormitory.log_in("eve")
    for number, booker in enumerate(bookers, 1):
        booked = {reservation for reservation, room, _ in rows if room == f"S{number}"}
        assert booker.others == []
        assert set(booker.confirmed.values()) == {1}
        assert booker.confirmed.keys() <= booked
        assert len(booked) - len(booker.confirmed) <= booker.unknown
        assert ask(guest, f"AVAILABILITY S{number}") == f"AVAILABLE {9999 - len(booked)}"
