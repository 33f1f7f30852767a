#!/usr/bin/env python3
"""Buy tickets from ticket_server.py: show what it says, answer its questions, and show the hall in colour.

The server sends plain text. The client recognizes these lines, and shows all others as they are:

    How many tickets do you want?       a question ends with `?`; its answer is a line
     Seat 1 2 3 4 5                     the hall: a line with the numbers of the seats,
    Row 1 0 0 1 0 0                     then a line for each row: 0 is a free seat, 1 a taken one
    Ticket 1 reserved                   the server holds the seat that the last two answers named
    Seat 2-3 is taken. ...              another customer has the seat, and the order ends
    Booked: 2-3, 2-4                    the order is on disk
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import re
import select
import signal

from cinema.picture import SeatPicture
from cinema.seat_chooser import SeatChooser
from cinema.seatmap import Seat
from net.command_line import fail, fail_to_write, port_number, positive_number, prepare_streams
from net.connect import CannotConnect, ConnectionLost, ServerLines, add_tls_options, connect
from protocol import harmless
from terminal.console import read_keys, shows_escapes, write

BOOKED = 0  # exit statuses; argparse has 2
NOT_BOOKED = 1
CONNECTION_LOST = 3
PERHAPS_BOOKED = 4

LEAVE = b"\x04"  # Ctrl-D; over TLS, the client could not end its output and keep its input

HOW_MANY = "How many tickets do you want?"
FIRST_ROW = "Row for ticket 1?"
START_AGAIN = "Start again? (yes or no)"
QUESTION = re.compile(r"(?P<what>How many|Row|Seat) .*\?")
RESERVED = re.compile(r"Ticket \d+ reserved")
LOST = re.compile(r"Seat (\d+-\d+) is taken\..*")
# The order goes on after these lines; any other line may be the last.
GOES_ON = re.compile(r".*\?|Ticket \d+ reserved|Choose a row .*| *(Seat|Row) [ \d]+|.* is expected\.")
UNCERTAIN = "Sorry, it is not certain whether the order is booked."
SEAT = re.compile(r"\s*([0-9]{1,99})(?:\s*-\s*|\s+)([0-9]{1,99})\s*")  # 2-3 or 2 3


class Purchase:
    """One order: the dialogue over one connection.

    Args:
        server: the connection.
        seats: the seats to book; if there are none and `best` is 0, the client asks the user.
        best: how many adjacent seats to book.
        previous: an order that lost a seat; the client asks the user whether to start it again.

    Attributes:
        lost: the seat that ended the order, because another customer has it.
        may_be_booked: whether the server has an answer that may complete the order, and has not refused it.
    """

    def __init__(self, server: ServerLines, seats: list[Seat], best: int, previous: "Purchase | None") -> None:
        self.lost: Seat | None = None
        self.may_be_booked = False
        self._server = server
        self._best = best
        self._previous = previous
        self._asks_user = not seats and not best
        self._answers = answers_for(seats)  # by question; each is used once
        if seats or best:
            self._answers[HOW_MANY] = str(len(seats) or best)
        elif previous:
            self._answers[HOW_MANY] = previous._given.get("How many", "")
        self._given: dict[str, str] = {}  # the last answers: "How many", "Row" and "Seat"
        self._picture = SeatPicture(shows_escapes() and not os.getenv("NO_COLOR"), previous.lost if previous else None)
        self._is_shown = True  # whether the screen shows the picture as it is now

    def run(self) -> int:
        """Hold the dialogue to its end; return the exit status.

        Raises:
            ConnectionLost: the connection ended before the order did.
            OSError: standard output cannot be written.
        """
        line = ""
        for data in iter(self._server.read_line, None):
            line = harmless(data)
            question = QUESTION.fullmatch(line)
            if self._picture.add_line(line):
                self._is_shown = False
            elif question:
                self._answer(line, question["what"])
            else:
                print(line)
                self._learn(line)
        return exit_status(line)

    def _learn(self, line: str) -> None:
        """Note what a line says about the order."""
        lost = LOST.fullmatch(line)
        if line.startswith("Booked: "):
            self._is_shown = False
            self._show_picture()
        elif RESERVED.fullmatch(line):
            seat = seat_in(f"{self._given.get('Row')}-{self._given.get('Seat')}")
            if seat:
                self._picture.add_mine(seat)
                self._is_shown = not self._asks_user
        elif lost:
            self.lost = seat_in(lost[1])
            self.may_be_booked = False

    def _answer(self, question: str, what: str) -> None:
        """Answer a question; without an answer, leave: the server then says that nothing is booked.

        The server repeats a question after a wrong answer: the client then asks the user again, but a script leaves.
        """
        self.may_be_booked = False
        try:
            answer = self._next_answer(question)
        except EOFError:
            self._server.send(LEAVE)
            return
        if answer is not None:
            self._given[what] = answer
            self.may_be_booked = what == "Seat"
            self._server.send(f"{answer}\n".encode())

    def _next_answer(self, question: str) -> str | None:
        """Return the answer to a question; None if the server ends the order before the user has answered.

        Raises:
            EOFError: there is no answer.
        """
        if question == FIRST_ROW and "Row" not in self._given:
            self._begin_choice()
        if question in self._answers:
            self._show_picture()
            print(f"{question} {self._answers[question]}")
            return self._answers.pop(question)
        if not self._asks_user:
            print(question)
            raise EOFError
        return self._ask_for_seat(question) if question.startswith("Row ") else self._ask(question)

    def _begin_choice(self) -> None:
        """Before the first seat, ask whether to repeat an order that lost one, and choose the best seats."""
        if self._previous and (self._ask(START_AGAIN) or "").lower() not in ("y", "yes"):
            raise EOFError
        if self._best:
            self._show_picture()
            groups = self._picture.best(self._best)
            print(described(groups, self._best))
            self._answers = answers_for([seat for group in groups for seat in group])

    def _ask_for_seat(self, question: str) -> str | None:
        """Ask the user for a row, or for a row and a seat; return the row, and keep the seat for the next question."""
        chooser = SeatChooser(self._picture, question, self._server)
        if shows_escapes() and sys.stdin.isatty() and chooser.fits():
            self._is_shown = True
            answer = chooser.choose()
        else:
            answer = self._ask(question)
        seat = seat_in(answer or "")
        self._answers = {question.replace("Row", "Seat", 1): str(seat.number)} if seat else {}
        return str(seat.row) if seat else answer

    def _ask(self, question: str) -> str | None:
        """Return the line that the user types; None if the server sends something first.

        Raises:
            EOFError: there is no line.
        """
        self._show_picture()
        write(f"{question} ")
        while True:
            readable, _, _ = select.select([self._server, sys.stdin], [], [])
            if self._server in readable and self._server.receive():
                print()
                return None
            if sys.stdin in readable:
                break
        line = b""
        for key in iter(lambda: read_keys(1), b""):  # a larger buffer would hide input from select()
            line += key
            if key.endswith(b"\n"):  # an Esc alone takes the key after it along
                break
        answer = harmless(line).strip()
        if not line or not sys.stdin.isatty():
            print(answer)
        if not line:
            raise EOFError
        return answer

    def _show_picture(self) -> None:
        """Print the picture, unless the screen shows it."""
        if not self._is_shown:
            print(*self._picture.lines(), sep="\n")
            self._is_shown = True


def described(groups: list[list[Seat]], tickets: int) -> str:
    """Return a sentence that says which seats --best has chosen."""
    seats = " and ".join(", ".join(map(str, group)) for group in groups)
    if len(groups) > 1:
        return f"No {tickets} adjacent seats are free. The nearest groups: {seats}"
    return f"The best seat: {seats}" if tickets == 1 else f"The best {tickets} adjacent seats: {seats}"


def answers_for(seats: list[Seat]) -> dict[str, str]:
    """Return the answers with which to choose seats, by question."""
    answers = {}
    for ticket, seat in enumerate(seats, 1):
        answers[f"Row for ticket {ticket}?"] = str(seat.row)
        answers[f"Seat for ticket {ticket}?"] = str(seat.number)
    return answers


def exit_status(line: str) -> int:
    """Return the exit status after the last line that the server sent, or "" if it sent none.

    Raises:
        ConnectionLost: no order ends with this line.
    """
    if not line or GOES_ON.fullmatch(line):
        raise ConnectionLost("the server ended it")
    if line == UNCERTAIN:
        return PERHAPS_BOOKED
    return BOOKED if line.startswith("Booked: ") else NOT_BOOKED


def seat_in(text: str) -> Seat | None:
    """Return the seat that a text such as 2-3 names, or None."""
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
    options = parse_command_line()
    prepare_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # end as after Ctrl-C: the terminal is restored
    try:
        return buy(options)
    except OSError as error:
        return fail_to_write(error, PERHAPS_BOOKED)


def parse_command_line() -> argparse.Namespace:
    """Return the options; if they are wrong, print the usage and exit."""
    parser = argparse.ArgumentParser(
        description="Buy cinema tickets. In a terminal, choose seats with the arrow keys and Enter, or type them: 2-3. "
        "The exit status is 0 for booked, 1 for not booked, 2 for wrong arguments, 3 for no connection or a lost one, "
        "4 for an order that may be booked: the server is not certain, the user left before it answered, or the output "
        "cannot be written.",
        epilog="Example: python3 ticket_client.py localhost 5050 --best 2",
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
        help="book N adjacent seats near the middle of the hall, or else groups near each other, without asking",
    )
    add_tls_options(parser)
    return parser.parse_args()


def buy(options: argparse.Namespace) -> int:
    """Place an order, and place it again each time it loses a seat and the user agrees; return the exit status."""
    purchase = None
    while True:
        try:
            with connect(options.host, options.port, options) as sock:
                purchase = Purchase(ServerLines(sock), options.seats, options.best, purchase)
                status = purchase.run()
            if not purchase.lost or options.seats or not (sys.stdin.isatty() and sys.stdout.isatty()):
                return status
        except CannotConnect as error:
            return fail(str(error), CONNECTION_LOST)
        except ConnectionLost as lost:
            return fail(f"The connection was lost: {lost}", CONNECTION_LOST)
        except KeyboardInterrupt:
            print()
            if purchase and purchase.may_be_booked:
                return fail("The order may be booked: the server has not answered yet.", PERHAPS_BOOKED)
            return NOT_BOOKED


if __name__ == "__main__":
    sys.exit(main())
