#!/usr/bin/env python3
r"""Step 4: the chat server of step 3, with a queue for each client and a thread that sends what is in it.

Start it with `python3 steps/chat_4_slow_readers.py 5050`; clients are `telnet localhost 5050`.

To tell a client something is now to put it into its queue, which never blocks. Only the second thread of the client
waits until the client reads; and as only this thread sends, lines cannot mix. The queue is bounded, since a client that
does not read would otherwise use up the memory: one whose queue is full is dropped. At the end of a conversation, what
is queued is sent before the connection closes.

What still breaks: names may be anything, blanks matter, and texts are relayed whatever is in them. This broadcast
clears the screens of all others:

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


class Outbox:
    """What is to be sent to a client, and the thread that sends it."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self._queue: queue.Queue[str] = queue.Queue(MAX_QUEUED_LINES)
        self._thread = threading.Thread(target=self._send, daemon=True)
        self._thread.start()

    def tell(self, line: str) -> None:
        """Queue a line; drop the client if it has not read the last thousand."""
        try:
            self._queue.put_nowait(line)
        except queue.Full:
            self._drop()

    def finish(self) -> None:
        """Send what is queued, and close the connection."""
        self.tell("")  # an empty text makes the sender's thread end
        self._thread.join()
        self._sock.close()

    def _drop(self) -> None:
        """End the connection, which both threads of the client notice."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def _send(self) -> None:
        try:
            while line := self._queue.get():
                self._sock.sendall(f"{line}\n".encode())
        except OSError:
            self._drop()


class Registry:
    """The registered users."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users: dict[str, Outbox] = {}  # by name; guarded by the lock

    def join(self, name: str, client: Outbox) -> str:
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

    def snapshot(self) -> dict[str, Outbox]:
        """Return the outboxes of all users by name, in order of joining."""
        with self._lock:
            return dict(self._users)


registry = Registry()


def main() -> None:
    """Accept clients for ever."""
    port = int(sys.argv[1])
    with socket.create_server(("", port)) as listener:
        print(f"Listening on 0.0.0.0:{port}", flush=True)
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=converse, args=(sock,), daemon=True).start()


def lines(sock: socket.socket) -> Iterator[str]:
    """Yield the lines that a client sends, without their ends; the end of the input ends the last line."""
    rest = b""
    while data := sock.recv(4096):
        *whole, rest = (rest + data).split(b"\n")
        for line in whole:
            yield line.removesuffix(b"\r").decode(errors="replace")
        if len(rest) > MAX_LINE_BYTES:
            return
    if rest:
        yield rest.decode(errors="replace")


def converse(sock: socket.socket) -> None:
    """Answer the requests of one client until its connection ends, however it ends."""
    name, client = "", Outbox(sock)
    try:
        for line in lines(sock):
            command, _, rest = line.partition(" ")
            if command == "QUIT":
                break
            if command == "JOIN" and name:
                client.tell(f"Already registered as {name}")
            elif command == "JOIN" and rest:
                refusal = registry.join(rest, client)
                name = "" if refusal else rest
                client.tell(refusal or f"JOIN {name} accepted")
                if refusal == FULL:
                    break
            elif not name:
                client.tell("Unregistered User. Use JOIN <username> to register.")
            else:
                handle(client, name, command, rest)
    except OSError as error:
        print(f"{name or 'a client'} is lost: {error}", flush=True)
    finally:
        registry.leave(name)
        client.finish()


def handle(client: Outbox, name: str, command: str, rest: str) -> None:
    """Carry out a request of a registered user."""
    users = registry.snapshot()
    if command == "LIST":
        client.tell("\n".join([f"Registered users ({len(users)}):", *users]))
    elif command == "MESG":
        recipient, _, text = rest.partition(" ")
        if recipient in users:
            users[recipient].tell(f"FROM {name}: {text}")
        else:
            client.tell(f"Unknown Recipient {recipient}")
    elif command == "BCST":
        for other in users.values():
            if other is not client:
                other.tell(f"FROM {name} (all): {rest}")
    else:
        client.tell("Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
