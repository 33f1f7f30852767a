"""The seats that are for sale: which are free, which are held for a customer, and how an order is booked.

A hold exists in memory and ends with its order. A booking is in the file. Theatre reads the file again for every
decision, because an operator may have edited it, or another server may have sold seats from it.
"""

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from cinema.seatmap import Seat, SeatFileError, SeatMap
from net.files import NotFlushed, check_replaceable, is_mount_point, locked, read_file, replace_file
from net.log import LOG

CHECK_SECONDS = 1.0  # how long it counts that the file could be written


class OrderCancelled(Exception):
    """An order ended and nothing is booked; the text tells the customer why."""


class OrderUncertain(SeatFileError):
    """The order is in the file, but it might not survive a power failure."""


class Order:
    """The seats that a customer holds, and why they are not booked; the customer's or the writing thread changes it."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        # None once it is booked; not at first, so that an order that a bug leaves unwritten does not count as booked.
        self.failure: Exception | None = SeatFileError("the order was not written")


class Theatre:
    """The seats of a hall: free or taken, as the file says, or held for an order.

    If the file is a symbolic link, sales replace its target. Whatever reads the file raises SeatFileError if that is
    impossible, or if the file is malformed.
    """

    def __init__(self, file: Path, max_held_per_network: int | None = None) -> None:
        self._file = Path(os.path.realpath(file))  # Path.resolve() raises RuntimeError for a loop of links
        self._max_held = max_held_per_network
        self._commit_lock = threading.Lock()  # held by the thread that writes the file; taken before _lock
        self._lock = threading.Lock()  # guards all below; no thread reads or writes the file while it holds it
        self._map: SeatMap | None = None  # the file's contents when a thread last read or wrote it
        self._held: dict[Seat, str] = {}  # with the network of the customer
        self._sold: set[Seat] = set()  # by this server since its start
        self._waiting: list[Order] = []  # the next commit writes them together
        self._next_check = 0.0  # when to try again whether the file can be written
        self._read()

    def check(self) -> None:
        """Raise SeatFileError if no order could be written now."""
        self._read()
        with _seat_file_errors(self._file):
            _check_writable(self._file)
            if time.monotonic() > self._next_check:
                with suppress(BlockingIOError, FileExistsError):  # another server can write it
                    check_replaceable(self._file, may_wait=False)
                self._next_check = time.monotonic() + CHECK_SECONDS

    def report_at_start(self) -> None:
        """Write a status line if no order could be written now, or only in place."""
        if is_mount_point(self._file):
            LOG.write(f"{self._file} is a mount point: orders are written in place, and a crash may split one")
        try:
            self.check()
        except SeatFileError as error:
            LOG.write(f"No seat can be sold now: {error}")

    def seat_map(self) -> SeatMap:
        """Return the seats as they are now; held seats count as taken."""
        with self._lock:
            held = list(self._held)  # before the file is read, so that a seat that is booked meanwhile counts, too
        seat_map = self._read()
        return seat_map.with_taken(filter(seat_map.is_free, held))

    def hold(self, order: Order, seat: Seat, network: str = "") -> None:
        """Hold a seat until the order is released; raise OrderCancelled if the customer cannot have it."""
        with self._lock:
            is_held = seat in self._held
            if not is_held and self._max_held and list(self._held.values()).count(network) >= self._max_held:
                raise OrderCancelled(f"The limit of seats held for one address at a time ({self._max_held}) is reached")
            if not is_held:
                self._held[seat] = network
                order.seats.append(seat)
        # The file is read last: whoever held the seat before may have booked it.
        if is_held or not self._read().is_free(seat):
            raise OrderCancelled(f"Seat {seat} is taken")

    def release(self, order: Order) -> None:
        """Release the seats that an order holds."""
        with self._lock:
            for seat in order.seats:
                del self._held[seat]

    def book(self, order: Order) -> None:
        """Write all seats of an order to disk, or none; the order keeps its holds until they are released.

        Group commit: orders that arrive during a write share the next one. Raise OrderCancelled if an edit or another
        server took one of the seats, and OrderUncertain if the order is in the file, but perhaps not on disk.
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
            with _seat_file_errors(self._file):
                _check_writable(self._file)
                with locked(self._file):
                    while not self._write(orders):
                        pass  # the file was edited between reading and writing
        except SeatFileError as error:
            for each in orders:
                each.failure = error

    def _write(self, orders: list[Order]) -> bool:
        """Write the orders, except those that have lost a seat; return False if an edit came in between."""
        before = after = self._read()
        for order in list(orders):
            if lost := [seat for seat in order.seats if not after.is_free(seat)]:
                order.failure = OrderCancelled(f"Seat {lost[0]} is taken")
                orders.remove(order)
            else:
                after = after.with_taken(order.seats)
        if orders and not replace_file(self._file, after.text, old=before.text):
            return False
        with self._lock:
            self._map = after
            for order in orders:
                order.failure = None
                self._sold.update(order.seats)
        self._next_check = time.monotonic() + CHECK_SECONDS
        return True

    def _read(self) -> SeatMap:
        """Read the file and return its seats; report each seat that was sold here and that an edit has made free."""
        while True:
            known = self._map  # before the file is read, so that a sale meanwhile is not taken for an edit
            with _seat_file_errors(self._file):
                text = read_file(self._file)
            if known and known.text == text:
                return known
            seat_map = SeatMap(text, self._file)
            with self._lock:
                if self._map is known:  # otherwise another thread was faster, and this one reads again
                    self._map = seat_map
                    freed = sorted(filter(seat_map.is_free, self._sold))
                    self._sold.difference_update(freed)
                    break
        for seat in freed:
            LOG.write(f"{self._file}: seat {seat}, which was sold here, has been made free by an edit")
        return seat_map


@contextmanager
def _seat_file_errors(file: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        kind = OrderUncertain if isinstance(error, NotFlushed) else SeatFileError
        raise kind(f"{error.filename or file}: {error.strerror}") from error


def _check_writable(file: Path) -> None:
    """Raise SeatFileError if a file or its directory is read-only.

    The permission bits count even for root, who could write anyway: taking them away is how an operator suspends sales
    without stopping the server.
    """
    for path in (file, file.parent):
        if not path.stat().st_mode & 0o222 or not os.access(path, os.W_OK):
            raise SeatFileError(f"{path}: read-only; write permission is expected")
