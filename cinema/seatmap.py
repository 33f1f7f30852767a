"""seats.txt: the seats of a hall as zeros and ones in a text file, and how a sale is written to disk.

    0 0 0 0 0
    0 0 1 1 0

A line is a row; 0 is a free seat and 1 a taken one. 25 numbers on one line are five rows of five. A sale changes one
character for each seat, so that the file keeps its white space.
"""

import copy
import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import compress, count
from pathlib import Path
from typing import NamedTuple

FREE = b"0"
TAKEN = b"1"
ONE_LINE_ROWS = ONE_LINE_COLUMNS = 5
LOCK_SECONDS = 5.0  # the longest wait for a lock that another program holds
LOCK_RETRY_SECONDS = 0.002  # about the time of a write; after a longer pause a busy second server would have it again
SHOWN_CHARACTERS = 20  # of a wrong number, which may be long

_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_IS_SEAT = bytes(byte in FREE + TAKEN for byte in range(256))  # a table for bytes.translate(): 1 for a seat, else 0
_OTHER_BYTES = bytes(byte for byte in range(256) if not _IS_SEAT[byte])


class SeatFileError(Exception):
    """The file cannot be read, is malformed or cannot be written; the text names the file, and the line."""


class NotFlushed(SeatFileError):
    """The file holds the new text, but after a power failure it may hold the old text again."""


class Seat(NamedTuple):
    """The row of a seat, and its number in the row, both counted from 1."""

    row: int
    number: int

    def __str__(self) -> str:
        return f"{self.row}-{self.number}"


class SeatMap:
    """A rectangle of seats, each free or taken, as the text of a file describes it.

    Args:
        text: zeros, ones and white space, perhaps after a byte order mark.
        file: where the text comes from, for error messages.

    Attributes:
        text: the text.
        rows: the number of rows.
        columns: the number of seats in each row.

    Raises:
        SeatFileError: the text is malformed.
    """

    def __init__(self, text: bytes, file: Path) -> None:
        self.text = text
        self.rows, self.columns = _measure(text.removeprefix(_BYTE_ORDER_MARK), file)
        self._offsets = list(compress(count(), text.translate(_IS_SEAT)))  # of each seat's character in the text

    @property
    def free(self) -> int:
        """The number of free seats."""
        return self.text.count(FREE)

    def is_free(self, seat: Seat) -> bool:
        """Return whether the seat exists and is free."""
        if not (1 <= seat.row <= self.rows and 1 <= seat.number <= self.columns):
            return False
        offset = self._offset(seat)
        return self.text[offset : offset + 1] == FREE

    def with_taken(self, seats: Iterable[Seat]) -> "SeatMap":
        """Return a copy in which these seats, which must exist, are taken."""
        text = bytearray(self.text)
        for seat in seats:
            offset = self._offset(seat)
            text[offset : offset + 1] = TAKEN
        seat_map = copy.copy(self)
        seat_map.text = bytes(text)
        return seat_map

    def lines(self) -> list[str]:
        """Return the hall as customers see it: a line with the numbers of the seats, then a line for each row."""
        row_width, width = len(str(self.rows)), len(str(self.columns))
        gap = " " * width
        cells = gap + gap.join(self.text.translate(None, _OTHER_BYTES).decode())
        row_cells = len(cells) // self.rows
        lines = [" " * row_width + "Seat" + "".join(f" {number:{width}}" for number in range(1, self.columns + 1))]
        for row in range(self.rows):
            lines.append(f"Row {row + 1:{row_width}}{cells[row * row_cells : (row + 1) * row_cells]}")
        return lines

    def _offset(self, seat: Seat) -> int:
        return self._offsets[(seat.row - 1) * self.columns + seat.number - 1]


def _measure(text: bytes, file: Path) -> tuple[int, int]:
    """Return the numbers of rows and columns; raise SeatFileError if the text is malformed."""
    rows = columns = 0
    for line_number, line in enumerate(text.splitlines(), 1):
        if numbers := line.split():
            columns = columns or len(numbers)
            rows += 1
            if fault := _fault(numbers, columns):
                raise SeatFileError(f"{file}, line {line_number}: {fault}")
    if not rows:
        raise SeatFileError(f"{file}, line 1: no seats; zeros and ones separated by spaces are expected")
    if (rows, columns) == (1, ONE_LINE_ROWS * ONE_LINE_COLUMNS):
        return ONE_LINE_ROWS, ONE_LINE_COLUMNS
    return rows, columns


