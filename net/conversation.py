"""The loop that every conversation is: receive what came, answer it, tell others, log it, wait for more.

A program reads like blocking code:

    for line in client.lines():
        client.reply(...)

Replies, messages to others and status lines are gathered while there are lines to handle. They go out together, with
one send for each recipient, before the thread waits for input. That decision is worth a factor of thirty over a send
for each message.

The loop is fair: after every LINES_PER_TURN lines the thread sends what it has gathered and lets other threads run.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from net.connection import Connection
from net.log import LOG
from protocol import LineBuffer, LineTooLong, harmless

LINES_PER_TURN = 500
PAUSE_SECONDS = (
    50e-6  # a thread that only offers the processor to others may get it back at once; one that sleeps does not
)
GATHERED_CHARACTERS = 1 << 18  # more go out before the turn ends

_TURN = re.compile(rb"(?:[^\n]*\n){1,%d}" % LINES_PER_TURN)


_Line = TypeVar("_Line", str, bytes)


class InputEnded(Exception):
    """A client ended its input where an answer was expected."""


class Conversation:
    """One client's conversation; the connection's own thread holds it, and no other thread uses it.

    Args:
        connection: the client's; other threads may use it, to send.

    Attributes:
        connection: as given.
        fd: the number of its descriptor.
        address: the client's IP address.
    """

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.fd = connection.fd
        self.address = connection.address
        self._buffer = LineBuffer()
        self._lines: Iterator[str] | None = None
        self._before_turn: Callable[[], object] | None = None
        self._handled = 0  # lines since the last pause
        self._limit: tuple[float, str] | None = None  # the seconds that each line restarts, and the sentence
        # Recipients, which of them is left out, and lines for the others.
        self._messages: list[tuple[Sequence[Connection], Connection | None, list[str]]] = []
        self._myself = (connection,)
        self._gathered = 0  # characters in messages and log
        self._log: list[str] = []

    def lines(self, before_turn: Callable[[], object] | None = None) -> Iterator[str]:
        """Give the client's lines as harmless text without newlines, until the input ends or the server stops.

        A last line without a newline counts. Ctrl-D where a line would begin ends the input.

        Args:
            before_turn: called before the lines that arrived together are given.

        Raises:
            LineTooLong: a line was over MAX_LINE_BYTES; those before it were given.
            TimeLimitPassed: what allow() allows has passed.
            OSError: the connection is lost.
        """
        if self._lines is None:
            self._lines = self._each_line(_text_lines)
        self._before_turn = before_turn
        return self._lines

    def raw_lines(self) -> Iterator[bytes]:
        """Give the client's lines as bytes without newlines, for a protocol in which byte 4 is not Ctrl-D.

        Raises:
            As lines().
        """
        self._buffer.eot_ends_input = False
        return self._each_line(_raw_lines)

    def ask(self, question: str) -> str:
        """Send a question; return the next line.

        Raises:
            InputEnded: there is none.
            As lines().
        """
        self.reply(question)
        for answer in self.lines():
            return answer
        raise InputEnded

    def _each_line(self, split: Callable[[bytes], list[_Line]]) -> Iterator[_Line]:
        """Give line after line; before each wait, and after every turn, let out what they caused."""
        more = True
        while more:
            self.flush()
            received, more = self._receive_lines()
            for turn in _TURN.findall(received):
                self._restart_limit()
                lines = split(turn)
                yield from lines
                self._end_turn(len(lines))
            if self._buffer.too_long:
                raise LineTooLong

    def _receive_lines(self) -> tuple[bytes, bool]:
        """Wait for input; return the lines that it completes, and whether there may be more.

        The end of the input completes the last line; a server that stops leaves it incomplete.
        """
        data = self.connection.receive()
        if not data:
            return self._buffer.end() if self.connection.input_ended else b"", False
        lines = self._buffer.feed(data)
        if self._buffer.answer:
            self.connection.send(self._buffer.answer)  # telnet shows no reply before it has this
        if lines and self._before_turn:
            self._before_turn()
        return lines, not self._buffer.ended

    def _end_turn(self, lines: int) -> None:
        """Once a turn's work is done, send what it caused and let other threads run."""
        self._handled += lines
        if self._handled >= LINES_PER_TURN:
            self._handled = 0
            self.flush()
            time.sleep(PAUSE_SECONDS)

    def allow(self, seconds: float | None, sentence: str = "", restarts: bool = True) -> None:
        """Limit how long the client may take; None lifts the limit.

        Args:
            seconds: from now.
            sentence: what the client is told when they have passed.
            restarts: whether every complete line restarts the limit.
        """
        self._limit = (seconds, sentence) if seconds is not None and restarts else None
        self.connection.allow(seconds, sentence)

    def _restart_limit(self) -> None:
        if self._limit:
            self.connection.allow(*self._limit)

    def reply(self, line: str) -> None:
        """Send a line to the client."""
        self._gather(self._myself, None, line)

    def send(self, recipients: Sequence[Connection], line: str) -> None:
        """Send a line to some clients; many lines to the same sequence cost little more than one."""
        self._gather(recipients, None, line)

    def broadcast(self, everybody: Sequence[Connection], line: str) -> None:
        """Send a line as send() does, but not to our own client."""
        self._gather(everybody, self.connection, line)

    def _gather(self, recipients: Sequence[Connection], left_out: Connection | None, line: str) -> None:
        if self._messages and self._messages[-1][0] is recipients and self._messages[-1][1] is left_out:
            self._messages[-1][2].append(line)
        else:
            self._messages.append((recipients, left_out, [line]))
        self._gathered += len(line)
        if self._gathered > GATHERED_CHARACTERS:
            self.flush()

    def log(self, text: str) -> None:
        """Write a status line that names the client."""
        self._log.append(text)
        self._gathered += len(text)

    def flush(self) -> None:
        """Send and log what was gathered: first to clients that have room for it, so that none waits for another."""
        self._gathered = 0
        if self._messages:
            data = self._data_by_recipient()
            self._messages.clear()
            full = [recipient for recipient, block in data.items() if not recipient.try_send(block)]
            for recipient in full:
                recipient.send(data[recipient])
        if self._log:
            prefix = f"Client ({self.fd}): "
            LOG.write(prefix + f"\n{prefix}".join(self._log))
            self._log.clear()

    def _data_by_recipient(self) -> dict[Connection, bytearray]:
        """Return what each recipient gets."""
        data: dict[Connection, bytearray] = {}
        for recipients, left_out, lines in self._messages:
            block = ("\n".join(lines) + "\n").encode()
            for recipient in recipients:
                if recipient is left_out:
                    continue
                if recipient in data:
                    data[recipient] += block
                else:
                    data[recipient] = bytearray(block)
        return data


def _text_lines(block: bytes) -> list[str]:
    return harmless(block)[:-1].split("\n")


def _raw_lines(block: bytes) -> list[bytes]:
    return block[:-1].split(b"\n")
