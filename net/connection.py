"""One client's connection: the thread that owns it receives from it and closes it; any thread may send to it."""

import select
import socket
import time
from contextlib import suppress

from net.output import Output
from net.proxy import ProxyLine

RECEIVE_BYTES = 1 << 16  # for a larger buffer, malloc would map new pages at each call
LINGER_SECONDS = 1.0
QUIET_SECONDS = 0.1


class TimeLimitPassed(Exception):
    """A client took too long; the text is the sentence that the server sends to the client."""


class Connection(Output):
    """A client's output, as in Output, and its input.

    The owner ends the connection with close(). Any thread may call end(), after which nothing is sent, and drop(),
    which cuts the connection.
    """

    def __init__(self, sock: socket.socket, stop_fd: int, address: str = "") -> None:
        super().__init__(sock)
        sock.setblocking(False)
        self.address = address  # the client's IP address; a PROXY line changes it
        self.stop_fd = stop_fd  # becomes readable when the server stops
        self.proxy_line: ProxyLine | None = None  # with which a connection from a trusted proxy may begin
        self.has_received_end = False  # whether the end of the client's input has been received
        self._has_closed = False  # whether the client has ended its side of the TCP connection
        self._early = b""  # plain text that came with the end of the handshake
        self._deadline: float | None = None
        self._sentence = ""
        self._poll = select.poll()  # select.select() accepts no descriptor over 1023
        self._poll.register(self.fd, select.POLLIN)
        self._poll.register(stop_fd, select.POLLIN)

    def set_time_limit(self, seconds: float | None, sentence: str = "") -> None:
        """Set a time limit for receive() and shake_hands(), or lift it; the sentence is TimeLimitPassed's text."""
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._sentence = sentence

    def shake_hands(self) -> None:
        """Carry out the TLS handshake, if the connection speaks TLS; raise OSError if it fails."""
        while self.tls and not self.tls.is_ready and not self._has_closed:
            if not self._wait_for_input() and not wait_for(self.fd, select.POLLIN):  # the server stops
                return
            self._early = self.try_receive() or b""

    def receive(self, size: int = RECEIVE_BYTES) -> bytes:
        """Wait for input and return it; return b"" at the end of the input, or when the server stops.

        TimeLimitPassed is raised when the time limit has passed, even if input has arrived; OSError, when the
        connection is lost.
        """
        if self._early:
            early, self._early = self._early, b""
            return early
        while not self.has_received_end and self._wait_for_input():
            data = self.try_receive(size)
            if data is not None:
                return data
        return b""

    def try_receive(self, size: int = RECEIVE_BYTES) -> bytes | None:
        """Return the input that has arrived, b"" at its end, or None if no input has arrived."""
        if self.has_received_end:
            return b""
        try:
            data = self._sock.recv(size)
        except BlockingIOError:
            return None
        if not data:
            self._take_end()
            return b""
        if self.proxy_line:
            data = self.proxy_line.take_off(data)
        if self.tls and data:
            data = self._decrypt(data)
            self.has_received_end = self.tls.has_ended
        if self.trace and data:
            self.trace.received(data)
        return data if data or self.has_received_end else None

    def _take_end(self) -> None:
        """Note that the client has ended its side of the TCP connection; over TLS, that is not an orderly end."""
        self._has_closed = True
        # The kernel reports a reset once. If a sending thread got the report, this read looks like an orderly end.
        if self.is_dropped:
            return
        if self.tls:
            cut = "the connection was cut without close_notify"
            raise OSError(None, cut if self.tls.is_ready else "TLS handshake failed: the client has left")
        self.has_received_end = True

    def _wait_for_input(self) -> bool:
        """Wait until the socket is readable; return False if the server stops."""
        wait = None if self._deadline is None else max(0.0, self._deadline - time.monotonic()) * 1000
        ready = self._poll.poll(wait)
        if not ready or wait == 0.0:  # the second test ends a client that never stops sending
            raise TimeLimitPassed(self._sentence)
        return self.stop_fd not in dict(ready)

    def has_ended_input(self) -> bool:
        """Return whether the client has ended its side, even if input is still unread. Any thread may call this."""
        return wait_for(self.fd, getattr(select, "POLLRDHUP", select.POLLHUP))  # macOS has no POLLRDHUP

    def is_gone(self) -> bool:
        """Return whether the connection is closed in both directions, or reset. Any thread may call this."""
        return wait_for(self.fd, select.POLLHUP)

    def server_is_stopping(self) -> bool:
        """Return whether the server is stopping. Any thread may call this."""
        return wait_for(self.stop_fd, select.POLLIN)

    def close(self, status: str = "disconnected", linger_seconds: float = LINGER_SECONDS) -> None:
        """Send the backlog, half-close, wait up to linger_seconds for the client to end its side, and close.

        Closing a socket with unread input would send a reset, which may destroy the last lines on their way to the
        client (RFC 1122, 4.2.2.13).
        """
        self.end()
        with self._lock:
            self._wait_until(lambda: not self._sender)
        with suppress(OSError):  # the client has reset the connection
            self._sock.shutdown(socket.SHUT_WR)
            if not self._has_closed:
                self._discard_input(linger_seconds)
        self.log_at_once(status)  # before another client can get the same descriptor
        self._sock.close()

    def _discard_input(self, seconds: float) -> None:
        """Read until the client ends its side; once the server stops, only until the input pauses for QUIET_SECONDS."""
        end = time.monotonic() + seconds
        patience = left = seconds
        while left >= 0 and (ready := dict(self._poll.poll(min(patience, left) * 1000))):
            if self.stop_fd in ready:
                self._poll.unregister(self.stop_fd)
                patience = QUIET_SECONDS
            with suppress(BlockingIOError):
                if self.fd in ready and not self._sock.recv(RECEIVE_BYTES):
                    return
            left = end - time.monotonic()


def wait_for(file: int | socket.socket, event: int, end: float = 0.0) -> bool:
    """Wait for an event of a socket or a pipe until a time, by default not at all; return whether it has happened."""
    poll = select.poll()
    poll.register(file, event)  # poll() reports POLLHUP and POLLERR in any case
    return bool(poll.poll(max(0.0, end - time.monotonic()) * 1000))
