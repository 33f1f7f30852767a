"""Measure how many orders a second ticket_server.py books, against a bare loop that flushes the same file to disk.

An order is a whole dialogue: connect, read every question, answer it, read `Booked`. The floor writes a file of the
hall's size beside it, flushes it, renames it over and flushes the directory, with no server and no client.
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROWS, COLUMNS = 40, 50
ROUNDS = 5
WORKLOADS = [("1 client", 1, 400, 0.6), ("16 clients", 16, 2000, 1.0)]  # name, clients, orders a round, goal
WAIT_SECONDS = 20.0

EMPTY_HALL = "\n".join([" ".join(["0"] * COLUMNS)] * ROWS).encode() + b"\n"


def floor(directory: Path, times: int) -> float:
    """Return how often a second a file reaches the disk whole."""
    file, beside = directory / "floor.txt", directory / "floor.txt.new"
    start = time.perf_counter()
    for _ in range(times):
        with beside.open("wb") as new:
            new.write(EMPTY_HALL)
            new.flush()
            os.fsync(new.fileno())
        beside.replace(file)
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return times / (time.perf_counter() - start)


def ours(directory: Path, clients: int, orders: int) -> float:
    """Return how many orders of one seat a second the server books for clients that buy one after another."""
    file = directory / "seats.txt"
    file.write_bytes(EMPTY_HALL)
    server = subprocess.Popen(
        [sys.executable, str(ROOT / "ticket_server.py"), "0", "--host", "127.0.0.1", "--seats-file", str(file)],
        stdout=subprocess.PIPE,
    )
    try:
        assert server.stdout
        port = int(server.stdout.readline().rsplit(b":", 1)[1])
        threading.Thread(target=server.stdout.read, daemon=True).start()
        seconds = load(port, clients, orders)
        assert file.read_bytes().count(b"1") == orders, "the file is not the sum of the orders"
        return orders / seconds
    finally:
        server.terminate()
        server.wait()


def load(port: int, clients: int, orders: int) -> float:
    """Have clients book the first so many seats; return how many seconds it took."""
    seats = iter([(1 + index // COLUMNS, 1 + index % COLUMNS) for index in range(orders)])
    lock = threading.Lock()
    booked = []

    def buy_for_ever() -> None:
        while True:
            with lock:
                seat = next(seats, None)
            if not seat:
                return
            buy(port, *seat)
            booked.append(seat)

    threads = [threading.Thread(target=buy_for_ever) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(booked) == orders, "an order failed"
    return time.perf_counter() - start


def buy(port: int, row: int, number: int) -> None:
    """Order one seat."""
    with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for answer in (1, row, number):
            receive_until(sock, b"?\n")
            sock.sendall(b"%d\n" % answer)
        receive_until(sock, b"Booked: %d-%d\n" % (row, number))


def receive_until(sock: socket.socket, end: bytes) -> None:
    """Receive until what came ends so."""
    received = b""
    while not received.endswith(end):
        data = sock.recv(1 << 16)
        assert data, f"the server closed after {received[-200:]!r}"
        received += data


def main() -> None:
    """Print a table: workload, orders a second, the floor's, their ratio, the goal."""
    print(f"{'workload':<12}{'ours/s':>10}{'floor/s':>10}{'ratio':>8}{'goal':>8}")
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        directory = Path(name)
        for workload, clients, orders, goal in WORKLOADS:
            rounds = [(ours(directory, clients, orders), floor(directory, orders)) for _ in range(ROUNDS)]
            mine, bare = (statistics.median(column) for column in zip(*rounds, strict=True))
            ratio = statistics.median(one / other for one, other in rounds)
            print(f"{workload:<12}{mine:>10.0f}{bare:>10.0f}{ratio:>8.2f}{goal:>8.1f}")


if __name__ == "__main__":
    main()
