"""Buy tickets from ticket_server.py: show what it says, ask for the answers, and show the hall in colour.

The server speaks plain text. Of its lines the client understands these, and shows every other one as it is:

    How many tickets do you want?       a question ends with `?`; its answer is a line
     Seat 1 2 3 4 5                     the hall: a line with the numbers of the seats,
    Row 1 0 0 1 0 0                     then one for each row: 0 is a free seat, 1 is taken
    Ticket 1 reserved                   the seat that the last two answers named is the customer's
    Booked: 2-3, 2-4                    the order is on disk
"""

import argparse
import io
import itertools
import os
import re
import select
import socket
import sys
from contextlib import suppress

from net.process import port_number
from protocol import harmless

CONNECT_SECONDS = 10.0

BOOKED = 0  # exit statuses; argparse has 2
NOT_BOOKED = 1
CONNECTION_LOST = 3
OUTPUT_LOST = 4

HALL_LINE = re.compile(r" *Seat(?: +\d+)+|Row +(?P<row>\d+)(?P<cells>(?: +[01])+)")
QUESTION = re.compile(r"(?P<what>How many|Row|Seat) .*\?")
RESERVED = re.compile(r"Ticket \d+ reserved")
SEAT = re.compile(r"\s*0*([0-9]+)(?:\s*-\s*|\s+)0*([0-9]+)\s*")  # 2-3 or 2 3

FREE, TAKEN, YOURS = "0", "1", "*"
COLOURS = {FREE: "\033[32m", TAKEN: "\033[31m", YOURS: "\033[1;36m"}  # green, red, bold cyan
NO_COLOUR = "\033[0m"


class OutputLost(Exception):
    """Nothing more can be written to standard output; the text says why."""


class Picture:
    """The hall as the server showed it, with the customer's own seats.

    Attributes:
        shown: whether there is nothing new to show.
    """

    def __init__(self) -> None:
        self.shown = True
        self._lines: list[str] = []
        self._mine: set[tuple[str, str]] = set()  # rows and numbers
        self._in_colour = bool(
            sys.stdout and sys.stdout.isatty() and not os.getenv("NO_COLOR") and os.getenv("TERM") != "dumb"
        )

    def add_line(self, line: str) -> None:
        """Add a line that the server sent."""
        self._lines.append(line)
        self.shown = False

    def add_mine(self, row: str, number: str) -> None:
        """Mark a seat as the customer's own."""
        self._mine.add((row.lstrip("0"), number.lstrip("0")))

    def show(self) -> None:
        """Print it, and what its signs mean."""
        for line in self._lines:
            tell(self._painted_line(line))
        tell(f"({self._painted(FREE)} free, {self._painted(TAKEN)} taken, {self._painted(YOURS)} yours)")
        self.shown = True

    def _painted_line(self, line: str) -> str:
        row = HALL_LINE.fullmatch(line)
        if not row or not row["row"]:
            return line
        numbers = itertools.count(1)

        def cell(sign: re.Match[str]) -> str:
            mine = (row["row"], str(next(numbers))) in self._mine
            return self._painted(YOURS if mine else sign[0])

        return line[: row.start("cells")] + re.sub("[01]", cell, row["cells"])

    def _painted(self, sign: str) -> str:
        return f"{COLOURS[sign]}{sign}{NO_COLOUR}" if self._in_colour else sign


