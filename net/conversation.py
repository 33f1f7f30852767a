"""The loop of every conversation: receive lines, handle them, send and log the output, and wait for more lines.

A program reads like blocking code:

    for line in client.lines():
        client.queue_reply(...)

A Conversation gathers replies, messages to others and status lines while there are lines to handle. It sends them
together, with one send for each recipient, before the thread waits for input: about thirty times as fast as one send
for each message.

The loop is fair: after every TURN_LINES lines or TURN_BYTES bytes the thread sends the gathered output, and pauses so
that other threads run.
"""

import re
import time
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import TypeVar

from net.connection import Connection
from net.log import LOG
from protocol import IAC, MAX_LINE_BYTES, LineBuffer, LineTooLong, harmless

TURN_LINES = 500
TURN_BYTES = 1 << 13
COMMANDS_PER_TURN = 256  # telnet's: to remove one takes as long as to pass on many bytes
PAUSE_SECONDS = 50e-6  # a thread that only yields the processor may get it back at once; a thread that sleeps does not
GATHERED_CHARACTERS = 1 << 16  # output beyond this is sent before the turn ends

# RFC 9112, 3: any method, a target, and the version.
HTTP_REQUEST_LINE = re.compile(rb"[!-~]+ .+ HTTP/\d(\.\d)?\r?\n")
TLS_HANDSHAKE = b"\x16\x03"  # RFC 8446, 5.1: how a record with a ClientHello begins

_Line = TypeVar("_Line", str, bytes)


class InputEnded(Exception):
    """A client has ended its input where an answer was expected."""


class HttpSpoken(Exception):
    """A connection begins with an HTTP request, or with the handshake that precedes one over TLS.

    Browsers send both to any port. A web page has chosen the body of the request, and the session ticket in the
    handshake; so no line of them is handled.
    """

    def __str__(self) -> str:
        return "HTTP is not spoken here."


