#!/usr/bin/env python3
"""Step 3: the chat server of step 2, whose shared state is now one class with its lock.

Start it with `python3 steps/chat_3_locks.py 5050`; clients are `telnet localhost 5050`.

Only the methods of Registry touch the dictionary of users, each under the lock, and join() looks and changes in one go,
so that no other thread comes in between. Nothing is sent under the lock: a thread takes a snapshot, releases the lock,
and then sends. However a connection ends, its thread comes through one place, the finally of converse(). A recipient
that has just gone does not end the thread of the sender.

What still breaks: sendall blocks while the recipient does not read, and with it the thread of the sender. One client
that is stopped with Ctrl-Z ends the broadcasts of everybody, as soon as the system has buffered enough for it:

    pytest conformance --server 'python3 steps/chat_3_locks.py {port}' -k stuck_sender

Rules that still fail: STUCK-SENDER, EMPTY-LINE, BLANKS, NAME-RULE, CONTROL.
"""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

MAX_USERS = 10
MAX_LINE_BYTES = 4096
FULL = "Too Many Users"


class Registry:
    """The registered users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, socket.socket] = {}  # by name; guarded by the lock

    def join(self, name: str, client: socket.socket) -> str:
        """Register a user if the name and a place are free; return why not, or an empty string."""
        with self._lock:
            if name in self._users:
                return f"Username {name} is taken"
            if len(self._users) >= MAX_USERS:
                return FULL
            self._users[name] = client
            return ""

    def leave(self, name: str) -> None:
        """Free a name."""
        with self._lock:
            self._users.pop(name, None)

    def snapshot(self) -> dict[str, socket.socket]:
        """Return the connections of all users by name, in order of joining."""
        with self._lock:
            return dict(self._users)


registry = Registry()


def main() -> None:
    """Accept clients for ever."""
    port = int(sys.argv[1])
    with socket.create_server(("", port)) as listener:
        print(f"Listening on 0.0.0.0:{port}", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=converse, args=(client,), daemon=True).start()


def lines(client: socket.socket) -> Iterator[str]:
    """Yield the lines that a client sends, without their ends; the end of the input ends the last line."""
    rest = b""
    while data := client.recv(4096):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > MAX_LINE_BYTES:
            return
    if rest:
        yield rest.decode(errors="replace")


def converse(client: socket.socket) -> None:
    """Answer the requests of one client until its connection ends, however it ends."""
    name = ""
    try:
        for line in lines(client):
            command, _, rest = line.partition(" ")
            if command == "QUIT":
                break
            if command == "JOIN" and name:
                tell(client, f"Already registered as {name}")
            elif command == "JOIN" and rest:
                refusal = registry.join(rest, client)
                name = "" if refusal else rest
                tell(client, refusal or f"JOIN {name} accepted")
                if refusal == FULL:
                    break
            elif not name:
                tell(client, "Unregistered User. Use JOIN <username> to register.")
            else:
                handle(client, name, command, rest)
    except OSError as error:
        print(f"{name or 'a client'} is lost: {error}", flush=True)
    finally:
        registry.leave(name)
        client.close()


def handle(client: socket.socket, name: str, command: str, rest: str) -> None:
    """Carry out a request of a registered user."""
    users = registry.snapshot()
    if command == "LIST":
        tell(client, "\n".join([f"Registered users ({len(users)}):", *users]))
    elif command == "MESG":
        recipient, _, text = rest.partition(" ")
        if recipient in users:
            tell(users[recipient], f"FROM {name}: {text}")
        else:
            tell(client, f"Unknown Recipient {recipient}")
    elif command == "BCST":
        for other in users.values():
            if other is not client:
                tell(other, f"FROM {name} (all): {rest}")
    else:
        tell(client, "Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")


def tell(client: socket.socket, line: str) -> None:
    """Send a line to a client; if the client has gone, its own thread will notice."""
    try:
        client.sendall(f"{line}\n".encode())
    except OSError as error:
        print(f"a line is lost: {error}", flush=True)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
