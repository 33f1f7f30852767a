"""Choose a seat in the picture of a hall with the arrow keys and Enter, or type it.

The chooser draws the picture above the line with the question. To redraw it in place it moves the terminal's cursor up,
so the whole picture must fit into the window.
"""

import os
import re
import select
import signal
import sys
import termios
import tty
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from cinema.picture import SeatPicture
from cinema.seatmap import Seat
from net.connect import ServerLines

HINT = "Arrow keys and Enter choose a seat. It may be typed too, as in 2-3."
ERASE_BELOW = "\033[J"

_MOVES = {"A": (-1, 0), "B": (1, 0), "C": (0, 1), "D": (0, -1)}  # rows and numbers, by the last byte of an arrow key
_ARROW = re.compile(rb"\x1b[\[O]([ABCD])")
_UNFINISHED = re.compile(rb"\x1b(\[[0-?]*[ -/]*|O)?")  # an incomplete escape sequence of a key (ECMA-48)
_ENTER = (b"\n", b"\r")
_BACKSPACE = (b"\x7f", b"\b")
_ERASE_LINE = b"\x15"  # Ctrl-U
_END_OF_INPUT = b"\x04"  # Ctrl-D


class SeatChooser:
    """A picture and a question in a terminal, and the keys that a user presses to answer.

    Args:
        picture: the hall.
        question: what the server asks.
        server: the server, which may end the order before the user answers.
        write: writes to standard output without buffering.
    """

    def __init__(self, picture: SeatPicture, question: str, server: ServerLines, write: Callable[[str], None]) -> None:
        self._picture = picture
        self._question = question
        self._server = server
        self._write = write
        self._keyboard = sys.stdin.fileno()
        self._cursor = picture.nearest_free()
        self._typed = ""
        self._note = ""
        self._key = b""  # the first bytes of a key whose others have not arrived
        self._drawn_lines = 0  # above the question

    def fits(self) -> bool:
        """Return whether the window is large enough for the picture; False if its size is unknown."""
        columns, rows = self._window()
        return len(self._picture.lines()) + 1 < rows and max(self._picture.width(), len(HINT)) < columns

    def choose(self) -> str | None:
        """Return the answer, such as 2-3; None if the server sends something first.

        Raises:
            EOFError: the user pressed Ctrl-D, or the terminal is gone.
        """
        answer: str | None = ""
        with self._single_keys() as signals:
            try:
                while answer == "":
                    self._draw(self._cursor, self._typed or f"{self._cursor}{self._note}")
                    answer = self._wait(signals)
            finally:
                self._draw(None, answer or "")
                self._write("\n")
        return answer

    @contextmanager
    def _single_keys(self) -> Iterator[int]:
        """Turn off echo and line editing; yield a descriptor from which the numbers of signals can be read.

        The signals are SIGWINCH, and SIGCONT, because a shell uses the terminal between Ctrl-Z and fg.
        """
        mode = termios.tcgetattr(self._keyboard)
        reader, writer = os.pipe()
        os.set_blocking(writer, False)
        old_writer = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
        handlers = {number: signal.signal(number, lambda *_: None) for number in (signal.SIGCONT, signal.SIGWINCH)}
        try:
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
            yield reader
        finally:
            with suppress(termios.error):  # the terminal is gone
                termios.tcsetattr(self._keyboard, termios.TCSADRAIN, mode)
            for number, handler in handlers.items():
                signal.signal(number, handler)
            signal.set_wakeup_fd(old_writer)
            os.close(reader)
            os.close(writer)

    def _wait(self, signals: int) -> str | None:
        """Wait for a key, a signal or the server; return what choose() returns, or "" if there is no answer yet."""
        readable, _, _ = select.select([self._server, self._keyboard, signals], [], [])
        if signals in readable:
            self._resume(os.read(signals, 1)[0])
        if self._server in readable and self._server.receive():
            return None
        return self._take_key() if self._keyboard in readable else ""

    def _resume(self, number: int) -> None:
        if number == signal.SIGCONT:
            tty.setcbreak(self._keyboard, termios.TCSADRAIN)
            self._drawn_lines = 0  # the shell has written below the picture

    def _take_key(self) -> str:
        """Take one byte; return the answer if it is complete."""
        try:
            byte = os.read(self._keyboard, 1)
        except OSError:  # the terminal is gone
            byte = b""
        if not byte:
            raise EOFError
        self._key += byte
        if _UNFINISHED.fullmatch(self._key):
            return ""
        key, self._key = self._key, b""
        return self._press(key)

    def _press(self, key: bytes) -> str:
        """Handle a key; return the answer if it is complete."""
        self._note = ""
        if key in _ENTER:
            return self._typed or self._seat_at_cursor()
        if key == _END_OF_INPUT and not self._typed:
            raise EOFError
        if arrow := _ARROW.fullmatch(key):
            self._typed = ""
            self._cursor = self._picture.neighbour(self._cursor, *_MOVES[arrow[1].decode()])
        elif key in _BACKSPACE:
            self._typed = self._typed[:-1]
        elif key == _ERASE_LINE:
            self._typed = ""
        elif len(key) == 1 and b" " <= key <= b"~":
            self._typed += key.decode()
        return ""

    def _seat_at_cursor(self) -> str:
        """Return the seat at the cursor; if the user cannot have it, note why and return ""."""
        if not self.fits():
            return ""  # the picture is hidden
        if self._picture.is_free(self._cursor):
            return str(self._cursor)
        self._note = " is yours already" if self._picture.is_mine(self._cursor) else " is taken"
        return ""

    def _draw(self, cursor: Seat | None, answer: str) -> None:
        """Draw the question, and the picture if it fits, over what was drawn before."""
        up = f"\033[{self._drawn_lines}A" if self._drawn_lines else ""
        lines = [*self._picture.lines(cursor), HINT] if self.fits() else []
        columns, _ = self._window()
        prompt = f"{self._question} {answer if lines else self._typed}"
        self._write(f"\r{up}{ERASE_BELOW}" + "".join(f"{line}\n" for line in lines) + prompt[-max(1, columns - 1) :])
        self._drawn_lines = len(lines)

    def _window(self) -> os.terminal_size:
        """Return the numbers of columns and rows of the window, zeros if they are unknown."""
        try:
            return os.get_terminal_size(sys.stdout.fileno())
        except OSError:
            return os.terminal_size((0, 0))
