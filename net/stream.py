"""Non-blocking sockets, plain or TLS, behind one interface: read, write, end the output.

Threads that wait for a socket wait in poll(), never in read() or write(): these return at once.
"""

import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

RECORD_BYTES = 1 << 14  # what a TLS record holds at most (RFC 8446, 5.1)
CLOSE_NOTIFY_SECONDS = 1.0  # how long a full socket may delay close_notify
RETRY_SECONDS = 0.25  # poll() reports a socket writable only when a third of its buffer is free, which may take long
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with a reset at once; the kernel discards what it has not sent

# What recv and send raise on a non-blocking socket that is not ready. A TLS socket may poll readable without any data:
# what arrived may be half a record, or a message of TLS itself.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class HandshakeFailed(OSError):
    """A TLS handshake failed; the text says why."""

    def __str__(self) -> str:
        return f"TLS handshake failed: {self.strerror}"


class Stream:
    """A plain socket. The owner reads, one thread at a time writes.

    Attributes:
        input_ended: whether the input has ended although poll() may not report it.
    """

    input_ended = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor, for poll()."""
        return self._sock.fileno()

    def read(self, size: int) -> bytes | None:
        """Return at most size bytes that have arrived, b"" at the end of the input, None if nothing has arrived.

        Raises:
            OSError: the connection is lost.
        """
        try:
            return self._sock.recv(size)
        except BlockingIOError:
            return None

    def write(self, data: bytes | bytearray) -> int:
        """Return how many bytes of data the kernel took.

        Raises:
            OSError: the connection is lost.
        """
        try:
            return self._sock.send(data)
        except BlockingIOError:
            return 0

    def end_output(self) -> None:
        """Tell the peer that nothing more will be sent; the input stays open, and read() discards what arrives."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Cut the connection: wake threads that poll it, and discard what has not been sent."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; no other thread may be using it."""
        self._sock.close()


class TlsStream(Stream):
    """A TLS socket. A lock keeps two threads from using it at the same time, which OpenSSL does not allow.

    A read takes whole records, so that nothing stays in OpenSSL, where poll() would not see it. A write hands over one
    record after another: after a refused write, OpenSSL has begun a record, and must be offered the same bytes again,
    and no fewer.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._tls = sock
        self._lock = threading.Lock()  # guards the socket; nobody waits while holding it
        self._failure: OSError | None = None  # what read() raises at the end of the input
        self._output_ended = False
        self._is_reset = False

    def shake_hands(self) -> bool:
        """Go on with the handshake; return whether it is complete. Otherwise call again when the socket is readable.

        Raises:
            HandshakeFailed: the peer does not speak TLS, or refuses ours.
        """
        try:
            with self._lock:
                self._tls.do_handshake()
        except WOULD_BLOCK:
            return False
        except OSError as error:
            left = isinstance(error, ssl.SSLEOFError) or not error.errno
            raise HandshakeFailed(error.errno, "the client has left" if left else tls_reason(error)) from error
        return True

    def read(self, size: int) -> bytes | None:
        """Return what has arrived, as Stream.read() does, but up to a record more.

        Raises:
            OSError: the connection is lost, or was cut without close_notify.
        """
        if self._output_ended:
            try:
                return self._read_raw(size)
            except BlockingIOError:
                return None
        data = b""
        while len(data) < size and not self.input_ended:
            try:
                record = self._read_record()
            except WOULD_BLOCK:
                return data or None
            except OSError as error:
                record = b""
                if not self._is_reset:
                    self._failure = OSError(error.errno, tls_reason(error))
            data += record
            self.input_ended = not record
        if self._failure and not data:
            raise self._failure
        return data

    def _read_record(self) -> bytes:
        """Return what one record holds, or b"" for close_notify.

        An end without close_notify is kept from OpenSSL, which would send nothing more after it.
        """
        if not self._read_raw(1, socket.MSG_PEEK):
            raise ssl.SSLEOFError
        with self._lock:
            return self._tls.recv(RECORD_BYTES)

    def _read_raw(self, size: int, flags: int = 0) -> bytes:
        return socket.socket.recv(self._sock, size, flags)

    def write(self, data: bytes | bytearray) -> int:
        """Return how many bytes of data were taken; the rest must be the beginning of the next write.

        Raises:
            OSError: the connection is lost.
        """
        taken = 0
        try:
            with self._lock:
                taken = self._tls.send(data[:RECORD_BYTES])
                while taken < len(data):
                    taken += self._tls.send(data[taken : taken + RECORD_BYTES])
        except WOULD_BLOCK:
            pass
        return taken

    def end_output(self) -> None:
        """Send close_notify, waiting a moment for room for it, and end the TCP output.

        From now on read() returns what arrives as it is, encrypted; it is for discarding only.
        """
        end = time.monotonic() + CLOSE_NOTIFY_SECONDS
        writable = select.poll()
        writable.register(self.fileno(), select.POLLOUT)
        while not self._send_close_notify() and time.monotonic() < end:
            writable.poll(RETRY_SECONDS * 1000)
        self._output_ended = True
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_WR)

    def _send_close_notify(self) -> bool:
        """Return whether it was sent, or cannot be."""
        try:
            with self._lock:
                self._tls.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):  # ssl.SSLWantReadError: it was sent, and the peer's own has not come
            pass
        return True

    def reset(self) -> None:
        """Cut the connection."""
        self._is_reset = True
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # leaves the TLS state to the thread that uses it


def tls_reason(error: OSError) -> str:
    """Return why TLS failed, in words."""
    if isinstance(error, ssl.SSLEOFError):
        return "the connection was cut without close_notify"
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.replace("_", " ").lower()
        _, alert, description = words.partition(" alert ")
        if alert:
            return f"the client sent the alert {description!r}"
        return {"wrong version number": "not TLS", "http request": "not TLS but plain HTTP"}.get(words, words)
    return error.strerror or str(error)
