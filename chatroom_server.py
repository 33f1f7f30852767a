#!/usr/bin/env python3
r"""A chat room server; its clients are chatroom_client.py and telnet.

A request is an action byte, a room's name and \n; a reply is a status byte, information and \n:

    CREATE (1) name    open a room
    JOIN   (2) name    ask which port the room has, and how many members
    LIST   (3)         ask for the names of all rooms, in order of creation
    DELETE (4) name    warn the members of a room, close their connections and the room

An action may be written as a digit, as telnet sends it; the reply then begins with a digit too.

A room has a listening socket of its own, a thread that accepts, and a thread for each member. A client that connects to
the room's port is a member until it closes the connection or sends the line /leave. The room relays every other line to
all other members.
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import errno
import threading
from collections.abc import Callable, Iterable
from typing import NoReturn

from net import process
from net.command_line import MAX_PORT, add_number, port_number, reason
from net.connection import TimeLimitPassed
from net.conversation import Conversation, counted_clients
from net.log import LOG
from net.server import SERVER_DESCRIPTORS, Handler, Server
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
LEAVE = "/leave"
ANY_FREE_PORT = range(1)  # port 0: the system chooses


class RequestFailed(Exception):
    """The server cannot carry out a request.

    Args:
        status: the status of the reply.
        sentence: the information of the reply.
    """

    def __init__(self, status: RoomStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Room:
    """A chat room: a TCP server whose connections are the members.

    Args:
        name: the room's name.
        open_server: returns a server that calls the given handler.

    Attributes:
        name: as given.
        server: the TCP server.

    Raises:
        OSError: no descriptor or port is free.
        RuntimeError: no thread can be started.
    """

    def __init__(self, name: str, open_server: Callable[[Handler], Server]) -> None:
        self.name = name
        self.server = open_server(self._relay)
        self.server.start()

    def _relay(self, member: Conversation) -> None:
        """Relay a member's lines to all other members, until the member leaves."""
        member.allow(None)
        member.log(f"entered room {self.name}")
        member.flush()
        try:
            for line in member.lines(before_turn=self.server.accept_pending):
                if line.strip() == LEAVE:
                    break
                members = self.server.connections()
                member.broadcast(members, line)
                member.log(f"line to room {self.name}, sent to {counted_clients(len(members) - 1)}")
        finally:
            member.log(f"left room {self.name}")


class Rooms:
    """All rooms, in order of creation.

    Args:
        lobby: the server whose host, limits and certificate the rooms share.
        ports: the ports that rooms may use; with ANY_FREE_PORT, the system chooses.
        max_rooms: how many rooms may exist at once.
    """

    def __init__(self, lobby: Server, ports: range, max_rooms: int) -> None:
        self._lobby = lobby
        self._ports = ports
        self._max_rooms = max_rooms
        self._lock = threading.Lock()  # guards all below
        self._by_name: dict[str, Room] = {}
        self._reserved: set[str] = set()  # names of rooms that are being created

    def open_server(self, handler: Handler) -> Server:
        """Return a server for a room, which listens on the first free port.

        Raises:
            OSError: no port or no descriptor is free.
        """
        for port in self._ports:
            try:
                return self._lobby.open_another(port, handler)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        first, last = self._ports[0], self._ports[-1]
        raise OSError(errno.EADDRINUSE, f"all ports from {first} to {last} are in use")

    def reserve(self, name: str) -> None:
        """Reserve a name for a room that the caller creates; add() or release() must follow.

        Raises:
            RequestFailed: a room of that name exists or is being created, or max_rooms rooms exist.
        """
        with self._lock:
            if name in self._by_name or name in self._reserved:
                raise RequestFailed(RoomStatus.ALREADY_EXISTS, f"Room {name} already exists")
            if len(self._by_name) + len(self._reserved) >= self._max_rooms:
                raise RequestFailed(
                    RoomStatus.UNKNOWN_FAILURE, f"Too many rooms: at most {self._max_rooms} are allowed"
                )
            self._reserved.add(name)

    def release(self, name: str) -> None:
        """Release a reserved name."""
        with self._lock:
            self._reserved.remove(name)

    def add(self, room: Room) -> None:
        """Add a room whose name was reserved."""
        with self._lock:
            self._reserved.remove(room.name)
            self._by_name[room.name] = room

    def find(self, name: str) -> Room:
        """Return the room that has this name.

        Raises:
            RequestFailed: no room has this name.
        """
        with self._lock:
            return self._find(name)

    def remove(self, name: str) -> Room:
        """Remove a room, so that its name is free; return the room, which the caller must stop.

        Raises:
            RequestFailed: no room has this name.
        """
        with self._lock:
            room = self._find(name)
            del self._by_name[name]
            return room

    def names(self) -> Iterable[str]:
        """Return the names of all rooms, in order of creation."""
        with self._lock:
            return list(self._by_name)

    def remove_all(self) -> list[Server]:
        """Remove all rooms, so that no other thread stops them; return their servers, which the caller must stop."""
        with self._lock:
            rooms, self._by_name = self._by_name, {}
            return [room.server for room in rooms.values()]

    def _find(self, name: str) -> Room:
        if name not in self._by_name:
            raise RequestFailed(RoomStatus.DOES_NOT_EXIST, f"Room {name} does not exist")
        return self._by_name[name]


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="A server of chat rooms, for chatroom_client.py: a lobby, and a port for each room.",
        epilog="Example: python3 chatroom_server.py 5060",
    )
    parser.add_argument("port", type=port_number, metavar="PORT", help="TCP port of the lobby; 0 means any free port")
    add_number(parser, "--max-rooms", MAX_ROOMS, "how many rooms may exist at once")
    parser.add_argument(
        "--room-ports",
        type=port_range,
        default=ANY_FREE_PORT,
        metavar="FIRST-LAST",
        help="the ports that rooms may use, for instance those that a firewall allows (default: any free port)",
    )
    process.add_server_options(parser)
    server(parser.parse_args())


