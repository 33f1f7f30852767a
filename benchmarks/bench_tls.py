"""Measure the cost of TLS for the chat server, and compare it with asyncio streams over TLS.

    python3 benchmarks/bench_tls.py

Needs the openssl program, to make a certificate. The load and the servers speak TLS 1.3 with a key on the curve P-256.
"""

import ssl
import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from bench_chat import CHAT, STREAMS, MeasuredRelay, compare, deliveries_per_second, latency
from load import Client, close, print_row, running

IDLE = 1000
HANDSHAKES = 500


def make_certificate(folder: Path) -> tuple[str, str]:
    """Return the paths of a new certificate and its key."""
    certificate, key = str(folder / "certificate.pem"), str(folder / "key.pem")
    command = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -subj /CN=localhost"
    subprocess.run([*command.split(), "-keyout", key, "-out", certificate], check=True, capture_output=True)
    return certificate, key


def over_tls(relay: MeasuredRelay, *options: str) -> MeasuredRelay:
    """Return a relay that speaks TLS; the load does not check its certificate."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return replace(relay, command=(*relay.command, *options), tls=context)


def handshakes_per_second(relay: MeasuredRelay) -> Callable[[], float]:
    """Return a function that measures how many connections with a handshake and a JOIN are possible in a second."""

    def measure() -> float:
        with running(*relay.command, tls=relay.tls) as server:
            began = time.perf_counter()
            for i in range(HANDSHAKES):
                close([Client(server, b"JOIN u%d\n" % i, b"JOIN u%d accepted\n" % i)])
            return HANDSHAKES / (time.perf_counter() - began)

    return measure


def idle_bytes(relay: MeasuredRelay, *options: str) -> Callable[[], float]:
    """Return a function that measures the memory of an idle connection."""

    def measure() -> float:
        with running(*relay.command, *options, tls=relay.tls) as server:
            clients = relay.connect(server)
            before = server.resident_bytes()
            crowd = [Client(server) for _ in range(IDLE)]
            clients.append(Client(server))  # its handshake ends after the server has accepted the crowd
            clients[0].sock.sendall(b"BCST hello\n")
            clients[1].receive(len(b"FROM u0 (all): hello\n"))
            each = (server.resident_bytes() - before) / IDLE
            close([*crowd, *clients])
        return each

    return measure


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        certificate, key = make_certificate(Path(folder))
        chat = over_tls(CHAT, "--tls-certificate", certificate, "--tls-key", key)
        streams = over_tls(STREAMS, certificate, key)
        print_row("workload, over TLS", "ours", "floor", "ratio", "goal")
        compare("lock-step, 9 readers; ours without TLS", "us", 1e6, latency(chat), latency(CHAT), "<= 1.50")
        compare("lock-step, 9 readers; asyncio", "us", 1e6, latency(chat), latency(streams))
        ours = deliveries_per_second(chat, 1, 400_000)
        compare("flood, 1 of 10 sends; asyncio", "M/s", 1e-6, ours, deliveries_per_second(streams, 1, 10_000), ">= 5")
        plain = deliveries_per_second(CHAT, 1, 400_000)
        compare("flood, 1 of 10 sends; ours without TLS", "M/s", 1e-6, ours, plain)
        compare("handshakes; asyncio", "/s", 1, handshakes_per_second(chat), handshakes_per_second(streams), ">= 0.80")
        many = ("--max-connections", str(3 * IDLE))
        compare(f"{IDLE} idle: memory each; asyncio", "KiB", 1 / 1024, idle_bytes(chat, *many), idle_bytes(streams))


if __name__ == "__main__":
    main()
