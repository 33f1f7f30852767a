"""The dormitory on five hosts, started as docs/operating.md says, over links that lose a fifth of all frames."""

import re
import shutil
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import Program
from hosts import Network
from readme import clone, host_lines

LOSS = 0.2
ANSWER_SECONDS = 60.0
COPY = re.compile(r"scp -p (\S+) (\d+\.\d+\.\d+\.\d+):\S+")
ROOMS = ["S233", "D111", "U237"] * 2


@pytest.fixture
def network() -> Iterator[Network]:
    network = Network()
    try:
        yield network
    finally:
        network.close()


class Hosts:
    """The hosts that the document names, each with a clone of its own, and the programs that run there."""

    def __init__(self, network: Network, lines: list[tuple[str, str]], directory: Path) -> None:
        self.lines = lines
        self.trees: dict[str, Path] = {}
        self.programs: dict[str, Program] = {}  # by script
        self._prefixes: dict[str, tuple[str, ...]] = {}
        for address in dict.fromkeys(address for address, _ in lines):
            self._prefixes[address] = network.add_host(address)
            self.trees[address] = clone(directory / address)

    def paste(self, address: str, line: str) -> None:
        """Run a line on a host: start a program, make a certificate, or copy a file to another host."""
        if copy := COPY.fullmatch(line):
            shutil.copy(self.trees[address] / copy[1], self.trees[copy[2]])
            return
        if line.startswith("openssl "):
            subprocess.run(line.split(), cwd=self.trees[address], check=True, capture_output=True)
            return
        python, script, *arguments = line.split()
        assert python == "python3"
        tree = self.trees[address]
        self.programs[script] = Program(
            str(tree / script), *arguments, prefix=self._prefixes[address], cwd=tree, stdin=subprocess.PIPE
        )
        if script != "client.py":
            assert self.programs[script].port

    def close(self) -> None:
        """End all programs."""
        for program in self.programs.values():
            program.kill()


@pytest.fixture
def hosts(network: Network, tmp_path: Path) -> Iterator[Hosts]:
    """Provide the hosts that the document names, without programs."""
    try:
        hosts = Hosts(network, host_lines(), tmp_path)
    except OSError as error:
        pytest.skip(f"network namespaces are not available: {error}")
    network.start()
    try:
        yield hosts
    finally:
        hosts.close()


def test_reservations_over_links_that_lose_a_fifth_of_frames_are_each_made_once(network: Network, hosts: Hosts) -> None:
    network.loss = LOSS
    for address, line in hosts.lines:
        hosts.paste(address, line)
    main, client = hosts.programs["serverM.py"], hosts.programs["client.py"]
    for letter in "SDU":
        main.wait_for_line(f"Server {letter} has sent its room status: .*", ANSWER_SECONDS)
    answers = ["alice", "correct horse, battery", *(f"{room}\nreservation" for room in ROOMS), "mine", "quit"]
    client.type(*answers)
    assert client.wait(ANSWER_SECONDS) == 0
    confirmed = re.findall(r"Room (\w+) is yours: reservation (\w+)\.", "\n".join(client.lines))
    assert [room for room, _ in confirmed] == ROOMS
    assert sorted(re.findall(r"^  (\w+) +(\w+)$", "\n".join(client.lines), re.MULTILINE)) == sorted(
        (reservation, room) for room, reservation in confirmed
    )
    assert sum(rows_on_disk(tree) for tree in hosts.trees.values()) == len(ROOMS)
    assert network.lost > len(ROOMS)
    for script in ("serverM.py", "serverS.py", "serverD.py", "serverU.py"):
        assert hosts.programs[script].stop() == 0
        assert hosts.programs[script].errors == ""


def rows_on_disk(tree: Path) -> int:
    rows = 0
    for file in tree.glob("*.db"):
        with closing(sqlite3.connect(file)) as db:
            rows += db.execute("SELECT count(*) FROM reservations").fetchone()[0]
    return rows
