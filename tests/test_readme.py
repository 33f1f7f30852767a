"""Do what README.md says, as it says it: paste its commands into terminals of a fresh clone, type, and look.

The rule by which the README is written. The blocks of a section are played in order, in one fresh clone.

- In a block marked sh each line, but for empty ones and comments, is a command for a terminal of its own. It ends with
  status 0; or it says that it is listening, and runs until the section ends, when Ctrl-C must end it with status 0; or
  it is the last of its block, and a block marked text follows, which shows what one types and sees there.
- In a block marked text a line that begins with `> ` is typed. So is what follows a prompt on a line: a prompt is what
  the program has shown when it waits, and ends with `: `, `? ` or `> `. Every other line must come, as a whole, below
  those before it; what else comes in between is not looked at, and `...` stands for anything.
- A number from 32768 is a port that differs each time. It stands for whatever number comes in its place, there and in
  later commands of the section.
- A word after sh or text names the terminal, so that a later text block can go on with it.
- Blocks with other marks, or none, are not looked at. Of commands that are about the development (NOT_RUN) only the
  files that they name are looked for. Lines for several hosts, below `# on ADDRESS`, are test_network.py's.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from hosts import Network
from pseudo_terminal import Terminal
from readme import Block, Section, clone, read_sections

COMMAND_SECONDS = 60.0
ANSWER_SECONDS = 15.0
STOP_SECONDS = 5.0
NOT_RUN = re.compile(r"\b(git clone|pip|pytest|ruff|mypy|apt-get|brew)\b|benchmarks/")
LISTENS = re.compile(r"(Listening|Server \w listening) on .*:\d+|Ctrl-C here stops the servers\.")
PORT = re.compile(r"(?:\b|(?<=\b0))(?:3[2-9]|[45]\d|6[0-5])\d{3}\b")  # perhaps behind a status digit
PROMPT = re.compile(r".*[:?>] ")
TOOL = re.compile(r"\b(telnet|nc|sqlite3|openssl|ncat)\b")
FILE = re.compile(r"[\w./-]+\.(?:py|txt|md|svg|run)\b|\.ci/run")
SECTIONS = [section for section in read_sections() if any(block.language == "sh" for block in section.blocks)]


class Session(Terminal):
    """A terminal into which one command is pasted."""

    def __init__(self, command: str, prefix: tuple[str, ...], tree: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = {**os.environ, "PATH": path, "TERM": "dumb"}
        super().__init__(*prefix, "bash", "-c", command, cwd=tree, env=environment, start_new_session=True)
        self.command = command
        self._next_row = 0

    def settle(self) -> None:
        """Wait until it has ended well, or listens."""
        wait_until(
            lambda: self.process.poll() is not None or self._listens(),
            f"the end of {self.command!r}, or that it listens, or else a text block below it",
            COMMAND_SECONDS,
        )
        if any(row.endswith("Address already in use") for row in self.rows()):
            pytest.skip(f"another program has the port of {self.command!r}, and network namespaces cannot be had")
        assert self.process.poll() in (None, 0), f"{self.command!r}: {self.rows()}"

    def follow(self, line: str, ports: dict[str, str]) -> None:
        """Type, or wait for what a line of the README shows; learn the ports in it."""
        if line.startswith("> "):
            self.type(f"{line.removeprefix('> ')}\n")
            return
        found: list[re.Match[str] | str] = []
        try:
            wait_until(lambda: self._look_for(line, ports, found), "", ANSWER_SECONDS)
        except pytest.fail.Exception:
            pytest.fail(f"{line!r} does not come after {self.command!r}, but {self.rows()[self._next_row :]}")
        if isinstance(found[0], str):
            self.type(f"{line.removeprefix(found[0])}\n")
        else:
            ports.update(zip(new_ports(line, ports), found[0].groups(), strict=True))

    def _look_for(self, line: str, ports: dict[str, str], found: list[re.Match[str] | str]) -> bool:
        """Look for a row like a line, or for a prompt with which it begins."""
        rows = self.rows()
        pattern = row_pattern(line, ports)
        for number, row in enumerate(rows[self._next_row :], self._next_row + 1):
            if match := pattern.fullmatch(row.rstrip()):
                found.append(match)
            elif number == len(rows) and PROMPT.fullmatch(row) and line.startswith(row):
                found.append(row)
            if found:
                self._next_row = number
                return True
        return False

    def hang_up(self) -> None:
        """End the command, unless it has ended: a server by Ctrl-C, which must end it well."""
        if self.process.poll() is not None:
            return
        if not self._listens():
            os.killpg(self.process.pid, signal.SIGKILL)
            return
        os.killpg(self.process.pid, signal.SIGINT)
        wait_until(lambda: self.process.poll() is not None, f"the end of {self.command!r} after Ctrl-C", STOP_SECONDS)
        assert self.process.returncode == 0, f"{self.command!r} ended with {self.process.returncode} after Ctrl-C"

    def _listens(self) -> bool:
        return any(map(LISTENS.fullmatch, self.rows()))


def row_pattern(line: str, ports: dict[str, str]) -> re.Pattern[str]:
    """Return what a row must be like to be what a line of the README shows."""
    pattern = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
    for port in new_ports(line, ports):
        pattern = pattern.replace(port, r"(\d+)", 1)
    return re.compile(PORT.sub(lambda port: ports.get(port[0], r"\d+"), pattern))


def new_ports(line: str, ports: dict[str, str]) -> list[str]:
    """Return the ports in a line of the README, each once, of which it is not known what they are this time."""
    return [port for port in dict.fromkeys(PORT.findall(line)) if port not in ports]


class Reader:
    """Who reads a section, and does what it says."""

    def __init__(self, tree: Path, prefix: tuple[str, ...]) -> None:
        self._tree = tree
        self._prefix = prefix
        self._sessions: list[Session] = []
        self._by_name: dict[str, Session] = {}
        self._ports: dict[str, str] = {}  # those in the README, and what they are this time

    def read(self, section: Section) -> None:
        """Do what the blocks say."""
        for block, following in zip(section.blocks, [*section.blocks[1:], None], strict=True):
            if block.language == "sh" and not block.on_hosts:
                self._paste(block, shown=following is not None and following.language == "text")
            elif block.language == "text":
                session = self._by_name[block.name] if block.name else self._sessions[-1]
                for line in filter(None, block.lines):
                    session.follow(line, self._ports)

    def leave(self) -> None:
        """Press Ctrl-C wherever something runs, the latest first."""
        try:
            for session in reversed(self._sessions):
                session.hang_up()
        finally:
            for session in self._sessions:
                session.close()

    def _paste(self, block: Block, shown: bool) -> None:
        commands = [command for command in block.commands if not NOT_RUN.search(command)]
        for number, command in enumerate(commands, 1):
            command = PORT.sub(lambda port: self._ports.get(port[0], port[0]), command)
            if (tool := TOOL.search(command)) and not shutil.which(tool[0]):
                pytest.skip(f"there is no {tool[0]} here")
            session = Session(command, self._prefix, self._tree)
            self._sessions.append(session)
            if not shown or number < len(commands):
                session.settle()
        if block.name:
            self._by_name[block.name] = self._sessions[-1]


@contextmanager
def new_reader(directory: Path) -> Iterator[Reader]:
    """Give a reader with a fresh clone, on a host of his own where that can be had: there all ports are free."""
    network = Network()
    try:
        prefix: tuple[str, ...] = network.add_host()
    except OSError:
        prefix = ()
    try:
        yield Reader(clone(directory / "socket-systems"), prefix)
    finally:
        network.close()


def read(section: Section, directory: Path) -> None:
    """Do what a section says."""
    with new_reader(directory) as reader:
        try:
            reader.read(section)
        finally:
            reader.leave()


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Have the sections read, two at a time; give what comes of each, by title."""
    with ThreadPoolExecutor(2) as pool:
        yield {section.title: pool.submit(read, section, tmp_path_factory.mktemp("reader")) for section in SECTIONS}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_what_the_readme_says_is_so(section: Section, readings: dict[str, Future[None]]) -> None:
    readings[section.title].result()


def test_the_files_that_the_readme_names_are_there() -> None:
    commands = [
        line for section in SECTIONS for block in section.blocks for line in block.commands if block.language == "sh"
    ]
    links = re.findall(r"\]\(([^):#]+)\)|src=\"([^\":]+)\"", (ROOT / "README.md").read_text(encoding="utf-8"))
    files = [name for command in commands for name in FILE.findall(command)] + ["".join(link) for link in links]
    assert [name for name in files if not (ROOT / name).exists()] == []
