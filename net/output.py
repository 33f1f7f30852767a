"""Send to one client, which may read slowly or not at all.

A sender never blocks in the client's socket. Data that the kernel does not accept is kept in the client's backlog, at
most BACKLOG_BYTES, and a second thread for that client, which lives only while there is a backlog, sends it. A sender
whose data does not fit into the backlog blocks until it does. A message of one line may exceed the limit a little, so
that it does not wait behind the blocks of those who flood the client.

The second thread drops a client that accepts too little: less than half of what Patience asks for in a period, which
begins when a sender finds the backlog full, or nothing for stall_seconds. So clients that stop reading are dropped
together, and delay a sender once; a client that merely reads slowly loses nothing, and slows down whoever floods it.
"""

import select
import socket
import struct
import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from itertools import islice
from typing import NamedTuple

from net.log import LOG
from net.tls import TlsLayer
from net.trace import Trace

BACKLOG_BYTES = 1 << 20
SHORT_BYTES = 1 << 12  # a message of one line
EXCESS_BYTES = 1 << 16  # by which short messages may exceed the backlog's limit
BLOCKS_PER_SEND = 64
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: close with a reset at once; the kernel discards what it has not sent


class Patience(NamedTuple):
    """How long an output waits for its client."""

    period_seconds: float = 5.0
    least_bytes_per_second: int = 1 << 16
    stall_seconds: float = 30.0
    retry_seconds: float = 0.25  # the longest poll(), which waits until a third of the kernel's buffer is free


