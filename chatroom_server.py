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
all other members. An empty room whose creator has left the lobby is closed after --empty-room-seconds.
"""

import argparse
import errno
import os
import threading
import time
from enum import IntEnum
from typing import NoReturn

from net import process
from net.addresses import network_of
from net.command_line import MAX_PORT, add_number, port_number, reason
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation, counted_clients
from net.log import LOG
from net.options import add_server_options
from net.server import SERVER_DESCRIPTORS, Server
from protocol import ROOM_NAME_RULE, LineTooLong, RoomStatus, harmless, is_room_name, room_reply


class RoomAction(IntEnum):
    """The first byte of a request: what it asks for."""

    CREATE = 1
    JOIN = 2
    LIST = 3
    DELETE = 4


MAX_ROOMS = 100
EMPTY_ROOM_SECONDS = 3600
CHECK_SECONDS = 1.0  # between two looks for rooms that have been empty for too long
DELETION_SECONDS = 2.0  # for members to read the warning, and what precedes it
LEAVE = "/leave"
ANY_FREE_PORT = range(1)  # port 0: the system chooses
ACTION_NUMBERS = f"{min(RoomAction):d} to {max(RoomAction):d}"


class RequestFailed(Exception):
    """The server cannot carry out a request; the text is the information of the reply."""

    def __init__(self, sentence: str, status: RoomStatus = RoomStatus.UNKNOWN_FAILURE) -> None:
        super().__init__(sentence)
        self.status = status


class Room:
    """A chat room: a TCP server, on the first port that is free, whose connections are the members."""

    def __init__(self, name: str, creator: Connection, lobby: Server, ports: range) -> None:
        self.name = name
        self.creator = creator  # a connection in the lobby
        self.last_used = time.monotonic()  # when it was last seen with a member, or with its creator in the lobby
        self.server = self._listen(lobby, ports)
        self.server.start()

    def _listen(self, lobby: Server, ports: range) -> Server:
        for port in ports:
            try:
                return lobby.open_another(port, self._relay)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"all ports from {ports[0]} to {ports[-1]} are in use")

    def close(self, why: str) -> None:
        """Warn the members, close their connections, and write a status line; the room is no longer in Rooms."""
        self.server.begin_stop(f"Warning: room {self.name} is deleted\n".encode())
        self.server.finish_stop(DELETION_SECONDS)
        LOG.write(f"Room {self.name}: {why}")

    def _relay(self, member: Conversation) -> None:
        """Relay a member's lines to all other members, until the member leaves."""
        member.set_time_limit(None)
        member.log(f"entered room {self.name}")
        member.flush()
        try:
            for line in member.lines(before_turn=self.server.accept_pending):
                if line.rstrip() == LEAVE:
                    break
                members = self.server.connections()
                member.queue(members, line, except_me=True)
                member.log(f"line to room {self.name}, sent to {counted_clients(len(members) - 1)}")
        finally:
            member.log(f"left room {self.name}")


class Rooms:
    """All rooms, in order of creation; they share the host, the limits and the certificate of the lobby."""

    def __init__(self, lobby: Server, options: argparse.Namespace) -> None:
        self._lobby = lobby
        self._options = options
        self._lock = threading.RLock()  # guards _by_name; remove() calls find()
        self._by_name: dict[str, Room] = {}

    def create(self, name: str, creator: Connection) -> Room:
        """Create a room, or raise RequestFailed."""
        most, most_per_address = self._options.max_rooms, self._options.max_rooms_per_address
        with self._lock:  # opening a room takes less than a millisecond
            if name in self._by_name:
                raise RequestFailed(f"Room {name} already exists", RoomStatus.ALREADY_EXISTS)
            if len(self._by_name) >= most:
                raise RequestFailed(f"Too many rooms: at most {most} are allowed")
            networks = [network_of(room.creator.address) for room in self._by_name.values()]
            if most_per_address and networks.count(network_of(creator.address)) >= most_per_address:
                raise RequestFailed(f"Too many rooms from your address: at most {most_per_address} are allowed")
            try:
                room = Room(name, creator, self._lobby, self._options.room_ports)
            except (OSError, RuntimeError) as error:  # no port or descriptor, or no thread, is free
                raise RequestFailed(f"Room {name} cannot be opened: {reason(error)}") from None
            self._by_name[name] = room
            return room

    def find(self, name: str) -> Room:
        """Return a room, or raise RequestFailed."""
        with self._lock:
            if name not in self._by_name:
                raise RequestFailed(f"Room {name} does not exist", RoomStatus.DOES_NOT_EXIST)
            return self._by_name[name]

    def remove(self, name: str) -> Room:
        """Remove a room, so that its name is free; return the room, which the caller must close."""
        with self._lock:
            room = self.find(name)
            del self._by_name[name]
            return room

    def names(self) -> list[str]:
        """Return the names of all rooms, in order of creation."""
        with self._lock:
            return list(self._by_name)

    def remove_all(self) -> list[Server]:
        """Remove all rooms, so that no other thread stops them; return their servers, which the caller must stop."""
        with self._lock:
            rooms, self._by_name = self._by_name, {}
            return [room.server for room in rooms.values()]

    def close_unused_for_ever(self) -> None:
        """Close each room that has been empty, with its creator gone, for --empty-room-seconds; run by a thread."""
        while True:
            time.sleep(CHECK_SECONDS)
            for room in self._remove_unused():
                room.close("closed, for it was empty and its creator has left")

    def _remove_unused(self) -> list[Room]:
        now = time.monotonic()
        in_lobby = set(self._lobby.connections())
        unused = []
        with self._lock:
            for room in list(self._by_name.values()):
                if room.creator in in_lobby or room.server.connections():
                    room.last_used = now
                elif now - room.last_used >= self._options.empty_room_seconds:
                    unused.append(self._by_name.pop(room.name))
        return unused


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="A server of chat rooms, for chatroom_client.py: a lobby, and a port for each room.",
        epilog="Example: python3 chatroom_server.py 5060",
    )
    parser.add_argument("port", type=port_number, metavar="PORT", help="TCP port of the lobby; 0 means any free port")
    add_number(parser, "--max-rooms", MAX_ROOMS, "how many rooms may exist at once")
    ports = "the ports that rooms may use, for instance those that a firewall allows (default: any free port)"
    parser.add_argument("--room-ports", type=port_range, default=ANY_FREE_PORT, metavar="FIRST-LAST", help=ports)
    add_number(parser, "--max-rooms-per-address", None, "how many of them one address may create (default: all)")
    add_number(parser, "--empty-room-seconds", EMPTY_ROOM_SECONDS, "how long an empty room outlasts its creator")
    add_server_options(parser)
    server(parser.parse_args())


