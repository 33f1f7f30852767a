"""Standard input and output of an interactive client: a line being typed, and above it the lines that arrive meanwhile.

On a terminal, a Console reads each key and draws the line itself, because it draws the line again below each line that
arrives. Of a line that is longer than a row, it draws the part around the cursor. If input or output is not a terminal,
or the terminal is dumb, it reads line by line and writes no escape sequences.
"""

import argparse
import codecs
import os
import re
import select
import signal
import socket
import sys
import termios
import tty
from collections.abc import Callable, Sequence
from contextlib import suppress

from net.command_line import fail, fail_to_write, prepare_streams
from net.connect import CannotConnect, ConnectionLost, ServerLines, connect
from terminal.line_editor import KEY, UNFINISHED_KEY, LineEditor, width

READ_BYTES = 1 << 16
ESCAPE_SECONDS = 0.1  # an Esc that no byte follows within this time was pressed alone
DEFAULT_COLUMNS = 80  # for a terminal that does not report its width
ENTER = ("\n", "\r")
END_OF_INPUT = "\x04"  # Ctrl-D

# The terminal knows best where its cursor stands: it saves the position before the text after the cursor. A row that
# turns out too wide is cut, not continued in the next row.
_SAVE_CURSOR, _RESTORE_CURSOR = "\x1b7", "\x1b8"
_CUT_ROW, _CONTINUE_ROW = "\x1b[?7l", "\x1b[?7h"
_COLOUR = re.compile(r"\x1b\[[\d;]*m")

Talk = Callable[[argparse.Namespace, "Console", socket.socket], int | None]


