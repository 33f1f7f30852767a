r"""A server of chat rooms; its clients are chatroom_client.py and, in a room, telnet.

A request is an action byte, a room's name and \n; a reply is a status byte, information and \n:

    CREATE (1) name    open a room
    JOIN   (2) name    which port the room has, and how many members
    LIST   (3)         the names of all rooms, in order of creation
    DELETE (4) name    warn the members of a room, close their connections and the room

A room has a listening socket of its own, a thread that accepts, and a thread for each member. Whoever connects to its
port is a member until he closes; each line that he sends goes to all other members.
"""

import argparse
import os
import sys
import threading
from collections.abc import Callable

from net import process as program
from net import server as tcp
from net.connection import Connection, DeadlinePassed
from net.log import LOG
from net.outbox import Outbox
from protocol import (
    ROOM_NAME_RULE,
    LineTooLong,
    RoomAction,
    RoomStatus,
    harmless,
    is_room_name,
    room_reply,
)

MAX_ROOMS = 100
LINE_END = b"\n"


class Refused(Exception):
    """A request is not carried out.

    Args:
        status: the reply's status.
        sentence: tells the client why.
    """

    def __init__(self, status: RoomStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Room:
    """A chat room: a TCP server, whose connections are the members.

    Attributes:
        name: what the room is called.
        port: where it listens.

    Raises:
        OSError: there is no descriptor or port for it.
        RuntimeError: there is no thread for it.
    """

    def __init__(self, name: str, host: str, places: threading.Semaphore) -> None:
        self.name = name
        self.server = tcp.Server(host, 0, self._relay, places)
        self.port = self.server.port
        self.server.start()

    def _relay(self, member: Connection) -> None:
        """Send the lines of a member to all others: those that came together with one send to each."""
        outbox = Outbox()
        member.status(f"entered room {self.name}")
        for lines in member.batches():
            others = [other for other in self.server.connections() if other is not member]
            outbox.put(others, harmless(lines))
            outbox.send()
            member.status(f"lines to room {self.name}: {lines.count(LINE_END)}")
        member.status(f"left room {self.name}")


class Rooms:
    """The database of all rooms, in order of creation.

    Args:
        host: where rooms listen.
        places: one for each connection, to a room or to the lobby.
        max_rooms: how many there may be.
    """

    def __init__(self, host: str, places: threading.Semaphore, max_rooms: int) -> None:
        self.host = host
        self.places = places
        self._max_rooms = max_rooms
        self._lock = threading.Lock()  # guards both below
        self._by_name: dict[str, Room] = {}
        self._reserved: set[str] = set()  # names of rooms that are being created

    def reserve(self, name: str) -> None:
        """Keep a name and a place for a room; add() or release() must follow.

        Raises:
            Refused: there is or will be a room of that name, or there are too many rooms.
        """
        with self._lock:
            if name in self._by_name or name in self._reserved:
                raise Refused(RoomStatus.ALREADY_EXISTS, f"Room {name} already exists")
            if len(self._by_name) + len(self._reserved) >= self._max_rooms:
                raise Refused(RoomStatus.UNKNOWN_FAILURE, f"Too many rooms: at most {self._max_rooms} are allowed")
            self._reserved.add(name)

    def release(self, name: str) -> None:
        """Give a reserved name free."""
        with self._lock:
            self._reserved.remove(name)

    def add(self, room: Room) -> None:
        """Have a room, whose name is reserved, found from now on."""
        with self._lock:
            self._reserved.remove(room.name)
            self._by_name[room.name] = room

    def find(self, name: str) -> Room:
        """Return a room.

        Raises:
            Refused: there is none of that name.
        """
        with self._lock:
            return self._find(name)

    def remove(self, name: str) -> Room:
        """Take a room out, so that nobody finds it any more and its name is free; return it.

        Raises:
            Refused: there is none of that name.
        """
        with self._lock:
            room = self._find(name)
            del self._by_name[name]
            return room

    def all(self) -> list[Room]:
        """Return all rooms, in order of creation."""
        with self._lock:
            return list(self._by_name.values())

    def take_all(self) -> list[Room]:
        """Take all rooms out, and let none be created any more: each is then stopped by who took it out."""
        with self._lock:
            self._max_rooms = 0
            rooms, self._by_name = list(self._by_name.values()), {}
            return rooms

    def _find(self, name: str) -> Room:
        if name not in self._by_name:
            raise Refused(RoomStatus.DOES_NOT_EXIST, f"Room {name} does not exist")
        return self._by_name[name]


def main() -> int:
    """Take the parameters; serve; return the exit status."""
    parser = argparse.ArgumentParser(description="A server of chat rooms.")
    parser.add_argument("port", type=program.port_number, metavar="PORT", help="port of the lobby; 0 is any free one")
    program.add_number(parser, "--max-rooms", MAX_ROOMS, "how many rooms there may be at once")
    program.add_options(parser)
    options = parser.parse_args()
    return server(options.host, options.port, options.max_rooms, options.max_connections, options.login_seconds)


def server(host: str, port: int, max_rooms: int, max_connections: int, login_seconds: int) -> int:
    """Set up the master socket and accept until SIGINT or SIGTERM; then stop it and all rooms together."""
    program.prepare(max_connections + max_rooms * tcp.SERVER_DESCRIPTORS, os.getpid())
    places = threading.Semaphore(max_connections)
    rooms = Rooms(host, places, max_rooms)
    try:
        lobby = tcp.Server(host, port, lambda connection: connection_handler(connection, rooms), places, login_seconds)
    except OSError as error:
        return program.fail(f"Cannot listen on {host}:{port}: {error.strerror}")
    LOG.write(f"Listening on {host}:{lobby.port}")
    lobby.start()
    program.wait_for_signal()
    return program.end_process([lobby, *(room.server for room in rooms.take_all())])


def connection_handler(connection: Connection, rooms: Rooms) -> None:
    """Answer the requests of one client of the lobby; its own thread runs this."""
    me = (connection,)
    outbox = Outbox()
    try:
        for lines in connection.batches():
            for request in lines.split(LINE_END)[:-1]:
                outbox.put(me, answer(connection, rooms, request))
            outbox.send()
    except (LineTooLong, DeadlinePassed) as error:
        connection.status(str(error))
        status = RoomStatus.INVALID if isinstance(error, LineTooLong) else RoomStatus.UNKNOWN_FAILURE
        connection.send(room_reply(status, str(error)).encode())


def answer(connection: Connection, rooms: Rooms, request: bytes) -> str:
    """Carry out a request; return the reply."""
    try:
        action = requested_action(request)
        name = harmless(request[1:])
        connection.status(f"{action.name} {name}".rstrip())
        if action is not RoomAction.LIST and not is_room_name(name):
            raise Refused(RoomStatus.INVALID, f"Invalid name: {ROOM_NAME_RULE}")
        information = HANDLERS[action](rooms, name)
    except Refused as refusal:
        connection.status(f"refused: {refusal}")
        return room_reply(refusal.status, str(refusal))
    connection.deadline = None
    return room_reply(RoomStatus.SUCCESS, information)


def requested_action(request: bytes) -> RoomAction:
    """Return the action that the first byte of a request names.

    Raises:
        Refused: it names none.
    """
    if not request:
        raise Refused(RoomStatus.INVALID, "Empty request: an action byte, 1 to 4, is expected")
    try:
        return RoomAction(request[0])
    except ValueError:
        raise Refused(RoomStatus.INVALID, f"Unknown action {request[0]}: 1 to 4 are expected") from None


def room_creation_handler(rooms: Rooms, name: str) -> str:
    """Create a room: its name, its own listening socket, its thread.

    Raises:
        Refused: the name is taken, there are too many rooms, or no descriptors or threads for one more.
    """
    rooms.reserve(name)
    try:
        room = Room(name, rooms.host, rooms.places)
    except (OSError, RuntimeError) as error:
        rooms.release(name)
        reason = error.strerror if isinstance(error, OSError) else error
        raise Refused(RoomStatus.UNKNOWN_FAILURE, f"Room {name} cannot be opened: {reason}") from None
    rooms.add(room)
    LOG.write(f"Room {name}: listening on port {room.port}")
    return ""


def room_join_handler(rooms: Rooms, name: str) -> str:
    """Return the port of a room, and how many members it has before this one.

    Raises:
        Refused: there is no such room.
    """
    room = rooms.find(name)
    return f"{room.port} {len(room.server.connections())}"


def room_list_handler(rooms: Rooms, _: str) -> str:
    """Return the names of all rooms."""
    return ",".join(room.name for room in rooms.all())


def room_deletion_handler(rooms: Rooms, name: str) -> str:
    """Take a room away, warn its members and close their connections.

    Raises:
        Refused: there is no such room.
    """
    room = rooms.remove(name)
    room.server.stop(f"Warning: room {name} is deleted\n".encode())
    LOG.write(f"Room {name}: deleted")
    return ""


HANDLERS: dict[RoomAction, Callable[[Rooms, str], str]] = {
    RoomAction.CREATE: room_creation_handler,
    RoomAction.JOIN: room_join_handler,
    RoomAction.LIST: room_list_handler,
    RoomAction.DELETE: room_deletion_handler,
}


if __name__ == "__main__":
    sys.exit(main())
