"""Run a program in a pseudo-terminal, type to it, and look at its screen."""

import codecs
import fcntl
import os
import pty
import re
import signal
import struct
import subprocess
import sys
import termios
import threading
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, WAIT_SECONDS, wait_until

ROWS, COLUMNS = 40, 120
UNLIMITED_COLUMNS = 10_000  # for a window whose size is unknown
SEQUENCE = re.compile(r"\x1b\[([0-?]*)([@-~])|\x1b([78])")  # ECMA-48: parameters and a final character; DECSC, DECRC
UNFINISHED = re.compile(r"\x1b(\[[0-?]*)?\Z")
REVERSE = re.compile(r"\x1b\[7m(?:\x1b\[[\d;]+m)?(.)\x1b\[0m")
COLOUR = re.compile(r"\x1b\[[\d;]*m")
DRAWING = re.compile(r"\r?\x1b\[\d*[AJ]|\x1b\[\?7[hl]|\x1b[78]")


class ScreenBuffer:
    """The rows of a terminal, including those that have scrolled off its screen.

    It interprets text, and the sequences with which programs here move the cursor, erase or colour. Text that does not
    fit into a row continues in the next one, unless a program turns that off; a change of the width wraps it again.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: list[list[str]] = [[]]  # of cells; the second cell of a wide character is empty
        self._continued: set[int] = set()  # the rows whose text goes on in the next one
        self._row = self._column = 0
        self._saved = (0, 0)  # a row and a column
        self._wraps = True
        self._colour = ""  # a sequence that belongs to the next character
        self._text = ""  # an escape sequence whose end has not arrived

    def write(self, text: str) -> None:
        """Interpret what a program has written."""
        text = self._text + text
        unfinished = UNFINISHED.search(text)
        end = unfinished.start() if unfinished else len(text)
        self._text = text[end:]
        position = 0
        while position < end:
            if sequence := SEQUENCE.match(text, position):
                self._obey(sequence[1] or "", sequence[2] or sequence[3], sequence[0])
                position = sequence.end()
            else:
                self._put(text[position])
                position += 1

    def resize(self, columns: int) -> None:
        """Rewrap the lines for another width; keep the cursor at its place in its line."""
        lines: list[list[str]] = []
        cursor = (0, 0)
        for number, row in enumerate(self._rows):
            if number - 1 not in self._continued:
                lines.append([])
            if number == self._row:
                cursor = (len(lines) - 1, len(lines[-1]) + self._column)
            lines[-1] += row
        self._rows, self._continued, self._columns = [], set(), columns
        for number, line in enumerate(lines):
            if number == cursor[0]:
                row_of_cursor = max(cursor[1] - 1, 0) // columns if cursor[1] == len(line) else cursor[1] // columns
                self._row = len(self._rows) + row_of_cursor
                self._column = cursor[1] - row_of_cursor * columns
            pieces = [line[start : start + columns] for start in range(0, len(line), columns)] or [[]]
            self._continued.update(range(len(self._rows), len(self._rows) + len(pieces) - 1))
            self._rows += pieces

    def lines(self) -> list[str]:
        """Return the lines, each whole even if it takes several rows."""
        lines: list[str] = []
        for number, row in enumerate(self._rows):
            if number - 1 in self._continued:
                lines[-1] += "".join(row)
            else:
                lines.append("".join(row))
        return lines

    def before_cursor(self) -> str:
        """Return the text to the left of the cursor in its row."""
        return "".join(self._rows[self._row][: self._column])

    def _put(self, character: str) -> None:
        if character == "\r":
            self._column = 0
        elif character == "\b":
            self._column = max(self._column - 1, 0)
        elif character == "\n":
            self._rows[self._row] += [self._colour] if self._colour else []
            self._colour = ""
            self._go_down()
        else:
            self._put_visible(character)

    def _put_visible(self, character: str) -> None:
        if unicodedata.category(character) in ("Mn", "Cf") or "\u1160" <= character <= "\u11ff":
            if self._column:  # a byte order mark at the beginning of a row joins nothing
                self._rows[self._row][self._column - 1] += character
            return
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if self._column + width > self._columns and not self._wraps:
            self._column = self._columns - width
        if self._column + width > self._columns:
            self._continued.add(self._row)
            self._go_down()
            self._column = 0
        row = self._rows[self._row]
        row += [" "] * (self._column - len(row))
        row[self._column : self._column + width] = [self._colour + character, *[""] * (width - 1)]
        self._column += width
        self._colour = ""

    def _go_down(self) -> None:
        self._row += 1
        if self._row == len(self._rows):
            self._rows.append([])

    def _obey(self, parameters: str, final: str, sequence: str) -> None:
        number = int(parameters) if parameters.isdigit() else 1
        if final in "KJ":
            del self._rows[self._row][self._column :]
            self._continued.discard(self._row)
        if final == "J":
            del self._rows[self._row + 1 :]
            self._continued = {row for row in self._continued if row < self._row}
        elif final == "A":
            self._row = max(self._row - number, 0)
        elif final == "C":
            self._column += number
        elif final == "D":
            self._column = max(self._column - number, 0)
        elif final == "m":
            self._colour += sequence
        elif final == "7":
            self._saved = (self._row, self._column)
        elif final == "8":
            self._row, self._column = self._saved
        elif parameters == "?7":
            self._wraps = final == "h"


class Terminal:
    """A program that has a terminal: a script of the project, or any other program, and its arguments.

    A window of (0, 0) does not know its size. With `controls`, keys such as Ctrl-C and Ctrl-Z reach the program as
    signals; when it ends, the kernel resets the terminal, so that shows_keys() tells nothing. `environment` holds the
    variables that differ from the tests' own.
    """

    def __init__(
        self,
        *command: str,
        window: tuple[int, int] = (ROWS, COLUMNS),
        controls: bool = False,
        cwd: Path | None = None,
        **environment: str,
    ) -> None:
        self._keyboard, self.tty = pty.openpty()
        self._screen = ScreenBuffer(window[1] or UNLIMITED_COLUMNS)
        self._set_window(*window)
        if Path(command[0]).suffix == ".py":
            command = (sys.executable, "-W", "error", str(ROOT / command[0]), *command[1:])
        if controls:  # the terminal that the leader of a session opens becomes its controlling terminal
            command = ("sh", "-c", 'exec "$@" <"$0"', os.ttyname(self.tty), *command)
        variables = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
        variables |= {"TERM": "xterm", **environment}
        tty = self.tty
        self.process = subprocess.Popen(
            command, stdin=tty, stdout=tty, stderr=tty, cwd=cwd, env=variables, start_new_session=True
        )
        self.output = ""  # all that was written
        self._drawn = 0  # how much of the output is on _screen
        self._rows_seen = 0  # how many rows expect() has matched
        self._text_seen = 0  # the end of the text that expect_text() has matched
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, *keys: str) -> None:
        """Type keys; end a line with a newline."""
        os.write(self._keyboard, "".join(keys).encode())

    def resize(self, rows: int, columns: int) -> None:
        """Change the size of the window."""
        self._draw().resize(columns)
        self._set_window(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def rows(self) -> list[str]:
        """Return the rows of the screen and above it, each whole if it had to be broken; the last holds the cursor."""
        return self._draw().lines()

    def plain_rows(self) -> list[str]:
        """Return the rows without colours; a character in reverse video stands in brackets."""
        return [COLOUR.sub("", REVERSE.sub(r"[\1]", row)) for row in self.rows()]

    def expect(self, *rows: str) -> None:
        """Wait until these rows are on the screen, one below the other, below those expected before."""
        for row in rows:
            assert self._wait_for_row(row) == row

    def expect_match(self, text: str) -> str:
        """Wait until the next row contains a text; return the row."""
        row = self._wait_for_row(text)
        assert text in row
        return row

    def _wait_for_row(self, wanted: str) -> str:
        self._wait(lambda: len(self.rows()) > self._rows_seen + 1, f"the row {wanted!r}")
        self._rows_seen += 1
        return self.rows()[self._rows_seen - 1]

    def expect_typing(self, before: str, after: str = "") -> None:
        """Wait until the row below those expected is the last and reads so, with the cursor between the two parts."""
        self._wait(
            lambda: (self.rows()[self._rows_seen :], self._screen.before_cursor()) == ([before + after], before),
            f"{before!r}, the cursor, {after!r} as the last row",
        )

    def expect_last_rows(self, *rows: str) -> None:
        """Wait until the last rows, down to the cursor, are these; see plain_rows()."""
        self._wait(lambda: self.plain_rows()[-len(rows) :] == list(rows), "the last rows\n" + "\n".join(rows))

    def expect_text(self, text: str) -> None:
        """Wait until the program has written a text after the one expected before."""
        self._wait(lambda: text in self.rest(), f"the text {text!r}")
        self._text_seen += self.rest().index(text) + len(text)

    def rest(self) -> str:
        """Return what the program has written after the text expected last, without the sequences that draw a line."""
        return DRAWING.sub("", self.output.replace("\r\n", "\n"))[self._text_seen :]

    def shows_keys(self) -> bool:
        """Return whether the terminal echoes what is typed, as it does for a shell."""
        return bool(termios.tcgetattr(self._keyboard)[3] & termios.ECHO)

    def show_keys(self) -> None:
        """Make the terminal echo what is typed, as a shell does when it suspends a program."""
        mode = termios.tcgetattr(self.tty)
        mode[3] |= termios.ECHO | termios.ICANON
        termios.tcsetattr(self.tty, termios.TCSADRAIN, mode)

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for the program's end and all its output; return its exit status."""
        self._wait(lambda: self.process.poll() is not None, "the end of the program", seconds)
        self._close_tty()
        return self.process.returncode

    def close(self) -> None:
        """End the program, if it runs."""
        self.process.kill()
        self.process.wait()
        self._close_tty()
        os.close(self._keyboard)

    def _close_tty(self) -> None:
        if self.tty >= 0:
            os.close(self.tty)
            self.tty = -1
        self._reader.join()

    def _set_window(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self.tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _wait(self, condition: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
        wait_until(condition, what, seconds, got=lambda: "the screen\n" + "\n".join(self.rows()))

    def _draw(self) -> ScreenBuffer:
        """Return the screen, with all output on it."""
        text = self.output[self._drawn :]
        self._drawn += len(text)
        self._screen.write(text)
        return self._screen

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                self.output += decoder.decode(os.read(self._keyboard, 1 << 16))
            except OSError:  # no process has the terminal open any more
                return


OpenTerminal = Callable[..., Terminal]


@pytest.fixture
def open_terminal() -> Iterator[OpenTerminal]:
    """Give a function that runs a program in a terminal; end the programs after the test."""
    terminals: list[Terminal] = []

    def open_one(*command: str, **options: Any) -> Terminal:
        terminals.append(Terminal(*command, **options))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


def orphaned(command: str) -> list[str]:
    """Return a command that runs another one in an orphaned process group, which reads EIO from its terminal.

    It ends after the other one, and writes the exit status to a file called status.
    """
    script = f"exec 3<&0; (({command} <&3; echo $? >status) &); until test -s status; do sleep 0.01; done"
    return ["bash", "-mc", script]
