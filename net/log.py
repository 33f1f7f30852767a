"""Write status lines to standard output, many at a time, in one thread.

Standard output may block like a client that does not read: a terminal may be stopped, a pipe may be full. So threads
that serve clients only put their lines into a queue. While PENDING_BYTES are in it, a thread that adds a line waits.
Once standard output has accepted nothing for STALL_SECONDS, new lines are dropped and counted until it does again.
"""

import os
import select
import sys
import threading
import time
from contextlib import suppress
from queue import Empty, SimpleQueue

PENDING_BYTES = 1 << 20
PIECE_BYTES = 1 << 16
STALL_SECONDS = 1.0
GATHER_SECONDS = 0.02  # the pause after a write; the next write then takes many lines
WAIT_SECONDS = 0.01  # between two looks at a full queue


class Log:
    """The queue of status lines, and the thread that writes them to standard output."""

    def __init__(self) -> None:
        self._blocks: SimpleQueue[bytes] = SimpleQueue()  # one for each call of write()
        self._lock = threading.Lock()  # guards all below; held for a few statements only
        self._pending_bytes = 0  # in the queue, and in the piece that is being written
        self._progress = 0.0  # when standard output last accepted data, or the queue was empty
        self._lost_lines = 0
        self._fd = -1  # until the first write(); importing this module must not use standard output
        self._encoding = "utf-8"

    def write(self, lines: str) -> None:
        """Add one line, or several with newlines between them; wait while the queue is full."""
        if self._fd < 0:
            self._open()
        block = f"{lines}\n".encode(self._encoding, "backslashreplace")
        while self._pending_bytes > PENDING_BYTES:
            if time.monotonic() - self._progress > STALL_SECONDS:
                with self._lock:
                    self._lost_lines += block.count(b"\n")
                return
            time.sleep(WAIT_SECONDS)
        with self._lock:
            if not self._pending_bytes:
                self._progress = time.monotonic()
            self._pending_bytes += len(block)
        self._blocks.put(block)

    def flush(self, seconds: float) -> None:
        """Wait until all lines are written, for at most this many seconds."""
        end = time.monotonic() + seconds
        while self._pending_bytes and time.monotonic() < end:
            time.sleep(WAIT_SECONDS)

    def _open(self) -> None:
        with self._lock:
            if self._fd >= 0:
                return
            if sys.stdout is None:  # standard output was closed before the program began
                self._fd = os.open(os.devnull, os.O_WRONLY)
            else:
                self._encoding, self._fd = sys.stdout.encoding, sys.stdout.fileno()
            threading.Thread(target=self._write_for_ever, name="log", daemon=True).start()

    def _write_for_ever(self) -> None:
        while True:
            piece = bytearray(self._blocks.get())
            with suppress(Empty):
                while len(piece) < PIECE_BYTES:
                    piece += self._blocks.get_nowait()
            reported = self._lost_lines
            report = f"{reported} status lines were lost: they could not be written\n" if reported else ""
            try:
                self._write_all(piece + report.encode())
                newly_lost = -reported
            except OSError:  # a full disk, or a reader or a terminal that is gone
                newly_lost = piece.count(b"\n")
            with self._lock:
                self._pending_bytes -= len(piece)
                self._lost_lines += newly_lost
            if self._blocks.empty():
                time.sleep(GATHER_SECONDS)

    def _write_all(self, data: bytearray) -> None:
        while data:
            try:
                data = data[os.write(self._fd, data) :]
                self._progress = time.monotonic()
            except BlockingIOError:  # another program has made the terminal non-blocking
                select.select([], [self._fd], [])


LOG = Log()
