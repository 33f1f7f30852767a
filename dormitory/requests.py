"""What a back end does for a request: text in, the reply's text out, status lines beside it."""

from collections.abc import Callable
from contextlib import suppress

from dormitory.reservations import Refused, Reservations
from dormitory.wire import RESERVATION_ID, Action, Datagram, malformed, rooms_text

CHANGES = {Action.RESERVE, Action.CANCEL}


class Desk:
    """The desk of one kind of room.

    Attributes:
        story: status lines about what was done, for the owner to write and clear.
    """

    def __init__(self, letter: str, reservations: Reservations) -> None:
        self.story: list[str] = []
        self._name = f"Server {letter}"
        self._letter = letter
        self._reservations = reservations

    def carry_out(self, request: Datagram, text: bytes) -> str:
        """Do what a request asks for; return the reply. What changes something needs a transaction.

        Raises:
            BadDatagram: the main server sends no such request.
        """
        try:
            fields = text.decode().split()
            name, procedure, number_of_fields = PROCEDURES[request.action]
        except (UnicodeDecodeError, KeyError):
            raise malformed() from None
        if len(fields) != number_of_fields:
            raise malformed()
        self.story.append(f"{self._name} received {name} {' '.join(fields)}")
        try:
            if request.action in CHANGES:
                return self._change_once(procedure, request, fields)
            return procedure(self, *fields)
        except Refused as refused:
            return str(refused)

    def _change_once(self, procedure: "Procedure", request: Datagram, fields: list[str]) -> str:
        """Carry a change out and keep the answer; if that was done before a restart, give that answer."""
        request_id = request.sender + request.number.to_bytes(8, "big")
        reply = self._reservations.answer_to(request_id)
        if reply is None:
            reply = procedure(self, *fields)
            self._reservations.record_answer(request_id, reply)
        return reply

    def _availability(self, room: str) -> str:
        left = self._reservations.left(room)
        return f"AVAILABLE {left}" if left else "FULL"

    def _reserve(self, room: str, member: str) -> str:
        reservation = self._reservations.reserve(room, member)
        return f"RESERVED {reservation} {self._new_count(room)}"

    def _cancel(self, reservation: str, member: str) -> str:
        if not (RESERVATION_ID.fullmatch(reservation) and reservation[0] == self._letter):
            raise Refused("UNKNOWN_RESERVATION")
        room = self._reservations.cancel(reservation, member)
        with suppress(Refused):  # no such room in the inventory any more
            self._new_count(room)
        return f"CANCELLED {room}"

    def _new_count(self, room: str) -> int:
        left = self._reservations.left(room)
        self.story.append(f"{self._name} has {left} of room {room} left")
        return left

    def _mine(self, member: str) -> str:
        return " ".join(f"{reservation}={room}" for reservation, room in self._reservations.of_member(member).items())

    def _list(self) -> str:
        return rooms_text(self._reservations.left_of_all())


Procedure = Callable[..., str]

PROCEDURES: dict[int, tuple[str, Procedure, int]] = {  # the name, the procedure and how many fields it takes
    Action.AVAILABILITY: ("AVAILABILITY", Desk._availability, 1),
    Action.RESERVE: ("RESERVE", Desk._reserve, 2),
    Action.CANCEL: ("CANCEL", Desk._cancel, 2),
    Action.MINE: ("MINE", Desk._mine, 1),
    Action.LIST: ("LIST", Desk._list, 0),
}
