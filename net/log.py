"""Write status lines to standard output, many at a time, in one thread.

Standard output may block like a client that does not read: a terminal may be stopped, a pipe may be full. So threads
that serve clients do not write to it. They add lines to a queue, and the log's thread writes them. A thread that finds
PENDING_BYTES in the queue blocks. Once standard output has accepted nothing for STALL_SECONDS, the log drops new lines
and counts them, until standard output accepts data again.
"""

import os
import select
import sys
import threading
import time
from collections import deque

PENDING_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
STALL_SECONDS = 1.0
GATHER_SECONDS = 0.02  # the pause after a write; the next write then takes many lines


class Log:
    """The queue of status lines, and the thread that writes them to standard output.

    Standard output is looked up by the first write(), not when this module is imported.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._filled = threading.Condition(self._lock)  # notified when lines are added
        self._written = threading.Condition(self._lock)  # notified when lines are written or lost
        self._blocks: deque[bytes] = deque()  # one for each call of write()
        self._pending_bytes = 0  # in _blocks and in the piece that is being written
        self._lost_lines = 0
        self._stalled = False
        self._fd = -1
        self._encoding = "utf-8"
        self._writer: threading.Thread | None = None

    def write(self, lines: str) -> None:
        """Add lines to the queue; block while it is full, unless standard output has stalled.

        Args:
            lines: one line or several, with newlines between them.
        """
        with self._lock:
            if not self._writer:
                self._open()
            block = f"{lines}\n".encode(self._encoding, "backslashreplace")
            while self._pending_bytes > PENDING_BYTES and not self._stalled:
                self._stalled = not self._written.wait(STALL_SECONDS)
            if self._stalled:
                self._lost_lines += block.count(b"\n")
            else:
                self._keep(block)

    def flush(self, seconds: float) -> None:
        """Wait until all lines are written, for at most this many seconds."""
        with self._lock:
            self._written.wait_for(lambda: not self._pending_bytes, seconds)

    def _open(self) -> None:
        if sys.stdout is None:  # standard output was closed before the program began
            self._fd = os.open(os.devnull, os.O_WRONLY)
        else:
            self._fd, self._encoding = sys.stdout.fileno(), sys.stdout.encoding
        self._writer = threading.Thread(target=self._write_for_ever, name="log", daemon=True)
        self._writer.start()

    def _keep(self, block: bytes) -> None:
        if not self._blocks:
            self._filled.notify()
        self._blocks.append(block)
        self._pending_bytes += len(block)

    def _write_for_ever(self) -> None:
        while True:
            piece = self._next_piece()
            try:
                _write_all(self._fd, piece)
                self._account_for(piece)
            except OSError:  # a full disk, or a reader or a terminal that is gone
                self._account_for(piece, lost=True)
            if not self._blocks:
                time.sleep(GATHER_SECONDS)

    def _next_piece(self) -> bytes:
        with self._lock:
            self._filled.wait_for(lambda: self._blocks)
            piece = [self._blocks.popleft()]
            size = len(piece[0])
            while self._blocks and size < PIECE_BYTES:
                piece.append(self._blocks.popleft())
                size += len(piece[-1])
            return b"".join(piece)

    def _account_for(self, piece: bytes, lost: bool = False) -> None:
        """Remove a piece from the count of pending bytes; after a stall, report how many lines were lost."""
        with self._lock:
            self._pending_bytes -= len(piece)
            self._stalled = False
            if lost:
                self._lost_lines += piece.count(b"\n")
            elif self._lost_lines:
                self._keep(f"{self._lost_lines} status lines were lost: they could not be written\n".encode())
                self._lost_lines = 0
            self._written.notify_all()


def _write_all(fd: int, data: bytes) -> None:
    writable = select.poll()
    writable.register(fd, select.POLLOUT)
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another program has made the terminal non-blocking
            writable.poll()


LOG = Log()
