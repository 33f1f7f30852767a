"""seats.txt: a hall as zeros and ones that people read and edit, and how a sale reaches it.

    0 0 0 0 0
    0 0 1 1 0

A line is a row, 1 is a seat that is taken; 25 numbers on one line are five rows of five. A sale changes one character
for each seat, so that the file keeps the shape in which somebody wrote it.
"""

import copy
import errno
import fcntl
import os
import stat
import string
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from itertools import compress, count
from pathlib import Path
from typing import NamedTuple

FREE = b"0"
TAKEN = b"1"
ONE_LINE_ROWS = ONE_LINE_COLUMNS = 5
LOCK_SECONDS = 5.0  # for another program that keeps the file locked
LOCK_RETRY_SECONDS = 0.002  # about a flush to disk: longer, and a busy server beside would be hard to get in between
SHOWN_CHARACTERS = 20  # of something wrong that may be long

_IS_NUMBER = bytes(byte in FREE + TAKEN for byte in range(256))  # for bytes.translate()


class HallError(Exception):
    """The file cannot be read, is wrong or cannot be written; the text names it, and the line."""


class NotFlushed(HallError):
    """The file holds the new text, but if the machine stops now, it may hold the old one again."""


class Seat(NamedTuple):
    """A seat's row and its number in the row, both from 1."""

    row: int
    number: int

    def __str__(self) -> str:
        return f"{self.row}-{self.number}"


class Hall:
    """A rectangle of seats, each free or taken, as the text of a file says it.

    Attributes:
        text: zeros, ones and white space.
        rows: how many rows it has.
        columns: how many seats a row has.
    """

    def __init__(self, text: bytes, file: Path) -> None:
        self.text = text
        self.rows, self.columns = _measure(text, file)
        self._offsets = list(compress(count(), text.translate(_IS_NUMBER)))  # of each seat's number in the text

    @property
    def free(self) -> int:
        """How many seats are free."""
        return self.text.count(FREE)

    def is_free(self, seat: Seat) -> bool:
        """Return whether there is such a seat and it is free."""
        if not (1 <= seat.row <= self.rows and 1 <= seat.number <= self.columns):
            return False
        offset = self._offset(seat)
        return self.text[offset : offset + 1] == FREE

    def with_taken(self, seats: Iterable[Seat]) -> "Hall":
        """Return this hall with some of its seats taken."""
        text = bytearray(self.text)
        for seat in seats:
            offset = self._offset(seat)
            text[offset : offset + 1] = TAKEN
        hall = copy.copy(self)
        hall.text = bytes(text)
        return hall

    def matrix(self) -> list[str]:
        """Return lines that show which seats are free: one with the seats' numbers, then one for each row."""
        row_width, width = len(str(self.rows)), len(str(self.columns))
        gap = " " * width
        cells = gap + gap.join(self.text.translate(None, string.whitespace.encode()).decode())
        row_cells = len(cells) // self.rows
        lines = [" " * row_width + "Seat" + "".join(f" {number:{width}}" for number in range(1, self.columns + 1))]
        for row in range(self.rows):
            lines.append(f"Row {row + 1:{row_width}}{cells[row * row_cells : (row + 1) * row_cells]}")
        return lines

    def _offset(self, seat: Seat) -> int:
        return self._offsets[(seat.row - 1) * self.columns + seat.number - 1]


def _measure(text: bytes, file: Path) -> tuple[int, int]:
    """Return how many rows and columns a text has; raise HallError if it is no hall."""
    rows = columns = 0
    for line_number, line in enumerate(text.splitlines(), 1):
        if numbers := line.split():
            columns = columns or len(numbers)
            rows += 1
            if fault := _fault(numbers, columns):
                raise HallError(f"{file}, line {line_number}: {fault}")
    if not rows:
        raise HallError(f"{file}, line 1: no seats; zeros and ones separated by spaces are expected")
    if (rows, columns) == (1, ONE_LINE_ROWS * ONE_LINE_COLUMNS):
        return ONE_LINE_ROWS, ONE_LINE_COLUMNS
    return rows, columns


def _fault(numbers: list[bytes], columns: int) -> str:
    """Return what is wrong with a row, if anything is."""
    for number in set(numbers) - {FREE, TAKEN}:
        shown = number[:SHOWN_CHARACTERS].decode(errors="replace")
        return f"{shown!a} is no seat; 0 or 1 is expected"
    if len(numbers) != columns:
        return f"the row has another number of seats than the first; {columns} are expected, not {len(numbers)}"
    return ""


def read_text(file: Path) -> bytes:
    """Return what a file holds.

    Raises:
        HallError: it cannot be read.
    """
    try:
        return _read(file)
    except OSError as error:
        raise _hall_error(error, file) from error


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Keep every other server from writing a file meanwhile; wait until none does, but LOCK_SECONDS at most.

    The lock is on a second file beside it, since writing puts another file in the place of the first. It binds those
    alone who ask for it, so not the people who edit.

    Raises:
        HallError: the file beside it cannot be made or locked.
    """
    try:
        fd = _open_locked(_beside(file, ".lock"))
    except OSError as error:
        raise _hall_error(error, file) from error
    try:
        yield
    finally:
        os.close(fd)


def _open_locked(file: Path) -> int:
    fd = os.open(file, os.O_RDONLY | os.O_CREAT, 0o666)
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _lock(fd):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "another program keeps it locked", file)
            time.sleep(LOCK_RETRY_SECONDS)  # flock() can wait for ever, or not at all
    except OSError:
        os.close(fd)
        raise
    return fd


def _lock(fd: int) -> bool:
    """Return whether it could be locked now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace_text(file: Path, old: bytes, new: bytes) -> bool:
    """Have a file hold a new text, whole and on disk, instead of the old one, whatever is killed when.

    Returns:
        Whether it did so: False if the file no longer held the old text, because somebody edited it.

    Raises:
        NotFlushed: all was done but flushing the directory.
        HallError: it cannot be written; it holds the old text.
    """
    beside = _beside(file, ".new")
    try:
        directory = os.open(file.parent, os.O_RDONLY)
        try:
            _write_beside(file, beside, new)
            if _read(file) != old:
                return False
            beside.replace(file)
            _flush_directory(directory, file.parent)
        finally:
            os.close(directory)
    except OSError as error:
        raise _hall_error(error, file) from error
    return True


def _read(file: Path) -> bytes:
    """Return what a file holds, with few system calls: each lets another thread take Python's lock from this one."""
    fd = os.open(file, os.O_RDONLY)
    try:
        return os.read(fd, os.fstat(fd).st_size)
    finally:
        os.close(fd)


def _write_beside(file: Path, beside: Path, text: bytes) -> None:
    """Write another file with the owner and the permissions of the first, and flush it to disk.

    What is there already is removed, not written to: who was killed may have left a file that is read-only, and others
    may have put a link there.
    """
    status = file.stat()
    beside.unlink(missing_ok=True)
    with beside.open("xb") as new:
        with suppress(PermissionError):  # only root may give files away
            os.fchown(new.fileno(), status.st_uid, status.st_gid)
        os.fchmod(new.fileno(), stat.S_IMODE(status.st_mode))
        new.write(text)
        new.flush()
        os.fsync(new.fileno())


def _flush_directory(fd: int, directory: Path) -> None:
    try:
        os.fsync(fd)
    except OSError as error:
        raise NotFlushed(f"{directory}: {error.strerror}") from error


def _beside(file: Path, suffix: str) -> Path:
    return file.with_name(file.name + suffix)


def _hall_error(error: OSError, file: Path) -> HallError:
    return HallError(f"{error.filename or file}: {error.strerror}")
