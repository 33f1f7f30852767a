"""The seats of a theatre: which are free, which are held for a customer, and how an order is booked.

A hold lives in memory and ends with its order. A booking lives in the file, which is read again whenever it matters:
people edit it, and other servers book in it.
"""

import os
import threading
from pathlib import Path

from cinema.seatmap import Hall, HallError, Seat, locked, read_text, replace_text


class OrderCancelled(Exception):
    """An order ends with nothing booked; the text tells the customer why."""


class SeatTaken(OrderCancelled):
    """Somebody else has the seat, or there is none."""

    def __init__(self, seat: Seat) -> None:
        super().__init__(f"Seat {seat} is taken")


class Order:
    """The seats that are held for a customer, and whether they were booked; it belongs to the customer's thread."""

    def __init__(self) -> None:
        self.seats: list[Seat] = []
        self.failure: Exception | None = HallError("the order was not written")  # None once it is booked


class Theatre:
    """The seats, as a file says who has one, and the holds on those that are free.

    Args:
        file: zeros and ones, as hall.py reads them; a symbolic link is followed once and for all.

    Raises:
        HallError: the file cannot be read, or is wrong.
    """

    def __init__(self, file: Path) -> None:
        self._file = Path(os.path.realpath(file))  # resolve() has no OSError for a loop of links
        self._writing = threading.Lock()  # held by the thread that writes the file, for all who wait; before _lock
        self._lock = threading.Lock()  # guards all below; held for no flush to disk
        self._hall = Hall(read_text(self._file), self._file)  # as the file was when it was read last
        self._held: set[Seat] = set()
        self._waiting: list[Order] = []  # to be written

    def hall(self) -> Hall:
        """Return the hall as it is now; seats that are held count as taken.

        Raises:
            HallError: the file cannot be read, or is wrong.
        """
        with self._lock:
            hall = self._read()
            return hall.with_taken(seat for seat in self._held if hall.is_free(seat))

    def hold(self, order: Order, seat: Seat) -> None:
        """Let nobody else have a seat until the order is released.

        Raises:
            SeatTaken: somebody has it or holds it.
            HallError: the file cannot be read, or is wrong.
        """
        with self._lock:
            if seat in self._held or not self._read().is_free(seat):
                raise SeatTaken(seat)
            self._held.add(seat)
            order.seats.append(seat)

    def release(self, order: Order) -> None:
        """End the holds of an order."""
        with self._lock:
            self._held.difference_update(order.seats)

    def book(self, order: Order) -> None:
        """Have all seats of an order on disk, or none; its holds stay until they are released.

        Orders that come while another thread writes gather: the next of their threads writes for all of them.

        Raises:
            SeatTaken: an edit or another server took one of the seats.
            NotFlushed: the order is in the file, but not certain to be on disk.
            HallError: the file cannot be read or written, or is wrong.
        """
        with self._lock:
            self._waiting.append(order)
        with self._writing:
            self._write_for_all(order)
        if order.failure:
            raise order.failure

    def _write_for_all(self, order: Order) -> None:
        """Write the orders that wait, unless another thread has written this one with its own."""
        with self._lock:
            if order not in self._waiting:
                return
            orders, self._waiting = self._waiting, []
        try:
            with locked(self._file):
                while not self._write(orders):
                    pass  # somebody edited the file just now
        except HallError as error:
            for order in orders:
                order.failure = error

    def _write(self, orders: list[Order]) -> bool:
        """Book those orders whose seats are still free; return False if the file was edited meanwhile."""
        with self._lock:
            hall = sold = self._read()
        booked = []
        for order in orders:
            if lost := [seat for seat in order.seats if not sold.is_free(seat)]:
                order.failure = SeatTaken(lost[0])
            else:
                sold = sold.with_taken(order.seats)
                booked.append(order)
        try:
            if booked and not replace_text(self._file, hall.text, sold.text):
                return False
        except HallError as error:  # it does not concern those whose seats were taken
            for order in booked:
                order.failure = error
            return True
        with self._lock:
            self._hall = sold
        for order in booked:
            order.failure = None
        return True

    def _read(self) -> Hall:
        """Return what the file says now; called with the lock."""
        text = read_text(self._file)
        if text != self._hall.text:
            self._hall = Hall(text, self._file)
        return self._hall
