"""Report all reservations of one kind of room, or cancel one of them, whether the back end is running or not."""

import argparse
import csv
import sys
from contextlib import closing
from pathlib import Path

from dormitory.reservations import Reservations
from dormitory.textfiles import Malformed
from dormitory.wire import RESERVATION_ID
from net.command_line import fail_to_write, prepare_streams

BUSY_SECONDS = 5.0  # how long to wait while the back end is writing
COLUMNS = ("id", "room", "member", "time (UTC)")


def add_administration_options(parser: argparse.ArgumentParser, letter: str) -> None:
    """Add --report, --csv and --cancel, which the dormitory's office uses."""
    group = parser.add_argument_group("instead of serving, whether a server is running or not")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--report", action="store_true", help="print all reservations and their members")
    either.add_argument("--cancel", metavar="ID", help=f"cancel any member's reservation, such as {letter}17")
    group.add_argument("--csv", action="store_true", help="print the report as CSV")


def administer(letter: str, database: Path, options: argparse.Namespace) -> int:
    """Print the report, or cancel a reservation; return the exit status of the program.

    Raises:
        Malformed: there is no such reservation.
        sqlite3.Error: the database cannot be used.
        OSError: the database does not exist.
    """
    database.stat()
    prepare_streams()
    with closing(Reservations(database, BUSY_SECONDS)) as reservations:
        try:
            if options.report:
                _report(letter, reservations, options.csv)
            else:
                _cancel(letter, reservations, options.cancel)
        except OSError as error:
            return fail_to_write(error)
    return 0


def _report(letter: str, reservations: Reservations, as_csv: bool) -> None:
    rows = [COLUMNS, *((f"{letter}{number}", *row) for number, *row in reservations.all_rows())]
    if as_csv:
        csv.writer(sys.stdout, lineterminator="\n").writerows(rows)
        return
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{field:<{width}}" for field, width in zip(row, widths, strict=True)).rstrip())


def _cancel(letter: str, reservations: Reservations, reservation: str) -> None:
    if not (RESERVATION_ID.fullmatch(reservation) and reservation[0] == letter):
        raise Malformed(f"Expected the id of a reservation, such as {letter}17, got {reservation!r}")
    number = int(reservation[1:])
    with reservations.transaction():
        found = reservations.find(number)
        if found is None:
            raise Malformed(f"There is no reservation {reservation}")
        room, member = found
        reservations.cancel(number, room)
    print(f"Cancelled {reservation}: room {room} of {member}")
