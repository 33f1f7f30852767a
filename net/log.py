"""Status lines on standard output, written many at a time by one thread.

A thread that serves a client never writes to the terminal itself: a terminal that is stopped, or a pipe that nobody
reads, is like a client that does not read. What it does not take is kept up to a bound; then threads that have lines
block. Once it has taken nothing for STALL_SECONDS, lines are counted instead of kept, until it takes some again.
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
GATHER_SECONDS = 0.02  # a pause after each write, so that the next one takes many lines
RETRY_SECONDS = 1.0  # after a write error


class Log:
    """The lines that wait to be written to standard output, and the thread that writes them.

    Standard output is looked at when the first line comes, not before: a program that only imports this needs none.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()  # guards all below
        self._filled = threading.Condition(self._lock)
        self._taken = threading.Condition(self._lock)
        self._blocks: deque[bytes] = deque()  # what each call of write brought
        self._pending_bytes = 0  # of these blocks and of what is being written
        self._lost_lines = 0
        self._stalled = False
        self._fd = -1
        self._encoding = "utf-8"
        self._writer: threading.Thread | None = None

    def write(self, *lines: str) -> None:
        """Have lines written soon, in the order of the calls."""
        with self._lock:
            if not self._writer:
                self._open()
            block = ("\n".join(lines) + "\n").encode(self._encoding, "backslashreplace")
            while self._pending_bytes > PENDING_BYTES and not self._stalled:
                self._stalled = not self._taken.wait(STALL_SECONDS)
            if self._stalled:
                self._lost_lines += block.count(b"\n")
            else:
                self._keep(block)

    def flush(self, seconds: float) -> None:
        """Wait until all lines are written, for at most some seconds."""
        with self._lock:
            self._taken.wait_for(lambda: self._stalled or not self._pending_bytes, seconds)

    def _open(self) -> None:
        if sys.stdout is None:  # it was closed before the program began
            self._fd = os.open(os.devnull, os.O_WRONLY)
        else:
            self._fd, self._encoding = sys.stdout.fileno(), sys.stdout.encoding
        self._writer = threading.Thread(target=self._write_for_ever, name="log", daemon=True)
        self._writer.start()

    def _keep(self, block: bytes) -> None:
        self._blocks.append(block)
        self._pending_bytes += len(block)
        self._filled.notify()

    def _write_for_ever(self) -> None:
        while True:
            piece = self._next_piece()
            try:
                _write_all(self._fd, piece)
                self._account_for(piece)
            except OSError:  # a full disk, or a reader or a terminal that is gone
                self._account_for(piece, lost=True)
                time.sleep(RETRY_SECONDS)
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
        """Make room for more lines; once lines can be written again, say how many were lost."""
        with self._lock:
            self._pending_bytes -= len(piece)
            self._stalled = self._stalled and self._pending_bytes > PENDING_BYTES // 2
            if lost:
                self._lost_lines += piece.count(b"\n")
            elif self._lost_lines and not self._stalled:
                self._keep(f"{self._lost_lines} status lines were lost: they could not be written\n".encode())
                self._lost_lines = 0
            self._taken.notify_all()


def _write_all(fd: int, data: bytes) -> None:
    writable = select.poll()
    writable.register(fd, select.POLLOUT)
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another program has left the terminal non-blocking
            writable.poll()


LOG = Log()
