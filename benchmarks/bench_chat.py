"""How fast the chat server is, beside servers that do nothing but move the bytes.

    python3 benchmarks/bench_chat.py

Floors: (a) a relay that forwards each chunk as it came; (b) the same with a send per line; (c) the chat server's
protocol on asyncio streams; (d) a thread per connection that echoes.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass

from floors import GREETING
from load import Client, Measured, close, flood, in_turn, lock_step, print_row, running

USERS = 10
ROUNDS = 5
TEXT = b"x" * 58
LINE = b"BCST " + TEXT + b"\n"  # 64 bytes
BLOCK_LINES = 1000


@dataclass
class Relay:
    """A server that relays, and how one talks to it."""

    command: tuple[str, ...]
    hello: str = ""
    answer: bytes = GREETING
    relayed: bytes = LINE

    def connect(self, server: Measured) -> list[Client]:
        """Return ten clients that are known to the server."""
        return [
            Client(server, self.hello.format(i).encode(), self.answer.replace(b"#", b"%d" % i)) for i in range(USERS)
        ]


CHAT = Relay(("chat_server.py", "0"), "JOIN u{}\n", b"JOIN u# accepted\n", b"FROM u0 (all): " + TEXT + b"\n")
STREAMS = Relay(("benchmarks/floors.py", "streams"), CHAT.hello, CHAT.answer, CHAT.relayed)
CHUNKS = Relay(("benchmarks/floors.py", "chunks"))
LINES = Relay(("benchmarks/floors.py", "lines"))


def deliveries_per_second(relay: Relay, senders: int, lines: int) -> Callable[[], float]:
    """Measure a flood of so many lines in all."""

    def measure() -> float:
        blocks = lines // BLOCK_LINES // senders
        with running(*relay.command) as server:
            clients = relay.connect(server)
            seconds = flood(clients, senders, LINE * BLOCK_LINES, blocks, len(relay.relayed) * BLOCK_LINES)
            close(clients)
        return blocks * senders * BLOCK_LINES * (USERS - 1) / seconds

    return measure


def latency(relay: Relay) -> Callable[[], float]:
    """Measure the seconds from a line's sending until nine readers have it."""

    def measure() -> float:
        with running(*relay.command) as server:
            clients = relay.connect(server)
            seconds = lock_step(clients, LINE, len(relay.relayed), rounds=3000)
            close(clients)
        return seconds

    return measure


def conversations_per_second(command: tuple[str, ...], answer: bytes) -> Callable[[], float]:
    """Measure connect, JOIN, its answer, QUIT, the end; the echo needs the end of our side for a QUIT."""

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
    workload: str, unit: str, scale: float, ours: Callable[[], float], floor: Callable[[], float], goal: str
) -> None:
    """Measure both in turn and print a row of the table."""
    mine, theirs = in_turn([ours, floor], ROUNDS)
    print_row(workload, f"{mine * scale:.3g} {unit}", f"{theirs * scale:.3g} {unit}", f"{mine / theirs:.2f}", goal)


def idle(connections: int) -> None:
    """Measure what idle connections cost in memory, and in latency for ten active ones."""
    with running("chat_server.py", "0", "--max-connections", str(connections + USERS)) as server:
        clients = CHAT.connect(server)
        size = len(CHAT.relayed)
        lock_step(clients, LINE, size, rounds=500)
        before = server.resident_bytes()
        alone = lock_step(clients, LINE, size, rounds=3000)
        crowd = [Client(server) for _ in range(connections)]
        lock_step(clients, LINE, size, rounds=500)
        each = (server.resident_bytes() - before) / connections / 1024
        among = lock_step(clients, LINE, size, rounds=3000)
        threads = server.threads()
        began = time.perf_counter()
        close(crowd)
        while server.threads() > threads - connections:
            time.sleep(0.01)
        seconds = time.perf_counter() - began
        close(clients)
    print_row(f"{connections} idle: resident memory each", f"{each:.1f} KiB", "", "", "<= 32 KiB")
    print_row("  all of them leave at once", f"{seconds:.2f} s")
    print_row(
        "  lock-step among them", f"{among * 1e6:.0f} us", f"{alone * 1e6:.0f} us", f"{among / alone:.2f}", "<= 1.50"
    )


def main() -> None:
    """Print the table."""
    print_row("workload", "ours", "floor", "ratio", "goal")
    compare("lock-step, 9 readers; floor (b)", "us", 1e6, latency(CHAT), latency(LINES), "<= 1.10")
    for senders in (1, 5):
        name = f"flood, {senders} of 10 send"
        ours = deliveries_per_second(CHAT, senders, 1_000_000)
        compare(f"{name}; floor (a)", "M/s", 1e-6, ours, deliveries_per_second(CHUNKS, senders, 2_000_000), ">= 0.40")
        compare(f"{name}; floor (c)", "M/s", 1e-6, ours, deliveries_per_second(STREAMS, senders, 20_000), ">= 20")
    chat, echo = CHAT.command, ("benchmarks/floors.py", "echo")
    ours = conversations_per_second(chat, b"JOIN u accepted\n")
    compare("connect, JOIN, QUIT; floor (d)", "/s", 1, ours, conversations_per_second(echo, b"JOIN u\n"), ">= 0.80")
    idle(5000)


if __name__ == "__main__":
    main()