class Conversation:
    """One client's conversation; only the connection's own thread may use it."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection  # other threads may send to it
        self._buffer = LineBuffer()
        self._lines: Iterator[str] | None = None
        self._before_turn: Callable[[], object] | None = None
        self._is_first_line = True
        self._turn = 0.0  # how much of a turn has passed since the last pause
        self._limit: tuple[float, str] | None = None  # the arguments of set_time_limit(), if each line restarts it
        # Recipients, the recipient that is left out, and the lines for all others.
        self._messages: list[tuple[Sequence[Connection], Connection | None, list[str]]] = []
        self._myself = (connection,)
        self._gathered = 0  # characters in _messages
        self._log: list[str] = []

    def lines(self, before_turn: Callable[[], object] | None = None) -> Iterator[str]:
        """Yield the client's lines as harmless text without newlines, until the input ends or the server stops.

        The end of the input completes the last line; when the server stops, an incomplete line is discarded. Ctrl-D at
        the start of a line ends the input. Whenever lines have arrived, before_turn() is called before the first of
        them is yielded. LineTooLong, HttpSpoken, TimeLimitPassed and OSError (the connection is lost) end the
        conversation, after all lines before the fault were yielded.
        """
        if self._lines is None:
            self._lines = self._each_line(lambda block: harmless(block)[:-1].split("\n"))
        self._before_turn = before_turn
        return self._lines

    def raw_lines(self) -> Iterator[bytes]:
        """Yield the client's lines as lines() does, but as bytes, for a protocol in which byte 4 is not Ctrl-D."""
        self._buffer.eot_ends_input = False
        return self._each_line(lambda block: block[:-1].split(b"\n"))

    def ask(self, question: str) -> str:
        """Send a question; return the next line, or raise InputEnded if the client leaves or the server stops."""
        self.queue_reply(question)
        for answer in self.lines():
            return answer
        raise InputEnded

    def _each_line(self, split: Callable[[bytes], list[_Line]]) -> Iterator[_Line]:
        for block in self._blocks():
            lines = split(block)
            for first in range(0, len(lines), TURN_LINES):
                turn = lines[first : first + TURN_LINES]
                yield from turn
                if self._limit:
                    self.connection.set_time_limit(*self._limit)
                self._let_others_run(len(turn) / TURN_LINES)
        if self._buffer.too_long:
            raise LineTooLong(f"Line too long: at most {MAX_LINE_BYTES} bytes are expected")

    def _blocks(self) -> Iterator[bytes]:
        """Yield blocks of whole lines as they arrive; send the gathered output before each wait for more."""
        self.flush()
        while data := self.connection.receive():
            if self._is_first_line and data.startswith(TLS_HANDSHAKE):
                raise HttpSpoken
            turn_bytes = TURN_BYTES if data.count(IAC) <= COMMANDS_PER_TURN else 2 * COMMANDS_PER_TURN
            for first in range(0, len(data), turn_bytes):
                piece = data[first : first + turn_bytes]
                lines = self._buffer.feed(piece)
                if self._buffer.answer:
                    self.connection.send(self._buffer.answer)  # telnet discards all output until this answer arrives
                if lines:
                    self._begin_turn(lines)
                    yield lines
                if self._buffer.ended or self._buffer.too_long:
                    return
                self._let_others_run(len(piece) / turn_bytes)
            self.flush()
        if self.connection.has_received_end and (last := self._buffer.end()):
            self._begin_turn(last)
            yield last
            self.flush()

    def _begin_turn(self, lines: bytes) -> None:
        if self._is_first_line and HTTP_REQUEST_LINE.match(lines):
            raise HttpSpoken
        self._is_first_line = False
        if self._before_turn:
            self._before_turn()

    def _let_others_run(self, part_of_turn: float) -> None:
        self._turn += part_of_turn
        if self._turn >= 1.0:
            self._turn = 0.0
            self.flush()
            time.sleep(PAUSE_SECONDS)

    def set_time_limit(self, seconds: float | None, sentence: str = "", restarts: bool = True) -> None:
        """Set a time limit for the client, or lift it; when it has passed, the client reads the sentence.

        If it restarts, each complete line gives the client the same time again.
        """
        self._limit = (seconds, sentence) if seconds is not None and restarts else None
        self.connection.set_time_limit(seconds, sentence)

    def queue_reply(self, line: str) -> None:
        """Queue a line for the client."""
        self.queue(self._myself, line)

    def queue(self, recipients: Sequence[Connection], line: str, except_me: bool = False) -> None:
        """Queue a line for clients, perhaps except this conversation's own.

        Successive lines to the same recipients are encoded together and cost little more than one line.
        """
        left_out = self.connection if except_me else None
        last = self._messages[-1] if self._messages else None
        if last and left_out is last[1] and (recipients is last[0] or recipients == last[0]):
            last[2].append(line)
        else:
            self._messages.append((recipients, left_out, [line]))
        self._gathered += len(line)
        if self._gathered > GATHERED_CHARACTERS:
            self.flush()

    def log(self, text: str) -> None:
        """Queue a status line that names the client."""
        self._log.append(text)

    def flush(self) -> None:
        """Send and log the gathered output.

        A client's own replies come after its messages to others, so that a reply says that those were sent. Recipients
        with a full backlog come last, so that nobody else waits for them.
        """
        self._gathered = 0
        blocks: dict[Connection, bytes] = {}
        for recipients, left_out, lines in self._messages:
            block = ("\n".join(lines) + "\n").encode()
            for recipient in recipients:
                if recipient is not left_out:  # recipients of one message share its block: b"" + block copies nothing
                    blocks[recipient] = blocks.get(recipient, b"") + block
        self._messages.clear()
        if self.connection in blocks:
            blocks[self.connection] = blocks.pop(self.connection)
        full = [recipient for recipient, block in blocks.items() if not recipient.send(block, blocking=False)]
        for recipient in full:
            recipient.send(blocks[recipient])
        if self._log:
            prefix = f"Client ({self.connection.fd}): "
            LOG.write(prefix + f"\n{prefix}".join(self._log))
            self._log.clear()


@cache
def counted_clients(number: int) -> str:
    """Return "1 client" or "2 clients", for status lines."""
    return "1 client" if number == 1 else f"{number} clients"
