"""Start the real programs as processes, and talk to them in lines.

A test reads as a transcript: `alice.send("LIST")`, `alice.expect("Registered users (1):")`. Every wait has a limit and
says what it waited for and what it got. When a test ends, each server must have no more threads and sockets than at its
start, stop on SIGTERM with exit status 0 within two seconds, and have written nothing to standard error.
"""

import os
import random
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest

pytest_plugins = ["box_office", "browsing", "certificates", "dorm", "pseudo_terminal", "side_by_side"]

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 10.0  # far longer than any step takes on an idle machine
STOP_SECONDS = 2.0
RESET = struct.pack("ii", 1, 0)  # for SO_LINGER: closing the socket resets the connection

# A process started with nohup or & may ignore these signals, and the programs that it starts would inherit that.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)
# The python3 of documents and of lines that programs print is the one that runs the tests.
os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options of test_random_models.py."""
    group = parser.getgroup("models", "random steps that are compared with models")
    group.addoption("--seed", type=int, help="the seed of a failed test (default: a random one)")
    group.addoption("--model-seconds", type=float, default=5.0, help="how long to take steps in each system (5)")


def wait_until(
    condition: Callable[[], Any],
    what: str,
    seconds: float = WAIT_SECONDS,
    poll_seconds: float = 0.005,
    got: Callable[[], object] = lambda: "something else",
) -> Any:
    """Wait until a condition holds; return its value. After the time limit, fail and say what was expected and got."""
    end = time.monotonic() + seconds
    while not (value := condition()):
        if time.monotonic() > end:
            pytest.fail(f"expected within {seconds} seconds: {what}; got {got()}")
        time.sleep(poll_seconds)
    return value


def at_once(count: int, work: Callable[[int], object]) -> None:
    """Call work(0), work(1), ... at the same moment, each in a thread of its own; wait until all have returned."""
    barrier = threading.Barrier(count)

    def run(index: int) -> None:
        barrier.wait(WAIT_SECONDS)
        work(index)

    with ThreadPoolExecutor(count) as pool:
        list(pool.map(run, range(count)))


def in_thread(work: Callable[..., object], *arguments: object) -> threading.Thread:
    """Start work in a thread; return the thread."""
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    return thread


@contextmanager
def meanwhile(*works: Callable[[], object]) -> Iterator[None]:
    """Do work in threads while a block runs; at its end wait for them, and raise what they raised."""
    with ThreadPoolExecutor(len(works)) as pool:
        done = [pool.submit(work) for work in works]
        yield
    for work in done:
        work.result()


@contextmanager
def fake_server(talk: Callable[[socket.socket], object]) -> Iterator[int]:
    """Run a server that accepts one client and talks to it as a test wants; yield its port."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            sock.settimeout(WAIT_SECONDS)
            talk(sock)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(WAIT_SECONDS)
        with meanwhile(serve):
            yield listener.getsockname()[1]


def free_port() -> int:
    """Return a TCP port that no program uses, and that no system gives to a client or to a server that asks for any."""
    for port in random.sample(range(20_000, 30_000), 1000):
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port
    pytest.fail("no port from 20000 to 29999 is free")


def skip_without_ipv6() -> None:
    """Skip a test if this machine has no IPv6 loopback address."""
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("this machine has no IPv6")


def new_threads(before: list[threading.Thread]) -> list[threading.Thread]:
    """Return this process's threads that were not running before, except the log's thread."""
    return [thread for thread in threading.enumerate() if thread not in before and thread.name != "log"]


