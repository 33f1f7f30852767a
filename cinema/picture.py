"""The picture of a hall: read it from the lines of ticket_server.py, show it in colour, and find the best seats in it.

 Seat 1 2 3 4 5
Row 1 0 0 1 0 0
"""

import itertools
import math
import re
from collections.abc import Iterator, Sequence

from cinema.seatmap import Seat

FREE, TAKEN, YOURS, LOST = "0", "1", "*", "!"
# green, red, bold cyan and bold red
COLOURS = {FREE: "\033[32m", TAKEN: "\033[31m", YOURS: "\033[1;36m", LOST: "\033[1;31m"}
REVERSE = "\033[7m"
NORMAL = "\033[0m"

_LINE = re.compile(r" *Seat(?: +\d+)+|Row +\d+(?P<cells>(?: +[01])+)")

Point = tuple[float, float]  # a row and a number in it, perhaps between two seats


class SeatPicture:
    """The hall as the server showed it, with the customer's own seats.

    Args:
        in_colour: whether the terminal shows colours.
        lost: a seat that another customer has just taken; the picture marks it as LOST if it is taken.
    """

    def __init__(self, in_colour: bool, lost: Seat | None = None) -> None:
        self._in_colour = in_colour
        self._lost = lost
        self._lines: list[re.Match[str]] = []
        self._rows: list[str] = []  # a character for each seat: FREE, TAKEN, YOURS or LOST
        self._latest: Seat | None = None  # the last seat that became the customer's

    def add_line(self, line: str) -> bool:
        """Add a line that the server sent; return False if it is not part of the picture."""
        match = _LINE.fullmatch(line)
        if match:
            self._lines.append(match)
            if match["cells"]:
                self._rows.append("".join(match["cells"].split()))
                if self._lost and self._sign(self._lost) == TAKEN:
                    self._mark(self._lost, LOST)
        return match is not None

    def add_mine(self, seat: Seat) -> None:
        """Mark a seat as the customer's own."""
        self._latest = seat
        self._mark(seat, YOURS)

    def is_free(self, seat: Seat) -> bool:
        """Return whether a seat exists and is free."""
        return self._sign(seat) == FREE

    def is_mine(self, seat: Seat) -> bool:
        """Return whether a seat is the customer's own."""
        return self._sign(seat) == YOURS

    def neighbour(self, seat: Seat, rows: int, numbers: int) -> Seat:
        """Return the seat at a distance in rows and numbers, or the seat itself if there is none."""
        other = Seat(seat.row + rows, seat.number + numbers)
        return other if self._sign(other) else seat

    def lines(self, cursor: Seat | None = None) -> list[str]:
        """Return the picture, with the seat at the cursor in reverse video, and a line that explains the signs."""
        rows = itertools.count(1)
        lines = [self._line(match, next(rows), cursor) if match["cells"] else match[0] for match in self._lines]
        lost = f", {self._painted(LOST)} just lost" if any(LOST in row for row in self._rows) else ""
        signs = f"{self._painted(FREE)} free, {self._painted(TAKEN)} taken, {self._painted(YOURS)} yours{lost}"
        return [*lines, f"({signs})"]

    def width(self) -> int:
        """Return the number of terminal columns that the hall needs."""
        return max((len(match[0]) for match in self._lines), default=0)

    def nearest_free(self) -> Seat:
        """Return the free seat nearest to the customer's latest one, or to the middle of the hall."""
        _, seats = _nearest_group(self._rows, 1, self._latest or self._middle())
        return seats[0] if seats else Seat(1, 1)

    def best(self, count: int) -> list[list[Seat]]:
        """Return free seats for a party, as near to the middle of the hall as possible.

        They are adjacent, if any row has that many adjacent free seats. Otherwise the party is split into groups: each
        is as large as possible, and all but the first are as near to the first as possible.

        Returns:
            The groups; together they are smaller than the party if too few seats are free.
        """
        groups: list[list[Seat]] = []
        rows, target = self._rows, self._middle()
        while count:
            rows, group = _nearest_group(rows, count, target)
            if not group:
                break
            target = target if groups else (group[0].row, (group[0].number + group[-1].number) / 2)
            groups.append(group)
            count -= len(group)
        return groups

    def _middle(self) -> Point:
        return (len(self._rows) + 1) / 2, (max(map(len, self._rows), default=0) + 1) / 2

    def _sign(self, seat: Seat) -> str:
        """Return the sign of a seat, or an empty string if the seat does not exist."""
        if not (1 <= seat.row <= len(self._rows) and seat.number >= 1):
            return ""
        return self._rows[seat.row - 1][seat.number - 1 : seat.number]

    def _mark(self, seat: Seat, sign: str) -> None:
        if self._sign(seat):
            self._rows[seat.row - 1] = _replaced(self._rows[seat.row - 1], seat.number, sign)

    def _line(self, match: re.Match[str], row: int, cursor: Seat | None) -> str:
        numbers = itertools.count(1)

        def cell(_: re.Match[str]) -> str:
            seat = Seat(row, next(numbers))
            return self._painted(self._sign(seat), seat == cursor)

        return match[0][: match.start("cells")] + re.sub("[01]", cell, match["cells"])

    def _painted(self, sign: str, reverse: bool = False) -> str:
        codes = REVERSE * reverse + COLOURS[sign] * self._in_colour
        return f"{codes}{sign}{NORMAL}" if codes else sign


def _nearest_group(rows: Sequence[str], most: int, target: Point) -> tuple[list[str], list[Seat]]:
    """Find a group as large as possible and then as near as possible; return the rows without it, and the group."""
    runs = list(_free_runs(rows))
    size = min(most, max((len(run) for _, run in runs), default=0))
    if not size:
        return list(rows), []

    def distance(group: list[Seat]) -> tuple[float, float]:  # at the same distance the nearer row comes first
        rows = abs(group[0].row - target[0])
        return rows**2 + ((group[0].number + group[-1].number) / 2 - target[1]) ** 2, rows

    candidates = []
    for row, run in runs:
        if len(run) >= size:
            first = min(max(math.ceil(target[1] - size / 2), run[0]), run[-1] - size + 1)
            candidates.append([Seat(row, number) for number in range(first, first + size)])
    group = min(candidates, key=distance)
    left = list(rows)
    for seat in group:
        left[seat.row - 1] = _replaced(left[seat.row - 1], seat.number, TAKEN)
    return left, group


def _free_runs(rows: Sequence[str]) -> Iterator[tuple[int, range]]:
    """Yield the row of each run of adjacent free seats, and the numbers of its seats."""
    for row, cells in enumerate(rows, 1):
        for run in re.finditer(f"{FREE}+", cells):
            yield row, range(run.start() + 1, run.end() + 1)


def _replaced(cells: str, number: int, sign: str) -> str:
    return cells[: number - 1] + sign + cells[number:]
