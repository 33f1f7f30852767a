"""One client of a server: lines in, bytes out, and what happens when it does not read.

No sender waits for a client's socket. What the kernel does not take is kept, at most BACKLOG_BYTES, and a second thread
for that client, which lives only while there is a backlog, sends it. Who finds no room in the backlog waits until half
of it is gone. A client that meanwhile takes less than LEAST_BYTES_PER_SECOND for PERIOD_SECONDS is dropped. So one that
stops reading delays nobody for longer than that, and one that is merely slow loses nothing: who floods it is slowed.
"""

import select
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import suppress

from net.log import LOG
from protocol import LineBuffer, LineTooLong

RECEIVE_BYTES = 1 << 18
LEAST_RECEIVE_BYTES = 1 << 16  # for more, malloc asks the system for pages each time
BACKLOG_BYTES = 1 << 20
PIECE_BYTES = 1 << 18  # of the backlog, that is offered to the kernel at once
LEAST_BYTES_PER_SECOND = 1 << 16
PERIOD_SECONDS = 5.0
RETRY_SECONDS = 0.25  # poll finds a socket writable only when a third of its buffer is free, which may take long
LINGER_SECONDS = 1.0
QUIET_SECONDS = 0.1
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close at once with a reset; the kernel forgets what it has not sent


class DeadlinePassed(Exception):
    """A client took too long."""

    def __str__(self) -> str:
        return "Timed out: nothing useful came in time"


