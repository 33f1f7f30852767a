"""A dormitory for tests: data files in a directory of its own, and its servers on free ports."""

import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from conftest import STOP_SECONDS, Peer, Program, Start, looking_after

KINDS = {"S": "single", "D": "double", "U": "suite"}
PASSWORDS = {"alice": "correct horse, battery", "bob": "secret"}


def cheap_hash(password: str) -> str:
    """Return a password's hash at the lowest cost, so that a test's logins take no time."""
    digest = hashlib.scrypt(password.encode(), salt=b"salt", n=2, r=8, p=1, dklen=32)
    return f"scrypt$2$8$1${b'salt'.hex()}${digest.hex()}"


class Dormitory:
    """The files and the servers.

    Attributes:
        directory: where the files are.
        main: the main server, once it is started.
        back_ends: those that were started, by letter.
    """

    def __init__(self, launch: Start, directory: Path) -> None:
        self.directory = directory
        self.main: Program
        self.back_ends: dict[str, Program] = {}
        self._launch_program = launch
        self._ports: dict[str, int] = {}
        self.write("single.txt", "S1, 9\nS12, 6\nS123, 0\n")
        self.write("double.txt", "D1, 2\n")
        self.write("suite.txt", "U1, 3\n")
        self.write("member.txt", "".join(f"{name}, {cheap_hash(word)}\n" for name, word in PASSWORDS.items()))

    def write(self, name: str, text: str) -> None:
        """Write a data file."""
        (self.directory / name).write_text(text)

    def start_main(self, *arguments: str, prefix: tuple[str, ...] = ()) -> None:
        """Start the main server; if it ran before, on the same ports."""
        tcp_port, udp_port = (str(self._ports.get(name, 0)) for name in ("tcp", "udp"))
        ports = ("--tcp-port", tcp_port, "--udp-port", udp_port)
        self.main = self._launch_program(
            "serverM.py", *ports, "--data-dir", str(self.directory), *arguments, prefix=prefix
        )
        self.main.wait_for_start(threads=5)  # also those for announcements and passwords
        self._ports["tcp"] = self.main.port
        self._ports["udp"] = int(self.main.wait_for_line(r"Waiting for back ends over UDP on 127\.0\.0\.1:(\d+)")[1])

    @property
    def udp_port(self) -> int:
        """The port to which back ends announce themselves."""
        return self._ports["udp"]

    def start_back_end(self, letter: str, main_port: int = 0, port: int | None = None) -> None:
        """Start a back end; if it ran before, on the same port."""
        self._launch_back_end(letter, main_port, port)
        self._wait_for_back_end(letter)

    def start_back_ends(self, letters: str) -> None:
        """Start back ends, together."""
        for letter in letters:
            self._launch_back_end(letter)
        for letter in letters:
            self._wait_for_back_end(letter)

    def _launch_back_end(self, letter: str, main_port: int = 0, port: int | None = None) -> None:
        arguments = ["--port", str(self._ports.get(letter, 0) if port is None else port)]
        if main_port or "udp" in self._ports:
            arguments += ["--main-port", str(main_port or self.udp_port)]
        arguments += ["--data-dir", str(self.directory)]
        self.back_ends[letter] = self._launch_program(f"server{letter}.py", *arguments)

    def _wait_for_back_end(self, letter: str) -> None:
        self.back_ends[letter].wait_for_start()
        self._ports[letter] = self.back_ends[letter].port

    def start(self, letters: str = "SDU") -> None:
        """Start the main server and back ends, and wait until they have found each other."""
        self.start_main()
        self.start_back_ends(letters)
        self.wait_until_found(letters)

    def wait_until_found(self, letters: str, seconds: float = 10.0) -> None:
        """Wait until the main server knows where back ends are."""
        for letter in letters:
            self.main.wait_for_line(rf"Server {letter} at 127\.0\.0\.1:\d+ has sent its room status: .*", seconds)
            self.back_ends[letter].wait_for_line(r"Server . has sent its room status to the main server at .*")

    def log_in(self, user: str = "alice") -> Peer:
        """Return the connection of a user who has logged in; one that is no member is a guest."""
        peer = self.main.connect()
        if user in PASSWORDS:
            peer.send(f"LOGIN {user} {PASSWORDS[user]}")
            peer.expect(f"MEMBER {user}")
        else:
            peer.send(f"LOGIN {user}")
            peer.expect(f"GUEST {user}")
        return peer

    @property
    def key(self) -> bytes:
        """The key of the four servers."""
        return bytes.fromhex((self.directory / "dorm.key").read_text())

    def rows(self, letter: str) -> list[tuple[str, str, str]]:
        """Return id, room and member of each reservation that is on disk."""
        with closing(sqlite3.connect(self.directory / f"{KINDS[letter]}.db")) as db:
            rows = db.execute("SELECT number, room, member FROM reservations ORDER BY number").fetchall()
        return [(f"{letter}{number}", room, member) for number, room, member in rows]


@pytest.fixture(name="dormitory")
def make_dormitory(launch: Start, tmp_path: Path) -> Iterator[Dormitory]:
    """Give a dormitory whose servers have not been started; at the end, stop them together."""
    with caring_for(launch, tmp_path) as dormitory:
        yield dormitory


@pytest.fixture(name="common_dormitory", scope="module")
def make_common_dormitory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Dormitory]:
    """Give the dormitory, all of whose servers run, of all tests that reserve nothing."""
    with looking_after() as launch, caring_for(launch, tmp_path_factory.mktemp("dormitory")) as dormitory:
        dormitory.start()
        yield dormitory


@contextmanager
def caring_for(launch: Start, directory: Path) -> Iterator[Dormitory]:
    """Give a dormitory in a directory; at the end, its servers must be at rest, and stop together."""
    programs: list[Program] = []

    def launch_program(*arguments: str, **options: Any) -> Program:
        programs.append(launch(*arguments, **options))
        return programs[-1]

    yield Dormitory(launch_program, directory)
    running = [program for program in programs if program.process.poll() is None]
    for program in running:
        program.expect_rest()
    for program in running:
        program.process.terminate()
    end = time.monotonic() + STOP_SECONDS
    for program in running:
        assert program.wait(max(0.0, end - time.monotonic())) == 0
