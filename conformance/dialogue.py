"""A client that tolerates what servers in other languages do, and says in a sentence what it missed.

Lines may end with LF or CR LF; a prompt need not end at all; banners and notices may come between the replies, and
telnet commands and colours anywhere. Every wait has a limit, and so has each check as a whole.
"""

import codecs
import re
import socket
import struct
import sys
import time
from contextlib import suppress
from functools import partial

from .rules import fail
from .target import Target

GAP_SECONDS = 0.06  # between two lines if the first is not answered: many servers take what arrives together for one
QUIET_SECONDS = 0.15  # after this long without data, a reply of unknown length is complete; TCP may delay it by 0.04
CONNECT_SECONDS = 10.0  # a full queue drops the request to connect, which is sent again after 1, 3 and 7 seconds
CONNECT_PAUSE_SECONDS = 0.005  # between two connects, since the queue of many servers is short
SMALL_BUFFER_BYTES, SMALL_SEGMENT_BYTES = 2048, 536  # so that the kernels keep little for a client that does not read
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER
ENDLESS_CHARACTERS = 1 << 20
NOTED_LINES = 400  # in a dialogue
SHOWN_LINES = 40
SHOWN_CHARACTERS = 120  # of each line

TELNET_COMMAND = re.compile(rb"\xff(?:\xfa.*?\xff\xf0|[\xfb-\xfe].|[\xf0-\xf9])", re.DOTALL)
INVISIBLE = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\0\r\a]")  # colours, and what a terminal does not show


class Limits:
    """How long a check may wait for an answer, and how long it may take as a whole."""

    def __init__(self, answer_seconds: float, test_seconds: float) -> None:
        self.answer_seconds = answer_seconds
        self._end = time.monotonic() + test_seconds

    def deadline(self, seconds: float | None = None) -> float:
        """Return when a wait must end, as time.monotonic(); by default it may take as long as an answer."""
        return min(self._end, time.monotonic() + (self.answer_seconds if seconds is None else seconds))


class Dialogue:
    """What all clients of a check have sent and received, in order."""

    def __init__(self) -> None:
        self.has_received = False  # whether the server has said anything
        self._lines: list[str] = []

    def sent(self, who: str, text: str) -> None:
        """Note what a client has sent."""
        self._note(f"{who:<10} > {text}")

    def received(self, who: str, text: str) -> None:
        """Note what a client has received."""
        self.has_received = True
        self._note(f"{who:<10} < {text}")

    def _note(self, line: str) -> None:
        if len(self._lines) < NOTED_LINES:
            self._lines.append(shortened(line))

    def __str__(self) -> str:
        lines = self._lines
        if len(lines) > SHOWN_LINES:
            half = SHOWN_LINES // 2
            lines = [*lines[:half], f"... {len(lines) - 2 * half} lines ...", *lines[-half:]]
        return "\n".join(lines)


