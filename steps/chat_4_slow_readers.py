#!/usr/bin/env python3
r"""Step 4: the chat server of step 3, with a queue for each client and a thread that sends what is in it.

Start it with `python3 steps/chat_4_slow_readers.py 5050`; clients are `telnet localhost 5050`.

To tell a user something is now to put it into the user's queue, which never blocks. Only the user's own second thread
waits until the client reads. The queue is bounded, or a client that does not read would use up the memory: one whose
queue is full is dropped. At the end of a conversation, what is still queued is sent before the connection closes.

What still breaks is small: names may be anything, blanks matter, and texts are relayed with everything in them. This
broadcast clears the screens of all others:

    printf 'JOIN mallory\nBCST \033[2J\n' | nc -N localhost 5050

Rules that still fail: EMPTY-LINE, BLANKS, NAME-RULE, CONTROL.

Then read chat_server.py, which keeps these too. It also makes a sender wait before it drops a recipient that is merely
slower than a flood, sends many lines at once, and stops in good order.
"""

import queue
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

MAX_USERS = 10
MAX_LINE_BYTES = 4096
MAX_QUEUED_LINES = 1000
FULL = "Too Many Users"


class User:
    """A client; its name is empty until it has joined."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        self.name = ""
        self._queue: queue.Queue[str | None] = queue.Queue(MAX_QUEUED_LINES)  # None ends it
        self._sender = threading.Thread(target=self._send, daemon=True)
        self._sender.start()

    def tell(self, line: str) -> None:
        """Queue a line for the client; drop a client that has not read the last thousand."""
        self._put(line)

    def finish(self) -> None:
        """Send what is queued, and close the connection."""
        self._put(None)
        self._sender.join()
        self.sock.close()

    def _put(self, line: str | None) -> None:
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._drop("it does not read")

    def _drop(self, reason: object) -> None:
        """End the connection; both threads of the client notice."""
        print(f"{self.name} is dropped: {reason}", flush=True)
        with suppress(OSError):
            self.sock.shutdown(socket.SHUT_RDWR)

    def _send(self) -> None:
        try:
            while (line := self._queue.get()) is not None:
                self.sock.sendall(f"{line}\n".encode())
        except OSError as error:
            self._drop(error)


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
        user.finish()


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
