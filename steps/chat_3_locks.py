#!/usr/bin/env python3
"""Step 3: the chat server of step 2, whose shared state is now one class with its lock.

Start it with `python3 steps/chat_3_locks.py 5050`; clients are `telnet localhost 5050`.

Only the methods of Registry touch the dictionary of users, each under the lock, and join() looks and changes in one go,
so that no other thread comes in between. Nothing is sent under that lock: a thread takes a snapshot, releases the lock,
and then sends. However a connection ends, its thread comes through one place, the finally of serve(). A recipient that
has just gone does not end the thread of the sender.

What still breaks: sendall blocks while the recipient does not read, and with it the thread of the sender. One client
that is stopped with Ctrl-Z ends the broadcasts of everybody, after the system has buffered some for it:

    pytest conformance --server 'python3 steps/chat_3_locks.py {port}' -k stuck_sender

Rules that still fail: STUCK-SENDER, EMPTY-LINE, BLANKS, NAME-RULE, CONTROL.
"""

import socket
import sys
import threading
from collections.abc import Iterator

MAX_USERS = 10
MAX_LINE_BYTES = 4096
FULL = "Too Many Users"


class User:
    """A client; its name is empty until it has joined."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.name = ""
        self._lock = threading.Lock()  # held while a line is sent, so that the lines of two threads do not mix

    def tell(self, line: str) -> None:
        """Send a line; if the client has gone, its own thread will notice."""
        try:
            with self._lock:
                self.sock.sendall(f"{line}\n".encode())
        except OSError as error:
            print(f"{self.name} was not told: {error}", flush=True)


class Registry:
    """The registered users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, User] = {}  # by name; guarded by the lock

    def join(self, name: str, user: User) -> str:
        """Register a user if the name and a place are free; return the reply."""
        with self._lock:
            if user.name:
                return f"Already registered as {user.name}"
            if name in self._users:
                return f"Username {name} is taken"
            if len(self._users) >= MAX_USERS:
                return FULL
            print(f"{name} joins", flush=True)
            self._users[name] = user
            user.name = name
        return f"JOIN {name} accepted"

    def leave(self, user: User) -> None:
        """Remove a user, if it has joined."""
        with self._lock:
            self._users.pop(user.name, None)

    def find(self, name: str) -> User | None:
        """Return a user, or None if nobody has the name."""
        with self._lock:
            return self._users.get(name)

    def snapshot(self) -> list[User]:
        """Return all users, in order of joining."""
        with self._lock:
            return list(self._users.values())


registry = Registry()


def main() -> None:
    """Accept clients for ever."""
    with socket.create_server(("", int(sys.argv[1]))) as listener:
        while True:
            client, _ = listener.accept()
            threading.Thread(target=serve, args=(client,), daemon=True).start()


def serve(sock: socket.socket) -> None:
    """Serve one client until its connection ends, in whatever way."""
    user = User(sock)
    try:
        converse(user)
    except OSError as error:
        print(f"{user.name} was lost: {error}", flush=True)
    finally:
        registry.leave(user)
        sock.close()


def lines(user: User) -> Iterator[str]:
    """Yield the lines that a client sends, without their ends; the end of the input ends the last line."""
    rest = b""
    while data := user.sock.recv(4096):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > MAX_LINE_BYTES:
            user.tell(f"Line too long: at most {MAX_LINE_BYTES} bytes are expected")
            return
    if rest:
        yield rest.decode(errors="replace")


def converse(user: User) -> None:
    """Answer the requests of one client until it quits or its input ends."""
    for line in lines(user):
        command, _, rest = line.partition(" ")
        if command == "QUIT":
            return
        if command == "JOIN":
            reply = registry.join(rest, user)
            user.tell(reply)
            if reply == FULL:
                return
        elif not user.name:
            user.tell("Unregistered User. Use JOIN <username> to register.")
        else:
            handle(user, command, rest)


def handle(user: User, command: str, rest: str) -> None:
    """Carry out a request of a registered user."""
    if command == "LIST":
        names = [other.name for other in registry.snapshot()]
        user.tell("\n".join([f"Registered users ({len(names)}):", *names]))
    elif command == "MESG":
        name, _, text = rest.partition(" ")
        if recipient := registry.find(name):
            recipient.tell(f"FROM {user.name}: {text}")
        else:
            user.tell(f"Unknown Recipient {name}")
    elif command == "BCST":
        for other in registry.snapshot():
            if other is not user:
                other.tell(f"FROM {user.name} (all): {rest}")
    else:
        user.tell("Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")


if __name__ == "__main__":
    main()