class ChatClient:
    """A connection to the server under test.

    Args:
        target: the server.
        who: what the dialogue calls the client.
        name: the name under which it joins.
        dialogue: where it notes what it sends and receives.
        limits: how long it may wait.
        line_end: what it sends after each line; telnet sends CR LF.
        reads: False for one that will not read, so that as little as possible is buffered for it.
    """

    def __init__(
        self,
        target: Target,
        who: str,
        name: str,
        dialogue: Dialogue,
        limits: Limits,
        line_end: bytes = b"\r\n",
        reads: bool = True,
    ) -> None:
        self.who = who
        self.name = name
        self.ended = ""  # how the connection has ended
        self.received = bytearray()
        self._dialogue = dialogue
        self._limits = limits
        self._line_end = line_end
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._unread = ""
        self._sent_at = 0.0
        self._is_answered = True
        time.sleep(CONNECT_PAUSE_SECONDS)
        try:
            self._sock = target.connect(partial(new_socket, reads))
        except OSError as error:
            fail(f"the server accepts no connection from {who}: {reason(error)}")

    # Sending

    def say(self, *lines: str) -> None:
        """Send lines as a user types them: each in a packet of its own, after the last one was answered or a moment."""
        for line in lines:
            self._receive(0)
            if not self._is_answered:
                time.sleep(max(0.0, self._sent_at + GAP_SECONDS - time.monotonic()))
            self._dialogue.sent(self.who, line)
            self._send(line.encode() + self._line_end)

    def send(self, data: bytes) -> None:
        """Send bytes as they are, at once."""
        self._receive(0)
        self._dialogue.sent(self.who, shortened(repr(data[:SHOWN_CHARACTERS])[2:-1]))
        self._send(data)

    def _send(self, data: bytes) -> None:
        self._is_answered, self._sent_at = False, time.monotonic()
        self._sock.settimeout(self._limits.answer_seconds)
        try:
            self._sock.sendall(data)
        except TimeoutError:
            fail(f"the server does not read what {self.who} sends")
        except OSError as error:
            self.ended = self.ended or reason(error)

    # Receiving

    def expect(self, pattern: str, what: str, seconds: float | None = None) -> str:
        """Wait for text that matches, wherever it is; return all text up to its end."""
        text = self.read_until(pattern, seconds)
        if not re.search(pattern, text):
            fail(f"{self.who} should receive {what}, but received {self._described(text)}")
        return text

    def expect_line(self, line: str) -> None:
        """Wait for a line; fail unless it is exactly this one."""
        text = self.read_until("\n")
        if text != f"{line}\n":
            fail(f"{self.who} should receive the line '{line}', but received {self._described(text)}")

    def expect_end(self) -> str:
        """Wait until the server has closed the connection; return the text before that."""
        text = self.wait_for_end()
        if not self.ended:
            fail(f"the server should close the connection of {self.who}, but it is still open")
        return text

    def wait_for_end(self, seconds: float | None = None) -> str:
        """Wait until the server has closed the connection, or the time has passed; return the text that has come."""
        return self.read_until(r"\Z.", seconds)  # a pattern that never matches

    def read_until(self, pattern: str, seconds: float | None = None) -> str:
        """Return all text up to the end of a match or, if none comes in time, all that has arrived."""
        deadline = self._limits.deadline(seconds)
        while not (match := re.search(pattern, self._unread)):
            if not self._receive(deadline - time.monotonic()):
                break
        return self._take(match.end() if match else len(self._unread))

    def read_rest(self, first_seconds: float = QUIET_SECONDS) -> str:
        """Return all text until none comes for a moment; the first may take longer."""
        deadline = self._limits.deadline(first_seconds)
        last = self._limits.deadline()
        while self._receive(min(deadline, last) - time.monotonic()):
            deadline = self._limits.deadline(QUIET_SECONDS)
        return self._take(len(self._unread))

    def discard(self) -> None:
        """Forget what has arrived."""
        self._receive(0)
        self._unread = ""

    def _take(self, count: int) -> str:
        text, self._unread = self._unread[:count], self._unread[count:]
        return text

    def _described(self, text: str) -> str:
        return quoted(text) + (f", and then the end of the connection ({self.ended})" if self.ended else "")

    def _receive(self, seconds: float) -> bool:
        """Wait for data; return whether any has come."""
        if self.ended or seconds < 0:
            return False
        self._sock.settimeout(seconds)
        try:
            data = self._sock.recv(1 << 16)
            self._acknowledge()
        except (TimeoutError, BlockingIOError):
            return False
        except OSError as error:
            data, self.ended = b"", reason(error)
        if not data:
            self.ended = self.ended or "closed by the server"
            self._dialogue.received(self.who, f"[{self.ended}]")
            return False
        self._is_answered = True
        self.received += data
        text = INVISIBLE.sub("", self._decoder.decode(TELNET_COMMAND.sub(b"", data)))
        for line in text.splitlines():
            self._dialogue.received(self.who, line)
        self._unread += text
        if len(self._unread) > ENDLESS_CHARACTERS:
            fail(f"the server sends text to {self.who} without end: {quoted(self._unread)}")
        return True

    def _acknowledge(self) -> None:
        """Acknowledge at once, since a server without TCP_NODELAY waits for that before it sends more."""
        if sys.platform == "linux":
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)

    # Leaving

    def end_input(self) -> None:
        """End our side of the connection; the server may still send."""
        self._dialogue.sent(self.who, "[end of input]")
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection, as when a client crashes."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self._close("[reset]")

    def close(self) -> None:
        """Close the connection."""
        self._close("[close]")

    def _close(self, how: str) -> None:
        if not self.ended:
            self._dialogue.sent(self.who, how)
            self.ended = "closed by the client"
        self._sock.close()


def new_socket(reads: bool) -> socket.socket:
    """Return a socket for a client that reads, or for one that does not."""
    sock = socket.socket()
    sock.settimeout(CONNECT_SECONDS)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    if not reads:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, SMALL_BUFFER_BYTES)
        with suppress(OSError):
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, SMALL_SEGMENT_BYTES)
    return sock


def quoted(text: str) -> str:
    """Return what a client has received, on one line, for a sentence."""
    lines = text.strip().splitlines()
    return f"'{shortened(' / '.join(lines))}'" if lines else "nothing"


def shortened(text: str) -> str:
    """Return a text as it is, or its beginning and its length."""
    return text if len(text) <= SHOWN_CHARACTERS else f"{text[:SHOWN_CHARACTERS]}... ({len(text)} characters)"


def reason(error: OSError) -> str:
    """Return what has happened, in the system's words."""
    return error.strerror or str(error)
