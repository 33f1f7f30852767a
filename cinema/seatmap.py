"""seats.txt: the seats of a hall as zeros and ones in the text of a file.

    0 0 0 0 0
    0 0 1 1 0

A line is a row; 0 is a free seat and 1 a taken one. 25 numbers on one line are five rows of five. A sale changes one
character for each seat, so that the file keeps its white space.
"""

import copy
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

FREE = b"0"
TAKEN = b"1"
ONE_LINE_ROWS = ONE_LINE_COLUMNS = 5
SHOWN_CHARACTERS = 20  # of a wrong number, which may be long

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_OTHER_BYTES = bytes(set(range(256)).difference(FREE + TAKEN))


class SeatFileError(Exception):
    """The file cannot be read, is malformed or cannot be written; the text names the file, and the line."""


class Seat(NamedTuple):
    """The row of a seat, and its number in the row, both counted from 1."""

    row: int
    number: int

    def __str__(self) -> str:
        return f"{self.row}-{self.number}"


class SeatMap:
    """A rectangle of seats, as zeros, ones and white space describe it; SeatFileError names the file if they do not."""

    def __init__(self, text: bytes, file: Path) -> None:
        self.text = text
        self.rows, self.columns = _measure(text.removeprefix(_BYTE_ORDER_MARK), file)
        self._offsets = [match.start() for match in re.finditer(b"[01]", text)]  # of each seat's character in the text

    @property
    def free(self) -> int:
        """The number of free seats."""
        return self.text.count(FREE)

    def is_free(self, seat: Seat) -> bool:
        """Return whether the seat exists and is free."""
        exists = 1 <= seat.row <= self.rows and 1 <= seat.number <= self.columns
        return exists and self.text[self._offset(seat)] == ord(FREE)

    def with_taken(self, seats: Iterable[Seat]) -> "SeatMap":
        """Return a copy in which these seats, which must exist, are taken."""
        text = bytearray(self.text)
        for seat in seats:
            text[self._offset(seat)] = ord(TAKEN)
        seat_map = copy.copy(self)
        seat_map.text = bytes(text)
        return seat_map

    def __str__(self) -> str:
        """Return the hall as customers see it: a line with the numbers of the seats, then a line for each row."""
        row_width, cell_width = len(str(self.rows)), len(str(self.columns)) + 1
        gap = " " * (cell_width - 1)
        lines = [" " * row_width + "Seat" + "".join(f"{number:{cell_width}}" for number in range(1, self.columns + 1))]
        signs = self.text.translate(None, _OTHER_BYTES).decode()
        for row in range(1, self.rows + 1):
            seats = signs[(row - 1) * self.columns : row * self.columns]
            lines.append(f"Row {row:{row_width}}{gap}{gap.join(seats)}")
        return "\n".join(lines)

    def _offset(self, seat: Seat) -> int:
        return self._offsets[(seat.row - 1) * self.columns + seat.number - 1]


def _measure(text: bytes, file: Path) -> tuple[int, int]:
    rows = columns = 0
    for line_number, line in enumerate(text.splitlines(), 1):
        seats = line.split()
        if wrong := set(seats) - {FREE, TAKEN}:
            shown = min(wrong)[:SHOWN_CHARACTERS].decode(errors="replace")
            raise SeatFileError(f"{file}, line {line_number}: {shown!a} is not a seat; 0 or 1 is expected")
        if seats:
            rows, columns = rows + 1, columns or len(seats)
            if len(seats) != columns:
                count = f"seats in the row: {len(seats)}; expected, as in the first row: {columns}"
                raise SeatFileError(f"{file}, line {line_number}: {count}")
    if not rows:
        raise SeatFileError(f"{file}, line 1: no seats; zeros and ones separated by spaces are expected")
    if (rows, columns) == (1, ONE_LINE_ROWS * ONE_LINE_COLUMNS):
        return ONE_LINE_ROWS, ONE_LINE_COLUMNS
    return rows, columns
