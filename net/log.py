"""Status lines on standard output, written many at a time by one thread.

Who serves a client never writes to the terminal himself: a terminal that is stopped, or a pipe that nobody reads, is
like a client that does not read. What it does not take is kept up to a bound; then those who have lines wait for it,
but once it has taken nothing for a while, lines are counted instead of kept, until it reads on.
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


class StatusLog:
    """The lines that wait to be written to a file descriptor, and the thread that writes them."""

    def __init__(self, fd: int, encoding: str) -> None:
        self._fd = fd
        self._encoding = encoding
        self._lock = threading.Lock()  # guards all below
        self._filled = threading.Condition(self._lock)
        self._taken = threading.Condition(self._lock)
        self._blocks: deque[bytes] = deque()  # what each call of write brought
        self._pending_bytes = 0  # of these blocks and of what is being written
        self._lost_lines = 0
        self._stalled = False
        self._writer: threading.Thread | None = None

    def write(self, *lines: str) -> None:
        """Have lines written soon, in the order of the calls."""
        block = ("\n".join(lines) + "\n").encode(self._encoding, "backslashreplace")
        with self._lock:
            while self._pending_bytes > PENDING_BYTES and not self._stalled:
                self._stalled = not self._taken.wait(STALL_SECONDS)
            if self._stalled:
                self._lost_lines += block.count(b"\n")
                return
            if not self._writer:
                self._writer = threading.Thread(target=self._write_blocks, name="status", daemon=True)
                self._writer.start()
            self._keep(block)

    def flush(self, seconds: float) -> None:
        """Wait until all lines are written, at most so many seconds."""
        with self._lock:
            self._taken.wait_for(lambda: self._stalled or not self._pending_bytes, seconds)

    def _keep(self, block: bytes) -> None:
        self._blocks.append(block)
        self._pending_bytes += len(block)
        self._filled.notify()

    def _write_blocks(self) -> None:
        while True:
            piece = self._next_piece()
            try:
                _write_all(self._fd, piece)
            except OSError:  # the pipe's reader or the terminal is gone for good
                with self._lock:
                    self._stalled = True
                    self._taken.notify_all()
                return
            self._account_for(piece)
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

    def _account_for(self, piece: bytes) -> None:
        """Make room for more lines; after a stall, say how many there was none for."""
        with self._lock:
            self._pending_bytes -= len(piece)
            self._stalled = self._stalled and self._pending_bytes > PENDING_BYTES // 2
            if self._lost_lines and not self._stalled:
                self._keep(f"{self._lost_lines} status lines were lost: nobody read them\n".encode())
                self._lost_lines = 0
            self._taken.notify_all()


def _write_all(fd: int, data: bytes) -> None:
    writable = select.poll()
    writable.register(fd, select.POLLOUT)
    while data:
        try:
            data = data[os.write(fd, data) :]
        except BlockingIOError:  # another program has left the terminal so
            writable.poll()


def _standard_output() -> StatusLog:
    if sys.stdout is None:  # it was closed before the program began
        return StatusLog(os.open(os.devnull, os.O_WRONLY), "utf-8")
    return StatusLog(sys.stdout.fileno(), sys.stdout.encoding)


LOG = _standard_output()
