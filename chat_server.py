"""A chat server; its clients use telnet.

    JOIN name         register; everything but this and QUIT needs it
    LIST              ask who is registered
    MESG name text    send a text to one user
    BCST text         send a text to all others
    QUIT              leave

Any number of clients may connect; ten may be registered at once. What one recv brought is handled as a batch: the lines
that it causes are gathered, and each recipient gets its own with one send.
"""

import argparse
import re
import sys
import threading
from collections.abc import Callable

from net import process as program
from net.connection import Connection
from net.log import LOG
from net.outbox import Outbox
from protocol import harmless

MAX_USERS = 10

# One request. Broadcasts that follow each other are one, so that relaying a thousand costs little more than ten.
REQUEST = re.compile(
    r"""(?P<broadcast> (?: BCST[ ].+\n ){1,4096} )
      | (?P<message>   MESG[ ](?P<recipient>[^ \n]+)[ ](?P<text>.+)\n )
      | (?P<join>      JOIN(?:[ ](?P<name>.*))?\n )
      | (?P<list>      LIST\n )
      | (?P<quit>      QUIT\n )
      | (?P<nothing>   \n )
      | (?P<unknown>   .*\n )""",
    re.VERBOSE,
)
NAME = re.compile(r"[A-Za-z0-9]{1,32}")
NEEDS_NO_NAME = {"join", "quit", "nothing"}


class NameTaken(Exception):
    """Another user has the name."""


class TooManyUsers(Exception):
    """As many users are registered as may be."""


class Users:
    """The registered users, in order of joining."""

    def __init__(self, max_users: int) -> None:
        self._max_users = max_users
        self._lock = threading.Lock()  # guards _connections
        self._connections: dict[str, Connection] = {}  # by name

    def join(self, name: str, connection: Connection, answer: str) -> None:
        """Register a user, and answer so before anybody's message can come to the connection.

        Raises:
            TooManyUsers: there is no place.
            NameTaken: there is a user of that name.
        """
        with self._lock:
            if len(self._connections) >= self._max_users:
                raise TooManyUsers
            if name in self._connections:
                raise NameTaken
            self._connections[name] = connection
            connection.post(answer.encode())  # never waits, so the lock may be held

    def leave(self, name: str) -> None:
        """Remove a user; there is room for another."""
        with self._lock:
            del self._connections[name]

    def names(self) -> list[str]:
        """Return the names of all users."""
        with self._lock:
            return list(self._connections)

    def find(self, name: str) -> Connection | None:
        """Return a user's connection, or None if there is no such user."""
        with self._lock:
            return self._connections.get(name)

    def others(self, name: str) -> list[Connection]:
        """Return the connections of all users but one."""
        with self._lock:
            return [connection for user, connection in self._connections.items() if user != name]


class Conversation:
    """What one client asks, and what comes of it. Only the connection's thread uses it."""

    def __init__(self, connection: Connection, users: Users) -> None:
        self._connection = connection
        self._users = users
        self._name = ""  # until JOIN
        self._over = False
        self._outbox = Outbox()
        self._log: list[str] = []  # the status lines of this batch
        self._myself = [connection]
        self._others: list[Connection] | None = None  # whom this batch broadcasts to, once it does

    def hold(self) -> None:
        """Handle batch after batch until the client quits or is gone."""
        try:
            for lines in self._connection.batches():
                self._handle_batch(harmless(lines))
                if self._over:
                    break
        finally:
            if self._name:
                self._users.leave(self._name)

    def _handle_batch(self, lines: str) -> None:
        self._others = None
        for request in REQUEST.finditer(lines):
            self._handle(request)
            if self._over:
                break
        self._outbox.send()
        if self._log:
            LOG.write(*self._log)
            self._log.clear()

    def _handle(self, request: re.Match[str]) -> None:
        kind = request.lastgroup or ""
        if self._name or kind in NEEDS_NO_NAME:
            HANDLERS[kind](self, request)
        else:
            self._status("discarded a request: not registered")
            self._reply("Unregistered User. Use JOIN <username> to register.")

    def _join(self, request: re.Match[str]) -> None:
        name = request["name"] or ""
        self._status(f"JOIN {name}")
        if self._name:
            self._refuse(f"Already registered as {self._name}")
        elif not NAME.fullmatch(name):
            self._refuse("Invalid username")
        else:
            self._register(name)

    def _register(self, name: str) -> None:
        self._outbox.send()  # join() answers by itself
        try:
            self._users.join(name, self._connection, f"JOIN {name} accepted\n")
        except NameTaken:
            self._refuse(f"Username {name} is taken")
        except TooManyUsers:
            self._refuse("Too Many Users")
            self._over = True
        else:
            self._name = name
            self._connection.deadline = None

    def _list(self, _: re.Match[str]) -> None:
        self._status("LIST")
        names = self._users.names()
        self._reply("\n".join([f"Registered users ({len(names)}):", *names]))

    def _message(self, request: re.Match[str]) -> None:
        recipient = request["recipient"]
        self._status(f"MESG {recipient}")
        if connection := self._users.find(recipient):
            self._outbox.put([connection], f"FROM {self._name}: {request['text']}\n")
        else:
            self._refuse(f"Unknown Recipient {recipient}")

    def _broadcast(self, request: re.Match[str]) -> None:
        texts = request["broadcast"].removeprefix("BCST ").split("\nBCST ")
        self._status(*["BCST"] * len(texts))
        if self._others is None:
            self._others = self._users.others(self._name)
        sender = f"FROM {self._name} (all): "
        self._outbox.put(self._others, sender + f"\n{sender}".join(texts))

    def _quit(self, _: re.Match[str]) -> None:
        self._status("QUIT")
        self._over = True

    def _ignore(self, _: re.Match[str]) -> None:
        """Do nothing for an empty line."""

    def _unknown(self, _: re.Match[str]) -> None:
        self._refuse("Unknown Message")

    def _refuse(self, reason: str) -> None:
        self._status(f"discarded a request: {reason}")
        self._reply(reason)

    def _reply(self, line: str) -> None:
        self._outbox.put(self._myself, line + "\n")

    def _status(self, *events: str) -> None:
        prefix = f"Client ({self._connection.fd}): "
        self._log.append(prefix + f"\n{prefix}".join(events))


HANDLERS: dict[str, Callable[[Conversation, re.Match[str]], None]] = {
    "join": Conversation._join,
    "list": Conversation._list,
    "message": Conversation._message,
    "broadcast": Conversation._broadcast,
    "quit": Conversation._quit,
    "nothing": Conversation._ignore,
    "unknown": Conversation._unknown,
}


def main() -> int:
    """Serve until a signal comes; return the exit status."""
    parser = argparse.ArgumentParser(description="A chat server; its clients use telnet.")
    parser.add_argument("port", type=program.port_number, metavar="PORT", help="port to listen on; 0 is any free one")
    program.add_number(parser, "--max-users", MAX_USERS, "registered at once")
    program.add_options(parser)
    options = parser.parse_args()
    users = Users(options.max_users)
    return program.run(
        options.host,
        options.port,
        lambda connection: Conversation(connection, users).hold(),
        options.max_connections,
        options.login_seconds,
    )


if __name__ == "__main__":
    sys.exit(main())
