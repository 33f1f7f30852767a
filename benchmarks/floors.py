"""Servers that do little more than move bytes: the floors that the benchmarks compare with.

    python3 floors.py lines|streams|echo
    python3 floors.py streams CERTIFICATE KEY       over TLS

Each server listens on a free port and prints it as the real programs do. A client that does not read blocks the server.
"""

import asyncio
import socket
import ssl
import sys
import threading
from collections.abc import Callable

RECEIVE_BYTES = 1 << 16
GREETING = b"welcome\n"  # tells a client that lines are relayed to it from now on


def accept_for_ever(handler: Callable[[socket.socket], None]) -> None:
    """Listen, and run a thread for each connection."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=4096)
    print(f"Listening on 127.0.0.1:{listener.getsockname()[1]}", flush=True)
    while True:
        sock, _ = listener.accept()
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=handler, args=(sock,), daemon=True).start()


def relay() -> None:
    """Forward each line of a client to all others."""
    clients: list[socket.socket] = []

    def handler(sock: socket.socket) -> None:
        clients.append(sock)
        sock.sendall(GREETING)
        while data := sock.recv(RECEIVE_BYTES):
            for line in data.splitlines(keepends=True):
                for client in clients:
                    if client is not sock:
                        client.sendall(line)
        clients.remove(sock)
        sock.close()

    accept_for_ever(handler)


def echo() -> None:
    """Send everything back until the client ends its input."""

    def handler(sock: socket.socket) -> None:
        while data := sock.recv(RECEIVE_BYTES):
            sock.sendall(data)
        sock.close()

    accept_for_ever(handler)


async def next_line(reader: asyncio.StreamReader) -> bytes:
    """Return the next line, or b"" if the client has left."""
    try:
        return await reader.readline()
    except ConnectionError:
        return b""


async def streams(tls: ssl.SSLContext | None = None) -> None:
    """Speak the chat server's protocol, as far as the benchmarks use it, on asyncio streams."""
    users: dict[str, asyncio.StreamWriter] = {}

    async def handler(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        name = ""
        while line := (await next_line(reader)).decode().rstrip("\r\n"):
            command, _, argument = line.partition(" ")
            print(f"Client {name}: {command}")
            if command == "JOIN":
                name = argument
                users[name] = writer
                writer.write(f"JOIN {name} accepted\n".encode())
                await writer.drain()
            elif command == "BCST":
                for user, other in users.items():
                    if user != name:
                        other.write(f"FROM {name} (all): {argument}\n".encode())
                        await other.drain()
        users.pop(name, None)
        writer.close()

    server = await asyncio.start_server(handler, "127.0.0.1", 0, backlog=4096, ssl=tls)
    print(f"Listening on 127.0.0.1:{server.sockets[0].getsockname()[1]}", flush=True)
    await server.serve_forever()


def main() -> None:
    """Run the floor that the command line names."""
    match sys.argv[1:]:
        case ["lines"]:
            relay()
        case ["streams"]:
            asyncio.run(streams())
        case ["streams", certificate, key]:
            tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            tls.load_cert_chain(certificate, key)
            asyncio.run(streams(tls))
        case ["echo"]:
            echo()
        case _:
            sys.exit(__doc__)


if __name__ == "__main__":
    main()
