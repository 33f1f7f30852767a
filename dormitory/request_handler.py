"""Carry out the requests for the rooms of one kind: the inventory and the reservations give the answers."""

from collections.abc import Iterable
from itertools import islice

from dormitory.inventory import Inventory
from dormitory.reservations import Reservations
from dormitory.wire import ANY_DATABASE, MALFORMED, MAX_TEXT_BYTES, RESERVATION_ID, Action, BadDatagram, Datagram

CHANGES = (Action.RESERVE, Action.CANCEL)
MAX_PAGE_ITEMS = MAX_TEXT_BYTES // len("S1=6")


class RequestHandler:
    """The rooms of one kind, for one thread at a time; `limit` is how many a member may reserve, or None."""

    def __init__(self, letter: str, inventory: Inventory, reservations: Reservations, limit: int | None) -> None:
        self.letter = letter
        self.name = f"Server {letter}"
        self.inventory = inventory
        self.reservations = reservations
        self.status_lines: list[str] = []  # the owner of this object writes and clears them
        self._limit = limit

    def reply_to(self, request: Datagram) -> Datagram:
        """Carry out a request, a change only within a transaction; return the reply, or raise BadDatagram."""
        database = self.reservations.database
        text, page = self._carry_out(request) if request.database in (ANY_DATABASE, database) else ("", 0)
        return Datagram(Action.REPLY, request.request_id, request.time_ms, database, page, text)

    def _carry_out(self, request: Datagram) -> tuple[str, int]:
        """Return the answer to a request, and the page to ask for next."""
        self.status_lines.append(f"{self.name} received {request.action.name} {request.text}")
        match request.action, request.text.split(" "):
            case Action.AVAILABILITY, [room]:
                return self._availability(room), 0
            case Action.RESERVE, [room, member]:
                return self.reservations.once(request, lambda: self._reserve(room, member)), 0
            case Action.CANCEL, [reservation, member]:
                return self.reservations.once(request, lambda: self._cancel(reservation, member)), 0
            case Action.MINE, [_, member]:  # a page has the reservations with greater numbers than its own
                rows = self.reservations.of_member(member, request.page, MAX_PAGE_ITEMS)
                return fill_page((number, f"{self.letter}{number}={room}") for number, room in rows)
            case Action.LIST, [_]:  # a page skips as many codes; an edit in between may repeat or omit some
                codes = enumerate(islice(self.inventory.content, request.page, None), request.page + 1)
                return fill_page((number, f"{code}={self._left(code)}") for number, code in codes)
        raise BadDatagram(MALFORMED)

    def _availability(self, room: str) -> str:
        if room not in self.inventory.content:
            return "UNKNOWN_ROOM"
        left = self._left(room)
        return f"AVAILABLE {left}" if left else "FULL"

    def _reserve(self, room: str, member: str) -> str:
        answer = self._availability(room)
        if not answer.startswith("AVAILABLE"):
            return answer
        if self._limit and len(self.reservations.of_member(member, 0, self._limit)) == self._limit:
            return f"DENIED At most {self._limit} reservations per member"
        number = self.reservations.reserve(room, member)
        return f"RESERVED {self.letter}{number} {self._log_left(room)}"

    def _cancel(self, reservation: str, member: str) -> str:
        number = int(reservation[1:]) if RESERVATION_ID.fullmatch(reservation) else 0
        cancelled = self.reservations.cancel(number, member)
        if cancelled is None:
            return "UNKNOWN_RESERVATION"
        room, _ = cancelled
        return f"CANCELLED {room} {self._log_left(room)}"

    def _left(self, room: str) -> int:
        """Return how many rooms of a code are left; 0 if an edit of the inventory left fewer than are reserved."""
        return max(0, self.inventory.content.get(room, 0) - self.reservations.taken[room])

    def _log_left(self, room: str) -> int:
        left = self._left(room)
        self.status_lines.append(f"{self.name} has {left} of room {room} left")
        return left


def fill_page(items: Iterable[tuple[int, str]]) -> tuple[str, int]:
    """Return the texts that fit in a datagram, and the next page: the number of the last one, or 0 if all fit."""
    texts: list[str] = []
    size = last = 0
    for number, text in items:
        size += len(text) + 1
        if size > MAX_TEXT_BYTES:
            return " ".join(texts), last
        texts.append(text)
        last = number
    return " ".join(texts), 0
