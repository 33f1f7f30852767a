"""One client's connection: the thread that owns it reads from it and closes it; any thread may send to it."""

import select
import socket
import ssl
import time
from contextlib import suppress

from net.log import LOG
from net.output import Output
from net.stream import WOULD_BLOCK, Stream, TlsStream

RECEIVE_BYTES = 1 << 16  # for a larger buffer, malloc would map new pages at each call
LINGER_SECONDS = 1.0
QUIET_SECONDS = 0.1


class TimeLimitPassed(Exception):
    """A client took too long; the text is the sentence that the server sends to the client."""


class Connection:
    """A client's connection.

    Any thread may call send(), post() and finish(), which are methods of Output.

    The owner ends the connection with close(), which sends the backlog first. Another thread can give the client up
    with abort(), which ends the owner's wait for input.

    Args:
        sock: the socket.
        stop_fd: a descriptor that becomes readable when the server stops.
        address: the client's IP address.
        tls: the server's context, if the connection speaks TLS; the owner then calls shake_hands() first.

    Attributes:
        fd: the descriptor, which identifies the client in status lines.
        address: as given.
        stop_fd: as given.
        input_ended: whether receive() has returned the end of the client's input.
    """

    def __init__(self, sock: socket.socket, stop_fd: int, address: str = "", tls: ssl.SSLContext | None = None) -> None:
        self.fd = sock.fileno()
        self.address = address
        self._stream = _tls_stream(sock, tls) if tls else Stream(sock)
        self._output = Output(self._stream, self.log, held=tls is not None)
        self.send = self._output.send
        self.post = self._output.post
        self.finish = self._output.finish
        self.stop_fd = stop_fd
        self._poll = select.poll()  # select.select() accepts no descriptor over 1023
        self._poll.register(self.fd, select.POLLIN)
        self._poll.register(stop_fd, select.POLLIN)
        self.input_ended = False
        self._deadline: float | None = None
        self._sentence = ""

    def log(self, text: str) -> None:
        """Write a status line that names the client."""
        LOG.write(f"Client ({self.fd}): {text}")

    def allow(self, seconds: float | None, sentence: str = "") -> None:
        """Set a time limit for receive() and shake_hands(), or lift it.

        Args:
            seconds: the limit, counted from now; None lifts it.
            sentence: the text of the TimeLimitPassed that is raised when the limit has passed.
        """
        self._deadline = None if seconds is None else time.monotonic() + seconds
        self._sentence = sentence

    def shake_hands(self) -> None:
        """Carry out the TLS handshake; then send the output that other threads have queued meanwhile.

        Raises:
            HandshakeFailed: the client does not speak TLS, does not trust the certificate, or has left.
            TimeLimitPassed: the client took too long.
        """
        if isinstance(self._stream, TlsStream):
            while not self._stream.shake_hands():
                if not self._wait_for_input():
                    return  # the server is stopping
            self._output.release()

    def receive(self, size: int = RECEIVE_BYTES) -> bytes:
        """Wait for input and return it; return b"" at the end of the input, or when the server stops.

        Raises:
            TimeLimitPassed: the time limit has passed, whether or not input has arrived.
            OSError: the connection is lost.
        """
        while self._stream.input_ended or self._wait_for_input():
            data = self.try_receive(size)
            if data is not None:
                return data
        return b""

    def try_receive(self, size: int = RECEIVE_BYTES) -> bytes | None:
        """Return the input that has arrived, b"" at the end of the input, or None if no input has arrived.

        Raises:
            OSError: the connection is lost.
        """
        try:
            data = self._stream.read(size)
        except WOULD_BLOCK:
            return None
        # The kernel reports a reset once. If a sending thread got the report, this read looks like an orderly end.
        self.input_ended = not data and not self._output.is_lost()
        return data

    def end_has_arrived(self) -> bool:
        """Return whether the end of the input came with the input that was received last; poll() may not report it."""
        return self._stream.input_ended

    def _wait_for_input(self) -> bool:
        """Wait until the socket is readable; return False if the server stops."""
        wait = None
        if self._deadline is not None:
            wait = max(0.0, self._deadline - time.monotonic()) * 1000
        ready = self._poll.poll(wait)
        if not ready or wait == 0.0:  # the second test ends a client that never stops sending
            raise TimeLimitPassed(self._sentence)
        return self.stop_fd not in dict(ready)

    def has_left(self) -> bool:
        """Return whether the client has ended its side, even if input is still unread. Any thread may call this."""
        return self._is_in(getattr(select, "POLLRDHUP", select.POLLHUP))  # macOS has no POLLRDHUP

    def is_reset(self) -> bool:
        """Return whether the connection is closed in both directions, or reset. Any thread may call this."""
        return self._is_in(select.POLLHUP)

    def server_is_stopping(self) -> bool:
        """Return whether the server is stopping. Any thread may call this."""
        poll = select.poll()
        poll.register(self.stop_fd, select.POLLIN)
        return bool(poll.poll(0))

    def _is_in(self, state: int) -> bool:
        poll = select.poll()
        poll.register(self.fd, state)  # poll() reports POLLHUP and POLLERR in any case
        return bool(poll.poll(0))

    def abort(self) -> None:
        """Give up the client: discard the backlog, and wake the owner and every thread that waits for the client."""
        self._output.lose()

    def close(self, reason: str = "") -> None:
        """Send the backlog, half-close, wait up to LINGER_SECONDS for the client to end its side, and close.

        Closing a socket with unread input would send a reset, which may destroy the last lines on their way to the
        client (RFC 1122, 4.2.2.13).

        Args:
            reason: follows "disconnected" in the status line.
        """
        self._output.finish()
        self._output.wait_until_sent()
        self._stream.end_output()
        if not self.input_ended:
            self._discard_input()
        self.log(f"disconnected{reason}")  # before another client can get the same descriptor
        self._stream.close()

    def refuse(self, text: str) -> None:
        """Tell the client why it is refused, and close without waiting.

        A TLS client cannot be told, because the handshake has not taken place.
        """
        self.log(f"refused: {text}")
        if not isinstance(self._stream, TlsStream):
            with suppress(OSError):
                self._stream.write(f"{text}\n".encode())
        self._stream.end_output()
        self._read_and_discard()  # unread input would turn the close into a reset
        self._stream.close()

    def _discard_input(self) -> None:
        """Read until the client ends its side, for at most LINGER_SECONDS.

        Once the server is stopping, return as soon as the input pauses for QUIET_SECONDS.
        """
        end = time.monotonic() + LINGER_SECONDS
        patience = LINGER_SECONDS
        while (seconds := min(patience, end - time.monotonic())) > 0:
            ready = dict(self._poll.poll(seconds * 1000))
            if self.stop_fd in ready:
                self._poll.unregister(self.stop_fd)
                patience = QUIET_SECONDS
            if not ready or (self.fd in ready and self._read_and_discard() == b""):
                return

    def _read_and_discard(self) -> bytes | None:
        try:
            return self.try_receive()
        except (OSError, ValueError):
            return b""


def _tls_stream(sock: socket.socket, context: ssl.SSLContext) -> TlsStream:
    sock.getpeername()  # raises OSError if the client has left already; wrap_socket() would then leak the socket
    return TlsStream(
        context.wrap_socket(sock, server_side=True, do_handshake_on_connect=False, suppress_ragged_eofs=False)
    )
