"""Non-blocking sockets, plain or TLS, behind one interface: read, write, end the output.

read() and write() never block. If the socket is not ready, they raise one of WOULD_BLOCK; the thread then calls poll().
"""

import errno
import select
import socket
import ssl
import struct
import threading
import time
from contextlib import suppress

RECORD_BYTES = 1 << 14  # the most data that a TLS record holds (RFC 8446, 5.1)
RECORD_HEAD_BYTES = 5
HANDSHAKE_RECORD = 22  # the first byte that a TLS client sends
CLOSE_NOTIFY_SECONDS = 1.0  # how long a full socket may delay close_notify
RETRY_SECONDS = 0.25  # the longest poll(), which reports a socket as writable only when a third of its buffer is free
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with a reset at once; the kernel discards what it has not sent

# The exceptions of recv and send on a non-blocking socket that is not ready. poll() may report a TLS socket as readable
# although it has no data: half a record may have arrived, or a message of the TLS protocol itself.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


class HandshakeFailed(OSError):
    """A TLS handshake failed; the text says why."""

    def __str__(self) -> str:
        return f"TLS handshake failed: {self.strerror}"


class Stream:
    """A plain socket. Only its owner reads; only one thread at a time writes.

    Attributes:
        input_ended: whether read() has found the end of the input, which poll() may not report again.
    """

    input_ended = False

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self._sock = sock

    def fileno(self) -> int:
        """Return the descriptor, for poll()."""
        return self._sock.fileno()

    def read(self, size: int) -> bytes:
        """Return at most size bytes that have arrived, or b"" at the end of the input.

        Raises:
            WOULD_BLOCK: nothing has arrived.
            OSError: the connection is lost.
        """
        return self._sock.recv(size)

    def write(self, data: bytes | bytearray) -> int:
        """Write as much of data as the kernel accepts now; return how many bytes that is.

        Raises:
            WOULD_BLOCK: the kernel accepts nothing now.
            OSError: the connection is lost.
        """
        return self._sock.send(data)

    def end_output(self) -> None:
        """Half-close: tell the peer that no more data follows. The input stays open, so that read() can discard it."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_WR)

    def end_input(self) -> None:
        """End the input after the data that has already arrived; wake threads that poll the input."""
        with suppress(OSError):
            socket.socket.shutdown(self._sock, socket.SHUT_RD)  # leaves the TLS state alone, which may be in use

    def reset(self) -> None:
        """Cut the connection: wake threads that poll it, and discard what has not been sent."""
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Close the socket; no other thread may be using it."""
        self._sock.close()


class TlsStream(Stream):
    """A TLS socket. OpenSSL does not allow two threads to use it at the same time, so a lock guards it.

    A read takes whole records, because poll() does not report data that stays in OpenSSL's buffer. A write passes one
    record after another to OpenSSL. If OpenSSL refuses a write, it has begun a record: the next write must begin with
    the same bytes, and not be shorter.
    """

    def __init__(self, sock: ssl.SSLSocket) -> None:
        super().__init__(sock)
        self._tls = sock
        self._lock = threading.Lock()  # guards the socket; no thread blocks while holding it
        self._has_begun = False  # whether the peer's first bytes have arrived
        self._failure: OSError | None = None  # what read() raises at the end of the input
        self._output_ended = False
        self._is_reset = False

    def shake_hands(self) -> bool:
        """Continue the handshake; return whether it is complete. If not, call again when the socket is readable.

        Raises:
            HandshakeFailed: the peer does not speak TLS, or has ended the handshake.
        """
        if not self._has_begun:
            self._check_first_bytes()
        try:
            with self._lock:
                self._tls.do_handshake()
        except WOULD_BLOCK:
            return False
        except OSError as error:
            left = isinstance(error, ssl.SSLEOFError) or not error.errno
            raise HandshakeFailed(error.errno, "the client has left" if left else tls_reason(error)) from error
        return True

    def _check_first_bytes(self) -> None:
        """Refuse plain text shorter than a record's head: OpenSSL would wait for more, and the client for a reply."""
        try:
            first = socket.socket.recv(self._sock, RECORD_HEAD_BYTES, socket.MSG_PEEK)
        except OSError:  # nothing has arrived, or do_handshake() reports the error
            return
        self._has_begun = True
        if 0 < len(first) < RECORD_HEAD_BYTES and first[0] != HANDSHAKE_RECORD:
            raise HandshakeFailed(errno.EPROTO, "not TLS")

    def read(self, size: int) -> bytes:
        """Return what has arrived, as Stream.read() does, but up to one record more than size.

        Raises:
            WOULD_BLOCK: nothing has arrived.
            OSError: the connection is lost, or was cut without close_notify.
        """
        if self._output_ended:
            return self._read_raw(size)
        data = b""
        while len(data) < size and not self.input_ended:
            try:
                record = self._read_record()
            except WOULD_BLOCK:
                if data:
                    return data
                raise
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
        """Return the data of one record, or b"" for close_notify.

        OpenSSL must not see an end of the input without close_notify: it would refuse to send any more data.
        """
        if not self._read_raw(1, socket.MSG_PEEK):
            raise ssl.SSLEOFError
        with self._lock:
            return self._tls.recv(RECORD_BYTES)

    def _read_raw(self, size: int, flags: int = 0) -> bytes:
        return socket.socket.recv(self._sock, size, flags)

    def write(self, data: bytes | bytearray) -> int:
        """Write what is possible now, as Stream.write() does; the next write must begin with the rest of data.

        Raises:
            WOULD_BLOCK: the kernel accepts nothing now.
            OSError: the connection is lost.
        """
        with self._lock:
            taken = self._tls.send(data[:RECORD_BYTES])
            with suppress(*WOULD_BLOCK):
                while taken < len(data):
                    taken += self._tls.send(data[taken : taken + RECORD_BYTES])
        return taken

    def end_output(self) -> None:
        """Send close_notify, if the kernel has room for it within CLOSE_NOTIFY_SECONDS; then half-close the connection.

        After this, read() returns encrypted data, which the caller can only discard.
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
        """Try to send close_notify; return False if the kernel has no room for it now."""
        try:
            with self._lock:
                self._tls.unwrap()
        except ssl.SSLWantWriteError:
            return False
        except (OSError, ValueError):  # ssl.SSLWantReadError: close_notify was sent, the peer's has not arrived
            pass
        return True

    def reset(self) -> None:
        """Cut the connection."""
        self._is_reset = True
        with suppress(OSError):
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)  # leaves the TLS state alone, which may be in use


def tls_reason(error: OSError) -> str:
    """Return in words why TLS has failed."""
    if isinstance(error, ssl.SSLEOFError):
        return "the connection was cut without close_notify"
    if isinstance(error, ssl.SSLError) and error.reason:
        words = error.reason.replace("_", " ").lower()
        _, alert, description = words.partition(" alert ")
        if alert:
            return f"the peer sent the alert {description!r}"
        return {"wrong version number": "not TLS", "http request": "not TLS but plain HTTP"}.get(words, words)
    return error.strerror or str(error)
