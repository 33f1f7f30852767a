"""The picture of a hall: read it from the lines of ticket_server.py, show it in colour, find the best seats in it."""

import itertools
import re

from cinema.seatmap import Seat

FREE, TAKEN, YOURS, LOST = "0", "1", "*", "!"
# green, red, bold cyan and bold red
COLOURS = {FREE: "\033[32m", TAKEN: "\033[31m", YOURS: "\033[1;36m", LOST: "\033[1;31m"}
REVERSE, NORMAL = "\033[7m", "\033[0m"

_LINE = re.compile(r" *Seat(?: +\d+)+|Row +(?P<row>\d{1,9})(?P<cells>(?: +[01])+)")


class SeatPicture:
    """The hall as the server showed it, with the customer's own seats, and one that another customer has just taken."""

    def __init__(self, in_colour: bool, lost: Seat | None = None) -> None:
        self.signs: dict[Seat, str] = {}
        self.is_shown = True  # the screen shows the picture as it is now
        self._in_colour = in_colour
        self._lost = lost
        self._lines: list[re.Match[str]] = []
        self._latest: Seat | None = None  # the last seat that became the customer's

    def add_line(self, line: str) -> bool:
        """Add a line that the server sent; return False if it is not part of the picture."""
        match = _LINE.fullmatch(line)
        if not match:
            return False
        self._lines.append(match)
        self.is_shown = False
        if match["row"]:
            for number, sign in enumerate(match["cells"].split(), 1):
                seat = Seat(int(match["row"]), number)
                self.signs[seat] = LOST if seat == self._lost and sign == TAKEN else sign
        return True

    def add_mine(self, seat: Seat) -> None:
        """Mark a seat as the customer's own."""
        self._latest = seat
        self.signs[seat] = YOURS
        self.is_shown = False

    def lines(self, cursor: Seat | None = None) -> list[str]:
        """Return the picture, with the seat at the cursor in reverse video, and a line that explains the signs."""
        lines = [self._line(match, cursor) if match["row"] else match[0] for match in self._lines]
        lost = f", {self._painted(LOST)} just lost" if LOST in self.signs.values() else ""
        signs = f"{self._painted(FREE)} free, {self._painted(TAKEN)} taken, {self._painted(YOURS)} yours{lost}"
        return [*lines, f"({signs})"]

    def width(self) -> int:
        """Return the number of terminal columns that the hall needs."""
        return max((len(match[0]) for match in self._lines), default=0)

    def nearest_free(self) -> Seat:
        """Return the free seat nearest to the customer's latest one, or to the middle of the hall."""
        group = _nearest_group(self._free(), 1, self._latest or self._middle())
        return group[0] if group else Seat(1, 1)

    def best(self, count: int) -> list[list[Seat]]:
        """Return adjacent free seats for a party, as near to the middle of the hall as possible, or else groups.

        Each group is as large as possible, and all but the first are as near to the first as possible. Together they
        are smaller than the party if too few seats are free.
        """
        groups: list[list[Seat]] = []
        free, target = self._free(), self._middle()
        while count and (group := _nearest_group(free, count, target)):
            groups.append(group)
            target = groups[0][0].row, (groups[0][0].number + groups[0][-1].number) / 2
            free = sorted(set(free).difference(group))
            count -= len(group)
        return groups

    def _free(self) -> list[Seat]:
        return [seat for seat, sign in self.signs.items() if sign == FREE]

    def _middle(self) -> tuple[float, float]:
        last = max(self.signs, default=Seat(1, 1))
        return (last.row + 1) / 2, (last.number + 1) / 2

    def _line(self, match: re.Match[str], cursor: Seat | None) -> str:
        seats = (Seat(int(match["row"]), number) for number in itertools.count(1))
        cells = (self._painted(self.signs[seat], seat == cursor) for seat in seats)
        return match[0][: match.start("cells")] + re.sub("[01]", lambda _: next(cells), match["cells"])

    def _painted(self, sign: str, reverse: bool = False) -> str:
        codes = (REVERSE if reverse else "") + (COLOURS[sign] if self._in_colour else "")
        return f"{codes}{sign}{NORMAL}" if codes else sign


def _nearest_group(free: list[Seat], most: int, target: tuple[float, float]) -> list[Seat]:
    """Return the largest group of at most `most` adjacent seats; of several, the one nearest to the target."""
    adjacent: dict[Seat, int] = {}  # how many free seats there are from each one to the right
    for seat in sorted(free, reverse=True):
        adjacent[seat] = adjacent.get(Seat(seat.row, seat.number + 1), 0) + 1
    size = min(most, max(adjacent.values(), default=0))

    def distance(first: Seat) -> tuple[float, float, Seat]:  # at the same distance, a nearer row comes first
        row, number = first.row, first.number + (size - 1) / 2
        return (row - target[0]) ** 2 + (number - target[1]) ** 2, abs(row - target[0]), first

    first = min((seat for seat in free if adjacent[seat] >= size), key=distance, default=Seat(1, 1))
    return [Seat(first.row, first.number + further) for further in range(size)]
