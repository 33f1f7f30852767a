#!/usr/bin/env python3
"""Buy tickets from ticket_server.py: show what it says, answer its questions, and show the hall in colour.

The server speaks plain text. The client understands these lines, and shows every other line as it is:

    How many tickets do you want?       a question ends with `?`; its answer is a line
     Seat 1 2 3 4 5                     the hall: a line with the numbers of the seats,
    Row 1 0 0 1 0 0                     then one for each row: 0 is a free seat, 1 is taken
    Ticket 1 reserved                   the seat that the last two answers named is the customer's
    Seat 2-3 is taken. ...              another customer has the seat, and the order ends
    Booked: 2-3, 2-4                    the order is on disk
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import io
import re
import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import NamedTuple

from cinema.picture import SeatPicture
from cinema.seatmap import Seat
from net.command_line import discard_output, port_number, positive_number, reason
from net.connect import WOULD_BLOCK, CannotConnect, add_tls_options, connect
from protocol import harmless
from terminal.seat_chooser import SeatChooser

BOOKED = 0  # exit statuses; argparse has 2
NOT_BOOKED = 1
CONNECTION_LOST = 3
OUTPUT_LOST = 4

RECEIVE_BYTES = 1 << 16
LEAVE = b"\x04"  # Ctrl-D: a TLS connection cannot be ended in one direction alone

HOW_MANY = "How many tickets do you want?"
FIRST_ROW = "Row for ticket 1?"
START_AGAIN = "Start again? (yes or no)"
QUESTION = re.compile(r"(?P<what>How many|Row|Seat) .*\?")
RESERVED = re.compile(r"Ticket \d+ reserved")
LOST = re.compile(r"Seat (\d+-\d+) is taken\..*")
SEAT = re.compile(r"\s*([0-9]{1,99})(?:\s*-\s*|\s+)([0-9]{1,99})\s*")  # 2-3 or 2 3


class OutputLost(Exception):
    """Nothing more can be written to standard output; the text says why."""


class LostOrder(NamedTuple):
    """An order that ended because another customer has one of its seats: the number of tickets, and that seat."""

    tickets: str
    seat: Seat


class ServerLines:
    """The lines that the server sends; select.select() can wait for them and for the keyboard.

    Args:
        sock: the connection to the server, perhaps over TLS.
    """

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._sock.setblocking(False)
        self._received = b""
        self._ended = False

    def __iter__(self) -> Iterator[str]:
        """Give each whole line as harmless text; wait for it if necessary.

        Raises:
            OSError: the connection is lost.
        """
        while True:
            while b"\n" not in self._received and not self._ended:
                select.select([self], [], [])
                self.receive()
            line, newline, self._received = self._received.partition(b"\n")
            if not newline:
                return
            yield harmless(line)

    def fileno(self) -> int:
        """Return the descriptor to wait for."""
        return self._sock.fileno()

    def receive(self) -> bool:
        """Take what has arrived, without blocking; return whether anything has, such as the end of the connection."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except WOULD_BLOCK:
            return False
        self._received += data
        self._ended = not data
        return True

    def send(self, data: bytes) -> None:
        """Send an answer, or nothing if the connection is lost: receiving then says why."""
        self._sock.settimeout(None)
        with suppress(OSError):
            self._sock.sendall(data)
        self._sock.setblocking(False)