class Customer:
    """One customer's side of the dialogue.

    Args:
        sock: the connection to the server.
        seats: what to book without asking, each as row and number; if there are none, a person is asked.
    """

    def __init__(self, sock: socket.socket, seats: list[tuple[str, str]]) -> None:
        self._sock = sock
        self._asks_person = not seats
        self._stdin = io.FileIO(sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY), closefd=False)
        self._answers = answers_for(seats) if seats else {}  # by question, each for one use
        self._given: dict[str, str] = {}  # the last answer about a row, and about a seat
        self._picture = Picture()
        self._status = CONNECTION_LOST  # the exit status, if this is the end

    def converse(self) -> int:
        """Hold the dialogue to its end; return the exit status.

        Raises:
            OSError: the connection is lost, or nobody reads what is printed (BrokenPipeError).
            OutputLost: what is to be printed cannot be written.
        """
        with self._sock.makefile("rb") as received:
            for line in received:
                if line.endswith(b"\n"):
                    self._hear(harmless(line).rstrip("\n"))
        return self._status

    def _hear(self, line: str) -> None:
        """Do what a line from the server asks for."""
        if HALL_LINE.fullmatch(line):
            self._picture.add_line(line)
        elif question := QUESTION.fullmatch(line):
            self._status = CONNECTION_LOST
            self._answer(line, question["what"])
        else:
            tell(line)
            self._learn(line)

    def _learn(self, line: str) -> None:
        """Note what a line tells about the order."""
        if line.startswith("Booked: "):
            self._status = BOOKED
            self._picture.show()
        elif RESERVED.fullmatch(line):
            self._status = CONNECTION_LOST
            self._picture.add_mine(self._given.get("Row", ""), self._given.get("Seat", ""))
            self._picture.shown = not self._asks_person
        else:
            self._status = NOT_BOOKED  # unless a question follows, this is why

    def _answer(self, question: str, what: str) -> None:
        """Answer a question; without an answer, leave: the server says what becomes of the order.

        A question that comes again was answered wrong: a person is asked again, a script leaves.
        """
        if not self._picture.shown:
            self._picture.show()
        if question not in self._answers and self._asks_person:
            self._answers = self._ask(question)
        else:
            tell(question, self._answers.get(question, ""))
        with suppress(OSError):  # reading says what happened
            if question in self._answers:
                self._given[what] = self._answers.pop(question)
                self._sock.sendall(f"{self._given[what]}\n".encode())
            else:
                self._sock.shutdown(socket.SHUT_WR)

    def _ask(self, question: str) -> dict[str, str]:
        """Return what the person answers; a row and a seat together answer the next question as well.

        There is no answer if the person has none, or if the server ends the order before it comes.
        """
        tell(question, end=" ")
        sock = self._sock.fileno()
        readable, _, _ = select.select([sock, self._stdin.fileno()], [], [])
        line = b"" if sock in readable else self._stdin.readline()
        answer = harmless(line).strip()
        if not line or not self._stdin.isatty():
            tell(answer)
        if question.startswith("Row ") and (seat := SEAT.fullmatch(answer)):
            return {question: seat[1], question.replace("Row", "Seat", 1): seat[2]}
        return {question: answer} if line else {}


def tell(*words: str, end: str = "\n") -> None:
    """Print words at once.

    Raises:
        BrokenPipeError: nobody reads them.
        OutputLost: they cannot be written for another reason.
    """
    try:
        print(*words, end=end, flush=True)
    except OSError as error:
        sys.stdout = None  # or it would be tried again at the exit
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputLost(_reason(error)) from error


def answers_for(seats: list[tuple[str, str]]) -> dict[str, str]:
    """Return the answers, by question, that book seats."""
    answers = {"How many tickets do you want?": str(len(seats))}
    for ticket, (row, number) in enumerate(seats, 1):
        answers[f"Row for ticket {ticket}?"] = row
        answers[f"Seat for ticket {ticket}?"] = number
    return answers


def seat_list(text: str) -> list[tuple[str, str]]:
    """Return the rows and numbers of seats given on a command line.

    Raises:
        argparse.ArgumentTypeError: they are none.
    """
    seats = []
    for part in text.split(","):
        seat = SEAT.fullmatch(part)
        if not seat:
            raise argparse.ArgumentTypeError(f"{part!r} is no seat: a row and a number are expected, as in 2-3")
        if seat.groups() in seats:
            raise argparse.ArgumentTypeError(f"{part!r} is there twice")
        seats.append((seat[1], seat[2]))
    return seats


def main() -> int:
    """Run the client; return its exit status.

    It is 0 for booked, 1 for not booked, 2 for wrong arguments, 3 for no connection or a lost one, 4 for output that
    cannot be written.
    """
    parser = argparse.ArgumentParser(
        description="Buy cinema tickets. A row and a seat may be answered together, as in 2-3 or 2 3."
    )
    parser.add_argument("host", metavar="HOST")
    parser.add_argument("port", type=port_number, metavar="PORT")
    parser.add_argument(
        "--seats",
        type=seat_list,
        default=[],
        metavar="SEATS",
        help="rows and seats to book without asking, such as 2-3,2-4 (default: ask)",
    )
    options = parser.parse_args()
    try:
        return buy(options.host, options.port, options.seats)
    except KeyboardInterrupt:
        print()
        return NOT_BOOKED


def buy(host: str, port: int, seats: list[tuple[str, str]]) -> int:
    """Connect and hold the dialogue, whatever ends it; return the exit status."""
    try:
        sock = socket.create_connection((host, port), CONNECT_SECONDS)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host is like this
        print(f"Cannot connect to {host}:{port}: {_reason(error)}", file=sys.stderr)
        return CONNECTION_LOST
    with sock:
        sock.settimeout(None)
        return converse(sock, seats)


def converse(sock: socket.socket, seats: list[tuple[str, str]]) -> int:
    """Hold the dialogue, unless Ctrl-C ends it; return the exit status."""
    reason = "the server went away"
    try:
        status = Customer(sock, seats).converse()
    except BrokenPipeError:  # nobody reads what we print
        return NOT_BOOKED
    except OutputLost as lost:
        print(f"The output cannot be written: {lost}", file=sys.stderr)
        return OUTPUT_LOST
    except OSError as error:
        reason, status = _reason(error), CONNECTION_LOST
    if status == CONNECTION_LOST:
        print(f"The connection was lost: {reason}", file=sys.stderr)
    return status


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


if __name__ == "__main__":
    sys.exit(main())
