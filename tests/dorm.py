"""A dormitory for tests: data files in its own directory, and servers on free ports."""

import hashlib
import socket
import sqlite3
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import STOP_SECONDS, Peer, Program, Start, looking_after, wait_until

KINDS = {"S": "single", "D": "double", "U": "suite"}
needs_loopback_network = pytest.mark.skipif(sys.platform != "linux", reason="only Linux answers for all of 127.0.0.0/8")
PASSWORDS = {"alice": "correct horse, battery", "bob": "secret"}


def cheap_hash(password: str) -> str:
    """Return the hash of a password at the lowest cost, so that logins in tests take no time."""
    digest = hashlib.scrypt(password.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32)
    return f"scrypt$2$8$1${b'salt'.hex()}${digest.hex()}"


class Dormitory:
    """The files and the servers."""

    def __init__(self, launch: Start, directory: Path) -> None:
        self.directory = directory
        self.main: Program
        self.back_ends: dict[str, Program] = {}
        self.ports: dict[str, int] = {}  # that the main server uses instead of a back end's own, such as a relay's
        self.scripts = {letter: f"server{letter}.py" for letter in ("M", *KINDS)}
        self._launch = launch
        self._reserved = {letter: free_udp_port() for letter in KINDS}
        self._ports: dict[str, int] = {letter: sock.getsockname()[1] for letter, sock in self._reserved.items()}
        self._tcp_port = 0
        self.write("single.txt", "S1, 9\nS12, 6\nS123, 0\n")
        self.write("double.txt", "D1, 2\n")
        self.write("suite.txt", "U1, 3\n")
        self.write("member.txt", "".join(f"{name}, {cheap_hash(word)}\n" for name, word in PASSWORDS.items()))

    def close(self) -> None:
        """Release the ports of back ends that were never started."""
        for sock in self._reserved.values():
            sock.close()

    def write(self, name: str, text: str) -> None:
        """Write a data file."""
        (self.directory / name).write_text(text)

    def port(self, letter: str) -> int:
        """Return the port of a back end, which need not have been started."""
        return self._ports[letter]

    def start_main(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """Start the main server, on the same port as before; wait until it has its threads, and no clients."""
        places: list[str] = []
        for letter in KINDS:
            places += [f"--server-{letter.lower()}", f"127.0.0.1:{self.ports.get(letter, self.port(letter))}"]
        data = ("--tcp-port", str(self._tcp_port), "--data-dir", str(self.directory))
        self.main = self._launch(self.scripts["M"], *data, *places, *arguments, prefix=prefix)
        self._tcp_port = self.main.port
        sockets = 1 + len(KINDS)  # each health probe may use one
        wait_until(lambda: self.main.threads_and_sockets()[1] <= sockets, "no sockets but the listener and the probes'")
        self.main.wait_for_start(threads=7)  # with those that probe back ends and check passwords
        self.main._at_rest = 7, sockets  # the probes open and close theirs while a back end is down

    def start_back_end(self, letter: str, *arguments: str, prefix: tuple[str, ...] = ()) -> Program:
        """Start a back end, on the same port as before, and wait until it listens; return it."""
        self.launch_back_end(letter, *arguments, prefix=prefix)
        self.back_ends[letter].wait_for_start()
        return self.back_ends[letter]

    def launch_back_end(self, letter: str, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """Start a back end without waiting until it listens."""
        self._reserved[letter].close()
        port = () if "--port" in arguments else ("--port", str(self.port(letter)))
        data = ("--data-dir", str(self.directory))
        self.back_ends[letter] = self._launch(self.scripts[letter], *data, *port, *arguments, prefix=prefix)

    def start_back_ends(self, letters: str) -> None:
        """Start back ends, together."""
        for letter in letters:
            self.launch_back_end(letter)
        for letter in letters:
            self.back_ends[letter].wait_for_start()

    def start(self, letters: str = "SDU") -> None:
        """Start back ends and the main server, and wait until it has found them, and has given up the others."""
        self.start_back_ends(letters)
        self.start_main()
        self.wait_until_found(letters)
        for letter in set(KINDS).difference(letters):
            self.main.wait_for_line(f"Server {letter} at .* is not answering")

    def wait_until_found(self, letters: str, times: int = 1, seconds: float = 10.0) -> None:
        """Wait until the main server has reported each of these back ends as found, a number of times."""
        for letter in letters:
            pattern = f"Server {letter} has sent its room status: .*"
            wait_until(lambda: self.main.count_lines(pattern) >= times, pattern, seconds)  # noqa: B023 - runs at once

    def log_in(self, user: str = "alice") -> Peer:
        """Return the connection of a user who has logged in; a user who is not a member is a guest."""
        peer = self.main.connect()
        peer.send(f"LOGIN {user} {PASSWORDS.get(user, '')}".rstrip())
        peer.expect(f"{'MEMBER' if user in PASSWORDS else 'GUEST'} {user}")
        return peer

    @property
    def key(self) -> bytes:
        """The key of the four servers."""
        return bytes.fromhex((self.directory / "dorm.key").read_text())

    def database(self, letter: str) -> Path:
        """Return the path of a back end's database."""
        return self.directory / f"{KINDS[letter]}.db"

    def rows(self, letter: str) -> list[tuple[str, str, str]]:
        """Return id, room and member of each reservation that is on disk."""
        with closing(sqlite3.connect(self.database(letter))) as db:
            rows = db.execute("SELECT number, room, member FROM reservations ORDER BY number").fetchall()
        return [(f"{letter}{number}", room, member) for number, room, member in rows]


def free_udp_port() -> socket.socket:
    """Return a socket that reserves a free UDP port until it is closed."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind(("127.0.0.1", 0))
    return sock


def ask(peer: Peer, request: str) -> str:
    """Return the reply to a request."""
    peer.send(request)
    return peer.read_line()


@pytest.fixture
def dormitory(launch: Start, tmp_path: Path) -> Iterator[Dormitory]:
    """Provide a dormitory without servers; after the test, stop all its servers at the same time."""
    with caring_for(launch, tmp_path) as dormitory:
        yield dormitory


@pytest.fixture(scope="module")
def common_dormitory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dormitory]:
    """Provide a dormitory with running servers, for all tests that cancel what they reserve."""
    with looking_after() as launch, caring_for(launch, tmp_path_factory.mktemp("dormitory")) as dormitory:
        dormitory.start()
        yield dormitory


@contextmanager
def caring_for(launch: Start, directory: Path) -> Iterator[Dormitory]:
    """Provide a dormitory in a directory; at the end, fail unless its servers come to rest and stop in time."""
    programs: list[Program] = []

    def launch_program(*arguments: str, **options: Any) -> Program:
        programs.append(launch(*arguments, **options))
        return programs[-1]

    dormitory = Dormitory(launch_program, directory)
    with closing(dormitory):
        yield dormitory
    running = [program for program in programs if program.process.poll() is None]
    for program in running:
        program.expect_rest()
    for program in running:
        program.process.terminate()
    end = time.monotonic() + STOP_SECONDS
    for program in running:
        assert program.wait(max(0.0, end - time.monotonic())) == 0