class Purchase:
    """One order: the dialogue over one connection.

    Args:
        server: the connection.
        seats: seats to book without asking a person.
        best: how many adjacent seats to book without asking a person, or 0.
        repeated: an order that lost a seat; a person is asked whether to repeat it.

    Attributes:
        status: the exit status, if the dialogue ends now.
        lost: this order, if it has lost a seat.
    """

    def __init__(self, server: ServerLines, seats: list[Seat], best: int, repeated: LostOrder | None) -> None:
        self.status = CONNECTION_LOST
        self.lost: LostOrder | None = None
        self._server = server
        self._best = best
        self._repeated = repeated
        self._asks_person = not seats and not best
        self._answers = answers_for(seats) if seats else {}  # by question, each for one use
        if best:
            self._answers[HOW_MANY] = str(best)
        elif repeated:
            self._answers[HOW_MANY] = repeated.tickets
        self._given: dict[str, str] = {}  # the last answers: how many, a row, a seat
        self._picture = SeatPicture(shows_escapes() and not os.getenv("NO_COLOR"), repeated and repeated.seat)
        self._is_shown = True  # whether the screen shows the picture as it is now

    def run(self) -> None:
        """Hold the dialogue to its end.

        Raises:
            OSError: the connection is lost, or nobody reads the output (BrokenPipeError).
            OutputLost: the output cannot be written.
        """
        for line in self._server:
            question = QUESTION.fullmatch(line)
            if self._picture.add_line(line):
                self._is_shown = False
            elif question:
                self.status = CONNECTION_LOST
                self._answer(line, question["what"])
            else:
                tell(line)
                self._learn(line)

    def _learn(self, line: str) -> None:
        """Note what a line says about the order."""
        lost = LOST.fullmatch(line)
        seat = seat_in(lost[1]) if lost else None
        if line.startswith("Booked: "):
            self.status = BOOKED
            self._is_shown = False
            self._show_picture()
        elif RESERVED.fullmatch(line):
            self.status = CONNECTION_LOST
            self._add_mine()
        else:
            self.status = NOT_BOOKED  # unless a question follows, this line says why
        if seat:
            self.lost = LostOrder(self._given.get("How many", ""), seat)

    def _add_mine(self) -> None:
        seat = seat_in(f"{self._given.get('Row')}-{self._given.get('Seat')}")
        if seat:
            self._picture.add_mine(seat)
            self._is_shown = not self._asks_person

    def _answer(self, question: str, what: str) -> None:
        """Answer a question; without an answer, leave: the server then says that nothing is booked.

        A question that comes again was answered wrongly: a person is asked again, a script leaves.
        """
        try:
            answer = self._next_answer(question)
        except EOFError:
            self._server.send(LEAVE)
            return
        if answer is not None:
            self._given[what] = answer
            self._server.send(f"{answer}\n".encode())

    def _next_answer(self, question: str) -> str | None:
        """Return the answer to a question; None if the server ends the order before a person has answered.

        Raises:
            EOFError: there is no answer.
        """
        if question == FIRST_ROW:
            self._begin_choice()
        if question in self._answers:
            self._show_picture()
            tell(f"{question} {self._answers[question]}")
            return self._answers.pop(question)
        if not self._asks_person:
            tell(question)
            raise EOFError
        if not question.startswith("Row "):
            return self._ask(question)
        self._answers = {}  # a seat that was typed together with a wrong row
        answer = self._ask_for_seat(question)
        seat = seat_in(answer or "")
        if not seat:
            return answer
        self._answers = {question.replace("Row", "Seat", 1): str(seat.number)}
        return str(seat.row)

    def _begin_choice(self) -> None:
        """Before the first seat, ask whether to repeat an order that lost one, and choose the best seats."""
        repeated, self._repeated = self._repeated, None
        if repeated and (self._ask(START_AGAIN) or "").strip().lower() not in ("y", "yes"):
            raise EOFError
        best, self._best = self._best, 0
        if best:
            self._show_picture()
            groups = self._picture.best(best)
            tell(described(groups, best))
            self._answers.update(answers_for([seat for group in groups for seat in group]))

    def _ask_for_seat(self, question: str) -> str | None:
        """Ask a person for a row, or for a row and a seat, with the arrow keys where the terminal allows it."""
        if shows_escapes() and sys.stdin and sys.stdin.isatty():
            chooser = SeatChooser(self._picture, question, self._server, write)
            if chooser.fits():
                self._is_shown = True
                return chooser.choose()
        return self._ask(question)

    def _ask(self, question: str) -> str | None:
        """Return the line that a person types; None if the server speaks first.

        Raises:
            EOFError: there is no line.
        """
        self._show_picture()
        write(f"{question} ")
        if sys.stdin is None:
            tell("")
            raise EOFError
        with io.FileIO(sys.stdin.fileno(), closefd=False) as keyboard:  # a buffer would hide input from select()
            if not self._wait_for(keyboard):
                tell("")
                return None
            line = keyboard.readline()
        answer = harmless(line).strip()
        if not line or not sys.stdin.isatty():
            tell(answer)
        if not line:
            raise EOFError
        return answer

    def _wait_for(self, keyboard: io.FileIO) -> bool:
        """Wait until the person types; return False if the server speaks first."""
        sources: list[ServerLines | io.FileIO] = [self._server, keyboard]
        while True:
            readable, _, _ = select.select(sources, [], [])
            if self._server in readable and self._server.receive():
                return False
            if keyboard in readable:
                return True

    def _show_picture(self) -> None:
        """Print the picture, unless the screen shows it."""
        if not self._is_shown:
            for line in self._picture.lines():
                tell(line)
            self._is_shown = True


def tell(line: str) -> None:
    """Print a line at once; raises as write() does."""
    write(f"{line}\n")


