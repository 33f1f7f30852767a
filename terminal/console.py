"""Standard input and output of an interactive client: a line being typed, and above it the lines that arrive meanwhile.

On a terminal, a Console reads each key and draws the line itself: to redraw the line below a line that arrives, a
program must know what the user has typed. The line takes one row; of a longer line, the Console draws the part around
the cursor. If input or output is not a terminal, or the terminal is dumb, the Console reads line by line and writes no
escape sequences.
"""

import codecs
import os
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

from net.connect import ServerLines
from terminal.line_editor import KEY, UNFINISHED_KEY, LineEditor, width

READ_BYTES = 1 << 16
ESCAPE_SECONDS = 0.1  # an Esc that no byte follows within this time was pressed alone
DEFAULT_COLUMNS = 80  # for a terminal that does not report its width
ERASE_ROW = "\r\x1b[K"
REDRAW_SIGNALS = (signal.SIGCONT, signal.SIGWINCH)
ENTER = ("\n", "\r")
END_OF_INPUT = "\x04"  # Ctrl-D


class Console:
    """Standard input and output, for a thread that waits both for the user and for a server.

    Attributes:
        interactive: whether the input comes from a terminal and not from a script.
        refusals: how often refuse() was called.
    """

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty()
        self.refusals = 0
        self._draws = self.interactive and shows_escapes()
        self._single_keys = ExitStack()
        self._signals: list[int] = []  # the descriptor from single_keys(), if the Console draws
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._input = ""  # text that was read and is not yet part of a line
        self._ended = False  # whether the end of the input was read
        self._histories: dict[str, list[str]] = {}  # by prompt
        self._column = 0  # of the character at the cursor, or of the last character if the cursor is behind it
        self.begin_line()

    def __enter__(self) -> "Console":
        """Take single keys, if the Console draws the line."""
        if self._draws:
            self._signals = [self._single_keys.enter_context(single_keys())]
        return self

    def __exit__(self, *_: object) -> None:
        """Restore the terminal's mode; leave the cursor at the start of a new row."""
        self._single_keys.close()
        if self._prompt or self._editor.text:
            write("\n")

    def wait(
        self,
        server: socket.socket | ServerLines,
        sends: bool = False,
        seconds: float | None = None,
        keys: bool = True,
    ) -> tuple[bool, bool, bool]:
        """Wait until the server is ready, the user has typed something, a signal arrives, or the time has passed.

        Args:
            server: the connection from which the caller wants to read.
            sends: whether the caller also wants to send there.
            seconds: how long to wait at most; None means without a limit.
            keys: whether to read what the user types.

        Returns:
            Whether anything has happened in that time, whether the connection is readable, and whether it is writable.
        """
        keyboard = [sys.stdin] if keys else []
        readable, writable, _ = select.select(
            [server, *self._signals, *keyboard], [server] if sends else [], [], seconds
        )
        if self._signals and self._signals[0] in readable:
            self._redraw(resume(self._signals[0]))
        if sys.stdin in readable:
            data = read_keys(READ_BYTES)
            self._ended = not data
            self._input += self._decoder.decode(data, final=self._ended)
        return bool(readable or writable), server in readable, bool(writable)

    def begin_line(self, prompt: str = "") -> None:
        """Begin a line after a prompt, with the history of that prompt; discard a line that is being typed."""
        self._prompt = prompt
        self._editor = LineEditor(self._histories.setdefault(prompt, []))
        if not self._draws:
            write(prompt)

    def next_line(self) -> str | None:
        """Return the next line that was typed, without its newline, or None if no line is complete yet.

        The line after it begins without a prompt, unless begin_line() is called.

        Raises:
            EOFError: the input has ended, or Ctrl-D was pressed at the start of a line.
        """
        line = self._edit_line() if self._draws else self._cut_line()
        if line is not None:
            self.begin_line()
        return line

    def show(self, lines: str) -> None:
        """Show one or more lines in place of the line being typed; next_line() redraws that line below them."""
        write(f"{ERASE_ROW * self._draws}{lines}\n")

    def refuse(self, sentence: str) -> None:
        """Show why a command or a line of the user was refused, and count the refusal."""
        self.refusals += 1
        self.show(sentence)

    def _redraw(self, was_suspended: bool) -> None:
        """Redraw the line after the program was suspended or the width of the window has changed.

        Most terminals break a row that does not fit a narrower window into several rows, so the line being typed may
        begin above the cursor's row. A shell, however, leaves the cursor in a new row.
        """
        write(erase_rows(above=0 if was_suspended else self._column // _columns()))
        self._draw_line()

    def _cut_line(self) -> str | None:
        line, newline, rest = self._input.partition("\n")
        if newline or (line and self._ended):
            self._input = rest
            return line.removesuffix("\r")
        if self._ended:
            self._ended = not self.interactive  # after Ctrl-D a terminal can be read again
            raise EOFError
        return None

    def _edit_line(self) -> str | None:
        while key := KEY.match(self._input):
            self._input = self._input[key.end() :]
            if key[0] in ENTER:
                line = self._editor.finish()
                write(f"{ERASE_ROW}{self._prompt}{line}\n")
                return line
            if key[0] == END_OF_INPUT and not self._editor.text:
                self._draw_line()
                raise EOFError
            self._editor.press(key[0])
        if self._ended:
            raise EOFError
        self._draw_line()
        return None

    def _draw_line(self) -> None:
        before, after = self._editor.view(self._prompt, _columns() - 1)
        back = width(after)
        self._column = max(width(before) - (not back), 0)
        write(ERASE_ROW + before + after + (f"\x1b[{back}D" if back else ""))


def _columns() -> int:
    return os.get_terminal_size(sys.stdout.fileno()).columns or DEFAULT_COLUMNS


@contextmanager
def single_keys() -> Iterator[int]:
    """Make the terminal pass on each key at once, without an echo; restore its mode at the end.

    Yields:
        a descriptor that becomes readable when a signal requires a redraw; the caller then calls resume() and redraws.
        The signal handlers do nothing, because a handler must not print.
    """
    keyboard = sys.stdin.fileno()
    mode = termios.tcgetattr(keyboard)
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in REDRAW_SIGNALS:
        signal.signal(number, lambda *_: None)
    try:
        take_single_keys()
        yield reader
    finally:
        with suppress(termios.error):  # the terminal is gone
            termios.tcsetattr(keyboard, termios.TCSADRAIN, mode)
        for number in REDRAW_SIGNALS:
            signal.signal(number, signal.SIG_DFL)
        signal.set_wakeup_fd(-1)
        os.close(reader)
        os.close(writer)


def resume(signals: int) -> bool:
    """Read the signals that have arrived; return whether a shell has used the terminal, between Ctrl-Z and fg."""
    was_suspended = signal.SIGCONT in os.read(signals, READ_BYTES)
    if was_suspended:
        take_single_keys()
    return was_suspended


def take_single_keys() -> None:
    """Make the terminal pass on each key at once, without an echo, if this program is in the foreground."""
    with suppress(termios.error):  # in the background; resume() tries again when a shell brings it to the foreground
        tty.setcbreak(sys.stdin.fileno(), termios.TCSADRAIN)


def read_keys(size: int) -> bytes:
    """Read what the user has typed, and the rest of an escape sequence that has begun.

    Args:
        size: the largest number of bytes to read at a time; 1 reads a single key.

    Returns:
        The bytes; b"" if the input has ended or cannot be read.
    """
    typed = b""
    with suppress(OSError):  # the terminal is gone, or no shell could bring this program to the foreground
        typed = os.read(sys.stdin.fileno(), size)
        while UNFINISHED_KEY.search(typed) and select.select([sys.stdin], [], [], ESCAPE_SECONDS)[0]:
            more = os.read(sys.stdin.fileno(), size)
            if not more:
                break
            typed += more
    return typed


def erase_rows(above: int) -> str:
    """Return the escape sequences that erase some rows above the cursor, its own row and all below it."""
    return (f"\x1b[{above}A" if above else "") + "\r\x1b[J"


def shows_escapes() -> bool:
    """Return whether standard output is a terminal that understands escape sequences."""
    return sys.stdout.isatty() and os.getenv("TERM", "dumb") != "dumb"


def write(text: str) -> None:
    """Write to standard output at once."""
    print(text, end="", flush=True)