class Connection:
    """A client's socket: one thread owns it, reads from it and closes it; any thread may send to it.

    To send: send() waits while the backlog is full, send_if_room() says so instead, post() neither waits nor refuses,
    say_farewell() is a post() after which nothing is sent. To end: the owner calls close(), which lets the backlog go
    out; whoever gives the client up calls abort(), and the owner finds its input ended.

    Args:
        sock: the socket.
        stop_fd: a descriptor that becomes readable when input is to be taken as ended.
        deadline: see below.

    Attributes:
        fd: the number of the descriptor; it names the client in status lines.
        deadline: the time.monotonic() at which batches() raises DeadlinePassed, or None for never.
    """

    def __init__(self, sock: socket.socket, stop_fd: int, deadline: float | None = None) -> None:
        self.fd = sock.fileno()
        self.deadline = deadline
        self._sock = sock
        sock.setblocking(False)  # who waits, waits in poll
        self._stop_fd = stop_fd
        self._input = select.poll()  # select.select() cannot take descriptors over 1023
        self._input.register(sock, select.POLLIN)
        self._input.register(stop_fd, select.POLLIN)
        self._receive_bytes = LEAST_RECEIVE_BYTES
        self._buffer = LineBuffer()
        self._input_ended = False
        self._lock = threading.Lock()  # guards all below and the order of what is sent; held for no wait
        self._room = threading.Condition(self._lock)  # half of a full backlog is gone, or all of it, or the client
        self._backlog = bytearray()
        self._sender: threading.Thread | None = None  # sends the backlog, while there is one
        self._open = True  # sends are accepted
        self._lost = False  # sends are vain
        self._watched_since: float | None = None  # when somebody began to wait for the client to read
        self._watched_bytes = 0  # what it has taken since then

    def status(self, text: str) -> None:
        """Write a status line that names the client."""
        LOG.write(f"Client ({self.fd}): {text}")

    def batches(self) -> Iterator[bytes]:
        """Receive for ever; give the lines that came at once, until the client ends its side or the server stops.

        Raises:
            LineTooLong: a line was over MAX_LINE_BYTES; those before it were given.
            DeadlinePassed: the deadline has passed.
            OSError: the connection is lost.
        """
        while data := self._receive():
            lines = self._buffer.feed(data)
            if self._buffer.answer:
                self.send(self._buffer.answer)  # before what the lines cause: telnet shows nothing until then
            if lines:
                yield lines
            if self._buffer.too_long:
                raise LineTooLong
        if self._buffer.in_line:
            self.status("discarded half a line: the input ended in the middle of it")

    def _receive(self) -> bytes:
        """Wait for input and return it, or nothing at its end."""
        wait = None if self.deadline is None else max(0.0, self.deadline - time.monotonic()) * 1000
        ready = self._input.poll(wait)
        if not ready or wait == 0.0:  # also for a client that never pauses
            raise DeadlinePassed
        if self._stop_fd in dict(ready):
            return b""
        data = self._sock.recv(self._receive_bytes)
        self._receive_bytes = min(max(4 * len(data), LEAST_RECEIVE_BYTES), RECEIVE_BYTES)
        self._input_ended = not data
        return data

    def send(self, data: bytes) -> None:
        """Send data whole and in order, waiting while there is no room for it; do nothing if the client is gone."""
        with self._lock:
            if rest := self._offer_first(data):
                while self._lacks_room(rest):
                    self._watch()
                    self._room.wait()
                self._append(rest)

    def send_if_room(self, data: bytes) -> bool:
        """Send data as send() does, unless that would have to wait; return whether it was sent.

        Who does not read is watched from now on.
        """
        with self._lock:
            if rest := self._offer_first(data):
                if self._lacks_room(rest):
                    self._watch()
                    return False
                self._append(rest)
            return True

    def post(self, data: bytes) -> None:
        """Send data as send() does, but without waiting, room or no room: for what is short and rare."""
        with self._lock:
            self._append(self._offer_first(data))

    def _offer_first(self, data: bytes) -> bytes:
        """Return what the kernel does not take at once of data, or all if older data wait."""
        return data if self._backlog or not self._open else data[self._offer(data) :]

    def _offer(self, data: bytes | bytearray) -> int:
        """Return how many bytes the kernel took without waiting."""
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0
        except OSError:  # the owner's recv says what happened
            self._lose()
            return 0

    def _lacks_room(self, data: bytes) -> bool:
        """Return whether data must wait; larger than the whole backlog, they wait until it is empty."""
        return self._open and bool(self._backlog) and len(self._backlog) + len(data) > BACKLOG_BYTES

    def _append(self, data: bytes) -> None:
        """Add to the backlog, and see that it is sent."""
        if not data or not self._open:
            return
        self._backlog += data
        if not self._sender:
            self._sender = threading.Thread(target=self._send_backlog, name=f"sender {self.fd}", daemon=True)
            try:
                self._sender.start()
            except RuntimeError:  # out of threads
                self._sender = None
                self._lose()

    def _watch(self) -> None:
        """Have the client dropped if it takes too little from now on."""
        if self._watched_since is None:
            self._watched_since = time.monotonic()
            self._watched_bytes = 0

    def _send_backlog(self) -> None:
        """Send the backlog as the client takes it, until it is gone; the client's second thread."""
        writable = select.poll()
        writable.register(self._sock, select.POLLOUT)
        while self._send_some():
            if self._takes_too_little():
                self.status(f"dropped: it took less than {LEAST_BYTES_PER_SECOND} bytes a second")
                self.abort()
            writable.poll(RETRY_SECONDS * 1000)

    def _send_some(self) -> bool:
        """Send what the kernel takes of the backlog; return whether there is more to do."""
        with self._lock:
            sent = self._offer(self._backlog[:PIECE_BYTES])
            del self._backlog[:sent]
            self._watched_bytes += sent
            if self._open and len(self._backlog) <= BACKLOG_BYTES // 2:
                self._watched_since = None
                self._room.notify_all()
            if self._lost or not self._backlog:
                self._sender = None
                self._room.notify_all()
            return self._sender is not None

    def _takes_too_little(self) -> bool:
        with self._lock:
            if self._watched_since is None:
                return False
            seconds = time.monotonic() - self._watched_since
            if seconds < PERIOD_SECONDS:
                return False
            too_little = self._watched_bytes < LEAST_BYTES_PER_SECOND * seconds
            self._watched_since = None  # the next period begins
            self._watch()
            return too_little

    def say_farewell(self, data: bytes) -> None:
        """Send the last thing that the client gets, room or no room."""
        with self._lock:
            self._append(self._offer_first(data))
            self._end_sends()

    def _end_sends(self) -> None:
        self._open = False
        self._room.notify_all()

    def abort(self) -> None:
        """Give the client up: forget the backlog, wake whoever waits for it."""
        with self._lock:
            self._lose()

    def _lose(self) -> None:
        self._open = False
        self._lost = True
        self._backlog.clear()
        self._room.notify_all()
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._sock.shutdown(socket.SHUT_RDWR)  # wakes the owner

    def close(self, reason: str = "") -> None:
        """Let the backlog go out, end our side, wait a moment for the client to end its own, and close.

        Closing while input is unread would send a reset, which may destroy the last lines on their way (RFC 1122
        4.2.2.13).
        """
        with self._lock:
            self._end_sends()
            if self._sender:
                self._watch()
                self._room.wait_for(lambda: not self._sender)
        if not self._input_ended:
            with suppress(OSError):
                self._sock.shutdown(socket.SHUT_WR)
                self._discard_input()
        self.status(f"disconnected{reason}")  # before the number of the descriptor is free for another
        with self._lock:  # nobody else is using it
            self._sock.close()

    def refuse(self, text: str) -> None:
        """Tell the client why it is not served, and close without waiting."""
        self.status(f"refused: {text}")
        self.say_farewell(f"{text}\n".encode())
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)
            self._sock.recv(RECEIVE_BYTES)  # unread input would turn the close into a reset
        with self._lock:
            self._backlog.clear()
            self._sock.close()

    def _discard_input(self) -> None:
        """Read until the client ends its side, but not for long; if the server stops, until it is quiet."""
        end = time.monotonic() + LINGER_SECONDS
        patience = LINGER_SECONDS
        while (seconds := min(patience, end - time.monotonic())) > 0:
            ready = dict(self._input.poll(seconds * 1000))
            if self._stop_fd in ready:
                self._input.unregister(self._stop_fd)
                patience = QUIET_SECONDS
            if not ready or (self.fd in ready and not self._sock.recv(RECEIVE_BYTES)):
                return