def write(text: str) -> None:
    """Write to standard output at once.

    Raises:
        BrokenPipeError: nobody reads it.
        OutputLost: it cannot be written for another reason.
    """
    try:
        print(text, end="", flush=True)
    except OSError as error:
        discard_output()
        if isinstance(error, BrokenPipeError):
            raise
        raise OutputLost(reason(error)) from error


def shows_escapes() -> bool:
    """Return whether standard output is a terminal that understands escape sequences."""
    return bool(sys.stdout and sys.stdout.isatty() and os.getenv("TERM", "dumb") != "dumb")


def described(groups: list[list[Seat]], tickets: int) -> str:
    """Return a line that says which seats --best has chosen."""
    seats = " and ".join(", ".join(map(str, group)) for group in groups)
    if len(groups) > 1:
        return f"No {tickets} adjacent seats are free. The nearest groups: {seats}"
    return f"The best seat: {seats}" if tickets == 1 else f"The best {tickets} adjacent seats: {seats}"


def answers_for(seats: list[Seat]) -> dict[str, str]:
    """Return the answers that book seats, by question."""
    answers = {HOW_MANY: str(len(seats))}
    for ticket, seat in enumerate(seats, 1):
        answers[f"Row for ticket {ticket}?"] = str(seat.row)
        answers[f"Seat for ticket {ticket}?"] = str(seat.number)
    return answers


def seat_in(text: str) -> Seat | None:
    """Return the seat that a text such as 2-3 names, if it names one."""
    match = SEAT.fullmatch(text)
    return Seat(int(match[1]), int(match[2])) if match else None


def seat_list(text: str) -> list[Seat]:
    """Return the seats given on a command line.

    Raises:
        argparse.ArgumentTypeError: a part of the text does not name a seat, or a seat occurs twice.
    """
    seats: list[Seat] = []
    for part in text.split(","):
        seat = seat_in(part)
        if not seat:
            raise argparse.ArgumentTypeError(f"{part!r} is not a seat: a row and a number are expected, as in 2-3")
        if seat in seats:
            raise argparse.ArgumentTypeError(f"{part!r} occurs twice")
        seats.append(seat)
    return seats


def main() -> int:
    """Run the client; return its exit status."""
    parser = argparse.ArgumentParser(
        description="Buy cinema tickets. In a terminal, choose seats with the arrow keys and Enter, or type them: 2-3. "
        "The exit status is 0 for booked, 1 for not booked, 2 for wrong arguments, 3 for no connection or a lost one, "
        "4 for output that cannot be written.",
        epilog="Example: ticket_client.py localhost 5050 --best 2",
    )
    parser.add_argument("host", metavar="HOST", help="name or address of the server")
    parser.add_argument("port", type=port_number, metavar="PORT", help="port of the server")
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--seats",
        type=seat_list,
        default=[],
        metavar="SEATS",
        help="book these rows and seats without asking, such as 2-3,2-4 (default: ask)",
    )
    choice.add_argument(
        "--best",
        type=positive_number,
        default=0,
        metavar="N",
        help="book N adjacent seats as near to the middle as possible without asking, or else groups near each other",
    )
    add_tls_options(parser)
    options = parser.parse_args()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # the server's text may have characters that the terminal has not
    try:
        return buy(options)
    except KeyboardInterrupt:
        write("\n")
        return NOT_BOOKED


def buy(options: argparse.Namespace) -> int:
    """Order until the seats are booked or nobody wants to start again; return the exit status."""
    repeated = None
    while True:
        try:
            sock = connect(options.host, options.port, options)
        except CannotConnect as error:
            print(error, file=sys.stderr)
            return CONNECTION_LOST
        with sock:
            purchase = Purchase(ServerLines(sock), options.seats, options.best, repeated)
            status = converse(purchase)
        repeated = purchase.lost
        if status != NOT_BOOKED or not repeated or options.seats or not is_interactive():
            return status


def is_interactive() -> bool:
    """Return whether a person is at a terminal."""
    return bool(sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty())


def converse(purchase: Purchase) -> int:
    """Hold the dialogue, whatever ends it but Ctrl-C; return the exit status."""
    why = "the server ended it"
    try:
        purchase.run()
        status = purchase.status
    except BrokenPipeError:  # nobody reads the output
        return NOT_BOOKED
    except OutputLost as lost:
        print(f"The output cannot be written: {lost}", file=sys.stderr)
        return OUTPUT_LOST
    except OSError as error:
        why, status = reason(error), CONNECTION_LOST
    if status == CONNECTION_LOST:
        print(f"The connection was lost: {why}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
