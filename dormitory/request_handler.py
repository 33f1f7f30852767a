"""Carry out the requests for the rooms of one kind: the inventory and the reservations give the answers."""

from collections.abc import Iterable
from itertools import islice

from dormitory.reservations import Reservations
from dormitory.textfiles import WatchedFile
from dormitory.wire import ANY_DATABASE, MALFORMED, MAX_TEXT_BYTES, RESERVATION_ID, Action, BadDatagram, Datagram

CHANGES = (Action.RESERVE, Action.CANCEL)
MAX_PAGE_ITEMS = MAX_TEXT_BYTES // len("S1=6")


class RequestHandler:
    """The rooms of one kind; one thread at a time may use it. A `max_per_member` of None means no limit."""

    def __init__(
        self,
        letter: str,
        inventory: WatchedFile[dict[str, int]],
        reservations: Reservations,
        max_per_member: int | None,
    ) -> None:
        self._letter = letter
        self._inventory = inventory
        self._reservations = reservations
        self._max_per_member = max_per_member
        self.status_lines: list[str] = []  # the owner of this object writes and clears them

    def reply_to(self, request: Datagram) -> Datagram:
        """Carry out a request, a change only within a transaction; return the reply, or raise BadDatagram."""
        database = self._reservations.database
        text, page = self._carry_out(request) if request.database in (ANY_DATABASE, database) else ("", 0)
        return request._replace(action=Action.REPLY, database=database, page=page, text=text)

    def _carry_out(self, request: Datagram) -> tuple[str, int]:
        """Return the answer to a request, and the page to ask for next."""
        self._log(f"received {request.action.name} {request.text}")
        match request.action, request.text.split(" "):
            case Action.AVAILABILITY, [room]:
                return self._availability(room), 0
            case Action.MINE, [_, member]:
                return self._mine(member, request.page)
            case Action.LIST, [_]:
                return self._list(request.page)
            case ((Action.RESERVE | Action.CANCEL), [what, member]):
                return self._change_once(request, what, member), 0
        raise BadDatagram(MALFORMED)

    def _change_once(self, request: Datagram, what: str, member: str) -> str:
        """Carry out a change and record the reply; if the request has come before, return the recorded reply."""
        too_old_ms = self._reservations.forgotten_ms - request.time_ms
        if too_old_ms > 0:
            seconds = too_old_ms // 1000 + 1
            raise BadDatagram("that may be a repetition", f", {seconds} seconds too old to tell: was a clock set back?")
        reply = self._reservations.recorded_reply(request.time_ms, request.request_id)
        if reply is None:
            reply = self._reserve(what, member) if request.action == Action.RESERVE else self._cancel(what, member)
            self._reservations.record_reply(request.time_ms, request.request_id, reply)
        return reply

    def _availability(self, room: str) -> str:
        if room not in self._inventory.content:
            return "UNKNOWN_ROOM"
        left = self._left(room)
        return f"AVAILABLE {left}" if left else "FULL"

    def _reserve(self, room: str, member: str) -> str:
        answer = self._availability(room)
        if not answer.startswith("AVAILABLE"):
            return answer
        limit = self._max_per_member
        if limit is not None and self._reservations.count_of_member(member) >= limit:
            return f"DENIED At most {limit} reservations per member"
        number = self._reservations.reserve(room, member)
        return f"RESERVED {self._letter}{number} {self._log_left(room)}"

    def _cancel(self, reservation: str, member: str) -> str:
        number = int(reservation[1:]) if RESERVATION_ID.fullmatch(reservation) else 0
        found = self._reservations.find(number)
        if found is None or found[1] != member:
            return "UNKNOWN_RESERVATION"
        room = found[0]
        self._reservations.cancel(number, room)
        return f"CANCELLED {room} {self._log_left(room)}"

    def _mine(self, member: str, page: int) -> tuple[str, int]:
        """Return as many of a member's reservations as fit in a datagram, from the first number greater than `page`."""
        rows = self._reservations.of_member(member, page, MAX_PAGE_ITEMS)
        return fill_page((number, f"{self._letter}{number}={room}") for number, room in rows)

    def _list(self, page: int) -> tuple[str, int]:
        """Return as many codes as fit in a datagram, each with the rooms that are left; skip the first `page` codes.

        An edit of the inventory between two pages may repeat or omit codes in that one answer.
        """
        codes = islice(self._inventory.content, page, page + MAX_PAGE_ITEMS)
        return fill_page((number, f"{code}={self._left(code)}") for number, code in enumerate(codes, page + 1))

    def _left(self, room: str) -> int:
        """Return how many rooms of a code are left; 0 if an edit of the inventory left fewer than are reserved."""
        return max(0, self._inventory.content.get(room, 0) - self._reservations.taken[room])

    def _log_left(self, room: str) -> int:
        left = self._left(room)
        self._log(f"has {left} of room {room} left")
        return left

    def _log(self, text: str) -> None:
        self.status_lines.append(f"Server {self._letter} {text}")


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
