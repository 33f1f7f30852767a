"""Read the inventory of one kind of room: a text file with `code, count` on each line. No program writes it."""

from pathlib import Path

from dormitory.textfiles import Malformed, WatchedFile, read_fields
from dormitory.wire import CODE

Inventory = WatchedFile[dict[str, int]]  # the number of rooms by code

MAX_COUNT = 9999
MAX_CODES = 10_000


def read_inventory(path: Path, letter: str) -> dict[str, int]:
    """Return the number of rooms by code, in the order of the file; no code may appear twice."""
    rooms: dict[str, int] = {}
    for where, code, count in read_fields(path, f'"code, count" such as "{letter}233, 6"'):
        if not (CODE.fullmatch(code) and code[0] == letter):
            raise Malformed(f"{where}: expected {letter} and 1 to 11 letters or digits for a code, got {code!r}")
        if not (count.isascii() and count.isdigit() and len(count) <= 20 and int(count) <= MAX_COUNT):
            raise Malformed(f"{where}: expected a number from 0 to {MAX_COUNT} for a count, got {count!r}")
        if code in rooms:
            raise Malformed(f"{where}: expected each code once, got {code} again")
        if len(rooms) == MAX_CODES:
            raise Malformed(f"{where}: expected at most {MAX_CODES} codes, got more")
        rooms[code] = int(count)
    return rooms
