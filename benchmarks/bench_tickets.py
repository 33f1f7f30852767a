r"""Measure how many orders a second ticket_server.py books, against bare loops that do without most of it.

An order is one seat in a hall of 2,000: connect, answer the questions, read `Booked`. A customer either answers each
question when it has come, or sends all answers at once, as `printf '1\n2\n3\n' | nc` does. The floors, in turn with it:

    disk    write a file of the hall's size, flush it, rename it, flush the directory: no server, no customer
    talk    a server of fifteen lines, with a thread per connection, that says as much and knows nothing

The goals are about the disk. Since an order is a dialogue and a flush, one customer alone cannot have more orders a
second than 1 / (1 / disk + 1 / talk).
"""

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

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
    """Return how often a second a file reaches the disk whole."""
    file, beside = directory / "floor.txt", directory / "floor.txt.new"
    start = time.perf_counter()
    for _ in range(times):
        with beside.open("wb") as new:
            new.write(HALL)
            new.flush()
            os.fsync(new.fileno())
        beside.replace(file)
        fd = os.open(directory, os.O_RDONLY)
        os.fsync(fd)
        os.close(fd)
    return times / (time.perf_counter() - start)


def talk(clients: int, orders: int) -> float:
    """Return how many dialogues a second a bare server holds."""
    with serve("-c", TALK) as port:
        return load(port, clients, orders, answer_each_question)


def ours(directory: Path, clients: int, orders: int, buy: Buy) -> float:
    """Return how many orders a second ticket_server.py books."""
    file = directory / "seats.txt"
    file.write_bytes(HALL)
    with serve(str(ROOT / "ticket_server.py"), "0", "--host", "127.0.0.1", "--seats-file", str(file)) as port:
        speed = load(port, clients, orders, buy)
    assert file.read_bytes().count(b"1") == orders, "the file is not the sum of the orders"
    return speed


@contextmanager
def serve(*arguments: str) -> Iterator[int]:
    """Run a server meanwhile; give its port."""
    server = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE)
    try:
        assert server.stdout
        port = int(server.stdout.readline().rsplit(b":", 1)[1])
        threading.Thread(target=server.stdout.read, daemon=True).start()
        yield port
    finally:
        server.terminate()
        server.wait()


def load(port: int, clients: int, orders: int, buy: Buy) -> float:
    """Have clients buy one seat after another, each another one; return how many orders a second that makes."""
    seats = iter([(1 + index // COLUMNS, 1 + index % COLUMNS) for index in range(orders)])
    bought = []

    def buy_for_ever() -> None:
        for row, number in seats:
            with socket.create_connection(("127.0.0.1", port), WAIT_SECONDS) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                buy(sock, row, number)
            bought.append((row, number))

    threads = [threading.Thread(target=buy_for_ever) for _ in range(clients)]
    start = time.perf_counter()
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(bought) == orders, "an order failed"
    return orders / (time.perf_counter() - start)


def answer_each_question(sock: socket.socket, row: int, number: int) -> None:
    """Order a seat as a person does."""
    for answer in (1, row, number):
        receive(sock, lambda received: received.endswith(b"?\n"))
        sock.sendall(b"%d\n" % answer)
    receive(sock, lambda received: b"Booked: " in received)


def answer_at_once(sock: socket.socket, row: int, number: int) -> None:
    """Order a seat as a script does."""
    sock.sendall(b"1\n%d\n%d\n" % (row, number))
    receive(sock, lambda received: b"Booked: " in received)


def receive(sock: socket.socket, is_enough: Callable[[bytes], bool]) -> None:
    """Receive until it is enough."""
    received = b""
    while not is_enough(received):
        data = sock.recv(1 << 16)
        assert data, f"the server closed after {received[-200:]!r}"
        received += data


def main() -> None:
    """Print a table of what a second brings: the medians of some rounds."""
    workloads: list[tuple[str, int, int, Buy, float]] = [
        ("1 client, question by question", 1, 300, answer_each_question, 0.6),
        ("1 client, answers at once", 1, 300, answer_at_once, 0.6),
        ("16 clients, question by question", 16, 1000, answer_each_question, 1.0),
        ("16 clients, answers at once", 16, 1000, answer_at_once, 1.0),
    ]
    print(f"{'workload':<34}{'ours':>8}{'disk':>8}{'talk':>8}{'ours/disk':>11}{'goal':>6}")
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
            print(f"{workload:<34}" + "".join(f"{speed:>8.0f}" for speed in medians) + f"{ratio:>11.2f}{goal:>6.1f}")


if __name__ == "__main__":
    main()
