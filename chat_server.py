#!/usr/bin/env python3
"""A chat server; its clients use telnet.

    JOIN name         register; required before LIST, MESG and BCST
    LIST              ask for the names of all registered users
    MESG name text    send a text to one user
    BCST text         send a text to all other users
    QUIT              leave

Ten users may be registered at once; clients that have not joined do not count.
"""

import argparse
import re
import threading
from typing import NoReturn

from net.addresses import network_of
from net.command_line import add_number, port_number
from net.connection import Connection
from net.conversation import Conversation, counted_clients
from net.options import add_server_options
from net.process import serve

MAX_USERS = 10
LEAVING_SECONDS = 5.0  # how long JOIN waits for the last requests of a user whose connection has ended

NAME = re.compile(r"[A-Za-z0-9]{1,32}")


class Refused(Exception):
    """The server does not carry out a request; the text is the reply."""


class TooManyUsers(Refused):
    """As many users are registered as are allowed; the server closes the connection."""


class Users:
    """The registered users, in order of joining."""

    def __init__(self, max_users: int, max_per_address: int | None = None) -> None:
        self._max_users = max_users
        self._max_per_address = max_per_address or max_users
        self._lock = threading.Lock()  # guards all below
        self._left = threading.Condition(self._lock)  # a user has left
        self._connections: dict[str, Connection] = {}  # by name
        self._everybody: tuple[Connection, ...] = ()  # a snapshot of _connections, replaced at every change

    def join(self, name: str, connection: Connection) -> None:
        """Register a user and send the reply, which must reach the user before any message; or raise Refused."""
        with self._lock:
            self._left.wait_for(lambda: not self._leaving(name), LEAVING_SECONDS)
            leaving = self._leaving(name)
            if leaving:
                self._remove(leaving)  # its thread still waits for a slow reader
            if len(self._connections) >= self._max_users:
                raise TooManyUsers("Too Many Users")
            if name in self._connections:
                raise Refused(f"Username {name} is taken")
            network = network_of(connection.address)
            if [network_of(other.address) for other in self._everybody].count(network) >= self._max_per_address:
                raise Refused(f"Too many users from your address: at most {self._max_per_address} are allowed")
            connection.send_at_once(f"JOIN {name} accepted\n".encode())  # never blocks, so the lock may be held
            self._connections[name] = connection
            self._everybody = tuple(self._connections.values())

    def _leaving(self, name: str) -> str | None:
        """Return the user whose connection has ended, but who still has the name, or a place when none is free."""
        users = []
        if name in self._connections:
            users = [name]
        elif len(self._connections) >= self._max_users:
            users = list(self._connections)
        return next((user for user in users if self._connections[user].has_ended_input()), None)

    def leave(self, name: str, connection: Connection) -> None:
        """Remove a user, so that the name is free."""
        with self._lock:
            if self.has(name, connection):
                self._remove(name)
                self._left.notify_all()

    def _remove(self, name: str) -> None:
        del self._connections[name]
        self._everybody = tuple(self._connections.values())

    def has(self, name: str, connection: Connection) -> bool:
        """Return whether this connection's user has the name; another may have taken it after the connection's end."""
        return self._connections.get(name) is connection

    def names(self) -> list[str]:
        """Return the names of all users, in order of joining."""
        with self._lock:
            return list(self._connections)

    def find(self, name: str) -> Connection:
        """Return a user's connection, or raise Refused."""
        with self._lock:
            if name not in self._connections:
                raise Refused(f"Unknown Recipient {name}")
            return self._connections[name]

    def everybody(self) -> tuple[Connection, ...]:
        """Return the connections of all users: the same object until a user joins or leaves."""
        with self._lock:  # includes every user whose JOIN has been answered
            return self._everybody


class ChatSession:
    """Carries out the requests of one client."""

    def __init__(self, client: Conversation, users: Users) -> None:
        self._client = client
        self._users = users
        self._name = ""  # until JOIN

    def run(self) -> None:
        """Handle requests until the client quits or its input ends."""
        try:
            for line in self._client.lines():
                command, _, rest = line.lstrip(" ").partition(" ")
                if command == "QUIT" and not rest.strip():
                    self._client.log("QUIT")
                    return
                try:
                    self._handle(command.strip(), rest)
                except Refused as refusal:
                    shown = " ".join(line.split()[:2])  # the text of a message may be private
                    self._client.log(f"{shown}, refused: {refusal}")
                    self._client.queue_reply(str(refusal))
                    if isinstance(refusal, TooManyUsers):
                        return
        finally:
            if self._name:
                self._users.leave(self._name, self._client.connection)

    def _handle(self, command: str, rest: str) -> None:
        if command == "JOIN":
            self._join(rest.strip())
        elif command and not self._users.has(self._name, self._client.connection):
            raise Refused("Unregistered User. Use JOIN <username> to register.")
        elif command == "LIST" and not rest.strip():
            self._list()
        elif command == "MESG":
            self._message(rest)
        elif command == "BCST":
            self._broadcast(rest)
        elif command:  # an empty line is ignored
            raise Refused("Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")

    def _join(self, name: str) -> None:
        if self._name:
            raise Refused(f"Already registered as {self._name}")
        if not NAME.fullmatch(name):
            raise Refused("Invalid username: 1 to 32 letters and digits are expected")
        self._client.flush()  # earlier replies must go out before the reply that Users.join() sends
        self._users.join(name, self._client.connection)
        self._name = name
        self._client.set_time_limit(None)
        self._client.log(f"JOIN {name}")

    def _list(self) -> None:
        names = self._users.names()
        self._client.log("LIST")
        self._client.queue_reply("\n".join([f"Registered users ({len(names)}):", *names]))

    def _message(self, rest: str) -> None:
        name, _, text = rest.lstrip(" ").partition(" ")
        if not text:
            raise Refused("Unknown Message. Use MESG <username> <text>.")
        recipient = self._users.find(name)
        self._client.log(f"MESG {name}, sent to client ({recipient.fd})")
        self._client.queue((recipient,), f"FROM {self._name}: {text}")

    def _broadcast(self, text: str) -> None:
        if not text:
            raise Refused("Unknown Message. Use BCST <text>.")
        everybody = self._users.everybody()
        self._client.log(f"BCST, sent to {counted_clients(len(everybody) - 1)}")
        self._client.queue(everybody, f"FROM {self._name} (all): {text}", except_me=True)


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    parser = argparse.ArgumentParser(
        description="A chat server; its clients use telnet.",
        epilog="Example: python3 chat_server.py 5050 (clients: telnet localhost 5050)",
    )
    parser.add_argument("port", type=port_number, metavar="PORT", help="TCP port to listen on; 0 means any free port")
    add_number(parser, "--max-users", MAX_USERS, "how many users may be registered at once")
    add_number(parser, "--max-users-per-address", None, "how many of them from one address (default: all)")
    add_server_options(parser)
    options = parser.parse_args()
    users = Users(options.max_users, options.max_users_per_address)

    def converse(client: Conversation) -> None:
        client.set_time_limit(options.login_seconds, f"No JOIN within {options.login_seconds} seconds")
        ChatSession(client, users).run()

    serve(options, converse)


if __name__ == "__main__":
    main()
