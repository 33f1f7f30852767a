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

import argparse
import os
import re
import socket
import sys

from cinema.picture import SeatPicture
from cinema.seat_chooser import SeatChooser, seat_in, with_ascii_digits
from cinema.seatmap import Seat
from net.addresses import without_brackets
from net.command_line import fail, port_number, positive_number
from net.connect import ConnectionLost, ServerLines, add_tls_options, connect
from protocol import harmless
from terminal.console import Console, run_client

BOOKED = 0  # exit statuses; argparse has 2
NOT_BOOKED = 1
CONNECTION_LOST = 3
PERHAPS_BOOKED = 4

LEAVE = b"\x04"  # Ctrl-D; over TLS, the client could not end its output and keep its input

HOW_MANY = "How many tickets do you want?"
FIRST_ROW = "Row for ticket 1?"
START_AGAIN = "Start again? (yes or no)"
NO_ARROW_KEYS = "The arrow keys need a terminal with escape sequences. Type a row, or a seat: 2-3."
QUESTION = re.compile(r"(?P<what>How many|Row|Seat) .*\?")
RESERVED = re.compile(r"Ticket \d+ reserved")
LOST = re.compile(r"Seat (\d+-\d+) is taken\..*")
# The order goes on after these lines; any other line may be the last.
GOES_ON = re.compile(r".*\?|Ticket \d+ reserved|Choose a row .*| *(Seat|Row) [ \d]+|.* is expected\.")
UNCERTAIN = "Sorry, it is not certain whether the order is booked."


class Purchase:
    """One order: the dialogue over one connection. It repeats the previous order, if that has lost a seat."""

    def __init__(
        self, options: argparse.Namespace, console: Console, sock: socket.socket, previous: "Purchase | None"
    ) -> None:
        self.given: dict[str, str] = {}  # the last answers to the questions "How many", "Row" and "Seat"
        self.lost: Seat | None = None  # the seat that another customer has, so that the order has ended
        self.may_be_booked = False  # the server has an answer that may complete the order, and has not refused it
        self._console = console
        self._server = ServerLines(sock, "a ticket server")
        in_colour = console.shows_escapes and not os.getenv("NO_COLOR")
        self._picture = SeatPicture(in_colour, previous.lost if previous else None)
        self._best = options.best
        self._asks = not options.seats and not options.best
        self._repeats = previous is not None  # until the user has agreed
        tickets = len(options.seats) or options.best or (previous.given.get("How many", "") if previous else "")
        self._known = {HOW_MANY: str(tickets), **answers_for(options.seats)}  # by question; each is used once

    def run(self) -> int:
        """Hold the dialogue to its end; return the exit status. ConnectionLost: it ended before the order did."""
        line = ""
        try:
            while True:
                line = harmless(self._server.read_line())
                question = QUESTION.fullmatch(line)
                if question:
                    self._answer(line, question["what"])
                elif not self._picture.add_line(line):
                    self._console.show(line)
                    self._learn(line)
        except ConnectionLost:
            if not line or GOES_ON.fullmatch(line):
                raise
        if line == UNCERTAIN:
            return PERHAPS_BOOKED
        return BOOKED if line.startswith("Booked: ") else NOT_BOOKED

    def _answer(self, question: str, what: str) -> None:
        """Answer a question; without an answer, leave: the server then says that nothing is booked."""
        self.may_be_booked = False
        try:
            answer = self._find_answer(question)
        except EOFError:
            self._server.send(LEAVE)
            return
        if answer is not None:
            self.given[what] = answer
            self.may_be_booked = what == "Seat"
            self._server.send(f"{answer}\n".encode())

    def _find_answer(self, question: str) -> str | None:
        """Return an answer, or None if the server ends the order before the user gives one; EOFError: none comes."""
        if not self._asks and question == FIRST_ROW:
            self._show_picture()
            if self._best:
                groups = self._picture.best(self._best)
                self._console.show(described(groups, self._best))
                self._known = answers_for([seat for group in groups for seat in group])
                self._best = 0
        answer = self._known.pop(question, "")
        if answer or not self._asks:
            self._console.show(f"{question} {answer}".rstrip())
            if not answer:  # there is none, or the first one was wrong
                raise EOFError
            return answer
        if not question.startswith("Row "):
            return self._ask(question)
        if self._repeats and (self._ask(START_AGAIN) or "").lower() not in ("y", "yes"):
            raise EOFError
        self._repeats = False
        choice = self._choose(question)
        seat = seat_in(choice or "")
        self._known = {question.replace("Row", "Seat", 1): str(seat.number)} if seat else {}
        return str(seat.row) if seat else choice

    def _choose(self, question: str) -> str | None:
        """Return a row, or a row and a seat; None if the server sends something first."""
        if not self._console.draws:
            if self._console.interactive and question == FIRST_ROW:
                self._console.show(NO_ARROW_KEYS)
            return self._ask(question)
        chooser = SeatChooser(self._picture, question, self._console, self._server)
        if chooser.obstacle():
            self._show_picture()
        return chooser.choose()

    def _ask(self, question: str) -> str | None:
        self._show_picture()
        line = self._console.read_line(f"{question} ", self._server)
        if line is None:
            return None
        answer = with_ascii_digits(harmless(line.encode())).strip()
        if not self._console.interactive:
            self._console.show(answer)
        return answer

    def _learn(self, line: str) -> None:
        lost = LOST.fullmatch(line)
        seat = seat_in(f"{self.given.get('Row')}-{self.given.get('Seat')}")
        if line.startswith("Booked: "):
            self._picture.is_shown = False
            self._show_picture()
        elif RESERVED.fullmatch(line) and seat:
            self._picture.add_mine(seat)
        elif lost:
            self.lost = seat_in(lost[1])
            self.may_be_booked = False

    def _show_picture(self) -> None:
        """Show the hall, unless the screen shows it as it is now."""
        if not self._picture.is_shown:
            self._console.show("\n".join(self._picture.lines()))
            self._picture.is_shown = True


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


