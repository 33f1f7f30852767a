"""The seats that are for sale: which are free, which are held for a customer, and how an order is booked.

A hold exists in memory and ends with its order. A booking is in the file. Theatre reads the file again for every
decision, because an operator may have edited it, or another server may have sold seats from it.
"""

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from cinema.seatmap import Seat, SeatFileError, SeatMap
from net.files import NotFlushed, locked, read_file, replace_file
from net.log import LOG


class OrderCancelled(Exception):
    """An order ended and nothing is booked; the text tells the customer why."""


class SeatTaken(OrderCancelled):
    """Another customer has the seat, or it does not exist."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(f"Seat {seat} is taken")


class OrderUncertain(SeatFileError):
    """The order is in the file, but it might not survive a power failure."""


class Order:
    """The seats that a customer holds, and why they are not booked.

    The customer's thread changes it through Theatre; while the order waits to be booked, the thread that writes does.
    """

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        # None once the order is booked. It is set from the start, so that an order that a bug leaves unwritten does not
        # count as booked.
        self.failure: Exception | None = SeatFileError("the order was not written")


class Theatre:
    """The seats of a hall: free or taken, as the file says, or held for an order.

    Args:
        file: the seats file; if it is a symbolic link, sales replace its target.

    Raises:
        SeatFileError: the file cannot be read or is malformed.
    """

    def __init__(self, file: Path) -> None:
        self._file = Path(os.path.realpath(file))  # Path.resolve() raises RuntimeError for a loop of links
        self._commit_lock = threading.Lock()  # held by the thread that writes the file; taken before _lock
        self._lock = threading.Lock()  # guards all below; no thread holds it while it flushes to disk
        with _seat_file_errors(self._file):
            self._map = SeatMap(read_file(self._file), self._file)  # the file's contents when a thread last read it
        self._written = self._map  # what the last commit writes, so that its change is not taken for an edit
        self._held: set[Seat] = set()
        self._sold: set[Seat] = set()  # by this server since its start
        self._waiting: list[Order] = []  # the next commit writes them together

    def seat_map(self) -> SeatMap:
        """Return the seats as they are now; held seats count as taken.

        Raises:
            SeatFileError: the file cannot be read, is malformed or read-only.
        """
        check_writable(self._file)
        with self._reading() as seat_map:
            return seat_map.with_taken(filter(seat_map.is_free, self._held))

    def hold(self, order: Order, seat: Seat) -> None:
        """Hold a seat for an order until the order is released.

        Raises:
            SeatTaken: another customer has the seat or holds it, or it does not exist.
            SeatFileError: the file cannot be read or is malformed.
        """
        with self._reading() as seat_map:
            if seat in self._held or not seat_map.is_free(seat):
                raise SeatTaken(seat)
            self._held.add(seat)
            order.seats.append(seat)

    def release(self, order: Order) -> None:
        """Release the seats that an order holds."""
        with self._lock:
            self._held.difference_update(order.seats)

    def book(self, order: Order) -> None:
        """Write all seats of an order to disk, or none; the order keeps its holds until they are released.

        Group commit: orders that arrive during a write share the next one.

        Raises:
            SeatTaken: an edit or another server took one of the seats.
            OrderUncertain: the order is in the file, but perhaps not on disk.
            SeatFileError: the file cannot be read or written, is malformed or read-only.
        """
        with self._lock:
            self._waiting.append(order)
        with self._commit_lock:
            self._commit(order)
        if order.failure:
            raise order.failure

    def _commit(self, order: Order) -> None:
        """Write all orders that wait, unless another thread's commit has included this one."""
        with self._lock:
            if order not in self._waiting:
                return
            orders, self._waiting = self._waiting, []
        try:
            with _seat_file_errors(self._file), locked(self._file):
                while not self._write(orders):
                    pass  # the file was edited between reading and writing
        except SeatFileError as error:
            for each in orders:
                each.failure = error

    def _write(self, orders: list[Order]) -> bool:
        """Write the orders, except those that have lost a seat; return False if an edit came in between."""
        check_writable(self._file)
        with self._reading() as before:
            after = self._written = _take_seats(before, orders)
        if orders and not replace_file(self._file, after.text, old=before.text):
            return False
        with self._lock:
            self._map = after
            for order in orders:
                order.failure = None
                self._sold.update(order.seats)
        return True

    @contextmanager
    def _reading(self) -> Iterator[SeatMap]:
        """Read the file, and yield its map while holding the lock; then report sold seats that an edit has freed."""
        freed: list[Seat] = []
        try:
            with self._lock, _seat_file_errors(self._file):
                text = read_file(self._file)
                if text == self._written.text:
                    self._map = self._written
                elif text != self._map.text:
                    self._map = SeatMap(text, self._file)
                    freed = sorted(filter(self._map.is_free, self._sold))
                    self._sold.difference_update(freed)
                yield self._map
        finally:
            for seat in freed:
                LOG.write(f"{self._file}: seat {seat}, which was sold here, has been made free by an edit")


@contextmanager
def _seat_file_errors(file: Path) -> Iterator[None]:
    """Turn an OSError into a SeatFileError that names a file."""
    try:
        yield
    except OSError as error:
        kind = OrderUncertain if isinstance(error, NotFlushed) else SeatFileError
        raise kind(f"{error.filename or file}: {error.strerror}") from error


def check_writable(file: Path) -> None:
    """Check that a sale may be written: neither the file nor its directory is read-only.

    The permission bits count even for root, who could write anyway: taking them away is how an operator suspends sales
    without stopping the server.

    Raises:
        SeatFileError: one of the two is read-only, or cannot be examined.
    """
    with _seat_file_errors(file):
        for path in (file, file.parent):
            if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
                raise SeatFileError(f"{path}: read-only; write permission is expected")


def _take_seats(seat_map: SeatMap, orders: list[Order]) -> SeatMap:
    """Return the map with the orders' seats taken; an order that has lost a seat fails and is removed from the list."""
    for order in list(orders):
        if lost := [seat for seat in order.seats if not seat_map.is_free(seat)]:
            order.failure = SeatTaken(lost[0])
            orders.remove(order)
        else:
            seat_map = seat_map.with_taken(order.seats)
    return seat_map