def _fault(numbers: list[bytes], columns: int) -> str:
    """Return what is wrong with a row, or an empty string."""
    for number in set(numbers) - {FREE, TAKEN}:
        shown = number[:SHOWN_CHARACTERS].decode(errors="replace")
        return f"{shown!a} is not a seat; 0 or 1 is expected"
    if len(numbers) != columns:
        return f"seats in the row: {len(numbers)}; expected, as in the first row: {columns}"
    return ""


def read_text(file: Path) -> bytes:
    """Return the contents of a file.

    Raises:
        SeatFileError: it cannot be read.
    """
    try:
        return _read(file)
    except OSError as error:
        raise _seat_file_error(error, file) from error


def check_writable(file: Path) -> None:
    """Check that a sale may be written: neither the file nor its directory is read-only.

    The permission bits count even for root, who could write anyway: taking them away is how an operator suspends sales
    without stopping the server.

    Raises:
        SeatFileError: one of the two is read-only, or cannot be examined.
    """
    for path in (file, file.parent):
        try:
            mode = path.stat().st_mode
        except OSError as error:
            raise _seat_file_error(error, path) from error
        if not mode & 0o222 or not os.access(path, os.W_OK):
            raise SeatFileError(f"{path}: read-only; write permission is expected")


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock that keeps other servers from writing a file; wait for it at most LOCK_SECONDS.

    The locked file is a second one, whose name ends with `.lock`, because a write replaces the first. The lock is
    advisory: editors do not respect it.

    Raises:
        SeatFileError: the lock file cannot be made or locked.
    """
    try:
        fd = _open_locked(_sibling(file, ".lock"))
    except OSError as error:
        raise _seat_file_error(error, file) from error
    try:
        yield
    finally:
        os.close(fd)


def _open_locked(file: Path) -> int:
    fd = os.open(file, os.O_RDWR | os.O_CREAT | os.O_NONBLOCK, 0o666)  # NFS requires a writable descriptor
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _lock(fd):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "another program keeps it locked", file)
            time.sleep(LOCK_RETRY_SECONDS)  # flock() has no time limit
    except OSError:
        os.close(fd)
        raise
    return fd


def _lock(fd: int) -> bool:
    """Lock a file, unless another program has locked it; return whether it is locked now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace_text(file: Path, old: bytes, new: bytes) -> bool:
    """Replace the contents of a file atomically and durably: after a crash it holds the old text or the new one.

    Returns:
        True if the file now holds the new text; False, without a change, if an edit had replaced the old text.

    Raises:
        NotFlushed: the file holds the new text, but the directory could not be flushed.
        SeatFileError: the file cannot be written; it holds the old text.
    """
    sibling = _sibling(file, ".new")
    try:
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            _write_sibling(file, sibling, new)
            if _read(file) != old:
                return False
            sibling.replace(file)
            _flush_directory(directory, file.parent)
        finally:
            os.close(directory)
    except OSError as error:
        raise _seat_file_error(error, file) from error
    return True


def _read(file: Path) -> bytes:
    """Return the contents of a regular file in few system calls, because another thread may take the GIL at each."""
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening a FIFO would block
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", file)
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


def _write_sibling(file: Path, sibling: Path, text: bytes) -> None:
    """Write a second file with the owner and the permissions of the first, and flush it to disk.

    A file that already has this name is removed and not written to: a killed server may have left a read-only one, and
    another user may have made it a symbolic link to a file that is not ours.
    """
    status = file.stat()
    sibling.unlink(missing_ok=True)
    with sibling.open("xb") as new:
        with suppress(PermissionError):  # only root may give a file to another user
            os.fchown(new.fileno(), status.st_uid, status.st_gid)
        os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
        new.write(text)
        new.flush()
        _flush(new.fileno())


def _flush_directory(fd: int, directory: Path) -> None:
    try:
        _flush(fd)
    except OSError as error:
        raise NotFlushed(f"{directory}: {error.strerror}") from error


def _flush(fd: int) -> None:
    """Flush a file to disk; on macOS fsync() leaves the data in the drive's cache, and F_FULLFSYNC flushes that too."""
    full_fsync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_fsync is not None:
        with suppress(OSError):  # some file systems do not offer it
            fcntl.fcntl(fd, full_fsync)
            return
    os.fsync(fd)


def _sibling(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _seat_file_error(error: OSError, file: Path) -> SeatFileError:
    return SeatFileError(f"{error.filename or file}: {error.strerror}")