class Peer:
    """A client's connection; on Linux it can come from any address of the loopback network, such as 127.0.0.2."""

    def __init__(self, port: int, receive_buffer: int = 0, source: str = "") -> None:
        if source and sys.platform != "linux":
            pytest.skip("elsewhere 127.0.0.1 is the only loopback address")
        self.sock = socket.socket()
        if receive_buffer:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.sock.settimeout(WAIT_SECONDS)
        self.received = b""
        try:
            if source:
                self.sock.bind((source, 0))
            self.sock.connect(("127.0.0.1", port))
        except OSError:
            self.sock.close()
            raise

    def send(self, *lines: str) -> None:
        """Send lines, together."""
        self.send_bytes("".join(f"{line}\n" for line in lines).encode())

    def send_bytes(self, data: bytes) -> None:
        """Send bytes as they are."""
        self.sock.sendall(data)

    def read_line(self) -> str:
        """Wait for the next line; return it."""
        while b"\n" not in self.received:
            if not (data := self._receive("a line")):
                pytest.fail(f"the connection ended after {self.received!r}")
            self.received += data
        line, _, self.received = self.received.partition(b"\n")
        return line.decode()

    def expect(self, *lines: str) -> None:
        """Fail unless the next lines are these."""
        for line in lines:
            assert self.read_line() == line

    def expect_match(self, pattern: str) -> re.Match[str]:
        """Fail unless the whole next line matches; return the match."""
        line = self.read_line()
        match = re.fullmatch(pattern, line)
        assert match, f"expected a line like {pattern!r}, got {line!r}"
        return match

    def read_all(self) -> str:
        """Return all data until the connection ends or is reset; then close it, as clients do."""
        with suppress(ConnectionError):
            while data := self._receive("the end of the connection"):
                self.received += data
        self.close()
        rest, self.received = self.received, b""
        return rest.decode()

    def expect_end(self) -> None:
        """Fail if data arrives before the connection ends; then close the connection."""
        assert self.read_all() == ""

    def expect_nothing(self, seconds: float = 0.2) -> None:
        """Fail if data arrives within some seconds."""
        self.sock.settimeout(seconds)
        with suppress(TimeoutError):
            self.received += self.sock.recv(1 << 16)
        self.sock.settimeout(WAIT_SECONDS)
        assert self.received == b""

    def end_input(self) -> None:
        """End our side of the connection; the server may still send."""
        self.sock.shutdown(socket.SHUT_WR)

    def reset(self) -> None:
        """Reset the connection."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        self.sock.close()

    def close(self) -> None:
        """Close the connection."""
        self.sock.close()

    def _receive(self, what: str) -> bytes:
        try:
            return self.sock.recv(1 << 16)
        except TimeoutError:
            pytest.fail(f"expected {what} within {WAIT_SECONDS} seconds, got {self.received!r}")


@contextmanager
def flooding(data: bytes, *peers: Peer) -> Iterator[None]:
    """Let clients send data again and again until the block or their connections end."""
    ended = threading.Event()

    def flood(peer: Peer) -> None:
        with suppress(OSError):
            while not ended.is_set():
                peer.send_bytes(data)

    with meanwhile(*(partial(flood, peer) for peer in peers)), _cut_off(*peers):
        try:
            yield
        finally:
            ended.set()


@contextmanager
def reading(*peers: Peer) -> Iterator[list[float]]:
    """Let clients read until the block or their connections end; yield the times at which something arrived."""
    arrivals: list[float] = []

    def read(peer: Peer) -> None:
        with suppress(OSError):
            while peer.sock.recv(1 << 16):
                arrivals.append(time.monotonic())

    with meanwhile(*(partial(read, peer) for peer in peers)), _cut_off(*peers):
        yield arrivals


@contextmanager
def _cut_off(*peers: Peer) -> Iterator[None]:
    try:
        yield
    finally:
        for peer in peers:
            with suppress(OSError):
                peer.sock.shutdown(socket.SHUT_RDWR)


class ServerEnd(NamedTuple):
    """What the kernel knows about the server's end of a connection (Linux only; see sock_diag(7))."""

    has_keep_alive: bool
    timer_seconds: float  # until the kernel sends the next segment by itself, such as a keep-alive probe
    unread_bytes: int


def server_end(peer: Peer) -> ServerEnd:
    """Return the state of the server's end of a connection; /proc/net/tcp would do, but may be long."""
    (here, here_port), (there, there_port) = peer.sock.getsockname(), peer.sock.getpeername()
    ends = struct.pack(">HH16s16s", there_port, here_port, socket.inet_aton(there), socket.inet_aton(here))
    request = struct.pack("=IHHIIBBxxI", 72, 20, 1, 0, 0, socket.AF_INET, socket.IPPROTO_TCP, 0xFFF) + ends
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diagnosis:
        diagnosis.send(request + struct.pack("=III", 0, 0xFFFFFFFF, 0xFFFFFFFF))
        timer, timer_ms, unread_bytes = struct.unpack_from("=18xB49xII", diagnosis.recv(1 << 12))
    return ServerEnd(timer == 2, timer_ms / 1000, unread_bytes)


