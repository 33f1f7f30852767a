"""Report all reservations of one kind of room, or cancel one of them, whether the back end is running or not."""

import argparse
import csv
import io
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from dormitory.reservations import Reservations, read_rows
from dormitory.textfiles import Malformed
from dormitory.wire import RESERVATION_ID
from net.command_line import fail, fail_to_write, prepare_streams
from protocol import harmless

BUSY_SECONDS = 5.0  # how long to wait while the back end is writing
COLUMNS = ("id", "room", "member", "time (UTC)")
FORMULA_BEGINNINGS = tuple("=+-@＝＋－＠")  # noqa: RUF001 - to a spreadsheet, a field that begins so is a formula


def add_administration_options(parser: argparse.ArgumentParser, letter: str) -> None:
    """Add --report, --csv and --cancel, which the dormitory's office uses."""
    group = parser.add_argument_group("instead of serving, whether a server is running or not")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--report", action="store_true", help="print all reservations and their members")
    either.add_argument("--cancel", metavar="ID", help=f"cancel any member's reservation, such as {letter}17")
    group.add_argument("--csv", action="store_true", help="print the report as CSV in UTF-8, for spreadsheets")


def administer(letter: str, database: Path, options: argparse.Namespace) -> int:
    """Print the report, or cancel a reservation; return the exit status of the program."""
    database.stat()
    prepare_streams("backslashreplace")
    if not options.report:
        lines = [_cancel(letter, database, options.cancel)]
    else:
        numbered = read_rows(database, BUSY_SECONDS)
        rows = [COLUMNS, *((f"{letter}{number}", *map(_harmless, fields)) for number, *fields in numbered)]
        lines = _csv(rows) if options.csv else _table(rows)
    try:
        print("\n".join(lines))
    except OSError as error:
        return fail_to_write(error)
    if any(line != _displayable(line) for line in lines):
        fail(f"{sys.stdout.encoding} has no \\u... characters: use a UTF-8 locale, or --report --csv")
    return 0


def _harmless(field: object) -> str:
    """Return the text of a field, whatever it holds, without characters that control a terminal."""
    return harmless(str(field).encode(errors="replace")).translate(dict.fromkeys(b"\t\n", "\N{REPLACEMENT CHARACTER}"))


def _csv(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as CSV that spreadsheets read: a file with a byte order mark, and a quote before a formula."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(encoding="utf-8" if sys.stdout.isatty() else "utf-8-sig")
    text = io.StringIO()
    safe = [[f"'{field}" if field.startswith(FORMULA_BEGINNINGS) else field for field in row] for row in rows]
    csv.writer(text, lineterminator="\n").writerows(safe)
    return text.getvalue().splitlines()


def _table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Return rows as lines with aligned columns."""
    widths = [max(_width(field) for field in column) for column in zip(*rows, strict=True)]
    return [
        "  ".join(f + " " * (width - _width(f)) for f, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]


def _width(text: str) -> int:
    """Return how many columns a terminal needs for a text."""
    columns = 0
    for character in _displayable(text):
        if unicodedata.category(character) not in ("Mn", "Me", "Cf"):
            columns += 2 if unicodedata.east_asian_width(character) in "WF" else 1
    return columns


def _displayable(text: str) -> str:
    """Return a text as standard output shows it: what its encoding lacks, as a number."""
    return text.encode(sys.stdout.encoding, "backslashreplace").decode(sys.stdout.encoding)


def _cancel(letter: str, database: Path, reservation: str) -> str:
    """Cancel a reservation; return the line that says so."""
    if not (RESERVATION_ID.fullmatch(reservation) and reservation[0] == letter):
        raise Malformed(f"Expected the id of a reservation, such as {letter}17, got {reservation!r}")
    number = int(reservation[1:])
    with closing(Reservations(database, BUSY_SECONDS)) as reservations, reservations.transaction():
        found = reservations.find(number)
        if found is None:
            raise Malformed(f"There is no reservation {reservation}")
        room, member = found
        reservations.cancel(number, room)
    return f"Cancelled {reservation}: room {_harmless(room)} of {_harmless(member)}"
