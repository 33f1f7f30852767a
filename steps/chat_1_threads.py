#!/usr/bin/env python3
r"""Step 1: a chat server with a thread for each connection, and a dictionary of users.

Start it with `python3 steps/chat_1_threads.py 5050`; clients are `telnet localhost 5050`.

The main thread only accepts. Each client gets a thread that waits in recv, answers, and sends messages to others: the
code of a thread reads as if there were only one client, and everything that the basic rules ask for is here.

What still breaks: recv returns bytes, not requests. These two requests arrive together, and LIST is taken for a part of
the name:

    printf 'JOIN alice\nLIST\n' | nc -N localhost 5050

Rules that still fail: LINE-HALF, LINE-TWO, DROP-RESET, STUCK-SENDER, TEXT-AS-TYPED, EMPTY-LINE, BLANKS, NAME-RULE,
QUIT-REST, CONTROL; and sometimes DROP-CLOSE, RACE-PLACES, RACE-NAME.
"""

import socket
import sys
import threading
from contextlib import suppress

MAX_USERS = 10

users: dict[str, socket.socket] = {}  # the connections of registered users, by name


def main() -> None:
    """Accept clients for ever."""
    port = int(sys.argv[1])
    with socket.create_server(("", port)) as listener:
        print(f"Listening on 0.0.0.0:{port}", flush=True)
        while True:
            client, _ = listener.accept()
            threading.Thread(target=converse, args=(client,), daemon=True).start()


def converse(client: socket.socket) -> None:
    """Answer the requests of one client until it leaves."""
    name = ""
    while data := client.recv(4096):
        command, _, rest = data.decode().strip().partition(" ")
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
