"""The line that a user types, and the lines that are shown above it while he does.

On a terminal a Console takes the keys and shows them itself: only who knows what has been typed can show it again below
a line that came in between. The line being typed takes one row; of a longer one its end is seen. Where input or output
is no terminal, input is taken line by line.
"""

import codecs
import os
import re
import signal
import sys
import termios
import tty
import unicodedata

READ_BYTES = 1 << 16
ERASE_ROW = "\r\x1b[K"

# One key: a character or an escape sequence (an arrow key, say). ECMA-48: ESC [, parameters, one final character.
_KEY = re.compile(r"\x1b\[[0-?]*[ -/]*[^ -?]|\x1bO.|\x1b[^\[O]|[^\x1b]", re.DOTALL)
_ENTER = ("\n", "\r")
_END_OF_INPUT = "\x04"  # Ctrl-D
_BACKSPACE = ("\x7f", "\b")
_ERASE_WORD = "\x17"  # Ctrl-W
_ERASE_LINE = "\x15"  # Ctrl-U


class Console:
    """Standard input and output, for a thread that waits with select.select() for this and for sockets."""

    def __init__(self) -> None:
        self._terminal = bool(sys.stdin and sys.stdin.isatty() and sys.stdout and sys.stdout.isatty())
        self._fd = sys.stdin.fileno() if sys.stdin else os.open(os.devnull, os.O_RDONLY)
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._input = ""  # what was read and is no part of a line yet
        self._ended = False  # nothing more will be read
        self._prompt = ""
        self._typed = ""

    def __enter__(self) -> "Console":
        """Take the keys from the terminal one by one, and without its showing them."""
        if self._terminal:
            self._mode = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd, termios.TCSADRAIN)
            signal.signal(signal.SIGCONT, self._resume)  # after Ctrl-Z the shell had the terminal
        return self

    def __exit__(self, *_: object) -> None:
        """Leave the terminal as it was, and below what was shown."""
        if self._terminal:
            signal.signal(signal.SIGCONT, signal.SIG_DFL)
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._mode)
        if self._prompt or self._typed:
            _write("\n")

    def fileno(self) -> int:
        """Return the descriptor for select.select(): call read() when there is input."""
        return self._fd

    def read(self) -> None:
        """Take the input that there is."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except OSError:  # the terminal is gone
            data = b""
        self._ended = not data
        self._input += self._decoder.decode(data, final=self._ended)

    def begin_line(self, prompt: str = "") -> None:
        """Have the next line typed after a prompt; forget what has been typed of it."""
        self._prompt = prompt
        self._typed = ""
        if not self._terminal:
            _write(prompt)

    def next_line(self) -> str | None:
        """Return a line of the input without its end; None if no line is complete, which then is shown so far.

        Raises:
            EOFError: there is no more, or Ctrl-D came where a line would begin.
        """
        return self._edit_line() if self._terminal else self._cut_line()

    def show(self, lines: str) -> None:
        """Show lines, each with its newline, where the line being typed was; next_line() shows that below."""
        _write(ERASE_ROW + lines if self._terminal else lines)

    def _resume(self, *_: object) -> None:
        tty.setcbreak(self._fd, termios.TCSADRAIN)
        self._show_line()

    def _cut_line(self) -> str | None:
        line, newline, rest = self._input.partition("\n")
        if newline or (line and self._ended):
            self._input = rest
            self._prompt = ""
            return line.removesuffix("\r")
        if self._ended:
            raise EOFError
        return None

    def _edit_line(self) -> str | None:
        while key := _KEY.match(self._input):
            self._input = self._input[key.end() :]
            if key[0] in _ENTER:
                return self._finish_line()
            if key[0] == _END_OF_INPUT and not self._typed:
                self._show_line()
                raise EOFError
            self._typed = _edited(self._typed, key[0])
        if self._ended:
            raise EOFError
        self._show_line()
        return None

    def _finish_line(self) -> str:
        line = self._typed
        _write(f"{ERASE_ROW}{self._prompt}{line}\n")
        self._prompt = self._typed = ""
        return line

    def _show_line(self) -> None:
        columns = os.get_terminal_size(sys.stdout.fileno()).columns or 80
        line = self._prompt + self._typed.replace("\t", " ")
        _write(ERASE_ROW + _end_of(line, columns - 1))


def _write(text: str) -> None:
    print(text, end="", flush=True)


def _edited(line: str, key: str) -> str:
    """Return what a key makes of a line."""
    if key in _BACKSPACE:
        return line[:-1]
    if key == _ERASE_WORD:
        return re.sub(r"\S*\s*\Z", "", line)
    if key == _ERASE_LINE:
        return ""
    if key == "\t" or (len(key) == 1 and unicodedata.category(key) != "Cc"):
        return line + key
    return line


def _end_of(line: str, columns: int) -> str:
    """Return as much of the end of a line as so many columns hold."""
    start = len(line)
    while start and (columns := columns - _width(line[start - 1])) >= 0:
        start -= 1
    return line[start:]


def _width(character: str) -> int:
    """Return how many columns a character takes."""
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1
