"""Sell the seats of a cinema to whoever connects; `telnet` is a full client.

    How many tickets do you want?
    1
    Choose a row and a seat for each ticket: 0 is free, 1 is taken.
     Seat 1 2 3 4 5
    Row 1 0 0 0 0 0
    Row 2 0 0 0 1 0
    ...
    Row for ticket 1?
    2
    Seat for ticket 1?
    3
    Ticket 1 reserved
    Booked: 2-3

A seat is held for its customer from `reserved` on, until the order is booked or cancelled. `Booked` is said when the
order is in seats.txt, on disk. If it is there, but flushing the directory failed, so that it might not outlive a power
failure, the customer hears that it is not certain.
"""

import argparse
import sys
import time
from collections import deque
from pathlib import Path

from cinema.booking import Order, OrderCancelled, Theatre
from cinema.seatmap import Hall, HallError, NotFlushed, Seat
from net.connection import Connection, DeadlinePassed
from net.process import add_number, add_options, fail, port_number, run
from protocol import LineTooLong, harmless

SEATS_FILE = Path(__file__).resolve().with_name("seats.txt")
HOLD_SECONDS = 120
WRONG_ANSWERS = 5  # so many in a row end an order


class TooManyWrongAnswers(OrderCancelled):
    """A customer does not give a possible answer."""

    def __init__(self) -> None:
        super().__init__(f"{WRONG_ANSWERS} wrong answers in a row")


class Sale:
    """The dialogue with one customer, in the customer's thread.

    Args:
        theatre: the seats.
        hold_seconds: how long the customer may be silent once the order has begun.
        connection: where the customer is.
    """

    def __init__(self, theatre: Theatre, hold_seconds: int, connection: Connection) -> None:
        self._theatre = theatre
        self._hold_seconds = hold_seconds
        self._connection = connection
        self._batches = connection.batches()
        self._answers: deque[str] = deque()  # that came and were not needed yet
        self._said = ""  # goes out when there is nothing more to answer
        self._order = Order()
        self._begun = False  # how many is known: from now on each answer gives hold_seconds more

    def run(self) -> None:
        """Sell what the customer wants, or say why not; hold nothing afterwards."""
        try:
            self._converse()
        except OrderCancelled as reason:
            self._cancel(str(reason), str(reason))
        except NotFlushed as error:
            self._connection.status(f"perhaps booked: {error}")
            self._say("Sorry, it is not certain whether the order is booked.")
        except HallError as error:
            self._cancel("Sorry, no seat can be sold now", str(error))
        except (LineTooLong, DeadlinePassed, OSError) as error:  # the connection ends, and says so
            self._connection.status(f"cancelled: {error}")
            raise
        finally:
            self._theatre.release(self._order)
            self._flush()

    def _converse(self) -> None:
        self._theatre.hall()  # a file that is wrong is known before anything is asked
        tickets = self._ask_number("How many tickets do you want?")
        hall = self._begin(tickets)
        self._say("Choose a row and a seat for each ticket: 0 is free, 1 is taken.", *hall.matrix())
        for ticket in range(1, tickets + 1):
            self._choose_seat(ticket, hall)
        self._theatre.book(self._order)
        seats = ", ".join(map(str, self._order.seats))
        self._connection.status(f"booked {seats}")
        self._say(f"Booked: {seats}")

    def _begin(self, tickets: int) -> Hall:
        """Return the hall to choose from, if there are so many seats."""
        hall = self._theatre.hall()
        self._connection.status(f"tickets asked for: {tickets}, seats free: {hall.free}")
        if tickets > hall.free:
            raise OrderCancelled(f"Only {hall.free} {'seat is' if hall.free == 1 else 'seats are'} free")
        self._begun = True
        return hall

    def _choose_seat(self, ticket: int, hall: Hall) -> None:
        """Ask for a seat and hold it."""
        for _ in range(WRONG_ANSWERS):
            row = self._ask_number(f"Row for ticket {ticket}?", hall.rows)
            number = self._ask_number(f"Seat for ticket {ticket}?", hall.columns)
            seat = Seat(row, number)
            self._connection.status(f"ticket {ticket}: row {row}, seat {number}")
            if seat not in self._order.seats:
                self._theatre.hold(self._order, seat)
                self._connection.status(f"ticket {ticket} reserved: {seat}")
                self._say(f"Ticket {ticket} reserved")
                return
            self._say(f"Seat {seat} is yours already. Another one is expected.")
        raise TooManyWrongAnswers

    def _ask_number(self, question: str, most: int | None = None) -> int:
        """Ask until the answer is a number from 1 to the most that is possible; return it."""
        for _ in range(WRONG_ANSWERS):
            self._say(question)
            number = _number(self._next_answer())
            if number and (most is None or number <= most):
                return number
            self._say(f"A number {f'from 1 to {most}' if most else 'of 1 or more'} is expected.")
        raise TooManyWrongAnswers

    def _next_answer(self) -> str:
        """Return the next line; if none has come yet, send all that was said and wait."""
        if not self._answers:
            self._flush()
            if self._begun:
                self._connection.deadline = time.monotonic() + self._hold_seconds
            batch = next(self._batches, b"")
            if not batch:
                raise OrderCancelled("No answer came")
            self._answers.extend(harmless(batch).removesuffix("\n").split("\n"))
        return self._answers.popleft()

    def _cancel(self, reason: str, log_reason: str) -> None:
        self._connection.status(f"cancelled: {log_reason}")
        self._say(f"{reason}. Order cancelled, nothing was booked.")

    def _say(self, *lines: str) -> None:
        self._said += "".join(f"{line}\n" for line in lines)

    def _flush(self) -> None:
        """Send all that was said."""
        if self._said:
            self._connection.send(self._said.encode())
            self._said = ""


def _number(answer: str) -> int:
    """Return the number that an answer is, in ASCII digits and perhaps with spaces around it; 0 if it is none.

    A line is shorter than the longest number that int() takes (sys.int_info.default_max_str_digits).
    """
    digits = answer.strip()
    return int(digits) if digits.isascii() and digits.isdigit() else 0


def main() -> int:
    """Run the server; return its exit status."""
    parser = argparse.ArgumentParser(description="Sell the seats of a cinema.")
    parser.add_argument("port", type=port_number, metavar="PORT", help="port to listen on; 0 is any free one")
    add_options(parser)
    parser.add_argument(
        "--seats-file",
        type=Path,
        default=SEATS_FILE,
        metavar="FILE",
        help="the hall: zeros and ones (default: seats.txt beside this script)",
    )
    add_number(parser, "--hold-seconds", HOLD_SECONDS, "how long a customer who orders may be silent")
    options = parser.parse_args()
    try:
        theatre = Theatre(options.seats_file)
    except HallError as error:
        return fail(str(error))

    def sell(connection: Connection) -> None:
        Sale(theatre, options.hold_seconds, connection).run()

    return run(options.host, options.port, sell, options.max_connections, options.login_seconds)


if __name__ == "__main__":
    sys.exit(main())
