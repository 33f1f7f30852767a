"""Report all reservations of one kind of room, or cancel one of them, whether the back end is running or not."""

import argparse
import csv
import io
import sys
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from dormitory.reservations import Reservations, read_rows
from dormitory.textfiles import Malformed
from dormitory.wire import RESERVATION_ID
from net.command_line import fail, fail_to_write, prepare_streams
from protocol import harmless

BUSY_SECONDS = 5.0  # how long to wait while the back end is writing
COLUMNS = ("id", "room", "time (UTC)", "member")
TABLE_ROW = "{:<10}  {:<12}  {:<19}  {}"  # the member is last, because characters of a name differ in width
FORMULA_BEGINNINGS = tuple("=+-@＝＋－＠")  # noqa: RUF001 - to a spreadsheet, a field that begins so is a formula


def administer(letter: str, database: Path, options: argparse.Namespace) -> int:
    """Print the report, or cancel a reservation; return the exit status of the program."""
    database.stat()
    prepare_streams("backslashreplace")
    if not options.report:
        lines = [_cancel(letter, database, options.cancel)]
    else:
        rows = [COLUMNS]
        for number, room, member, time in read_rows(database, BUSY_SECONDS):
            rows.append((f"{letter}{number}", _harmless(room), _harmless(time), _harmless(member)))
        lines = _csv(rows) if options.csv else [TABLE_ROW.format(*row) for row in rows]
    try:
        print("\n".join(lines))
        "".join(lines).encode(sys.stdout.encoding)
    except OSError as error:
        return fail_to_write(error)
    except UnicodeEncodeError:
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


def _cancel(letter: str, database: Path, reservation: str) -> str:
    if not (RESERVATION_ID.fullmatch(reservation) and reservation[0] == letter):
        raise Malformed(f"Expected the id of a reservation, such as {letter}17, got {reservation!r}")
    with closing(Reservations(database, BUSY_SECONDS)) as reservations, reservations.transaction():
        cancelled = reservations.cancel(int(reservation[1:]))
    if cancelled is None:
        raise Malformed(f"There is no reservation {reservation}")
    room, member = cancelled
    return f"Cancelled {reservation}: room {_harmless(room)} of {_harmless(member)}"
