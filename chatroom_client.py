"""A client of the chat room server: commands at a prompt, and in a room what one types goes to all others.

    Command> CREATE tea
    Room tea is created.
    Command> JOIN tea
    You are in room tea on port 40123; members before you: 1. /leave or Ctrl-D leaves it.

One thread waits for the user, the lobby and the room at once; so what comes is shown while one types, and a room that
is deleted gives the prompt back at once.
"""

import argparse
import io
import os
import re
import select
import signal
import socket
import sys
from contextlib import closing, suppress

from net import process as program
from protocol import ROOM_NAME_RULE, RoomAction, RoomStatus, harmless, is_room_name, room_request
from terminal.console import Console
from terminal.room_session import LEAVE, Stay

COMMANDS = """\
CREATE name   create a room
JOIN name     enter a room; /leave or Ctrl-D leaves it
LIST          show the names of all rooms
DELETE name   delete a room
Ctrl-D        end
"""
PROMPT = "Command> "
ANSWER_SECONDS = 30.0
MAX_NAME_LENGTH = 32
MAX_PORT = 65535


class Refused(Exception):
    """The server did not carry a request out; the text says why."""


class ServerLost(Exception):
    """The connection to the lobby has ended; the text says what is known."""

    def __str__(self) -> str:
        return f"The server is lost: {self.args[0]}"


class Lobby:
    """The connection that takes requests.

    Attributes:
        host: the server's address, which is that of its rooms.

    Raises:
        OSError: there is no server there.
    """

    def __init__(self, host: str, port: int) -> None:
        self._sock = socket.create_connection((host, port), ANSWER_SECONDS)
        self._replies = self._sock.makefile("rb")
        self.host: str = self._sock.getpeername()[0]

    def fileno(self) -> int:
        """Return the descriptor for select.select(): without a request, only the end of the server brings input."""
        return self._sock.fileno()

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._sock.close()

    def request(self, action: RoomAction, name: str = "") -> str:
        """Have a request carried out; return the information that it brings.

        Raises:
            Refused: the server says no.
            ServerLost: it does not answer, or not with a reply.
        """
        with suppress(OSError):  # what has happened is found out by reading
            self._sock.sendall(room_request(action, name))
        status, information = self.read_reply()
        if status is not RoomStatus.SUCCESS:
            raise Refused(information)
        return information

    def read_reply(self) -> tuple[RoomStatus, str]:
        """Return the status and the information of the next reply.

        Raises:
            ServerLost: none comes; what came instead is the reason.
        """
        try:
            line = self._replies.readline()
        except OSError as error:
            raise ServerLost(error.strerror or str(error)) from None
        if not line.endswith(b"\n"):
            raise ServerLost("it closed the connection")
        text = harmless(line.rstrip(b"\r\n"))
        try:
            return RoomStatus(line[0]), text[1:]
        except ValueError:  # a server says without a request that it has no place
            raise ServerLost(text) from None


class Session:
    """What a user does at the prompt.

    Args:
        prefix: stands before each line that goes to a room.
    """

    def __init__(self, console: Console, lobby: Lobby, prefix: str) -> None:
        self._console = console
        self._lobby = lobby
        self._prefix = prefix

    def run(self) -> None:
        """Carry out commands until the input ends.

        Raises:
            ServerLost: the server is gone.
        """
        self._console.show(COMMANDS)
        with suppress(EOFError):
            while True:
                self._carry_out(self._read_command())

    def _read_command(self) -> str:
        self._console.begin_line(PROMPT)
        while (line := self._console.next_line()) is None:
            inputs: list[Console | Lobby] = [self._console, self._lobby]
            readable, _, _ = select.select(inputs, [], [])
            if self._lobby in readable:
                raise ServerLost(self._lobby.read_reply()[1])
            self._console.read()
        return line

    def _carry_out(self, line: str) -> None:
        command, _, name = line.strip().partition(" ")
        name = name.strip()
        if not command:
            return
        try:
            self._console.show(self._answer(command.upper(), name) + "\n")
        except Refused as refusal:
            self._console.show(f"{refusal}.\n")

    def _answer(self, command: str, name: str) -> str:
        """Do what a command says; return what to tell the user."""
        if command == "LIST" and not name:
            return self._list()
        if command not in ("CREATE", "JOIN", "DELETE"):
            raise Refused("Unknown command: CREATE name, JOIN name, LIST or DELETE name is expected")
        if not is_room_name(name):
            raise Refused(f"{command} needs a name: {ROOM_NAME_RULE}")
        if command == "JOIN":
            return self._join(name)
        self._lobby.request(RoomAction[command], name)
        return f"Room {name} is {command.lower()}d."

    def _list(self) -> str:
        names = self._lobby.request(RoomAction.LIST)
        return f"Rooms: {names.replace(',', ', ')}" if names else "There are no rooms."

    def _join(self, name: str) -> str:
        information = self._lobby.request(RoomAction.JOIN, name)
        port, members = parse_join(information)
        try:
            room = socket.create_connection((self._lobby.host, port), ANSWER_SECONDS)
        except OSError:
            return f"Room {name} is gone."
        with room:
            self._console.show(
                f"You are in room {name} on port {port}; members before you: {members}. {LEAVE} or Ctrl-D leaves it.\n"
            )
            self._console.begin_line()
            left = Stay(self._console, room, self._prefix).run()
        return f"You have left room {name}." if left else f"Room {name} is closed."


def parse_join(information: str) -> tuple[int, int]:
    """Return the port and the number of members that a reply to JOIN names.

    Raises:
        ServerLost: it names none: this is no chat room server.
    """
    match = re.fullmatch(r"([0-9]{1,5}) ([0-9]+)", information)
    if not match or int(match[1]) > MAX_PORT:
        raise ServerLost(f"a port and a number of members are expected, but it answered {information!r}")
    return int(match[1]), int(match[2])


def user_name(text: str) -> str:
    """Return a user's name given on the command line.

    Raises:
        argparse.ArgumentTypeError: it is empty, too long or not printable.
    """
    if text.isprintable() and 0 < len(text) <= MAX_NAME_LENGTH:
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is no name: 1 to {MAX_NAME_LENGTH} printable characters are expected")


def main() -> int:
    """Take the parameters; let the user chat; return the exit status."""
    parser = argparse.ArgumentParser(description="A client of the chat room server.")
    parser.add_argument("host", metavar="HOST", help="where the server is")
    parser.add_argument("port", type=program.port_number, metavar="PORT", help="port of its lobby")
    parser.add_argument("--name", type=user_name, metavar="NAME", help="put NAME: before each line that goes to a room")
    options = parser.parse_args()
    try:
        lobby = Lobby(options.host, options.port)
    except (OSError, UnicodeError) as error:  # UnicodeError: no name of a host is like this
        return program.fail(
            f"Cannot connect to {options.host}:{options.port}: {getattr(error, 'strerror', None) or error}"
        )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # which leaves the terminal as it was
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    try:
        with closing(lobby), Console() as console:
            Session(console, lobby, f"{options.name}: " if options.name else "").run()
    except ServerLost as lost:
        return program.fail(str(lost))
    except KeyboardInterrupt:
        return 0
    except OSError as error:  # nobody can read what is shown
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1 if isinstance(error, BrokenPipeError) else program.fail(f"Cannot write: {error.strerror}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
