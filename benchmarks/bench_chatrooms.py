"""Measure the speed of a chat room against servers that only move bytes, and of a hundred rooms against one.

    python3 benchmarks/bench_chatrooms.py

The workloads and floors are the chat server's: (a) a relay with a send per line; (b) the chat server's protocol on
asyncio streams; (c) a thread per connection that echoes.
"""

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from bench_chat import (
    BLOCK_LINES,
    LINES,
    STREAMS,
    USERS,
    compare,
    conversations_per_second,
    deliveries_per_second,
    latency,
)
from load import Client, Measured, close, flood, lock_step, print_row, receive_everywhere, running

LINE = b"x" * 63 + b"\n"
BLOCK = LINE * BLOCK_LINES
CREATE, JOIN, LIST = b"\1", b"\2", b"\3"
ROOMS = 100


@contextmanager
def rooms(count: int) -> Iterator[list[Measured]]:
    """Run our server with some rooms; yield each room as if it were a server."""
    with running("chatroom_server.py", "0", "--max-per-address", "2000") as server:
        lobby = Client(server)
        yield [Measured(new_room(lobby, b"room-%d\n" % number), server.pid) for number in range(count)]
        close([lobby])


def new_room(lobby: Client, name: bytes) -> int:
    """Create a room; return its port."""
    lobby.sock.sendall(CREATE + name)
    lobby.receive(len(b"\0\n"))
    lobby.sock.sendall(JOIN + name)
    return int(lobby.sock.recv(100)[1:].split()[0])


def members(room: Measured) -> list[Client]:
    """Return ten members of a room."""
    return [Client(room) for _ in range(USERS)]


def room_deliveries_per_second(senders: int, lines: int) -> Callable[[], float]:
    """Return a function that measures a flood with this many lines in one room."""

    def measure() -> float:
        blocks = lines // BLOCK_LINES // senders
        with rooms(1) as [room]:
            clients = members(room)
            seconds = flood(clients, senders, BLOCK, blocks, len(BLOCK))
            close(clients)
        return blocks * senders * BLOCK_LINES * (USERS - 1) / seconds

    return measure


def rooms_deliveries_per_second(count: int, lines: int) -> Callable[[], float]:
    """Return a function that measures a flood with this many lines in total; one member of each room sends."""

    def measure() -> float:
        blocks = lines // BLOCK_LINES // count
        with rooms(count) as all_rooms:
            clients = [members(room) for room in all_rooms]
            seconds = flood_all(clients, blocks)
            close([member for everybody in clients for member in everybody])
        return blocks * count * BLOCK_LINES * (USERS - 1) / seconds

    return measure


def flood_all(clients: Sequence[Sequence[Client]], blocks: int) -> float:
    """Let the first member of each room send blocks, and all others receive them; return the seconds."""

    def send(sender: Client) -> None:
        for _ in range(blocks):
            sender.sock.sendall(BLOCK)

    threads = [threading.Thread(target=send, args=(sender,)) for sender, *_ in clients]
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    receive_everywhere({reader: len(BLOCK) * blocks for _, *readers in clients for reader in readers})
    seconds = time.perf_counter() - began
    for thread in threads:
        thread.join()
    return seconds


def room_latency() -> float:
    """Measure the seconds from sending a line until nine readers have received it."""
    with rooms(1) as [room]:
        clients = members(room)
        seconds = lock_step(clients, LINE, len(LINE), rounds=3000)
        close(clients)
    return seconds


def requests_per_second() -> float:
    """Measure how many conversations (connect, LIST, close) are possible in a second."""
    count = 3000
    with running("chatroom_server.py", "0") as server:
        began = time.perf_counter()
        for _ in range(count):
            client = Client(server, LIST + b"\n", b"\0\n")
            close([client])
        return count / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    print_row("workload", "ours", "floor", "ratio", "goal")
    compare("lock-step, 9 readers; floor (a)", "us", 1e6, room_latency, latency(LINES), "")
    ours = room_deliveries_per_second(5, 1_000_000)
    compare("flood, 5 of 10 send; floor (b)", "M/s", 1e-6, ours, deliveries_per_second(STREAMS, 5, 20_000), ">= 20")
    echo = conversations_per_second(("benchmarks/floors.py", "echo"), b"JOIN u\n")
    compare("connect, LIST, close; floor (c)", "/s", 1, requests_per_second, echo, ">= 0.70")
    hundred, one = (rooms_deliveries_per_second(count, 2_000_000) for count in (ROOMS, 1))
    compare(f"flood, {ROOMS} rooms of ten; one room", "M/s", 1e-6, hundred, one, ">= 0.70")


if __name__ == "__main__":
    main()