class Console:
    """Standard input and output, for a thread that waits both for the user and for a server."""

    def __init__(self) -> None:
        self.interactive = sys.stdin.isatty()  # not a script
        self.shows_escapes = sys.stdout.isatty() and os.getenv("TERM", "dumb") != "dumb"
        self.draws = self.interactive and self.shows_escapes  # the line being typed
        self.refusals = 0  # how often refuse() was called
        self._mode = termios.tcgetattr(sys.stdin) if self.interactive else []
        self._takes_keys = False  # single ones, without an echo
        self._signals, self._signal_writer = os.pipe()  # becomes readable when a signal arrives
        self._decoder = codecs.getincrementaldecoder("utf-8-sig")("replace")
        self._input = ""  # text that was read and is not yet part of a line
        self._ended = False  # whether the end of the input was read
        self._histories: dict[str, list[str]] = {}  # by prompt
        self._drawn: list[int] = []  # the widths of the rows that are drawn; of the last, the part before the cursor
        self._begin_line()

    def __enter__(self) -> "Console":
        if self.interactive:
            os.set_blocking(self._signal_writer, False)
            signal.set_wakeup_fd(self._signal_writer, warn_on_full_buffer=False)
            for number in (signal.SIGCONT, signal.SIGWINCH):
                signal.signal(number, lambda *_: None)  # wait() draws the line again; a handler must not print
            for number in (signal.SIGTSTP, signal.SIGQUIT):  # Ctrl-Z and Ctrl-\
                signal.signal(number, self._leave_terminal)
        if self.draws:
            self._take_keys()
        return self

    def __exit__(self, *_: object) -> None:
        self._release_keys()
        self._leave_line()

    def _take_keys(self) -> None:
        self._takes_keys = True
        with suppress(termios.error):  # in the background; wait() tries again in the foreground
            tty.setcbreak(sys.stdin, termios.TCSANOW)

    def _release_keys(self) -> None:
        self._takes_keys = False
        with suppress(termios.error):  # the terminal is gone
            if self.interactive:
                termios.tcsetattr(sys.stdin, termios.TCSANOW, self._mode)

    def _leave_terminal(self, number: int, _: object) -> None:
        """Restore the terminal's mode for a shell, and let a signal stop or end the program."""
        takes_keys = self._takes_keys
        self._release_keys()
        signal.signal(number, signal.SIG_DFL)
        os.kill(os.getpid(), number)  # after Ctrl-Z, this returns when the program continues
        signal.signal(number, self._leave_terminal)
        if takes_keys:
            self._take_keys()

    @property
    def window(self) -> os.terminal_size:
        """The number of columns and of rows in the terminal's window."""
        columns, rows = os.get_terminal_size(sys.stdout.fileno())
        return os.terminal_size((columns or DEFAULT_COLUMNS, rows))

    def wait(
        self, server: socket.socket | ServerLines, sends: bool = False, seconds: float | None = None, keys: bool = True
    ) -> tuple[Sequence[object], Sequence[object]]:
        """Wait as select.select() does, but for keys and signals too; return what is readable, and what is writable.

        After it, the caller calls next_line() or draw(), because a signal may require it. `sends`: the caller also
        wants to send to the server. `keys`: read what the user types. Nothing is ready if the time has passed.
        """
        inputs = [server, self._signals, *([sys.stdin] if keys else [])]
        readable, writable, _ = select.select(inputs, [server] if sends else [], [], seconds)
        if self._signals in readable and signal.SIGCONT in os.read(self._signals, READ_BYTES):
            self._drawn = []  # a shell has written below it
            if self._takes_keys:
                self._take_keys()
        if sys.stdin in readable:
            data = _read_keys()
            self._ended = not data
            self._input += self._decoder.decode(data, final=self._ended)
        return readable, writable

    def read_line(self, prompt: str, server: ServerLines, secret: bool = False) -> str | None:
        """Return the line that the user types after a prompt; None if the server sends something first."""
        self._begin_line(prompt, secret)
        if secret and self.interactive:
            self._take_keys()
        try:
            return self.wait_for(self.next_line, server)
        finally:
            if not self.draws:
                self._release_keys()
            self._leave_line()

    def wait_for(self, find: Callable[[], str | None], server: ServerLines) -> str | None:
        """Return what `find` finds in the keys that the user presses; None if the server sends something before."""
        readable: Sequence[object] = ()
        while (found := find()) is None and not (server in readable and server.receive()):
            readable, _ = self.wait(server)
        return found

    def _begin_line(self, prompt: str = "", secret: bool = False) -> None:
        """Begin a line with the history of its prompt; one that is secret is neither shown nor kept in a history."""
        self._prompt = prompt
        self._secret = secret
        self._editor = LineEditor([] if secret else self._histories.setdefault(prompt, []))
        if prompt and not self.draws:
            print(prompt, end="", flush=True)

    def _leave_line(self) -> None:
        """Leave the line being typed as it is; what is shown next stands below it."""
        if self._prompt or self._editor.text or self._drawn:
            print(flush=True)
        self._drawn = []
        self._begin_line()

    def next_line(self) -> str | None:
        """Return the next line that was typed; None if none is complete yet; EOFError after the last or Ctrl-D."""
        line = self._edit_line() if self._takes_keys else self._cut_line()
        if line is not None:
            self._begin_line()
        return line

    def next_key(self) -> str | None:
        """Return the next key that was pressed, a match of KEY; None if there is none yet; EOFError: none will come."""
        if key := KEY.match(self._input):
            self._input = self._input[key.end() :]
            return key[0]
        if self._ended:
            raise EOFError
        return None

    def show(self, lines: str) -> None:
        """Show one or more lines in place of what is drawn; next_line() draws the line being typed below them."""
        print(f"{self._erased()}{lines}", flush=True)
        self._drawn = []

    def refuse(self, sentence: str) -> None:
        """Show why a command or a line of the user was refused, and count the refusal."""
        self.refusals += 1
        self.show(sentence)

    def draw(self, before: str, after: str = "", above: Sequence[str] = ()) -> None:
        """Draw a row, with the cursor between two parts of it, and rows above it, in place of what is drawn."""
        rows = "".join(f"{row}\n" for row in above)
        drawing = f"{self._erased()}{_CUT_ROW}{rows}{before}{_SAVE_CURSOR}{after}{_RESTORE_CURSOR}{_CONTINUE_ROW}"
        # A cursor behind the last character stays in that character's row if the window becomes narrower.
        column = width(before) if after else max(width(before) - 1, 0)
        widths = [*(width(_COLOUR.sub("", row)) for row in above), column]
        self._drawn = [min(columns, self.window.columns) for columns in widths]  # while the window is as it was
        print(drawing, end="", flush=True)

    def _erased(self) -> str:
        # Most terminals break a row that does not fit a narrower window into several rows.
        if not self.draws:
            return ""
        columns = self.window.columns
        *above, column = self._drawn or [0]
        rows = sum(max(row - 1, 0) // columns + 1 for row in above) + column // columns
        return (f"\x1b[{rows}A" if rows else "") + "\r\x1b[J"

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
        while key := self.next_key():
            if key in ENTER:
                line = self._editor.finish()
                self.show(self._prompt + ("" if self._secret else line) if self.draws else "")
                return line
            if key == END_OF_INPUT and not self._editor.text:
                self._draw_line()
                raise EOFError
            self._editor.press(key)
        self._draw_line()
        return None

    def _draw_line(self) -> None:
        if self.draws:
            view = self._editor.view(self._prompt, self.window.columns - 1)
            self.draw(*((self._prompt, "") if self._secret else view))


def _read_keys() -> bytes:
    """Read what the user has typed, and the rest of an escape sequence that has begun; b"" at the end of the input."""
    typed = b""
    with suppress(OSError):  # the terminal is gone, or no shell could bring this program to the foreground
        typed = os.read(sys.stdin.fileno(), READ_BYTES)
        while UNFINISHED_KEY.search(typed) and select.select([sys.stdin], [], [], ESCAPE_SECONDS)[0]:
            more = os.read(sys.stdin.fileno(), READ_BYTES)
            if not more:
                break
            typed += more
    return typed


def run_client(options: argparse.Namespace, talk: Talk, interrupted: int = 0, lost: int = 1, unwritten: int = 1) -> int:
    """Connect to a server, and talk to it and the user until EOFError; return the exit status that talk returns.

    If it returns none, it is 1 if a request of a script was refused (a user at a terminal has read the refusal), or 0.
    `interrupted` is the status after Ctrl-C, `lost` without a connection, `unwritten` if the output cannot be written.
    """
    prepare_streams("backslashreplace")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that Console restores the terminal
    try:
        with connect(options.host, options.port, options) as sock, Console() as console:
            status = None
            with suppress(EOFError):
                status = talk(options, console, sock)
            return status or (1 if console.refusals and not console.interactive else 0)
    except (CannotConnect, ConnectionLost) as error:
        return fail(str(error), lost)
    except KeyboardInterrupt:
        return interrupted
    except OSError as error:
        return fail_to_write(error, unwritten)
