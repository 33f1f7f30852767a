"""Choose a seat with the arrow keys and Enter in the picture of a hall, which must fit into the window, or type it."""

import re
import textwrap
import unicodedata

from cinema.picture import FREE, YOURS, SeatPicture
from cinema.seatmap import Seat
from net.connect import ServerLines
from terminal.console import END_OF_INPUT, ENTER, Console
from terminal.line_editor import LineEditor

HINT = "Arrow keys and Enter, or type it: 2-3"

_MOVES = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1)}  # rows and numbers, by the last byte of an arrow key
_ARROW = re.compile(r"\x1b[\[O]([ABCD])")
_SEAT = re.compile(r"\s*([0-9]{1,99})(?:\s*-\s*|\s+)([0-9]{1,99})\s*")  # 2-3 or 2 3


def seat_in(text: str) -> Seat | None:
    """Return the seat that a text such as 2-3 names, or None."""
    match = _SEAT.fullmatch(with_ascii_digits(text))
    return Seat(int(match[1]), int(match[2])) if match else None


def with_ascii_digits(text: str) -> str:
    """Return a text with the digits of all scripts, and wide characters, replaced by those that the server reads."""
    return "".join(str(unicodedata.decimal(character, character)) for character in unicodedata.normalize("NFKC", text))


class SeatChooser:
    """A picture and a question in a terminal, and the keys that a user presses to answer."""

    def __init__(self, picture: SeatPicture, question: str, console: Console, server: ServerLines) -> None:
        self._picture = picture
        self._question = question
        self._console = console
        self._server = server
        self._cursor = picture.nearest_free()
        self._editor = LineEditor([])
        self._note = ""

    def obstacle(self) -> str:
        """Return why the picture cannot be shown in the window; "" if it can."""
        columns, rows = self._console.window
        needed_rows, needed_columns = len(self._picture.lines()) + 2, self._picture.width() + 1
        if rows >= needed_rows and columns >= needed_columns:
            return ""
        return f"Arrow keys need {needed_rows} rows and {needed_columns} columns."

    def choose(self) -> str | None:
        """Return the answer: a seat, or the number of a row; None if the server sends something first."""
        self._picture.is_shown = True
        answer = None
        try:
            answer = self._console.wait_for(self._press_keys, self._server)
        finally:
            hall = [] if self.obstacle() else self._picture.lines()
            self._console.show("\n".join([*hall, f"{self._question} {answer or ''}"]))
        return answer

    def _press_keys(self) -> str | None:
        """Handle the keys that were pressed; return the answer if they complete one, or else draw the picture."""
        while key := self._console.next_key():
            self._note = ""
            if key in ENTER:
                if answer := self._enter():
                    return answer
            elif key == END_OF_INPUT and not self._editor.text:
                raise EOFError
            elif arrow := _ARROW.fullmatch(key):
                self._editor = LineEditor([])
                rows, numbers = _MOVES[arrow[1]]
                seat = Seat(self._cursor.row + rows, self._cursor.number + numbers)
                self._cursor = seat if seat in self._picture.signs else self._cursor
            else:
                self._editor.press(key)
        self._draw()
        return None

    def _enter(self) -> str:
        """Return what was typed, or else the seat at the cursor; if it cannot be had, note why and return ""."""
        typed = with_ascii_digits(self._editor.text).strip()
        if self._editor.text:
            if seat_in(typed) or typed.isdecimal():
                return typed
            self._note = "A seat is expected, such as 2-3"
        elif not self.obstacle():  # otherwise the user cannot see the cursor
            sign = self._picture.signs.get(self._cursor)
            if sign == FREE:
                return str(self._cursor)
            self._note = f"Seat {self._cursor} is {'yours already' if sign == YOURS else 'taken'}"
        return ""

    def _draw(self) -> None:
        obstacle, columns = self.obstacle(), self._console.window.columns
        hall = [] if obstacle else self._picture.lines(self._cursor)
        offered = self._cursor if hall and not self._editor.text else ""
        before, after = self._editor.view(f"{self._question} {offered}", columns - 1)
        note = self._note or obstacle or HINT
        self._console.draw(before, after, [*hall, note] if hall else textwrap.wrap(note, columns))