def port_range(text: str) -> range:
    """Convert FIRST-LAST to a range of ports.

    Raises:
        argparse.ArgumentTypeError: the text is not of this form.
    """
    first, dash, last = text.partition("-")
    if dash:
        ports = range(port_number(first), port_number(last) + 1)
        if ports and ports[0]:
            return ports
    raise argparse.ArgumentTypeError(f"{text!r} is not valid: FIRST-LAST, two ports from 1 to {MAX_PORT}, is expected")


def server(options: argparse.Namespace) -> NoReturn:
    """Open the lobby and serve until SIGINT or SIGTERM; then stop the lobby and all rooms together."""
    process.prepare(options.max_connections + options.max_rooms * SERVER_DESCRIPTORS, os.getpid())

    def converse(client: Conversation) -> None:
        client.allow(options.login_seconds, f"No request within {options.login_seconds} seconds")
        connection_handler(client, rooms)

    lobby = process.open_server(options, options.port, converse)
    rooms = Rooms(lobby, options.room_ports, options.max_rooms)
    process.run(lobby, others=rooms.remove_all)


def connection_handler(client: Conversation, rooms: Rooms) -> None:
    """Answer the requests of one client of the lobby, in the connection's own thread."""
    in_digits = False
    try:
        for request in client.raw_lines():
            client.allow(None)
            in_digits = request[:1].isdigit()
            status, information = answer(client, rooms, request)
            client.reply(room_reply(status, information, in_digits))
    except (LineTooLong, TimeLimitPassed) as error:
        client.log(str(error))
        status = RoomStatus.INVALID if isinstance(error, LineTooLong) else RoomStatus.UNKNOWN_FAILURE
        client.reply(room_reply(status, str(error), in_digits))


def answer(client: Conversation, rooms: Rooms, request: bytes) -> tuple[RoomStatus, str]:
    """Carry out a request; return the status and the information of the reply."""
    try:
        action = requested_action(request)
        name = harmless(request[1:]).strip()
        client.log(f"{action.name} {name}".rstrip())
        if action is not RoomAction.LIST and not is_room_name(name):
            raise RequestFailed(RoomStatus.INVALID, f"Invalid name: {ROOM_NAME_RULE}")
        if action in (RoomAction.CREATE, RoomAction.DELETE):
            client.flush()  # their handlers write status lines themselves, and a deletion may take seconds
        return RoomStatus.SUCCESS, HANDLERS[action](rooms, name)
    except RequestFailed as failure:
        client.log(f"refused: {failure}")
        return failure.status, str(failure)


def requested_action(request: bytes) -> RoomAction:
    """Return the action of a request, whose first byte is the action's number or a digit.

    Raises:
        RequestFailed: the request is empty, or its first byte is not an action.
    """
    if not request:
        raise RequestFailed(RoomStatus.INVALID, "Empty request: an action byte, 1 to 4, is expected")
    code = int(request[:1]) if request[:1].isdigit() else request[0]
    try:
        return RoomAction(code)
    except ValueError:
        raise RequestFailed(RoomStatus.INVALID, f"Unknown action {code}: 1 to 4 are expected") from None


def room_creation_handler(rooms: Rooms, name: str) -> str:
    """Create a room with its own listening socket and thread.

    Raises:
        RequestFailed: the name is taken, there are too many rooms, or no port, descriptor or thread is free.
    """
    rooms.reserve(name)
    try:
        room = Room(name, rooms.open_server)
    except (OSError, RuntimeError) as error:
        rooms.release(name)
        raise RequestFailed(RoomStatus.UNKNOWN_FAILURE, f"Room {name} cannot be opened: {reason(error)}") from None
    rooms.add(room)
    LOG.write(f"Room {name}: listening on port {room.server.port}")
    return ""


def room_join_handler(rooms: Rooms, name: str) -> str:
    """Return the port of a room, and how many members it has before the client joins.

    Raises:
        RequestFailed: no room has this name.
    """
    room = rooms.find(name)
    room.server.accept_pending()
    return f"{room.server.port} {len(room.server.connections())}"


def room_list_handler(rooms: Rooms, _: str) -> str:
    """Return the names of all rooms."""
    return ",".join(rooms.names())


def room_deletion_handler(rooms: Rooms, name: str) -> str:
    """Remove a room, warn its members and close their connections.

    Raises:
        RequestFailed: no room has this name.
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
    main()
