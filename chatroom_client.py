#!/usr/bin/env python3
"""A client of the chat room server: it reads commands at a prompt, and in a room it sends each line to all others.

A request to the lobby is an action byte, a room's name and a newline; a reply is a status byte, information and a
newline. A room is a connection to a port of its own. One thread waits for the user and for the lobby, or the room, at
the same time: the client shows lines while the user types, and returns to the prompt as soon as a room is deleted.
"""

import argparse
import re
import socket
import sys

from net.addresses import without_brackets
from net.command_line import MAX_PORT, port_number, reason
from net.connect import RECEIVE_BYTES, WOULD_BLOCK, CannotConnect, ConnectionLost, ServerLines, add_tls_options, connect
from protocol import MAX_LINE_BYTES, ROOM_NAME_RULE, RoomStatus, harmless, is_room_name
from terminal.console import Console, run_client

HELP = """\
CREATE name   create a room
JOIN name     enter a room: each line you type then goes to all others in it
LIST          show the names of all rooms
DELETE name   delete a room
HELP or ?     show this help
QUIT or EXIT  end, as Ctrl-D does"""
ACTIONS = {"CREATE": 1, "JOIN": 2, "LIST": 3, "DELETE": 4}  # the first byte of each request
PROMPT = "Command> "
ANSWER_SECONDS = 30.0
MAX_NAME_LENGTH = 32

LEAVE = "/leave"
LEAVE_SECONDS = 2.0  # how long the server may be silent after the user has left
NOT_A_COMMAND = f"Not sent. {LEAVE} or Ctrl-D leaves the room; a blank before / sends the line."


class CommandRefused(Exception):
    """The client or the server refused a command; the text is a sentence that says why."""


class Prompt:
    """The prompt, the commands that a user types there, and the lobby, which answers them."""

    def __init__(self, options: argparse.Namespace, console: Console, sock: socket.socket) -> None:
        self._console = console
        self._lobby = ServerLines(sock, "a chat room server", ANSWER_SECONDS)
        self._options = options

    def run(self) -> None:
        """Carry out commands until the user quits, or EOFError ends the input."""
        # LIST is the client's first request; after it, the server sets no time limit.
        command, name, above = "LIST", "", f"{HELP}\n"
        while command not in ("QUIT", "EXIT"):
            try:
                if command:
                    self._console.show(above + self._answer(command, name.strip()))
            except CommandRefused as refused:
                self._console.refuse(above + str(refused))
            above = ""
            line = self._console.read_line(PROMPT, self._lobby)
            if line is None:  # between requests, the lobby sends nothing unless it ends the connection
                self._lobby.reject(self._lobby.read_line())
            command, _, name = line.strip().partition(" ")
            command = command.upper()

    def _request(self, command: str, name: str = "") -> str:
        """Send a request; return the information in the reply, or raise CommandRefused with it."""
        self._lobby.send(bytes([ACTIONS[command]]) + f"{name}\n".encode())
        line = self._lobby.read_line()
        if not line or line[0] not in list(RoomStatus):
            self._lobby.reject(line)
        information = harmless(line[1:])
        if line[0] != RoomStatus.SUCCESS:
            raise CommandRefused(f"{information}.")
        return information

    def _answer(self, command: str, name: str) -> str:
        if command in ("LIST", "HELP", "?") and name:
            raise CommandRefused(f"{command} takes no name.")
        if command == "LIST":
            names = self._request("LIST")
            return f"Rooms: {names.replace(',', ', ')}" if names else "There are no rooms."
        if command in ("HELP", "?"):
            return HELP
        if command not in ACTIONS:
            raise CommandRefused(f"Unknown command: {', '.join(ACTIONS)}, HELP or QUIT is expected.")
        if not is_room_name(name):
            raise CommandRefused(f"{command} needs a name: {ROOM_NAME_RULE}.")
        if command == "JOIN":
            return self._join(name)
        self._request(command, name)
        return f"Room {name} is {command.lower()}d."

    def _join(self, name: str) -> str:
        information = self._request("JOIN", name)
        match = re.fullmatch(r"([0-9]{1,5}) ([0-9]+)", information)
        if not match or int(match[1]) > MAX_PORT:
            raise CannotConnect(f"The server is not a chat room server. Its reply to JOIN is {information!r}.")
        port, members = int(match[1]), match[2]
        try:
            room = connect(self._options.host, port, self._options)
        except CannotConnect as error:
            why = f"Perhaps room {name} was deleted, or a firewall blocks port {port} (see --room-ports of the server)"
            raise CommandRefused(f"{error}. {why}.") from None
        prefix = f"{self._options.name}: " if self._options.name else ""
        with room:
            where = f"You are in room {name} on port {port}."
            self._console.show(f"{where}\nMembers before you: {members}. Leave with {LEAVE} or Ctrl-D.")
            try:
                left = RoomSession(self._console, room, prefix).run()
            except ConnectionLost as lost:
                raise CommandRefused(f"The connection to room {name} is lost: {lost}.") from None
        return f"You have left room {name}." if left else f"Room {name} is closed."


