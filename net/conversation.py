"""The loop of every conversation: receive lines, handle them, send and log the output, and wait for more lines.

A program reads like blocking code:

    for line in client.lines():
        client.reply(...)

A Conversation gathers replies, messages to others and status lines while there are lines to handle. It sends them
together, with one send for each recipient, before the thread waits for input: about thirty times as fast as one send
for each message.

The loop is fair: after every LINES_PER_TURN lines the thread sends the gathered output and lets other threads run.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from net.connection import Connection
from net.log import LOG
from protocol import LineBuffer, LineTooLong, harmless

LINES_PER_TURN = 500
PAUSE_SECONDS = 50e-6  # a thread that only yields the processor may get it back at once; a thread that sleeps does not
GATHERED_CHARACTERS = 1 << 16  # output beyond this is sent before the turn ends

_Line = TypeVar("_Line", str, bytes)


class InputEnded(Exception):
    """A client has ended its input where an answer was expected."""


class Conversation:
    """One client's conversation; only the connection's own thread may use it.

    Args:
        connection: the client's connection; other threads may send to it.

    Attributes:
        connection: as given.
        fd: the connection's descriptor.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.fd = connection.fd
        self._buffer = LineBuffer()
        self._lines: Iterator[str] | None = None
        self._before_turn: Callable[[], object] | None = None
        self._handled = 0  # lines since the last pause
        self._limit: tuple[float, str] | None = None  # the arguments of allow(), if each line restarts the limit
        # Recipients, the recipient that is left out, and the lines for all others.
        self._messages: list[tuple[Sequence[Connection], Connection | None, list[str]]] = []
        self._myself = (connection,)
        self._gathered = 0  # characters in _messages
        self._log: list[str] = []

    def lines(self, before_turn: Callable[[], object] | None = None) -> Iterator[str]:
        """Yield the client's lines as harmless text without newlines, until the input ends or the server stops.

        The end of the input completes the last line. Ctrl-D at the start of a line ends the input.

        Args:
            before_turn: called whenever lines have arrived, before the first of them is yielded.

        Raises:
            LineTooLong: a line has more than MAX_LINE_BYTES; all lines before it were yielded.
            TimeLimitPassed: the time limit that allow() set has passed.
            OSError: the connection is lost.
        """
        if self._lines is None:
            self._lines = self._each_line(_text_lines)
        self._before_turn = before_turn
        return self._lines

    def raw_lines(self) -> Iterator[bytes]:
        """Yield the client's lines as bytes without newlines, for a protocol in which byte 4 is not Ctrl-D.

        Raises:
            As lines().
        """
        self._buffer.eot_ends_input = False
        return self._each_line(_raw_lines)

    def ask(self, question: str) -> str:
        """Send a question; return the next line.

        Raises:
            InputEnded: the input has ended.
            As lines().
        """
        self.reply(question)
        for answer in self.lines():
            return answer
        raise InputEnded

    def _each_line(self, split: Callable[[bytes], list[_Line]]) -> Iterator[_Line]:
        """Yield each line; send the gathered output before each wait and after every turn."""
        more = True
        while more:
            self.flush()
            received, more = self._receive_lines()
            if received:
                lines = split(received)
                for first in range(0, len(lines), LINES_PER_TURN):
                    turn = lines[first : first + LINES_PER_TURN]
                    yield from turn
                    self._end_turn(len(turn))
            if self._buffer.too_long:
                raise LineTooLong

    def _receive_lines(self) -> tuple[bytes, bool]:
        """Wait for input; return the lines that it completes, and whether more may follow.

        The end of the input completes the last line. When the server stops, an incomplete line is discarded.
        """
        data = self.connection.receive()
        if not data:
            return self._buffer.end() if self.connection.input_ended else b"", False
        lines = self._buffer.feed(data)
        if self._buffer.answer:
            self.connection.send(self._buffer.answer)  # telnet discards all output until this answer arrives
        if lines and self._before_turn:
            self._before_turn()
        return lines, not self._buffer.ended

    def _end_turn(self, lines: int) -> None:
        """Restart the time limit; after LINES_PER_TURN lines, send the gathered output and let other threads run."""
        if self._limit:
            self.connection.allow(*self._limit)
        self._handled += lines
        if self._handled >= LINES_PER_TURN:
            self._handled = 0
            self.flush()
            time.sleep(PAUSE_SECONDS)

    def allow(self, seconds: float | None, sentence: str = "", restarts: bool = True) -> None:
        """Set a time limit for the client, or lift it.

        Args:
            seconds: the limit, counted from now; None lifts it.
            sentence: the sentence that the server sends to the client when the limit has passed.
            restarts: whether every complete line restarts the limit.
        """
        self._limit = (seconds, sentence) if seconds is not None and restarts else None
        self.connection.allow(seconds, sentence)

    def reply(self, line: str) -> None:
        """Send a line to the client."""
        self.send(self._myself, line)

    def broadcast(self, everybody: Sequence[Connection], line: str) -> None:
        """Send a line, as send() does, to all clients of a sequence except this conversation's own."""
        self.send(everybody, line, self.connection)

    def send(self, recipients: Sequence[Connection], line: str, left_out: Connection | None = None) -> None:
        """Send a line to clients, except to the one that is left out.

        Successive lines to the same sequence object are encoded together and cost little more than one line.
        """
        last = self._messages[-1] if self._messages else None
        if last and recipients is last[0] and left_out is last[1]:
            last[2].append(line)
        else:
            self._messages.append((recipients, left_out, [line]))
        self._gathered += len(line)
        if self._gathered > GATHERED_CHARACTERS:
            self.flush()

    def log(self, text: str) -> None:
        """Write a status line that names the client."""
        self._log.append(text)

    def flush(self) -> None:
        """Send and log the gathered output.

        Recipients with a full backlog come last, so that no other recipient waits for them.
        """
        self._gathered = 0
        blocks: dict[Connection, bytes] = {}
        for recipients, left_out, lines in self._messages:
            block = ("\n".join(lines) + "\n").encode()
            for recipient in recipients:
                if recipient is not left_out:  # recipients of one message share its block: b"" + block copies nothing
                    blocks[recipient] = blocks.get(recipient, b"") + block
        self._messages.clear()
        full = [recipient for recipient, block in blocks.items() if not recipient.send(block, blocking=False)]
        for recipient in full:
            recipient.send(blocks[recipient])
        if self._log:
            prefix = f"Client ({self.fd}): "
            LOG.write(prefix + f"\n{prefix}".join(self._log))
            self._log.clear()


@cache
def counted_clients(number: int) -> str:
    """Return "1 client" or "2 clients", for status lines."""
    return "1 client" if number == 1 else f"{number} clients"


def _text_lines(block: bytes) -> list[str]:
    return harmless(block)[:-1].split("\n")


def _raw_lines(block: bytes) -> list[bytes]:
    return block[:-1].split(b"\n")
