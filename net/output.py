"""Send to one client, which may read slowly or not at all.

A sender never blocks in the client's socket. Data that the kernel does not accept goes to the client's backlog, at most
BACKLOG_BYTES. A second thread for that client, which lives only while there is a backlog, sends the backlog. A sender
that finds the backlog full blocks until half of it has drained. A client that accepts less than LEAST_BYTES_PER_SECOND
while a sender is blocked for PERIOD_SECONDS is dropped. The period begins when a sender finds the backlog full, so that
several clients that stop reading are dropped together, and delay a sender once. A client that merely reads slowly loses
nothing: it slows its senders down.
"""

import select
import threading
import time
from collections.abc import Callable

from net.stream import RETRY_SECONDS, WOULD_BLOCK, Stream

BACKLOG_BYTES = 1 << 20
LEAST_BYTES_PER_SECOND = 1 << 16
PERIOD_SECONDS = 5.0


class Output:
    """The output of one connection, and its backlog; any thread may send.

    Args:
        stream: the socket.
        report: writes a status line about the client.
        held: whether all data goes to the backlog until release() is called, because a TLS handshake comes first.
    """

    def __init__(self, stream: Stream, report: Callable[[str], None], held: bool = False) -> None:
        self._stream = stream
        self._report = report
        self._lock = threading.Lock()  # guards all below and the order of writes; no thread blocks while holding it
        self._changed = threading.Condition(self._lock)  # notified when the backlog drains or the output ends
        self._backlog = bytearray()
        self._sender: threading.Thread | None = None  # sends the backlog
        self._sent_bytes = 0  # by all sender threads so far
        self._full_since: tuple[float, int] | None = None  # when a sender found the backlog full, and _sent_bytes then
        self._held = held
        self._open = True  # False: further data is discarded
        self._lost = False  # the client was given up, or sending has failed

    def send(self, data: bytes | bytearray, blocking: bool = True) -> bool:
        """Send data as a whole and in order; do nothing if the client is gone.

        Args:
            data: the data.
            blocking: whether to block while the backlog is full.

        Returns:
            Whether the data was taken; False only if the backlog is full and blocking is false.
        """
        with self._lock:
            if rest := self._write_first(data):
                if not self._fits(rest):
                    self._begin_period()  # so that several clients that do not read are dropped at the same time
                    if not blocking:
                        return False
                    self._wait_until(lambda: self._fits(rest, BACKLOG_BYTES // 2))
                self._append(rest)
            return True

    def post(self, data: bytes | bytearray) -> None:
        """Send data without blocking, even if the backlog is full; meant for data that is short and rare."""
        with self._lock:
            self._append(self._write_first(data))

    def finish(self, farewell: bytes = b"") -> None:
        """Send a last message without blocking; discard everything that is sent after it."""
        with self._lock:
            self._append(self._write_first(farewell))
            self._open = False
            self._changed.notify_all()

    def wait_until_sent(self) -> None:
        """Block until the backlog is sent, or the client is dropped because it does not read."""
        with self._lock:
            if self._held:
                self._lose()
            self._wait_until(lambda: not self._backlog)
            while self._sender:
                self._changed.wait()

    def release(self) -> None:
        """End the hold: send the data that was held, and all further data as it comes."""
        with self._lock:
            self._held = False
            self._append(b"")

    def lose(self) -> None:
        """Give up the client: discard the backlog, cut the connection, and wake all threads waiting for the client."""
        with self._lock:
            self._lose()

    def is_lost(self) -> bool:
        """Return whether the client was given up, or sending to it has failed."""
        with self._lock:
            return self._lost

    def _write_first(self, data: bytes | bytearray) -> bytes | bytearray:
        """Write as much of data as the kernel accepts now, unless older data waits; return the rest."""
        if self._backlog or self._held or not self._open:
            return data
        return data[self._write(data) :]

    def _write(self, data: bytes | bytearray) -> int:
        try:
            return self._stream.write(data)
        except WOULD_BLOCK:
            pass
        except OSError:  # the owner's next read reports the error or the end of the input
            self._lose()
        return 0

    def _fits(self, data: bytes | bytearray, free_bytes: int = 0) -> bool:
        """Return whether data fits into the backlog and free_bytes are free; any data fits into an empty backlog."""
        needed = max(len(data), free_bytes)
        return not self._open or not self._backlog or len(self._backlog) + needed <= BACKLOG_BYTES

    def _append(self, data: bytes | bytearray) -> None:
        """Add data to the backlog; start a thread that sends it, unless one is running."""
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
        """Block until a condition holds or the client is lost; drop a client that accepts too little meanwhile."""
        while True:
            began, sent_before = self._begin_period()
            seconds = max(0.0, began + PERIOD_SECONDS - time.monotonic())
            if self._changed.wait_for(lambda: self._lost or condition(), seconds):
                return
            if self._sent_bytes - sent_before < LEAST_BYTES_PER_SECOND * PERIOD_SECONDS:
                self._report(f"dropped: it took less than {LEAST_BYTES_PER_SECOND} bytes a second")
                self._lose()
            self._full_since = None

    def _begin_period(self) -> tuple[float, int]:
        """Return the beginning of the current period; begin a period if there is none."""
        self._full_since = self._full_since or (time.monotonic(), self._sent_bytes)
        return self._full_since

    def _send_backlog(self) -> None:
        """Send the backlog as fast as the client reads it, in a thread of its own, until nothing is left."""
        writable = select.poll()
        writable.register(self._stream.fileno(), select.POLLOUT)
        while self._send_piece():
            writable.poll(RETRY_SECONDS * 1000)

    def _send_piece(self) -> bool:
        """Send as much of the backlog as the kernel accepts now; return whether anything is left."""
        with self._lock:
            if self._backlog:
                sent = self._write(self._backlog)
                del self._backlog[:sent]
                self._sent_bytes += sent
            if not self._backlog:
                self._sender = None
            if len(self._backlog) <= BACKLOG_BYTES // 2:
                self._full_since = None
                self._changed.notify_all()
            return self._sender is not None

    def _lose(self) -> None:
        self._open = False
        self._lost = True
        self._backlog.clear()
        self._changed.notify_all()
        self._stream.reset()