def seat_list(text: str) -> list[Seat]:
    """Return the seats given on a command line."""
    seats: list[Seat] = []
    for part in text.split(","):
        seat = seat_in(part)
        if not seat:
            raise argparse.ArgumentTypeError(f"{part!r} is not a seat: a row and a number are expected, as in 2-3")
        if seat in seats:
            raise argparse.ArgumentTypeError(f"{part!r} occurs twice")
        seats.append(seat)
    return seats


def buy(options: argparse.Namespace, console: Console, sock: socket.socket) -> int:
    """Place an order, and place it again each time it loses a seat and the user agrees; return the exit status."""
    purchase = None
    try:
        while True:
            with sock:
                purchase = Purchase(options, console, sock, previous=purchase)
                status = purchase.run()
            if not purchase.lost or options.seats or options.best or not console.draws:
                return status
            sock = connect(options.host, options.port, options)
    except (KeyboardInterrupt, SystemExit):  # Ctrl-C and SIGTERM
        if purchase and purchase.may_be_booked:
            return fail("The order may be booked: the server has not answered yet.", PERHAPS_BOOKED)
        return NOT_BOOKED


def main() -> int:
    """Run the client; return its exit status."""
    parser = argparse.ArgumentParser(
        description="Buy cinema tickets. In a terminal, choose seats with the arrow keys and Enter, or type them: 2-3. "
        "The exit status is 0 for booked, 1 for not booked, 2 for wrong arguments, 3 for no connection or a lost one, "
        "4 for an order that may be booked: the server is not certain, the user left before it answered, or the output "
        "cannot be written.",
        epilog="Example: python3 ticket_client.py localhost 5050 --best 2",
    )
    parser.add_argument("host", type=without_brackets, metavar="HOST", help="name or address of the server")
    parser.add_argument("port", type=port_number, metavar="PORT", help="port of the server")
    choice = parser.add_mutually_exclusive_group()
    seats_help = "book these rows and seats without asking, such as 2-3,2-4 (default: ask)"
    choice.add_argument("--seats", type=seat_list, default=[], metavar="SEATS", help=seats_help)
    best_help = "book N adjacent seats near the middle of the hall, or else groups near each other, without asking"
    choice.add_argument("--best", type=positive_number, default=0, metavar="N", help=best_help)
    add_tls_options(parser)
    return run_client(parser.parse_args(), buy, NOT_BOOKED, CONNECTION_LOST, PERHAPS_BOOKED)


if __name__ == "__main__":
    sys.exit(main())
