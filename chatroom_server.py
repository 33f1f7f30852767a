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
from typing import NoReturn

from net import process
from net.addresses import network_of
from net.command_line import MAX_PORT, add_number, port_number, reason
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation, counted_clients
from net.log import LOG
from net.options import add_limit, add_server_options
from net.server import SERVER_DESCRIPTORS, Server
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
EMPTY_ROOM_SECONDS = 3600
CHECK_SECONDS = 1.0  # between two looks for rooms that have been empty for too long
DELETION_SECONDS = 2.0  # for members to read the warning, and what precedes it
LEAVE = "/leave"
ANY_FREE_PORT = range(1)  # port 0: the system chooses


class RequestFailed(Exception):
    """The server cannot carry out a request; the text is the information of the reply."""

    def __init__(self, status: RoomStatus, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


class Room:
    """A chat room: a TCP server whose connections are the members.

    Attributes:
        server: the TCP server, or None while the room is being created.
        creator: the connection in the lobby that asked for the room.
        last_used: when the room was last seen with a member, or with its creator in the lobby.
    """

    def __init__(self, name: str, creator: Connection) -> None:
        self.name = name
        self.creator = creator
        self.server: Server | None = None
        self.last_used = time.monotonic()

    def open(self, lobby: Server, ports: range) -> int:
        """Open the room's server on the first free port; return the port.

        Raises:
            OSError: no descriptor or port is free.
            RuntimeError: no thread can be started.
        """
        for port in ports:
            try:
                return self._open_on(lobby, port)
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
        raise OSError(errno.EADDRINUSE, f"all ports from {ports[0]} to {ports[-1]} are in use")

    def _open_on(self, lobby: Server, port: int) -> int:
        room_server: Server = lobby.open_another(port, lambda member: self._relay(member, room_server))
        room_server.start()
        self.server = room_server
        return room_server.port

    def _relay(self, member: Conversation, server: Server) -> None:
        """Relay a member's lines to all other members, until the member leaves."""
        member.set_time_limit(None)
        member.log(f"entered room {self.name}")
        member.flush()
        try:
            for line in member.lines(before_turn=server.accept_pending):
                if line.rstrip() == LEAVE:
                    break
                members = server.connections()
                member.queue(members, line, except_me=True)
                member.log(f"line to room {self.name}, sent to {counted_clients(len(members) - 1)}")
        finally:
            member.log(f"left room {self.name}")


class Rooms:
    """All rooms, in order of creation.

    Args:
        lobby: the server whose host, limits and certificate the rooms share.
        options: the command line: which ports rooms may use, and how many rooms may exist at once, and for how long.
    """

    def __init__(self, lobby: Server, options: argparse.Namespace) -> None:
        self._lobby = lobby
        self._options = options
        self._lock = threading.Lock()  # guards _by_name
        self._by_name: dict[str, Room] = {}  # also those that are being created, so that their names are taken

    def create(self, name: str, creator: Connection) -> int:
        """Create a room; return its port."""
        room = Room(name, creator)
        self._add(room)
        try:
            return room.open(self._lobby, self._options.room_ports)
        except (OSError, RuntimeError) as error:
            with self._lock:
                del self._by_name[name]
            raise RequestFailed(RoomStatus.UNKNOWN_FAILURE, f"Room {name} cannot be opened: {reason(error)}") from None

    def _add(self, room: Room) -> None:
        most, most_per_address = self._options.max_rooms, self._options.max_rooms_per_address
        with self._lock:
            if room.name in self._by_name:
                raise RequestFailed(RoomStatus.ALREADY_EXISTS, f"Room {room.name} already exists")
            if len(self._by_name) >= most:
                raise RequestFailed(RoomStatus.UNKNOWN_FAILURE, f"Too many rooms: at most {most} are allowed")
            networks = [network_of(each.creator.address) for each in self._by_name.values()]
            if most_per_address and networks.count(network_of(room.creator.address)) >= most_per_address:
                sentence = f"Too many rooms from your address: at most {most_per_address} are allowed"
                raise RequestFailed(RoomStatus.UNKNOWN_FAILURE, sentence)
            self._by_name[room.name] = room

    def find(self, name: str) -> Server:
        """Return the server of a room."""
        with self._lock:
            return self._find(name)

    def remove(self, name: str) -> Server:
        """Remove a room, so that its name is free; return its server, which the caller must stop."""
        with self._lock:
            server = self._find(name)
            del self._by_name[name]
            return server

    def names(self) -> list[str]:
        """Return the names of all rooms, in order of creation."""
        with self._lock:
            return [name for name, room in self._by_name.items() if room.server]

    def remove_all(self) -> list[Server]:
        """Remove all rooms, so that no other thread stops them; return their servers, which the caller must stop."""
        with self._lock:
            rooms, self._by_name = self._by_name, {}
            return [room.server for room in rooms.values() if room.server]

    def close_unused_for_ever(self) -> None:
        """Close each room that has been empty, with its creator gone, for --empty-room-seconds; run by a thread."""
        while True:
            time.sleep(CHECK_SECONDS)
            for room in self._remove_unused():
                close_room(room.name, room.server, "closed, for it was empty and its creator has left")

    def _remove_unused(self) -> list[Room]:
        now = time.monotonic()
        in_lobby = set(self._lobby.connections())
        unused = []
        with self._lock:
            for room in list(self._by_name.values()):
                if room.creator in in_lobby or not room.server or room.server.connections():
                    room.last_used = now
                elif now - room.last_used >= self._options.empty_room_seconds:
                    unused.append(self._by_name.pop(room.name))
        return unused

    def _find(self, name: str) -> Server:
        room = self._by_name.get(name)
        if not room or not room.server:
            raise RequestFailed(RoomStatus.DOES_NOT_EXIST, f"Room {name} does not exist")
        return room.server


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
    add_limit(parser, "--max-rooms-per-address", "how many of them clients from one address may create (default: all)")
    add_number(
        parser,
        "--empty-room-seconds",
        EMPTY_ROOM_SECONDS,
        "after how long an empty room is closed whose creator has left the lobby",
    )
    add_server_options(parser)
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
            client.reply(room_reply(status, information, in_digits))
    except (LineTooLong, TimeLimitPassed) as error:
        client.log(str(error))
        status = RoomStatus.INVALID if isinstance(error, LineTooLong) else RoomStatus.UNKNOWN_FAILURE
        client.reply(room_reply(status, str(error), in_digits))


def answer(client: Conversation, rooms: Rooms, request: bytes) -> str:
    """Carry out a request; return the information of the reply, or raise RequestFailed."""
    action = requested_action(request)
    name = harmless(request[1:]).strip()
    client.log(f"{action.name} {name}".rstrip())
    if action is RoomAction.LIST:
        return ",".join(rooms.names())
    if not is_room_name(name):
        raise RequestFailed(RoomStatus.INVALID, f"Invalid name: {ROOM_NAME_RULE}")
    if action is RoomAction.JOIN:
        return room_join_handler(rooms, name)
    client.flush()  # the other two write status lines themselves, and a deletion may take seconds
    if action is RoomAction.CREATE:
        return room_creation_handler(rooms, name, client.connection)
    return room_deletion_handler(rooms, name)


def requested_action(request: bytes) -> RoomAction:
    """Return the action of a request, whose first byte is the action's number or a digit."""
    if not request:
        raise RequestFailed(RoomStatus.INVALID, "Empty request: an action byte, 1 to 4, is expected")
    code = int(request[:1]) if request[:1].isdigit() else request[0]
    try:
        return RoomAction(code)
    except ValueError:
        raise RequestFailed(RoomStatus.INVALID, f"Unknown action {code}: 1 to 4 are expected") from None


def room_creation_handler(rooms: Rooms, name: str, creator: Connection) -> str:
    """Create a room with its own listening socket and thread."""
    port = rooms.create(name, creator)
    LOG.write(f"Room {name}: listening on port {port}")
    return ""


def room_join_handler(rooms: Rooms, name: str) -> str:
    """Return the port of a room, and how many members it has before the client joins."""
    room = rooms.find(name)
    room.accept_pending()
    return f"{room.port} {len(room.connections())}"


def room_deletion_handler(rooms: Rooms, name: str) -> str:
    """Remove a room, warn its members and close their connections."""
    close_room(name, rooms.remove(name), "deleted")
    return ""


def close_room(name: str, room: Server | None, why: str) -> None:
    """Warn the members of a room that was removed, close their connections, and write a status line."""
    if room:
        room.begin_stop(f"Warning: room {name} is deleted\n".encode())
        room.finish_stop(DELETION_SECONDS)
        LOG.write(f"Room {name}: {why}")


if __name__ == "__main__":
    main()