def port_range(text: str) -> range:
    """Convert FIRST-LAST to a range of ports, or raise argparse.ArgumentTypeError."""
    first, dash, last = text.partition("-")
    if dash:
        ports = range(port_number(first), port_number(last) + 1)
        if ports and ports[0]:
            return ports
    raise argparse.ArgumentTypeError(f"{text!r} is not valid: FIRST-LAST, two ports from 1 to {MAX_PORT}, is expected")


def server(options: argparse.Namespace) -> NoReturn:
    """Open the lobby and serve until SIGINT or SIGTERM; then stop the lobby and all rooms together."""
    process.prepare(os.getpid())
    process.limit_connections(options, other_descriptors=options.max_rooms * SERVER_DESCRIPTORS)

    def converse(client: Conversation) -> None:
        client.set_time_limit(options.login_seconds, f"No request within {options.login_seconds} seconds")
        connection_handler(client, rooms)

    lobby = process.open_server(options, options.port, converse)
    rooms = Rooms(lobby, options)
    threading.Thread(target=rooms.close_unused_for_ever, name="empty rooms", daemon=True).start()
    process.run(lobby, others=rooms.remove_all)


def connection_handler(client: Conversation, rooms: Rooms) -> None:
    """Answer the requests of one client of the lobby, in the connection's own thread."""
    in_digits = False
    try:
        for request in client.raw_lines():
            client.set_time_limit(None)
            in_digits = request[:1].isdigit()
            try:
                status, information = RoomStatus.SUCCESS, answer(client, rooms, request)
            except RequestFailed as failure:
                client.log(f"refused: {failure}")
                status, information = failure.status, str(failure)
            client.queue_reply(room_reply(status, information, in_digits))
    except (LineTooLong, TimeLimitPassed) as error:
        client.log(str(error))
        status = RoomStatus.INVALID if isinstance(error, LineTooLong) else RoomStatus.UNKNOWN_FAILURE
        client.queue_reply(room_reply(status, str(error), in_digits))


def answer(client: Conversation, rooms: Rooms, request: bytes) -> str:
    """Carry out a request; return the information of the reply, or raise RequestFailed."""
    action = requested_action(request)
    name = harmless(request[1:]).strip()
    client.log(f"{action.name} {name}".rstrip())
    if action is RoomAction.LIST:
        return ",".join(rooms.names())
    if not is_room_name(name):
        raise RequestFailed(f"Invalid name: {ROOM_NAME_RULE}", RoomStatus.INVALID)
    if action is RoomAction.JOIN:
        server = rooms.find(name).server
        server.accept_pending()
        return f"{server.port} {len(server.connections())}"  # the members before this one
    client.flush()  # the other two write status lines themselves, and a deletion may take seconds
    if action is RoomAction.CREATE:
        room_creation_handler(rooms, name, client.connection)
    else:
        rooms.remove(name).close("deleted")
    return ""


def requested_action(request: bytes) -> RoomAction:
    """Return the action of a request, whose first byte is the action's number or a digit."""
    if not request:
        raise RequestFailed(f"Empty request: an action byte, {ACTION_NUMBERS}, is expected", RoomStatus.INVALID)
    code = int(request[:1]) if request[:1].isdigit() else request[0]
    try:
        return RoomAction(code)
    except ValueError:
        raise RequestFailed(f"Unknown action {code}: {ACTION_NUMBERS} are expected", RoomStatus.INVALID) from None


def room_creation_handler(rooms: Rooms, name: str, creator: Connection) -> None:
    """Create a room with its own listening socket and thread."""
    room = rooms.create(name, creator)
    LOG.write(f"Room {name}: listening on port {room.server.port}")


if __name__ == "__main__":
    main()
