"""Run a program in a pseudo-terminal, type to it, and look at its screen."""

import fcntl
import os
import pty
import struct
import subprocess
import sys
import termios
import threading
from pathlib import Path
from typing import Any

from conftest import ROOT, WAIT_SECONDS, wait_until

ROWS, COLUMNS = 40, 120
ERASE_ROW = "\r\x1b[K"


class Terminal:
    """A program that has a terminal of 120 columns.

    Args:
        command: a script of the project and its arguments, or any other program and its.
        options: more for subprocess.Popen.
    """

    def __init__(self, *command: str, **options: Any) -> None:
        self._keyboard, self._tty = pty.openpty()
        fcntl.ioctl(self._tty, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, COLUMNS, 0, 0))
        if Path(command[0]).suffix == ".py":
            command = (sys.executable, "-W", "error", str(ROOT / command[0]), *command[1:])
        self.process = subprocess.Popen(command, stdin=self._tty, stdout=self._tty, stderr=self._tty, **options)
        self._output = b""
        self._seen = 0  # so many rows have been expected
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def type(self, keys: str) -> None:
        """Type keys; end a line with a newline."""
        os.write(self._keyboard, keys.encode())

    def rows(self) -> list[str]:
        """Return the rows of the screen, those that have left it included; the last is the one with the cursor."""
        rows = self._output.decode(errors="replace").replace("\r\n", "\n").split("\n")
        return [row.rpartition(ERASE_ROW)[2] for row in rows]

    def expect(self, *rows: str) -> None:
        """Wait until these rows stand on the screen, one below the other, below those expected before."""
        for row in rows:
            wait_until(lambda: len(self.rows()) > self._seen + 1, f"{row!r} as a row of {self.rows()[self._seen :]}")
            assert self.rows()[self._seen] == row
            self._seen += 1

    def expect_typing(self, row: str) -> None:
        """Wait until the row with the cursor, the next below those expected, is this."""
        wait_until(lambda: self.rows()[self._seen :] == [row], f"the cursor in {row!r} of {self.rows()[self._seen :]}")

    def expect_match(self, text: str) -> str:
        """Wait until the next row contains a text; return the row."""
        wait_until(lambda: len(self.rows()) > self._seen + 1, f"a row with {text!r}")
        row = self.rows()[self._seen]
        assert text in row
        self._seen += 1
        return row

    def shows_keys(self) -> bool:
        """Return whether the terminal itself shows what is typed, as it does for a shell."""
        return bool(termios.tcgetattr(self._tty)[3] & termios.ECHO)

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

    def _read(self) -> None:
        while True:
            try:
                self._output += os.read(self._keyboard, 1 << 16)
            except OSError:  # nobody has the terminal open any more
                return
