"""Run the servers to measure, ours and the floors, and the clients that load them.

Because machines are noisy, a benchmark runs ours and the floor in turn, several rounds in one run, and compares the
medians. On Linux, the server runs on one processor and the load on the others.
"""

import itertools
import os
import selectors
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIMIT_SECONDS = 60.0

PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
if len(PROCESSORS) > 1:
    os.sched_setaffinity(0, PROCESSORS[:-1])


def _move_to_last_processor() -> None:
    if PROCESSORS:
        os.sched_setaffinity(0, PROCESSORS[-1:])


class Measured:
    """A running server.

    Attributes:
        port: the port in its first line.
        pid: its process id.
        tls: the context of its clients, if it speaks TLS.
    """

    def __init__(self, port: int, pid: int, tls: ssl.SSLContext | None = None) -> None:
        self.port = port
        self.pid = pid
        self.tls = tls

    def resident_bytes(self) -> int:
        """Return the size of its resident memory (Linux only)."""
        return self._status("VmRSS") * 1024

    def threads(self) -> int:
        """Return the number of its threads (Linux only)."""
        return self._status("Threads")

    def _status(self, field: str) -> int:
        return int(Path(f"/proc/{self.pid}/status").read_text().partition(f"{field}:")[2].split()[0])


@contextmanager
def running(*command: str, tls: ssl.SSLContext | None = None) -> Iterator[Measured]:
    """Run a script of this repository on the last processor, with its status lines in a file."""
    with tempfile.NamedTemporaryFile() as log:
        process = subprocess.Popen([sys.executable, *command], stdout=log, cwd=ROOT, preexec_fn=_move_to_last_processor)
        try:
            yield Measured(_port(Path(log.name)), process.pid, tls)
        finally:
            process.terminate()
            process.wait()


def _port(log: Path) -> int:
    end = time.monotonic() + LIMIT_SECONDS
    while time.monotonic() < end:
        first, newline, _ = log.read_bytes().partition(b"\n")
        if newline:
            return int(first.rpartition(b":")[2])
        time.sleep(0.01)
    sys.exit("the server did not say that it listens")


class Client:
    """A connection to a measured server."""

    def __init__(self, server: Measured, hello: bytes = b"", answer: bytes = b"") -> None:
        self.sock = socket.create_connection(("127.0.0.1", server.port))
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.sock.settimeout(LIMIT_SECONDS)
        if server.tls:
            self.sock = server.tls.wrap_socket(self.sock, server_hostname="localhost")
        if hello:
            self.sock.sendall(hello)
        if answer:
            self.receive(len(answer))

    def receive(self, size: int) -> None:
        """Receive this many bytes."""
        while size > 0:
            data = self.sock.recv(size)
            if not data:
                sys.exit("the server closed the connection")
            size -= len(data)


def receive_everywhere(sizes: dict[Client, int]) -> None:
    """Receive at all clients at the same time, until each has received its number of bytes."""
    left = dict(sizes)
    buffer = bytearray(1 << 18)
    with selectors.DefaultSelector() as selector:
        for client in left:
            selector.register(client.sock, selectors.EVENT_READ, client)
        while left:
            for key, _ in selector.select(LIMIT_SECONDS) or sys.exit(f"nothing came for {LIMIT_SECONDS} seconds"):
                received = key.data.sock.recv_into(buffer)
                left[key.data] -= received or sys.exit("the server closed the connection")
                if left[key.data] <= 0:
                    selector.unregister(key.data.sock)
                    del left[key.data]


def flood(clients: Sequence[Client], senders: int, block: bytes, blocks: int, size: int) -> float:
    """Let the first clients send blocks as fast as they can, and all clients receive what the others have sent.

    Args:
        clients: all clients.
        senders: how many of the clients send.
        block: the data that a sender sends repeatedly.
        blocks: how often it sends the block.
        size: how many bytes each other client receives for a block.

    Returns:
        The seconds until everything has arrived.
    """

    def send(sender: Client) -> None:
        for _ in range(blocks):
            sender.sock.sendall(block)

    threads = [threading.Thread(target=send, args=(sender,)) for sender in clients[:senders]]
    sizes = {client: size * blocks * (senders - (i < senders)) for i, client in enumerate(clients)}
    began = time.perf_counter()
    for thread in threads:
        thread.start()
    receive_everywhere({client: size for client, size in sizes.items() if size})
    seconds = time.perf_counter() - began
    for thread in threads:
        thread.join()
    return seconds


def lock_step(clients: Sequence[Client], line: bytes, size: int, rounds: int) -> float:
    """Let the first client send a line and all others receive it; return the median seconds of all rounds."""
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        clients[0].sock.sendall(line)
        for reader in clients[1:]:
            reader.receive(size)
        times.append(time.perf_counter() - began)
    return statistics.median(times)


def in_turn(measures: Sequence[Callable[[], float]], rounds: int) -> list[float]:
    """Run the measures in turn for some rounds; return the median of each."""
    results = [[measure() for measure in measures] for _ in range(rounds)]
    return [statistics.median(column) for column in zip(*results, strict=True)]


def close(clients: Sequence[Client]) -> None:
    """Close all connections."""
    for client in clients:
        client.sock.close()


def print_row(*columns: str) -> None:
    """Print a row of the table: workload, ours, floor, ratio, goal."""
    print("".join(itertools.starmap(str.ljust, zip(columns, (44, 16, 16, 8, 12), strict=False))).rstrip(), flush=True)
