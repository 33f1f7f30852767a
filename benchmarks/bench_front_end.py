"""Measure what the front end costs: each workload through it and directly, in turn, in the same run.

python3 benchmarks/bench_front_end.py
"""

import re
import resource
import sys
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from load import ROOT, Client, Measured, close, in_turn, lock_step, print_row, running

sys.path.insert(0, str(ROOT))

from web.websocket import Opcode, apply_mask, frame

REQUEST = b"AVAILABILITY S1"
AVAILABLE = b"AVAILABLE 9999"
READERS = 9
TABS = 1000
ROUNDS = 5
REPETITIONS = 2000
UNREGISTERED = b"Unregistered User. Use JOIN <username> to register."
PARTS = re.compile(r"""(?:src=|href=|from |import )["']\.?/?([\w.-]+\.(?:css|js|svg))["']""")


class BrowserTab(Client):
    """A browser's WebSocket."""

    def __init__(self, server: Measured, path: str, hello: bytes = b"", answer: bytes = b"") -> None:
        super().__init__(server)
        head = f"GET {path} HTTP/1.1\r\nHost: localhost:{server.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        self.sock.sendall((head + key).encode())
        response = b""
        while not response.endswith(b"\r\n\r\n"):
            response += self.sock.recv(1)
        if not response.startswith(b"HTTP/1.1 101 "):
            sys.exit(f"the front end answered {response!r}")
        if hello:
            self.sock.sendall(masked(hello))
            self.receive(len(frame(Opcode.TEXT, answer)))


def masked(message: bytes) -> bytes:
    """Return a short text message as a browser sends it."""
    mask = b"mask"
    return bytes((0x80 | Opcode.TEXT, 0x80 | len(message))) + mask + apply_mask(mask, message)


@contextmanager
def dormitory() -> Iterator[Measured]:
    """Run a dormitory that has one back end; yield its main server."""
    with tempfile.TemporaryDirectory() as directory:
        for kind, letter in (("single", "S"), ("double", "D"), ("suite", "U")):
            Path(directory, f"{kind}.txt").write_text(f"{letter}1, 9999\n")
        Path(directory, "member.txt").write_text("")
        data = ("--data-dir", directory)
        with (
            running("serverS.py", "--port", "0", *data) as back_end,
            running("serverM.py", "--tcp-port", "0", "--server-s", f"127.0.0.1:{back_end.port}", *data) as main,
        ):
            yield main


@contextmanager
def running_front_end(name: str, system: Measured) -> Iterator[Measured]:
    """Run a front end for one system."""
    address = f"127.0.0.1:{system.port}"
    with running("front_end.py", "0", f"--{name}", address, "--max-connections", str(3 * TABS)) as front_end:
        yield front_end


def compare(workload: str, ours: Callable[[], float], direct: Callable[[], float]) -> None:
    """Measure a workload through the front end and directly; print a row."""
    through, directly = in_turn((ours, direct), ROUNDS)
    print_row(workload, f"{through * 1e6:.0f} us", f"{directly * 1e6:.0f} us", f"{through / directly:.2f}", "<= 4")


def round_trip() -> None:
    """Measure the AVAILABILITY requests of one client."""
    with dormitory() as main, running_front_end("dormitory", main) as front_end:
        tab = BrowserTab(front_end, "/ws/dormitory", b"LOGIN guest", b"GUEST guest")
        client = Client(main, b"LOGIN guest\n", b"GUEST guest\n")
        compare(
            "AVAILABILITY, one client",
            lambda: lock_step([tab, tab], masked(REQUEST), len(frame(Opcode.TEXT, AVAILABLE)), REPETITIONS),
            lambda: lock_step([client, client], REQUEST + b"\n", len(AVAILABLE) + 1, REPETITIONS),
        )
        close([tab, client])


def chat_line() -> None:
    """Measure a chat line from one user to nine others: all of them in tabs, or all connected directly."""
    with running("chat_server.py", "0", "--max-users", "100") as chat, running_front_end("chat", chat) as front_end:
        text = b"x" * 50
        names = [b"u%d" % number for number in range(1 + READERS)]

        def tabs() -> float:
            users = [
                BrowserTab(front_end, "/ws/chat", b"JOIN " + name, b"JOIN " + name + b" accepted") for name in names
            ]
            size = len(frame(Opcode.TEXT, b"FROM u0 (all): " + text))
            seconds = lock_step(users, masked(b"BCST " + text), size, REPETITIONS)
            close(users)
            return seconds

        def direct() -> float:
            clients = [Client(chat, b"JOIN d%s\n" % name, b"JOIN d%s accepted\n" % name) for name in names]
            seconds = lock_step(clients, b"BCST " + text + b"\n", len(b"FROM du0 (all): ") + len(text) + 1, REPETITIONS)
            close(clients)
            return seconds

        compare("chat, a line to nine others", tabs, direct)


def open_tabs() -> None:
    """Measure the memory of tabs that do nothing."""
    places = ("--max-connections", str(3 * TABS))
    with running("chat_server.py", "0", *places) as chat, running_front_end("chat", chat) as front_end:
        before = front_end.resident_bytes()
        tabs = [BrowserTab(front_end, "/ws/chat", b"LIST", UNREGISTERED) for _ in range(TABS)]
        each = (front_end.resident_bytes() - before) / TABS / 1024
        close(tabs)
    print_row(f"{TABS} open tabs: resident memory each", f"{each:.1f} KiB", "", "", "<= 40 KiB")


def page_load() -> None:
    """Measure the total size of the files of the largest page."""
    with running("front_end.py", "0") as front_end:
        sizes = {}
        for page in ("", "dormitory.html", "cinema.html", "chat.html", "chatrooms.html"):
            files: dict[str, bytes] = {}
            fetch(front_end.port, page, files)
            sizes[page or "index.html"] = sum(map(len, files.values()))
    page = max(sizes, key=lambda page: sizes[page])
    print_row(f"all files of {page}", f"{sizes[page] / 1024:.1f} KiB", "", "", "<= 60 KiB")


def fetch(port: int, name: str, files: dict[str, bytes]) -> None:
    """Load a file and the files that it refers to."""
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/{name}") as response:
        files[name] = response.read()
    for part in PARTS.findall(files[name].decode(errors="replace")):
        if part not in files:
            fetch(port, part, files)


def main() -> None:
    """Print the table."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, max(soft, 3 * TABS)), hard))
    print_row("workload", "front end", "direct", "ratio", "goal")
    round_trip()
    chat_line()
    open_tabs()
    page_load()


if __name__ == "__main__":
    main()
