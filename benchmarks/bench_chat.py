"""Measure the speed of the chat server against servers that only move bytes, and its fairness.

    python3 benchmarks/bench_chat.py

Floors: (a) a relay with a send per line; (b) the chat server's protocol on asyncio streams; (c) a thread per connection
that echoes.
"""

import resource
import selectors
import ssl
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from floors import GREETING
from load import Client, Measured, close, flood, in_turn, lock_step, print_row, running

USERS = 10
ROUNDS = 5
TEXT = b"x" * 58
LINE = b"BCST " + TEXT + b"\n"  # 64 bytes
BLOCK_LINES = 1000

FLOODERS = 20
FLOODS = {
    "LIST": b"LIST\n" * 1000,
    "telnet commands": (b"\xff\xf1" * 1000 + b"\n") * 30,
    "backspaces": (b"x\b" * 1000 + b"\n") * 30,
    "invalid UTF-8": (b"\xc3\x28\xe2\x82" * 500 + b"\n") * 30,
}
IDLE = 10_000
NEWCOMERS = 100


@dataclass
class MeasuredRelay:
    """A server that relays lines, and what its clients send and receive.

    Attributes:
        command: the script and its arguments.
        hello: what a client sends first; {} is its number.
        answer: what the server sends then; # is the client's number.
        relayed: what each other client receives when the first client sends LINE.
        tls: the clients' context, if the server speaks TLS.
    """

    command: tuple[str, ...]
    hello: str = ""
    answer: bytes = GREETING
    relayed: bytes = LINE
    tls: ssl.SSLContext | None = None

    def connect(self, server: Measured) -> list[Client]:
        """Return ten clients to which the server relays."""
        return [
            Client(server, self.hello.format(i).encode(), self.answer.replace(b"#", b"%d" % i)) for i in range(USERS)
        ]


CHAT = MeasuredRelay(("chat_server.py", "0"), "JOIN u{}\n", b"JOIN u# accepted\n", b"FROM u0 (all): " + TEXT + b"\n")
STREAMS = MeasuredRelay(("benchmarks/floors.py", "streams"), CHAT.hello, CHAT.answer, CHAT.relayed)
LINES = MeasuredRelay(("benchmarks/floors.py", "lines"))


def deliveries_per_second(relay: MeasuredRelay, senders: int, lines: int) -> Callable[[], float]:
    """Return a function that measures a flood with this many lines in total."""

    def measure() -> float:
        blocks = lines // BLOCK_LINES // senders
        with running(*relay.command, tls=relay.tls) as server:
            clients = relay.connect(server)
            seconds = flood(clients, senders, LINE * BLOCK_LINES, blocks, len(relay.relayed) * BLOCK_LINES)
            close(clients)
        return blocks * senders * BLOCK_LINES * (USERS - 1) / seconds

    return measure


def latency(relay: MeasuredRelay) -> Callable[[], float]:
    """Return a function that measures the seconds from sending a line until nine readers have received it."""

    def measure() -> float:
        with running(*relay.command, tls=relay.tls) as server:
            clients = relay.connect(server)
            seconds = lock_step(clients, LINE, len(relay.relayed), rounds=3000)
            close(clients)
        return seconds

    return measure


def conversations_per_second(command: tuple[str, ...], answer: bytes) -> Callable[[], float]:
    """Return a function that measures how many conversations (connect, JOIN, QUIT, close) are possible in a second."""

    def measure() -> float:
        count = 3000
        with running(*command) as server:
            began = time.perf_counter()
            for _ in range(count):
                client = Client(server, b"JOIN u\n", answer)
                client.sock.sendall(b"QUIT\n")
                client.sock.recv(100)
                client.sock.close()
            return count / (time.perf_counter() - began)

    return measure


def compare(
    workload: str, unit: str, scale: float, ours: Callable[[], float], floor: Callable[[], float], goal: str = ""
) -> None:
    """Measure both in turn and print a row of the table."""
    mine, theirs = in_turn([ours, floor], ROUNDS)
    print_row(workload, f"{mine * scale:.3g} {unit}", f"{theirs * scale:.3g} {unit}", f"{mine / theirs:.2f}", goal)