class RoomSession:
    """One user in one room; the prefix stands before each line that is sent."""

    def __init__(self, console: Console, room: socket.socket, prefix: str) -> None:
        self._console = console
        self._room = room
        self._prefix = prefix
        self._outgoing = bytearray()  # sent without blocking, because two clients that block in send could deadlock
        self._incoming = b""  # a line whose end has not arrived
        self._leaving = False

    def run(self) -> bool:
        """Talk until the user leaves or the room ends; return whether the user left. ConnectionLost: neither."""
        self._room.setblocking(False)
        while True:
            self._take_lines()
            seconds = LEAVE_SECONDS if self._leaving else None
            keys = not self._outgoing and not self._leaving
            readable, writable = self._console.wait(self._room, bool(self._outgoing), seconds, keys)
            if not readable and not writable:
                return True
            if writable:
                self._send()
            if self._room in readable and not self._receive():
                return self._leaving

    def _take_lines(self) -> None:
        """Queue the lines that the user has typed, up to /leave; run() reads more when they are sent."""
        while not self._leaving:
            try:
                line = self._console.next_line()
            except EOFError:
                line = LEAVE
            if line is None:
                return
            text = (self._prefix + line).encode()
            if line.rstrip() == LEAVE:
                self._leaving = True
                self._outgoing += f"{LEAVE}\n".encode()
            elif line.startswith("/"):
                self._console.refuse(NOT_A_COMMAND)
            elif len(text) > MAX_LINE_BYTES:
                self._console.refuse(f"Not sent. Line too long: at most {MAX_LINE_BYTES} bytes are expected")
            elif line.strip():
                self._outgoing += text + b"\n"

    def _send(self) -> None:
        try:
            del self._outgoing[: self._room.send(self._outgoing)]
        except WOULD_BLOCK:
            return
        except ConnectionError:  # the server has closed the room; its last lines may still have to be received
            self._outgoing.clear()
        except OSError as error:
            raise ConnectionLost(reason(error)) from error

    def _receive(self) -> bool:
        """Show the lines that have arrived; return False at the end of the input."""
        try:
            data = self._room.recv(RECEIVE_BYTES)
        except WOULD_BLOCK:
            return True
        except OSError as error:
            if self._leaving:
                return False
            raise ConnectionLost(reason(error)) from error
        received = (self._incoming + data).replace(b"\r\n", b"\n")
        lines, newline, self._incoming = received.rpartition(b"\n")
        if not data or len(self._incoming) > RECEIVE_BYTES:  # longer than any line that a room relays
            lines, self._incoming = received, b""
        if lines or newline:
            self._console.show(harmless(lines))
        return bool(data)


def user_name(text: str) -> str:
    """Check the user's name on the command line, and return it."""
    if text.isprintable() and 0 < len(text) <= MAX_NAME_LENGTH:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is not valid: 1 to {MAX_NAME_LENGTH} printable characters are expected")


def main() -> int:
    """Connect, and carry out what the user types; return the exit status."""
    parser = argparse.ArgumentParser(
        description="Talk in the chat rooms of chatroom_server.py. HELP at the prompt lists the commands.",
        epilog="Example: python3 chatroom_client.py localhost 5050 --name alice",
    )
    parser.add_argument("host", type=without_brackets, metavar="HOST", help="name or address of the server")
    parser.add_argument("port", type=port_number, metavar="PORT", help="port of the server's lobby")
    parser.add_argument("--name", type=user_name, metavar="NAME", help="put NAME: before each line you send to a room")
    add_tls_options(parser)
    return run_client(parser.parse_args(), lambda options, console, sock: Prompt(options, console, sock).run())


if __name__ == "__main__":
    sys.exit(main())
