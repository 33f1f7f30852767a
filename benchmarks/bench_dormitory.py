"""Measure the dormitory, and in the same run the same two servers on asyncio and a loop of commits.

    python3 benchmarks/bench_dormitory.py

A request is compared with dormitory_asyncio.py; a reservation with a loop of single SQLite commits with synchronous =
FULL on the same disk. Each turn measures all of them; the table shows the medians, and the median of the ratios within
each turn.
"""

import re
import selectors
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from statistics import median

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT))

from dormitory.members import add_member  # noqa: E402

TURNS = 7
LATENCY_REQUESTS = 3000
RATE_REQUESTS = 8000
RESERVATIONS = 3000
WAIT_SECONDS = 20.0
REQUEST = b"AVAILABILITY S1\n"


@contextmanager
def running(directory: Path, *command: str, ready: str = "") -> Iterator[int]:
    """Run a server with its status lines in a file; wait until they match a pattern; yield the port."""
    log = directory / f"{len(list(directory.iterdir()))}.log"
    with log.open("wb") as file:
        process = subprocess.Popen([sys.executable, *command], stdout=file, cwd=ROOT)
    try:
        port = int(find_in(log, r"istening on .*:(\d+)\n"))
        find_in(log, f"({ready})")
        yield port
    finally:
        process.terminate()
        process.wait()


def find_in(log: Path, pattern: str) -> str:
    """Wait until a file contains a match of a pattern; return the text of its group."""
    end = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < end:
        if match := re.search(pattern, log.read_text()):
            return match[1]
        time.sleep(0.01)
    raise SystemExit(f"{log} never contained {pattern}")


def connect(port: int, clients: int, hello: bytes = b"") -> list[socket.socket]:
    """Return connections that have logged in."""
    sockets = []
    for _ in range(clients):
        sock = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets.append(sock)
        if hello:
            ask(sock, hello)
    return sockets


def ask(sock: socket.socket, request: bytes) -> bytes:
    """Return the answer to a request."""
    sock.sendall(request)
    answer = sock.recv(4096)
    if not answer.endswith(b"\n"):
        raise SystemExit(f"{request!r} was answered {answer!r}")
    return answer


def microseconds_a_request(sock: socket.socket) -> float:
    """Return the median time of a request when there is one client."""
    times = []
    for _ in range(LATENCY_REQUESTS):
        began = time.perf_counter()
        ask(sock, REQUEST)
        times.append(time.perf_counter() - began)
    return median(times) * 1e6


def requests_a_second(sockets: list[socket.socket], request: bytes, number: int) -> float:
    """Return the rate when each client sends its next request as soon as the reply comes."""
    with selectors.DefaultSelector() as selector:
        for sock in sockets:
            selector.register(sock, selectors.EVENT_READ, sock)
        began = time.perf_counter()
        for sock in sockets:
            sock.sendall(request)
        left = number
        while left > 0:
            for key, _ in selector.select(WAIT_SECONDS):
                sock = key.data
                answer = sock.recv(4096)
                if not answer.endswith(b"\n") or answer.startswith((b"TRY", b"FULL")):
                    raise SystemExit(f"{request!r} was answered {answer!r}")
                left -= 1
                if left >= len(sockets):
                    sock.sendall(request)
        return number / (time.perf_counter() - began)


def commits_a_second(directory: Path) -> float:
    """Return the rate of transactions that each insert one row."""
    file = directory / "floor.db"
    with closing(sqlite3.connect(file, isolation_level=None)) as db:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("CREATE TABLE IF NOT EXISTS reservations (number INTEGER PRIMARY KEY, room TEXT, member TEXT)")
        began = time.perf_counter()
        for _ in range(RESERVATIONS):
            db.execute("INSERT INTO reservations (room, member) VALUES ('S1', 'alice')")
        return RESERVATIONS / (time.perf_counter() - began)


def report(workload: str, unit: str, turns: list[tuple[float, float]], goal: str) -> None:
    """Print a line of the table from the figures of ours and the others in each turn."""
    ours, other = (median(column) for column in zip(*turns, strict=True))
    ratio = median(a / b for a, b in turns)
    print(f"{workload:<28} {ours:>10,.0f} {other:>10,.0f} {unit:<10} {ratio:>6.2f}  {goal}", flush=True)


def write_data(directory: Path) -> None:
    """Write the data files of a dormitory with enough rooms for all turns."""
    for kind, letter in (("single", "S"), ("double", "D"), ("suite", "U")):
        rooms = "".join(f"{letter}{number}, 9999\n" for number in range(1, TURNS + 1))
        (directory / f"{kind}.txt").write_text(rooms)
    add_member(directory / "member.txt", "alice", "a secret")


@contextmanager
def asyncio_servers(directory: Path) -> Iterator[int]:
    """Run the two servers on asyncio; yield the port of the front one."""
    script = str(HERE / "dormitory_asyncio.py")
    with running(directory, script, "back") as back, running(directory, script, "front", str(back)) as front:
        yield front


@contextmanager
def dormitory(directory: Path) -> Iterator[int]:
    """Run the main server and a back end; yield the TCP port once they have found each other."""
    data = ("--data-dir", str(directory))
    with running(directory, "serverS.py", "--port", "0", *data) as back:
        where = ("--tcp-port", "0", "--server-s", f"127.0.0.1:{back}")
        with running(directory, "serverM.py", *where, *data, ready="Server S has sent its room status") as port:
            yield port


def availability(port: int, hello: bytes = b"") -> tuple[float, float]:
    """Return how many microseconds a request takes with one client, and the requests per second with four."""
    clients = connect(port, 4, hello)
    figures = microseconds_a_request(clients[0]), requests_a_second(clients, REQUEST, RATE_REQUESTS)
    close(clients)
    return figures


def reservations_a_second(port: int, room: int) -> float:
    """Return the rate at which sixteen clients reserve."""
    clients = connect(port, 16, b"LOGIN alice a secret\n")
    rate = requests_a_second(clients, b"RESERVE S%d\n" % room, RESERVATIONS)
    close(clients)
    return rate


def close(clients: list[socket.socket]) -> None:
    """Close the connections."""
    for client in clients:
        client.close()


def main() -> None:
    """Measure ours and the others in turn; print the table."""
    latencies, rates, reservations = [], [], []
    with tempfile.TemporaryDirectory(dir=HERE) as name:
        directory = Path(name)
        write_data(directory)
        for turn in range(TURNS):
            with dormitory(directory) as port:
                latency, rate = availability(port, b"LOGIN guest\n")
                reservation_rate = reservations_a_second(port, 1 + turn)
            with asyncio_servers(directory) as port:
                other_latency, other_rate = availability(port)
            latencies.append((latency, other_latency))
            rates.append((rate, other_rate))
            reservations.append((reservation_rate, commits_a_second(directory)))
    print(f"{'workload':<28} {'ours':>10} {'other':>10} {'':<10} {'ratio':>6}  goal")
    report("AVAILABILITY, 1 client", "us", latencies, "at most 0.8 of asyncio")
    report("AVAILABILITY, 4 clients", "requests/s", rates, "at least 1.1 of asyncio")
    report("RESERVE, 16 clients", "rows/s", reservations, "at least 1.3 of commits")


if __name__ == "__main__":
    main()
