"""Measure what crowds do: ten thousand clients that leave at once, SIGTERM meanwhile, and a thousand that never read.

    python3 benchmarks/bench_crowds.py

The kernel's memory for sockets is that of the whole machine, so run this while nothing else uses the network.
"""

import multiprocessing
import os
import signal
import socket
import statistics
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from bench_chat import raise_descriptor_limit
from load import Client, Measured, print_row, running

CROWD = 10_000
TALKERS = 10
LEAVINGS = 20
SIGNAL_AFTER_SECONDS = (0.0, 0.2, 0.5, 1.0, 2.0)
MEMBERS = 998
SENT_BYTES = 1_700_000
PAGE_BYTES = 4096
PLACES = str(CROWD + 100)
COMMAND = ("chat_server.py", "0", "--max-connections", PLACES, "--max-per-address", PLACES, "--max-users", str(TALKERS))


def crowd(port: int, ready: Callable[[], object]) -> None:
    """Connect ten thousand clients, of whom ten talk, until this process is killed."""
    server = Measured(port, 0)
    raise_descriptor_limit(CROWD + 100)
    clients = [Client(server) for _ in range(CROWD)]
    for number, talker in enumerate(clients[:TALKERS]):
        talker.sock.sendall(b"JOIN u%d\n" % number)
        threading.Thread(target=talk, args=(talker,), daemon=True).start()
    ready()
    time.sleep(600)


def talk(client: Client) -> None:
    """Send to all others, and receive what they send, for ever."""
    with suppress(OSError):
        while True:
            client.sock.sendall(b"BCST hello\n" * 10)
            client.sock.recv(1 << 16)


def kill_crowd(server: Measured, after_leaving: Callable[[float], float]) -> float:
    """Let a crowd connect and kill it; return what after_leaving() returns for the moment of the kill."""
    ready = multiprocessing.Event()
    process = multiprocessing.Process(target=crowd, args=(server.port, ready.set))
    process.start()
    ready.wait()
    while server.threads() < CROWD:
        time.sleep(0.1)
    process.kill()
    result = after_leaving(time.monotonic())
    process.join()
    return result


def seconds_until_gone() -> float:
    """Measure how long a crowd's threads live after its end."""
    with running(*COMMAND) as server:

        def wait(began: float) -> float:
            while server.threads() > 3:
                time.sleep(0.01)
            return time.monotonic() - began

        return kill_crowd(server, wait)


def seconds_until_stopped(signal_after: float) -> float:
    """Measure how long a server takes to obey SIGTERM while a crowd leaves."""
    with running(*COMMAND) as server:

        def stop(_: float) -> float:
            time.sleep(signal_after)
            began = time.monotonic()
            os.kill(server.pid, signal.SIGTERM)
            while Path(f"/proc/{server.pid}/status").read_text().partition("State:\t")[2][0] != "Z":
                time.sleep(0.01)
            return time.monotonic() - began

        return kill_crowd(server, stop)


def kernel_bytes() -> int:
    """Return the memory that the kernel uses for TCP (Linux only)."""
    sockets = Path("/proc/net/sockstat").read_text()
    return int(sockets.partition("TCP:")[2].splitlines()[0].split()[-1]) * PAGE_BYTES


def megabytes_for_members_that_never_read() -> float:
    """Measure the memory of server and kernel while one member floods a room whose other members never read."""
    with running("chatroom_server.py", "0") as server:
        lobby = Client(server, b"1tea\n2tea\n")
        replies = b""
        while replies.count(b"\n") < 2:
            replies += lobby.sock.recv(100)
        port = int(replies.splitlines()[1][1:].split()[0])
        members = [silent_member(port, f"127.0.0.{number % 3 + 2}") for number in range(MEMBERS)]
        before = kernel_bytes()
        sender = Client(Measured(port, server.pid))
        sender.sock.sendall((b"x" * 4000 + b"\n") * (SENT_BYTES // 4001))
        end = time.monotonic() + 4  # then the first are dropped
        most = 0
        while time.monotonic() < end:
            most = max(most, server.resident_bytes() + kernel_bytes() - before)
            time.sleep(0.05)
        for sock in (*members, sender.sock, lobby.sock):
            sock.close()
    return most / 1e6


def silent_member(port: int, source: str) -> socket.socket:
    """Return a member's connection with a small buffer."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    sock.bind((source, 0))
    sock.connect(("127.0.0.1", port))
    return sock


def main() -> None:
    """Print the table."""
    raise_descriptor_limit(CROWD + 100)
    print_row("workload", "ours", "", "", "goal")
    print_row(f"{MEMBERS} never read 1.7 MB", f"{megabytes_for_members_that_never_read():.0f} MB", "", "", "<= 200 MB")
    gone = [seconds_until_gone() for _ in range(LEAVINGS)]
    shown = f"{statistics.median(gone):.1f} s"
    print_row(f"{CROWD} leave at once, {LEAVINGS} times: median", shown)
    print_row("  the slowest", f"{max(gone):.1f} s", "", "", "<= 5 s")
    stopped = [seconds_until_stopped(after) for after in SIGNAL_AFTER_SECONDS for _ in range(4)]
    print_row("  SIGTERM meanwhile: the slowest", f"{max(stopped):.1f} s", "", "", "<= 5 s")


if __name__ == "__main__":
    main()
