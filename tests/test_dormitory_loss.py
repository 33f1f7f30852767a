"""A network that loses, doubles and delays, and a back end that is killed again and again."""

import random
import threading
import time
from collections import Counter

from conftest import WAIT_SECONDS, Peer
from dorm import Dormitory, make_dormitory  # noqa: F401
from relay import relay_to

CLIENTS = 8
KILLS = 3
ROUNDS_PER_KILL = 4


class Booker(threading.Thread):
    """A client that reserves until it is stopped.

    Attributes:
        confirmed: how often each reservation's id was confirmed.
        unknown: how often it was told to try later.
    """

    def __init__(self, peer: Peer, room: str) -> None:
        super().__init__()
        self.confirmed: Counter[str] = Counter()
        self.unknown = 0
        self.others: list[str] = []
        self.stopping = False
        self._peer = peer
        self._room = room

    def run(self) -> None:
        """Reserve."""
        while not self.stopping:
            self._peer.send(f"RESERVE {self._room}")
            word, *rest = self._peer.read_line().split()
            if word == "RESERVED":
                self.confirmed[rest[0]] += 1
            elif word == "TRY_LATER":
                self.unknown += 1
            else:
                self.others.append(word)

    @property
    def answers(self) -> int:
        """How many requests were answered."""
        return sum(self.confirmed.values()) + self.unknown


def test_confirmed_is_booked_once_whatever_is_lost_doubled_late_or_killed(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "".join(f"S{number}, 9999\n" for number in range(1, CLIENTS + 1)))
    dormitory.start_main()
    with relay_to(dormitory.udp_port) as relay:
        dormitory.start_back_end("S", main_port=relay.port)
        dormitory.wait_until_found("S")
        bookers = [Booker(dormitory.log_in("alice"), f"S{number}") for number in range(1, CLIENTS + 1)]
        relay.lossy = True
        for booker in bookers:
            booker.start()
        for _ in range(KILLS):
            wait_for_answers(bookers, ROUNDS_PER_KILL)
            dormitory.back_ends["S"].kill()
            dormitory.start_back_end("S", main_port=relay.port)
        wait_for_answers(bookers, ROUNDS_PER_KILL)
        for booker in bookers:
            booker.stopping = True
        for booker in bookers:
            booker.join(WAIT_SECONDS)
            assert not booker.is_alive(), "a client has no answer"
        relay.lossy = False
        check(dormitory, bookers)
        confirmed = sum(len(booker.confirmed) for booker in bookers)
        assert sum(booker.unknown for booker in bookers) < confirmed / 4  # repetitions reach their goal


def wait_for_answers(bookers: list[Booker], number: int) -> None:
    """Wait until that many more requests were answered on average; then a moment at random."""
    goal = sum(booker.answers for booker in bookers) + number * len(bookers)
    end = time.monotonic() + 20
    while sum(booker.answers for booker in bookers) < goal:
        assert time.monotonic() < end
        time.sleep(0.01)
    time.sleep(random.uniform(0, 0.1))


def check(dormitory: Dormitory, bookers: list[Booker]) -> None:
    """Compare what was confirmed with what is on disk."""
    rows = dormitory.rows("S")
    guest = dormitory.log_in("eve")
    for number, booker in enumerate(bookers, 1):
        booked = {reservation for reservation, room, _ in rows if room == f"S{number}"}
        assert booker.others == []
        assert set(booker.confirmed.values()) == {1}
        assert booker.confirmed.keys() <= booked
        assert len(booked) - len(booker.confirmed) <= booker.unknown
        guest.send(f"AVAILABILITY S{number}")
        guest.expect(f"AVAILABLE {9999 - len(booked)}")