class Output:
    """One client's output, and its backlog; any thread may send."""

    def __init__(self, sock: socket.socket) -> None:
        self.fd = sock.fileno()  # identifies the client in status lines
        self.tls: TlsLayer | None = None
        self.trace: Trace | None = None
        self.patience = Patience()
        self.is_dropped = False  # whether the client was dropped, or sending to it has failed
        self._sock = sock
        self._lock = threading.RLock()  # guards all below and the order of writes; no thread blocks while holding it
        self._changed = threading.Condition(self._lock)  # notified when the backlog shrinks or the output ends
        self._backlog: deque[bytes | memoryview] = deque()  # shared with the other recipients of a message, not copied
        self._unencrypted: list[bytes] = []  # what TLS cannot encrypt before the end of its handshake
        self._backlog_bytes = 0  # of both
        self._sender: threading.Thread | None = None  # sends the backlog
        self._sent_bytes = 0  # so far
        self._moved = time.monotonic()  # when the client last accepted a part of the backlog, or the backlog began
        self._full_since: tuple[float, int] | None = None  # when a sender found the backlog full, and _sent_bytes then
        self._open = True  # False: further data is discarded

    def log_at_once(self, text: str) -> None:
        """Write a status line that names the client."""
        LOG.write(f"Client ({self.fd}): {text}")

    def send(self, data: bytes, blocking: bool = True) -> bool:
        """Send data as a whole and in order; do nothing if the client is gone.

        Block while the backlog is full; or, if blocking is false, return False, and send nothing.
        """
        with self._lock:
            if not self._fits(data):
                self._begin_period()  # so that several clients that do not read are dropped at the same time
                if not blocking:
                    return False
                self._wait_until(lambda: self._fits(data))
            self._put(data)
            return True

    def send_at_once(self, data: bytes) -> None:
        """Send data without blocking, even if the backlog is full; meant for data that is short and rare."""
        with self._lock:
            self._put(data)

    def _decrypt(self, data: bytes) -> bytes:
        """Return the plain text that received TLS data completes; send what TLS itself has to answer."""
        assert self.tls
        with self._lock:
            try:
                text = self.tls.decrypt(data)
                if self._unencrypted and self.tls.is_ready:
                    held = b"".join(self._unencrypted)
                    self._unencrypted.clear()
                    self._backlog_bytes -= len(held)
                    self._write(self.tls.encrypt(held))
                return text
            except OSError:
                self._open = False  # after an error, TLS encrypts nothing more
                raise
            finally:
                self._write(self.tls.output.read())
                if self._backlog_bytes > BACKLOG_BYTES:  # a client that makes TLS answer must read the answers
                    self._wait_until(lambda: self._fits(b""))

    def end(self, farewell: bytes = b"") -> None:
        """Send a last message without blocking; discard everything that is sent after it."""
        with self._lock:
            if self._open:
                self._put(farewell)
            if self.tls:  # close() calls this again, for a handshake that has ended meanwhile
                self._write(self.tls.close())
            self._open = False
            self._changed.notify_all()

    def drop(self) -> None:
        """Give up the client: discard the backlog, cut the connection, and wake all threads waiting for the client."""
        with self._lock:
            self._open = False
            self.is_dropped = True
            self._backlog.clear()
            self._unencrypted.clear()
            self._backlog_bytes = 0
            self._changed.notify_all()
            with suppress(OSError):
                self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                self._sock.shutdown(socket.SHUT_RDWR)

    def _fits(self, data: bytes) -> bool:
        """Return whether a sender need not wait; any data fits into an empty backlog."""
        excess = EXCESS_BYTES if len(data) <= SHORT_BYTES else 0
        return not self._backlog_bytes or not self._open or self._backlog_bytes + len(data) <= BACKLOG_BYTES + excess

    def _wait_until(self, condition: Callable[[], bool]) -> None:
        """Block until a condition holds; it must hold when the client is dropped."""
        while not self._changed.wait_for(condition, self.patience.retry_seconds):
            self._begin_period()
            self._drop_if_too_slow()  # here too: before the handshake's end there is no thread that sends

    def _put(self, data: bytes) -> None:
        if not self._open or not data:
            return
        if self.tls:
            if self.trace:
                self.trace.sent(data)
            if not self.tls.is_ready:
                self._unencrypted.append(data)
                self._backlog_bytes += len(data)
                return
            data = self.tls.encrypt(data)
        self._write(data)

    def _write(self, data: bytes) -> None:
        """Pass data to the kernel, after the backlog; start a thread that sends what the kernel does not accept."""
        if not data or self.is_dropped:
            return
        sent = 0 if self._backlog else self._pass_to_kernel([data])
        if sent == len(data) or self.is_dropped:
            return
        self._backlog.append(memoryview(data)[sent:] if sent else data)
        self._backlog_bytes += len(data) - sent
        if self._sender:
            return
        self._moved = time.monotonic()
        self._sender = threading.Thread(target=self._send_backlog, name=f"backlog {self.fd}", daemon=True)
        try:
            self._sender.start()
        except RuntimeError:  # out of threads
            self._sender = None
            self.drop()

    def _pass_to_kernel(self, blocks: list[bytes | memoryview]) -> int:
        """Return how many bytes of these blocks the kernel has accepted. For one block, send() is the faster call."""
        try:
            sent = self._sock.send(blocks[0]) if len(blocks) == 1 else self._sock.sendmsg(blocks)
        except BlockingIOError:
            return 0
        except OSError:  # the owner's next read reports the error or the end of the input
            self.drop()
            return 0
        if self.trace and not self.tls:
            self.trace.sent(b"".join(blocks)[:sent])
        return sent

    def _send_backlog(self) -> None:
        writable = select.poll()
        writable.register(self.fd, select.POLLOUT)
        while True:
            with self._lock:
                while self._backlog and (sent := self._pass_to_kernel([*islice(self._backlog, BLOCKS_PER_SEND)])):
                    self._take_off(sent)
                self._drop_if_too_slow()
                self._changed.notify_all()
                if not self._backlog:
                    self._sender = None
                    return
            writable.poll(self.patience.retry_seconds * 1000)

    def _take_off(self, sent: int) -> None:
        """Take sent bytes off the backlog."""
        self._moved = time.monotonic()
        self._sent_bytes += sent
        self._backlog_bytes -= sent
        if self._backlog_bytes <= BACKLOG_BYTES // 2:
            self._full_since = None
        while self._backlog and sent >= len(self._backlog[0]):
            sent -= len(self._backlog.popleft())
        if sent:
            self._backlog[0] = memoryview(self._backlog[0])[sent:]

    def _begin_period(self) -> None:
        """Note that a sender has found the backlog full, unless a period has begun already."""
        self._full_since = self._full_since or (time.monotonic(), self._sent_bytes)

    def _drop_if_too_slow(self) -> None:
        period, least_bytes_per_second, stall, _ = self.patience
        now = time.monotonic()
        if not self._backlog_bytes:
            return
        if now - self._moved >= stall:
            self.log_at_once(f"dropped: it took nothing for {stall:g} seconds")
            self.drop()
        elif self._full_since and now - self._full_since[0] >= period:
            # Half, because kernels take data in bursts, and a period may end just before one.
            if self._sent_bytes - self._full_since[1] < least_bytes_per_second * period / 2:
                self.log_at_once(f"dropped: it took less than {least_bytes_per_second} bytes a second")
                self.drop()
            self._full_since = (now, self._sent_bytes)
