"""Bytes on their way to one client, and what happens when the client does not read.

A sender never blocks in the client's socket. What the kernel does not take is kept in the client's backlog, at most
BACKLOG_BYTES, and a second thread for that client, which lives only while there is a backlog, sends it. A sender that
finds the backlog full blocks until half of it has drained. A client that takes less than LEAST_BYTES_PER_SECOND while a
sender blocks for PERIOD_SECONDS is dropped. Hence a client that stops reading delays others once, and a client that is
merely slow loses nothing: whoever floods it is slowed down.
"""

import select
import threading
from collections.abc import Callable

from net.stream import Stream

BACKLOG_BYTES = 1 << 20
PIECE_BYTES = 1 << 18  # of the backlog, offered to the kernel at once
LEAST_BYTES_PER_SECOND = 1 << 16
PERIOD_SECONDS = 5.0
RETRY_SECONDS = 0.25  # poll() reports a socket writable only when a third of its buffer is free, which may take long


class Output:
    """What is sent to a client; any thread may send.

    Args:
        stream: the socket.
        report: writes a status line about the client.
        held: whether everything goes to the backlog until release() is called, because a TLS handshake comes first.
    """

    def __init__(self, stream: Stream, report: Callable[[str], None], held: bool = False) -> None:
        self._stream = stream
        self._report = report
        self._lock = threading.Lock()  # guards all below and the order of writes; nobody waits for the client with it
        self._changed = threading.Condition(self._lock)  # the backlog has drained by half, or wholly, or output ended
        self._backlog = bytearray()
        self._sender: threading.Thread | None = None  # sends the backlog, while there is one
        self._sent_bytes = 0  # of backlogs, since the beginning
        self._held = held
        self._open = True  # more output is accepted
        self._lost = False  # nothing can be sent any more

    def send(self, data: bytes | bytearray) -> None:
        """Send data whole and in order; block while the backlog is full. Do nothing if the client is gone."""
        with self._lock:
            if rest := self._write_first(data):
                if not self._fits(rest):
                    self._wait_until(lambda: self._fits(rest, BACKLOG_BYTES // 2))
                self._append(rest)

    def try_send(self, data: bytes | bytearray) -> bool:
        """Send data as send() does, unless that would block; return whether it was sent."""
        with self._lock:
            if rest := self._write_first(data):
                if not self._fits(rest):
                    return False
                self._append(rest)
            return True

    def post(self, data: bytes | bytearray) -> None:
        """Send data without blocking, even if the backlog is full: for what is short and rare."""
        with self._lock:
            self._append(self._write_first(data))

    def finish(self, farewell: bytes = b"") -> None:
        """Send the last thing that the client gets; what others send from now on is discarded."""
        with self._lock:
            self._append(self._write_first(farewell))
            self._open = False
            self._changed.notify_all()

    def wait_until_sent(self) -> None:
        """Block until the backlog is sent, or the client is dropped because it does not take it."""
        with self._lock:
            if self._held:  # the handshake failed
                self._backlog.clear()
            self._wait_until(lambda: not self._backlog)
            while self._sender:
                self._changed.wait()

    def release(self) -> None:
        """Send what was held."""
        with self._lock:
            self._held = False
            self._append(b"")

    def lose(self) -> None:
        """Give the client up: discard the backlog, cut the connection, wake every thread that waits for it."""
        with self._lock:
            self._lose()

    def is_lost(self) -> bool:
        """Return whether the client was given up, or sending to it has failed."""
        with self._lock:
            return self._lost

    def _write_first(self, data: bytes | bytearray) -> bytes | bytearray:
        """Write what the kernel takes at once of data, unless older data wait; return the rest."""
        if self._backlog or self._held or not self._open:
            return data
        return data[self._write(data) :]

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._stream.write(data)
        except OSError:  # the owner finds out why when it reads
            self._lose()
            return 0

    def _fits(self, data: bytes | bytearray, free_bytes: int = 0) -> bool:
        """Return whether data may be added and this much is free; to an empty backlog, anything may be added."""
        needed = max(len(data), free_bytes)
        return not self._open or not self._backlog or len(self._backlog) + needed <= BACKLOG_BYTES

    def _append(self, data: bytes | bytearray) -> None:
        """Add to the backlog, and see to it that a thread sends it."""
        if not self._open:
            return
        self._backlog += data
        if self._backlog and not self._sender and not self._held:
            self._sender = threading.Thread(target=self._send_backlog, name="backlog", daemon=True)
            try:
                self._sender.start()
            except RuntimeError:  # out of threads
                self._sender = None
                self._lose()

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Block until a condition holds or the client is lost; drop a client that takes too little meanwhile."""
        while True:
            before = self._sent_bytes
            if self._changed.wait_for(lambda: self._lost or condition(), PERIOD_SECONDS):
                return
            if self._sent_bytes - before < LEAST_BYTES_PER_SECOND * PERIOD_SECONDS:
                self._report(f"dropped: it took less than {LEAST_BYTES_PER_SECOND} bytes a second")
                self._lose()

    def _send_backlog(self) -> None:
        """Send the backlog as the client takes it, until nothing is left; the client's second thread."""
        writable = select.poll()
        writable.register(self._stream.fileno(), select.POLLOUT)
        while self._send_piece():
            writable.poll(RETRY_SECONDS * 1000)

    def _send_piece(self) -> bool:
        """Send what the kernel takes of the backlog; return whether there is more to do."""
        with self._lock:
            if self._backlog:
                sent = self._write(self._backlog[:PIECE_BYTES])
                del self._backlog[:sent]
                self._sent_bytes += sent
            if not self._backlog:
                self._sender = None
            if len(self._backlog) <= BACKLOG_BYTES // 2:
                self._changed.notify_all()
            return self._sender is not None

    def _lose(self) -> None:
        self._open = False
        self._lost = True
        self._backlog.clear()
        self._changed.notify_all()
        self._stream.reset()
