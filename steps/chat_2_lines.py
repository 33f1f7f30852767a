#!/usr/bin/env python3
r"""Step 2: the chat server of step 1, which now turns the bytes that arrive into lines.

Start it with `python3 steps/chat_2_lines.py 5050`; clients are `telnet localhost 5050`.

TCP carries a stream of bytes: half a line may arrive, or ten lines and a half. The generator lines() keeps what has no
newline yet, and yields whole lines; converse() does not see the difference.

What still breaks: a connection that is reset ends its thread with a traceback, before the name is free. A client that
ends without reading its replies resets the connection, and the name stays taken:

    python3 -c "import socket; s = socket.create_connection(('localhost', 5050)); s.send(b'JOIN amy\n' * 2); s.recv(1)"

A thread also looks whether a name is free and then takes it, while other threads do the same. Nor may a thread send to
a socket that another one is closing. Such races show in many runs, but not in all.

Rules that still fail: DROP-RESET, STUCK-SENDER, EMPTY-LINE, BLANKS, NAME-RULE, CONTROL; and sometimes DROP-CLOSE,
RACE-PLACES, RACE-NAME.
"""

import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import suppress

MAX_USERS = 10
MAX_LINE_BYTES = 4096

users: dict[str, socket.socket] = {}  # the connections of registered users, by name


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
    """Answer the requests of one client until it leaves."""
    name = ""
    for line in lines(client):
        command, _, rest = line.partition(" ")
        if command == "QUIT":
            break
        if command == "JOIN" and name:
            tell(client, f"Already registered as {name}")
        elif command == "JOIN" and rest in users:
            tell(client, f"Username {rest} is taken")
        elif command == "JOIN" and len(users) >= MAX_USERS:
            tell(client, "Too Many Users")
            break
        elif command == "JOIN" and rest:
            print(f"{rest} joins", flush=True)
            users[rest] = client
            name = rest
            tell(client, f"JOIN {name} accepted")
        elif not name:
            tell(client, "Unregistered User. Use JOIN <username> to register.")
        else:
            handle(client, name, command, rest)
    users.pop(name, None)
    client.close()


def handle(client: socket.socket, name: str, command: str, rest: str) -> None:
    """Carry out a request of a registered user."""
    if command == "LIST":
        tell(client, "\n".join([f"Registered users ({len(users)}):", *users]))
    elif command == "MESG":
        recipient, _, text = rest.partition(" ")
        if recipient in users:
            tell(users[recipient], f"FROM {name}: {text}")
        else:
            tell(client, f"Unknown Recipient {recipient}")
    elif command == "BCST":
        for other in list(users.values()):
            if other is not client:
                tell(other, f"FROM {name} (all): {rest}")
    else:
        tell(client, "Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")


def tell(client: socket.socket, line: str) -> None:
    """Send a line to a client."""
    client.sendall(f"{line}\n".encode())


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        main()
