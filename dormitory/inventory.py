"""The inventory of one kind of room: a text file with `code, count` on each line, only ever read."""

from pathlib import Path

from dormitory.textfiles import Malformed, read_fields
from dormitory.wire import CODE, MAX_TEXT_BYTES, rooms_text

MAX_COUNT = 9999


def read_inventory(path: Path, letter: str) -> dict[str, int]:
    """Return how many rooms there are of each code, in the order of the file.

    Raises:
        Malformed: a line is not `code, count`, a code is there twice, or there are more than fit a datagram.
        OSError: the file cannot be read.
    """
    expected = f'"code, count" such as "{letter}233, 6"'
    rooms: dict[str, int] = {}
    for where, code, count in read_fields(path, expected):
        if not (CODE.fullmatch(code) and code[0] == letter):
            raise Malformed(f"{where}: expected {letter} and 1 to 11 letters or digits for a code, got {code!r}")
        if not (count.isascii() and count.isdigit() and int(count) <= MAX_COUNT):
            raise Malformed(f"{where}: expected a number from 0 to {MAX_COUNT} for a count, got {count!r}")
        if code in rooms:
            raise Malformed(f"{where}: expected each code once, got {code} again")
        rooms[code] = int(count)
    size = len(rooms_text(rooms))
    if size > MAX_TEXT_BYTES:
        raise Malformed(f"{path}: expected rooms that fit {MAX_TEXT_BYTES} bytes of CODE=COUNT, got {size} bytes")
    return rooms
