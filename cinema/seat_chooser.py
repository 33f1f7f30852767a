"""Choose a seat in the picture of a hall with the arrow keys and Enter, or type it.

The chooser draws the picture above the line with the question. To redraw the picture in place, it moves the terminal's
cursor up, so the whole picture must fit into the window.
"""

import os
import re
import select
import sys

from cinema.picture import FREE, YOURS, SeatPicture
from cinema.seatmap import Seat
from net.connect import ServerLines
from terminal.console import END_OF_INPUT, ENTER, erase_rows, read_keys, resume, single_keys, write

HINT = "Arrow keys and Enter choose a seat. It may be typed too, as in 2-3."

_MOVES = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1)}  # rows and numbers, by the last byte of an arrow key
_ARROW = re.compile(r"\x1b[\[O]([ABCD])")
_BACKSPACE = ("\x7f", "\b")
_ERASE_LINE = "\x15"  # Ctrl-U


class SeatChooser:
    """A picture and a question in a terminal, and the keys that a user presses to answer.

    Args:
        picture: the hall.
        question: what the server asks.
        server: the server, which may end the order before the user answers.
    """

    def __init__(self, picture: SeatPicture, question: str, server: ServerLines) -> None:
        self._picture = picture
        self._question = question
        self._server = server
        self._cursor = picture.nearest_free()
        self._typed = ""
        self._note = ""
        self._drawn_lines = 0  # above the question

    def fits(self) -> bool:
        """Return whether the window is large enough for the picture; False if its size is unknown."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return len(self._picture.lines()) + 1 < rows and max(self._picture.width(), len(HINT)) < columns

    def choose(self) -> str | None:
        """Return the answer, such as 2-3; None if the server sends something first.

        Raises:
            EOFError: the user pressed Ctrl-D, or the terminal cannot be read.
        """
        answer: str | None = ""
        with single_keys() as signals:
            try:
                while answer == "":
                    self._draw(self._cursor, self._typed or f"{self._cursor}{self._note}")
                    answer = self._wait(signals)
            finally:
                self._draw(None, answer or "")
                write("\n")
        return answer

    def _wait(self, signals: int) -> str | None:
        """Wait for a key, a signal or the server; return what choose() returns, or "" if there is no answer yet."""
        readable, _, _ = select.select([self._server, sys.stdin, signals], [], [])
        if signals in readable and resume(signals):
            self._drawn_lines = 0  # the shell has written below the picture
        if self._server in readable and self._server.receive():
            return None
        return self._press(read_keys(1).decode("latin-1")) if sys.stdin in readable else ""

    def _press(self, key: str) -> str:
        """Handle a key, or the end of the input, which is ""; return the answer if it is complete."""
        self._note = ""
        if key in ENTER:
            return self._typed or self._seat_at_cursor()
        if not key or (key == END_OF_INPUT and not self._typed):
            raise EOFError
        if arrow := _ARROW.fullmatch(key):
            self._typed = ""
            self._cursor = self._picture.neighbour(self._cursor, *_MOVES[arrow[1]])
        elif key in _BACKSPACE:
            self._typed = self._typed[:-1]
        elif key == _ERASE_LINE:
            self._typed = ""
        elif len(key) == 1 and " " <= key <= "~":
            self._typed += key
        return ""

    def _seat_at_cursor(self) -> str:
        """Return the seat at the cursor; if the user cannot have it, note why and return ""."""
        if not self.fits():
            return ""  # the picture is hidden
        sign = self._picture.signs.get(self._cursor)
        if sign == FREE:
            return str(self._cursor)
        self._note = " is yours already" if sign == YOURS else " is taken"
        return ""

    def _draw(self, cursor: Seat | None, answer: str) -> None:
        """Draw the question, and the picture if it fits, over what was drawn before."""
        lines = [*self._picture.lines(cursor), HINT] if self.fits() else []
        columns, _ = os.get_terminal_size(sys.stdout.fileno())
        prompt = f"{self._question} {answer if lines else self._typed}"
        above = "".join(f"{line}\n" for line in lines)
        write(erase_rows(self._drawn_lines) + above + prompt[-max(1, columns - 1) :])
        self._drawn_lines = len(lines)
