r"""Measure how many orders per second ticket_server.py books, and compare it with bare loops that do less.

An order is one seat in a hall of 2,000: connect, answer the questions, read `Booked`. A client either waits for each
question before it answers, or sends all answers at once, as `printf '1\n2\n3' | nc` does. Each round measures the
server and then two floors:

    disk    write a file as large as the hall, flush it, rename it, flush the directory: no server, no client
    talk    a server of fifteen lines with a thread per connection that only holds the dialogue

The goals refer to the disk. A single client holds a dialogue and then waits for the flush, so it cannot book more than
1 / (1 / disk + 1 / talk) orders per second: there is no goal for it.
"""

import os
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

from load import running

ROOT = Path(__file__).resolve().parent.parent
ROWS, COLUMNS = 40, 50
HALL = "\n".join([" ".join(["0"] * COLUMNS)] * ROWS).encode() + b"\n"
ROUNDS = 5
WAIT_SECONDS = 20.0

TALK = """
import socket, threading
def talk(sock):
    for text in (b"?\\n", b"0 " * 2000 + b"?\\n", b"?\\n"):
        sock.sendall(text)
        answer = sock.recv(4096)
    sock.sendall(b"Booked: \\n")
    sock.recv(4096)
    sock.close()
listener = socket.create_server(("127.0.0.1", 0), backlog=128)
print("listening on", listener.getsockname()[1], sep=":", flush=True)
while True:
    sock, _ = listener.accept()
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    threading.Thread(target=talk, args=(sock,), daemon=True).start()
"""

Buy = Callable[[socket.socket, int, int], None]


def disk(directory: Path, times: int) -> float:
    """Return how many times per second a file can be replaced on disk."""
    file, sibling = directory / "floor.txt", directory / "floor.txt.new"
    start = time.perf_counter()
    for _ in range(times):
        with sibling.open("wb") as new:
            new.write(HALL)
            new.flush()
            os.fsync(new.fileno())
        sibling.replace(file)
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return times / (time.perf_counter() - start)


def talk(clients: int, orders: int) -> float:
    """Return how many dialogues per second a bare server holds."""
    with running("-c", TALK) as server:
        return load(server.port, clients, orders, answer_each_question)


def ours(directory: Path, clients: int, orders: int, buy: Buy) -> float:
    """Return how many orders per second ticket_server.py books."""
    file = directory / "seats.txt"
    file.write_bytes(HALL)
    with running("ticket_server.py", "0", "--host", "127.0.0.1", "--seats-file", str(file)) as server:
        speed = load(server.port, clients, orders, buy)
    assert file.read_bytes().count(b"1") == orders, "the file does not hold exactly the orders"
    return speed


def load(port: int, clients: int, orders: int, buy: Buy) -> float:
    """Buy each seat once, with several clients at a time; return the number of orders per second."""
    seats = iter([(1 + index // COLUMNS, 1 + index % COLUMNS) for index in range(orders)])
    bought = []

    def buy_seats() -> None:
        for row, number in seats:
            with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                buy(sock, row, number)
            bought.append((row, number))

    threads = [threading.Thread(target=buy_seats) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bought) == orders, "an order failed"
    return orders / (time.perf_counter() - start)


def answer_each_question(sock: socket.socket, row: int, number: int) -> None:
    """Order a seat question by question."""
    for answer in (1, row, number):
        receive(sock, lambda received: received.endswith(b"?\n"))
        sock.sendall(b"%d\n" % answer)
    receive(sock, lambda received: b"Booked: " in received)


def answer_at_once(sock: socket.socket, row: int, number: int) -> None:
    """Order a seat with one write."""
    sock.sendall(b"1\n%d\n%d\n" % (row, number))
    receive(sock, lambda received: b"Booked: " in received)


def receive(sock: socket.socket, is_enough: Callable[[bytes], bool]) -> None:
    """Receive until the received bytes are enough."""
    received = b""
    while not is_enough(received):
        data = sock.recv(1 << 16)
        assert data, f"the server closed after {received[-200:]!r}"
        received += data


def main() -> None:
    """Print a table of orders per second: medians of ROUNDS rounds."""
    workloads: list[tuple[str, int, int, Buy, str]] = [
        ("1 client, question by question", 1, 300, answer_each_question, ""),
        ("1 client, answers at once", 1, 300, answer_at_once, ""),
        ("16 clients, question by question", 16, 1000, answer_each_question, ">= 0.6"),
        ("16 clients, answers at once", 16, 1000, answer_at_once, ">= 0.6"),
    ]
    print(f"{'workload':<34}{'ours':>8}{'disk':>8}{'talk':>8}{'ours/disk':>11}{'goal':>8}")
    with tempfile.TemporaryDirectory(dir=ROOT) as name:
        directory = Path(name)
        for workload, clients, orders, buy, goal in workloads:
            measures = (
                partial(ours, directory, clients, orders, buy),
                partial(disk, directory, orders),
                partial(talk, clients, orders),
            )
            rounds = [[measure() for measure in measures] for _ in range(ROUNDS)]
            medians = [statistics.median(column) for column in zip(*rounds, strict=True)]
            ratio = statistics.median(mine / bare for mine, bare, _ in rounds)
            print(f"{workload:<34}" + "".join(f"{speed:>8.0f}" for speed in medians) + f"{ratio:>11.2f}{goal:>8}")


if __name__ == "__main__":
    main()
