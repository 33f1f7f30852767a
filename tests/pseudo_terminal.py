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
from pathlib import Path
from typing import Any

from conftest import ROOT, WAIT_SECONDS, wait_until

ROWS, COLUMNS = 40, 120
SEQUENCE = re.compile(r"\x1b\[([0-?]*)([@-~])")  # ECMA-48: parameters and a final character
UNFINISHED = re.compile(r"\x1b(\[[0-?]*)?\Z")


class ScreenBuffer:
    """The rows of a terminal, including those that have scrolled off its screen.

    It interprets what the programs here write: text, carriage returns, newlines, and sequences that move the cursor,
    erase or colour. Text that does not fit into a row continues in the next one; a change of the width
    wraps it again.
    """

    def __init__(self, columns: int) -> None:
        self._columns = columns
        self._rows: list[list[str]] = [[]]  # of cells; the second cell of a wide character is empty
        self._continued: set[int] = set()  # the rows whose text goes on in the next one
        self._row = self._column = 0
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
                self._obey(sequence[1], sequence[2], sequence[0])
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
        width = 2 if unicodedata.east_asian_width(character) in "WF" else 1
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
        self._row = max(self._row - number * (final == "A"), 0)
        self._column = max(self._column + number * ((final == "C") - (final == "D")), 0)
        if final == "m":
            self._colour += sequence


class Terminal:
    """A program that has a terminal.

    Args:
        command: a script of the project and its arguments, or any other program and its arguments.
        columns: how wide the terminal is; 0 if it does not know.
        rows: how high the terminal is; 0 if it does not know.
        options: further arguments for subprocess.Popen.
    """

    def __init__(self, *command: str, columns: int = COLUMNS, rows: int = ROWS, **options: Any) -> None:
        self._keyboard, self._tty = pty.openpty()
        self._set_window(rows, columns)
        if Path(command[0]).suffix == ".py":
            command = (sys.executable, "-W", "error", str(ROOT / command[0]), *command[1:])
        options.setdefault("env", {**os.environ, "TERM": "xterm"})
        self.process = subprocess.Popen(command, stdin=self._tty, stdout=self._tty, stderr=self._tty, **options)
        self.output = ""  # all that was written
        self._screen = ScreenBuffer(columns or COLUMNS)
        self._lock = threading.Lock()  # guards the two above
        self._seen = 0  # how many rows expect() has matched
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, *keys: str) -> None:
        """Type keys; end a line with a newline."""
        os.write(self._keyboard, "".join(keys).encode())

    def resize(self, columns: int, rows: int = ROWS) -> None:
        """Change the size of the window."""
        with self._lock:
            self._screen.resize(columns)
            self._set_window(rows, columns)
        self.process.send_signal(signal.SIGWINCH)

    def hold_output(self) -> None:
        """Block the program's writes, as Ctrl-S does."""
        termios.tcflow(self._tty, termios.TCOOFF)

    def release_output(self) -> None:
        """Let the program's writes go on, as Ctrl-Q does."""
        termios.tcflow(self._tty, termios.TCOON)

    def rows(self) -> list[str]:
        """Return the rows of the screen and those that have scrolled off it; the last row holds the cursor.

        A row that the terminal had to break counts as one.
        """
        with self._lock:
            return self._screen.lines()

    def expect(self, *rows: str) -> None:
        """Wait until these rows are on the screen, one below the other, below those expected before."""
        for row in rows:
            wait_until(lambda: len(self.rows()) > self._seen + 1, f"{row!r} as a row of {self.rows()[self._seen :]}")
            assert self.rows()[self._seen] == row
            self._seen += 1

    def expect_typing(self, before: str, after: str = "") -> None:
        """Wait until the row below those expected is the last and reads so, with the cursor between the two parts."""

        def shown() -> tuple[list[str], str]:
            with self._lock:
                return self._screen.lines()[self._seen :], self._screen.before_cursor()

        wanted = ([before + after], before)
        try:
            wait_until(lambda: shown() == wanted, "")
        finally:
            assert shown() == wanted

    def expect_match(self, text: str) -> str:
        """Wait until the next row contains a text; return the row."""
        wait_until(lambda: len(self.rows()) > self._seen + 1, f"a row with {text!r}")
        row = self.rows()[self._seen]
        assert text in row
        self._seen += 1
        return row

    def shows_keys(self) -> bool:
        """Return whether the terminal echoes what is typed, as it does for a shell."""
        return bool(termios.tcgetattr(self._tty)[3] & termios.ECHO)

    def show_keys(self) -> None:
        """Make the terminal echo what is typed, as a shell does when it suspends a program."""
        mode = termios.tcgetattr(self._tty)
        mode[3] |= termios.ECHO | termios.ICANON
        termios.tcsetattr(self._tty, termios.TCSANOW, mode)

    def wait(self) -> int:
        """Wait for the program's end; return its exit status."""
        return self.process.wait(WAIT_SECONDS)

    def close(self) -> None:
        """End the program, if it runs."""
        self.process.kill()
        self.process.wait()
        os.close(self._tty)
        self._reader.join()
        os.close(self._keyboard)

    def _set_window(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def _read(self) -> None:
        decoder = codecs.getincrementaldecoder("utf-8")("replace")
        while True:
            try:
                text = decoder.decode(os.read(self._keyboard, 1 << 16))
            except OSError:  # no process has the terminal open any more
                return
            with self._lock:
                self.output += text
                self._screen.write(text)