def server_has_read(peer: Peer) -> None:
    """Wait until the server has read what was sent, so that it reads the next bytes separately (Linux only)."""
    if hasattr(socket, "AF_NETLINK"):
        wait_until(lambda: server_end(peer).unread_bytes == 0, "the server reads")


class Program:
    """One of the project's programs as a process; a test whose prefix, such as prlimit, is missing is skipped."""

    def __init__(
        self, *arguments: str, prefix: tuple[str, ...] = (), cwd: Path = ROOT, stdin: int | None = None
    ) -> None:
        if prefix and not shutil.which(prefix[0]):
            pytest.skip(f"{prefix[0]} is not installed")
        self.process = subprocess.Popen(
            [*prefix, *python(*arguments)], stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=cwd
        )
        self.lines: list[str] = []
        self.errors = ""
        self.peers: list[Peer] = []
        self._readers = [threading.Thread(target=self._read_lines), threading.Thread(target=self._read_errors)]
        for reader in self._readers:
            reader.start()
        self._at_rest = (0, 0)

    @property
    def pid(self) -> int:
        """The process's id."""
        return self.process.pid

    @property
    def port(self) -> int:
        """The port in the server's first line."""
        return int(self.wait_for_line(r".*istening on .*:(\d+)")[1])

    def connect(self, receive_buffer: int = 0, source: str = "") -> Peer:
        """Return a new client's connection to it."""
        peer = Peer(self.port, receive_buffer, source)
        self.peers.append(peer)
        return peer

    def type(self, *lines: str) -> None:
        """Write lines to its standard input, a pipe."""
        assert self.process.stdin
        self.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
        self.process.stdin.flush()

    def end_input(self) -> None:
        """Close its standard input, a pipe."""
        assert self.process.stdin
        self.process.stdin.close()

    def wait_for_line(self, pattern: str, seconds: float = WAIT_SECONDS) -> re.Match[str]:
        """Wait for a line on standard output that matches as a whole; return the match."""
        end = time.monotonic() + seconds
        seen = 0
        while True:
            while seen < len(self.lines):
                if match := re.fullmatch(pattern, self.lines[seen]):
                    return match
                seen += 1
            if time.monotonic() > end or (self.process.poll() is not None and not self._readers[0].is_alive()):
                log = "\n".join(self.lines[-20:])
                pytest.fail(f"no line like {pattern!r} within {seconds} seconds, but\n{log}\n{self.errors}")
            time.sleep(0.005)

    def count_lines(self, pattern: str) -> int:
        """Return how many lines on standard output match as a whole."""
        return sum(bool(re.fullmatch(pattern, line)) for line in self.lines)

    def has_stalled(self, pattern: str) -> bool:
        """Return whether lines on standard output match, but none of the last 0.3 seconds."""
        count = self.count_lines(pattern)
        time.sleep(0.3)
        return 0 < count == self.count_lines(pattern)

    def threads_and_sockets(self) -> tuple[int, int]:
        """Return the numbers of its threads and sockets (Linux only; elsewhere 0, 0)."""
        proc = Path(f"/proc/{self.pid}")
        if not proc.exists():
            return 0, 0
        sockets = 0
        for fd in (proc / "fd").iterdir():
            with suppress(FileNotFoundError):
                sockets += str(fd.readlink()).startswith("socket:")
        return len(list((proc / "task").iterdir())), sockets

    def resident_bytes(self) -> int:
        """Return the size of its resident memory (Linux only)."""
        return int(Path(f"/proc/{self.pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")

    def wait_for_start(self, threads: int = 3) -> None:
        """Wait until it listens and has started its threads; note their number and the number of its sockets.

        A TCP server has the main thread, the one that accepts, and the one that writes status lines. The chat room
        server has one more, which closes rooms that nobody uses.
        """
        assert self.port
        threads += "chatroom_server.py" in str(self.process.args)
        wait_until(lambda: self.threads_and_sockets()[0] in (0, threads), f"{threads} threads")
        self._at_rest = self.threads_and_sockets()

    def expect_rest(self, seconds: float = WAIT_SECONDS) -> None:
        """Close all its clients; fail unless it then returns to the threads and sockets that it started with."""
        while self.peers:
            self.peers.pop().close()
        threads, sockets = self._at_rest

        def is_at_rest() -> bool:
            now = self.threads_and_sockets()
            return now[0] <= threads and now[1] <= sockets

        what = f"at rest, {threads} threads and {sockets} sockets"
        wait_until(is_at_rest, what, seconds, got=self.threads_and_sockets)

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Send it a signal; return its exit status, which must come within two seconds."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.wait(STOP_SECONDS)

    def wait(self, seconds: float = WAIT_SECONDS) -> int:
        """Wait for its end; return the exit status."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"{self.process.args!r} did not end within {seconds} seconds")
        finally:
            self.kill()

    def kill(self) -> None:
        """Kill it, if it still runs, and collect its output."""
        self.process.kill()
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            if stream:
                stream.close()

    def close(self) -> None:
        """Close its clients' connections, and kill it."""
        for peer in self.peers:
            peer.close()
        self.kill()

    def _read_lines(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.lines.append(line.decode().removesuffix("\n"))

    def _read_errors(self) -> None:
        assert self.process.stderr
        self.errors = self.process.stderr.read().decode()


Start = Callable[..., Program]


@contextmanager
def looking_after() -> Iterator[Start]:
    """Yield a function that runs a server; at the end, fail unless each server comes to rest and stops in time."""
    servers: list[Program] = []

    def launch_server(*arguments: str, **options: Any) -> Program:
        servers.append(Program(*arguments, **options))
        return servers[-1]

    try:
        yield launch_server
        for server in servers:
            if server.process.poll() is None:
                server.expect_rest()
                assert server.stop() == 0
            server.kill()
            assert server.errors == ""
    finally:
        for server in servers:
            server.close()


@pytest.fixture
def run() -> Iterator[Start]:
    """Provide a function that runs a program with a pipe as standard input; afterwards, it must end on SIGTERM."""
    programs: list[Program] = []

    def run_one(*arguments: str, **options: Any) -> Program:
        programs.append(Program(*arguments, stdin=subprocess.PIPE, **options))
        return programs[-1]

    yield run_one
    for program in programs:
        program.stop()
        program.close()


@pytest.fixture
def launch() -> Iterator[Start]:
    """Provide a function that runs a server, which looking_after() checks and stops after the test."""
    with looking_after() as launch_server:
        yield launch_server


@pytest.fixture(scope="module")
def common_server(request: pytest.FixtureRequest) -> Iterator[Program]:
    """Provide one server, a module's PROGRAM, for all tests of the module that leave nobody connected."""
    with looking_after() as launch:
        server = launch(request.module.PROGRAM, "0")
        server.wait_for_start()
        yield server


@pytest.fixture
def start(launch: Start) -> Start:
    """Provide a function that runs a server and waits until it listens; looking_after() stops it after the test."""

    def start_server(*arguments: str, **options: Any) -> Program:
        server = launch(*arguments, **options)
        server.wait_for_start()
        return server

    return start_server


def changed_program(directory: Path, program: str, *statements: str) -> str:
    """Return the path of a script that runs a program after some statements have changed it."""
    script = directory / f"changed_{program}"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        f"import {program.removesuffix('.py')} as program\n"
        + "".join(f"{statement}\n" for statement in statements)
        + "sys.exit(program.main())\n"
    )
    return str(script)


def few_threads(count: int) -> str:
    """Return statements for changed_program() that limit a program's threads; a system limit does not apply to root."""
    return (
        "import threading\n"
        "start = threading.Thread.start\n"
        "def limited(thread):\n"
        f"    if threading.active_count() >= {count}:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(thread)\n"
        "threading.Thread.start = limited\n"
    )


def python(script: str, *arguments: str) -> list[str]:
    """Return the command that runs a script, of the project or at an absolute path, with warnings as errors."""
    return [sys.executable, "-W", "error", str(ROOT / script), *arguments]


def run_command(
    command: list[str], input: str = "", seconds: float = WAIT_SECONDS, **options: Any
) -> subprocess.CompletedProcess[str]:
    """Run a command to its end with an input; return its status and what it wrote."""
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "timeout": seconds, **options}
    return subprocess.run(command, input=input, **options)


def run_shell(line: str, input: str = "") -> subprocess.CompletedProcess[str]:
    """Run a line in a shell."""
    return run_command(["bash", "-c", line], input)


def run_program(script: str, *arguments: str, input: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program to its end with an input; return its status and what it wrote."""
    return run_command(python(script, *arguments), input, **options)


def run_programs(*commands: tuple[str, ...], **options: Any) -> list[subprocess.CompletedProcess[str]]:
    """Run programs to their ends, two at a time; return their results in order."""
    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(lambda command: run_program(*command, **options), commands))
