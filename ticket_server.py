#!/usr/bin/env python3
"""Sell the seats of a cinema to any number of customers at the same time; `telnet` works as a client.

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

The server holds a seat that is reserved until the order is booked or cancelled. A booked order is in seats.txt and on
disk; if flushing the directory has failed, the server says that it might not survive a power failure.
"""

import argparse
import os
import sys
from pathlib import Path
from typing import NoReturn

from cinema.booking import Order, OrderCancelled, OrderUncertain, Theatre
from cinema.seatmap import Seat, SeatFileError, SeatMap
from net import process
from net.addresses import network_of
from net.command_line import add_number, port_number
from net.conversation import Conversation, InputEnded
from net.options import add_server_options

SEATS_FILE = Path(__file__).resolve().with_name("seats.txt")
HOLD_SECONDS = 600
WRONG_ANSWERS = 5  # the number of wrong answers in a row that ends an order
TOO_MANY_WRONG_ANSWERS = f"{WRONG_ANSWERS} wrong answers in a row"
CANCELLED = "Order cancelled, nothing was booked."


def sell(client: Conversation, theatre: Theatre, options: argparse.Namespace) -> None:
    """Sell one customer the seats of an order, or say why not; release the customer's holds in either case."""
    order = Order()
    try:
        theatre.check()  # so that no question is asked while nothing can be sold
        take_order(client, theatre, order, options)
        client.flush()  # the customer reads `reserved` while this thread waits for the disk
        theatre.book(order)
        seats = ", ".join(map(str, order.seats))
        client.log(f"booked {seats}")
        client.queue_reply(f"Booked: {seats}")
    except OrderCancelled as reason:
        cancel(client, str(reason))
    except InputEnded:
        cancel(client, "The server is stopping" if client.connection.server_is_stopping() else "No answer came")
    except OrderUncertain as error:
        client.log(f"perhaps booked: {error}")
        client.queue_reply("Sorry, it is not certain whether the order is booked.")
    except SeatFileError as error:
        cancel(client, "Sorry, no seat can be sold now", logged=str(error))
    finally:
        theatre.release(order)


def take_order(client: Conversation, theatre: Theatre, order: Order, options: argparse.Namespace) -> None:
    """Ask how many tickets the customer wants, and hold a seat for each."""
    tickets = ask_number(client, "How many tickets do you want?", options.max_tickets)
    seat_map = theatre.seat_map()
    client.log(f"tickets asked for: {tickets}, seats free: {seat_map.free}")
    if tickets > seat_map.free:
        raise OrderCancelled(f"Only {seat_map.free} {'seat is' if seat_map.free == 1 else 'seats are'} free")
    client.set_time_limit(options.hold_seconds, f"Time is up. {CANCELLED}", restarts=False)
    client.queue_reply(f"Choose a row and a seat for each ticket: 0 is free, 1 is taken.\n{seat_map}")
    for ticket in range(1, tickets + 1):
        choose_seat(client, theatre, order, ticket, seat_map)


def choose_seat(client: Conversation, theatre: Theatre, order: Order, ticket: int, seat_map: SeatMap) -> None:
    """Ask for a seat and hold it."""
    for _ in range(WRONG_ANSWERS):
        row = ask_number(client, f"Row for ticket {ticket}?", seat_map.rows)
        number = ask_number(client, f"Seat for ticket {ticket}?", seat_map.columns)
        seat = Seat(row, number)
        client.log(f"ticket {ticket}: row {row}, seat {number}")
        if seat not in order.seats:
            theatre.hold(order, seat, network_of(client.connection.address))
            client.log(f"ticket {ticket} reserved: {seat}")
            client.queue_reply(f"Ticket {ticket} reserved")
            return
        client.queue_reply(f"Seat {seat} is yours already. Another one is expected.")
    raise OrderCancelled(TOO_MANY_WRONG_ANSWERS)


def ask_number(client: Conversation, question: str, most: int | None = None) -> int:
    """Ask until the answer is a number from 1 on, in ASCII digits, that is not too large; return it."""
    for _ in range(WRONG_ANSWERS):
        answer = client.ask(question).strip()
        # int() limits the number of digits (sys.int_info.default_max_str_digits), but no line is that long.
        number = int(answer) if answer.isascii() and answer.isdigit() else 0
        if number and (most is None or number <= most):
            return number
        client.queue_reply(f"A number {f'from 1 to {most}' if most else 'of 1 or more'} is expected.")
    raise OrderCancelled(TOO_MANY_WRONG_ANSWERS)


def cancel(client: Conversation, reason: str, logged: str = "") -> None:
    """Say why nothing is booked; log another text if the operator needs to know more than the customer."""
    client.log(f"cancelled: {logged or reason}")
    client.queue_reply(f"{reason}. {CANCELLED}")


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="Sell the seats of a cinema.", epilog="Example: python3 ticket_server.py 5050 --seats-file hall.txt"
    )
    parser.add_argument("port", type=port_number, metavar="PORT", help="port to listen on; 0 means any free port")
    add_server_options(parser)
    seats_help = "a line of zeros (free) and ones (taken) for each row (default: seats.txt next to this program)"
    parser.add_argument("--seats-file", type=Path, default=SEATS_FILE, metavar="FILE", help=seats_help)
    add_number(parser, "--hold-seconds", HOLD_SECONDS, "seconds that a customer has to choose the seats of an order")
    add_number(parser, "--max-tickets", None, "how many tickets an order may have (default: no limit)")
    add_number(parser, "--max-held-per-address", None, "how many seats may be held for one address (default: no limit)")
    options = parser.parse_args()
    limits = options.max_tickets, options.max_held_per_address
    options.max_tickets = min(filter(None, limits), default=None)  # an order holds all of its seats at the same time
    try:
        theatre = Theatre(options.seats_file, options.max_held_per_address)
    except SeatFileError as error:
        sys.exit(str(error))
    process.prepare(os.getpid())
    process.limit_connections(options)
    server = process.open_server(options, options.port, lambda client: sell(client, theatre, options))
    theatre.report_at_start()
    process.run(server)


if __name__ == "__main__":
    main()
