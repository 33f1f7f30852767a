"""A cinema for tests: a server with a hall of its own, and customers that speak its protocol."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
from conftest import Peer, Program, Start, changed_program, looking_after, wait_until

from net.files import locked

HALL = "0 0 0 0 0\n" * 5
HOW_MANY = "How many tickets do you want?"
HOW_TO = "Choose a row and a seat for each ticket: 0 is free, 1 is taken."
END = "Order cancelled, nothing was booked."
SORRY = f"Sorry, no seat can be sold now. {END}"

OpenCinema = Callable[..., "Cinema"]
another_writer = locked  # a context in which another server writes the file


class Cinema:
    """A server and the file that it sells from."""

    def __init__(self, server: Program, file: Path) -> None:
        self.server = server
        self.file = file

    def connect(self) -> Peer:
        """Return a new customer's connection."""
        return self.server.connect()

    def order(self, tickets: int) -> Peer:
        """Return the connection of a customer that has been shown the hall and is asked for the first row."""
        peer = self.connect()
        begin(peer, tickets)
        return peer

    def matrix(self) -> list[str]:
        """Return the rows that the server shows a new customer, such as 00100; the customer then leaves."""
        peer = self.connect()
        rows = begin(peer, 1)
        peer.close()
        return rows

    def buy(self, *seats: tuple[int, int]) -> str:
        """Send a whole order at once; return the last line of the answer."""
        peer = self.connect()
        peer.send(str(len(seats)), *(str(number) for seat in seats for number in seat))
        answer = peer.read_all()
        peer.close()
        return answer.splitlines()[-1] if answer else ""

    def wait_for_matrix(self, *rows: str) -> None:
        """Wait until the server shows new customers these rows."""
        wait_until(lambda: self.matrix() == list(rows), f"the hall {rows}")

    def taken(self) -> set[tuple[int, int]]:
        """Return the seats that the file says are taken; fail unless it is a rectangle of zeros and ones."""
        rows = [line.split() for line in self.file.read_text().splitlines()]
        assert len({len(row) for row in rows}) == 1, f"{self.file} is not a rectangle: {rows}"
        assert {number for row in rows for number in row} <= {"0", "1"}
        return {
            (row, number)
            for row, numbers in enumerate(rows, 1)
            for number, sign in enumerate(numbers, 1)
            if sign == "1"
        }


def begin(peer: Peer, tickets: int) -> list[str]:
    """Answer the first question with a number of tickets; return the rows of the hall, such as 00100."""
    peer.expect(HOW_MANY)
    peer.send(str(tickets))
    peer.expect(HOW_TO)
    peer.expect_match(" +Seat( +[0-9]+)+")
    rows = []
    while (line := peer.read_line()) != "Row for ticket 1?":
        rows.append("".join(line.split()[2:]))
    return rows


def choose(peer: Peer, row: int, number: int, ticket: int = 1) -> None:
    """Answer the question about a row, which the server has asked, and the one about a seat."""
    peer.send(str(row))
    peer.expect(f"Seat for ticket {ticket}?")
    peer.send(str(number))


def hold(peer: Peer, row: int, number: int) -> None:
    """Choose the first seat of several, and wait for the question about the second."""
    choose(peer, row, number)
    peer.expect("Ticket 1 reserved", "Row for ticket 2?")


def seats_in(line: str) -> list[tuple[int, int]]:
    """Return the seats in a line that begins with Booked; an empty list for any other line."""
    if not line.startswith("Booked: "):
        return []
    return [(int(row), int(number)) for row, number in (seat.split("-") for seat in line[8:].split(", "))]


@pytest.fixture(scope="module")
def common_cinema(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cinema]:
    """Provide one cinema for all tests of a module that need no server of their own."""
    with looking_after() as launch:
        cinema = open_on(launch, tmp_path_factory.mktemp("cinema") / "seats.txt")
        cinema.server.wait_for_start()
        yield cinema


@pytest.fixture
def cinema(common_cinema: Cinema) -> Iterator[OpenCinema]:
    """Provide a function that gives the common cinema a hall and returns it; the test must leave no customers there."""

    def open_cinema(hall: str = HALL) -> Cinema:
        common_cinema.file.unlink(missing_ok=True)  # a test may have replaced it
        common_cinema.file.write_bytes(hall.encode())
        return common_cinema

    yield open_cinema
    common_cinema.server.expect_rest()


@pytest.fixture
def fresh_cinema(start: Start, tmp_path: Path) -> OpenCinema:
    """Provide a function that starts a server for one test, with a hall, options and a changed program."""
    return partial(open_on, start, tmp_path / "seats.txt")


def open_on(
    start: Start, file: Path, *options: str, hall: str = HALL, change: str = "", prefix: tuple[str, ...] = ()
) -> Cinema:
    """Write a hall to a file, and start a server that sells from it; statements may change the program."""
    file.write_bytes(hall.encode())
    program = changed_program(file.parent, "ticket_server.py", change) if change else "ticket_server.py"
    return Cinema(start(program, "0", "--seats-file", str(file), *options, prefix=prefix), file)