def fairness(name: str, block: bytes) -> None:
    """Measure how long a newcomer waits for its first reply while users flood, and how much the users receive."""
    with running("chat_server.py", "0", "--max-users", str(FLOODERS)) as server:
        users = [Client(server, b"JOIN u%d\n" % i, b"JOIN u%d accepted\n" % i) for i in range(FLOODERS)]
        over = threading.Event()
        threads = [threading.Thread(target=send_for_ever, args=(user, block, over)) for user in users]
        received = [0]
        threads.append(threading.Thread(target=count_received, args=(users, over, received)))
        for thread in threads:
            thread.start()
        time.sleep(0.5)  # the floods fill every buffer
        before, began = received[0], time.perf_counter()
        waits = []
        for _ in range(NEWCOMERS):
            asked = time.perf_counter()
            newcomer = Client(server, b"LIST\n", b"Unregistered User. Use JOIN <username> to register.\n")
            waits.append((time.perf_counter() - asked) * 1000)
            newcomer.sock.close()
            time.sleep(0.02)
        rate = (received[0] - before) / (time.perf_counter() - began) / 1e6
        over.set()
        for user in users:
            user.sock.shutdown(2)
        for thread in threads:
            thread.join()
        close(users)
    tenths = statistics.quantiles(waits, n=10)
    print_row(f"newcomer, {FLOODERS} floods of {name}: median", f"{tenths[4]:.0f} ms")
    print_row("  90th percentile", f"{tenths[8]:.0f} ms", "", "", "<= 50 ms")
    if name == "LIST":
        print_row("  the floods receive", f"{rate:.0f} MB/s", "", "", ">= 25 MB/s")


def send_for_ever(user: Client, block: bytes, over: threading.Event) -> None:
    """Send a block again and again, as fast as the server takes it."""
    with suppress(OSError):
        while not over.is_set():
            user.sock.sendall(block)


def count_received(users: list[Client], over: threading.Event, received: list[int]) -> None:
    """Receive what the server sends to all users, and count the bytes."""
    buffer = bytearray(1 << 18)
    with selectors.DefaultSelector() as selector:
        for user in users:
            selector.register(user.sock, selectors.EVENT_READ, user)
        while not over.is_set():
            for key, _ in selector.select(0.1):
                with suppress(OSError):
                    received[0] += key.data.sock.recv_into(buffer)


def idle(connections: int) -> None:
    """Measure the memory of idle connections, and the latency of ten active users among them."""
    most = str(connections + 10)
    with running("chat_server.py", "0", "--max-connections", most, "--max-per-address", most) as server:
        clients = CHAT.connect(server)
        size = len(CHAT.relayed)
        lock_step(clients, LINE, size, rounds=500)
        before, threads = server.resident_bytes(), server.threads()
        alone = lock_step(clients, LINE, size, rounds=3000)
        crowd = [Client(server) for _ in range(connections)]
        while server.threads() < threads + connections:
            time.sleep(0.01)
        lock_step(clients, LINE, size, rounds=500)
        each = (server.resident_bytes() - before) / connections / 1024
        among = lock_step(clients, LINE, size, rounds=3000)
        began = time.perf_counter()
        close(crowd)
        while server.threads() > threads:
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        close(clients)
    print_row(f"{connections} idle: resident memory each", f"{each:.1f} KiB", "", "", "<= 24 KiB")
    print_row("  all of them leave at once", f"{seconds:.2f} s", "", "", "<= 5 s")
    print_row(
        "  lock-step among them", f"{among * 1e6:.0f} us", f"{alone * 1e6:.0f} us", f"{among / alone:.2f}", "<= 1.50"
    )


def raise_descriptor_limit(count: int) -> None:
    """Allow this process as many descriptors as the load needs."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, count), max(hard, count)))


def main() -> None:
    """Print the table."""
    print_row("workload", "ours", "floor", "ratio", "goal")
    compare("lock-step, 9 readers; floor (a)", "us", 1e6, latency(CHAT), latency(LINES), "<= 1.30")
    for senders in (1, 5):
        ours, streams = deliveries_per_second(CHAT, senders, 1_000_000), deliveries_per_second(STREAMS, senders, 20_000)
        compare(f"flood, {senders} of 10 send; floor (b)", "M/s", 1e-6, ours, streams, ">= 20")
    chat, echo = CHAT.command, ("benchmarks/floors.py", "echo")
    ours = conversations_per_second(chat, b"JOIN u accepted\n")
    compare("connect, JOIN, QUIT; floor (c)", "/s", 1, ours, conversations_per_second(echo, b"JOIN u\n"), ">= 0.65")
    for name, block in FLOODS.items():
        fairness(name, block)
    raise_descriptor_limit(IDLE + 100)
    idle(IDLE)


if __name__ == "__main__":
    main()
