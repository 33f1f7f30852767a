"""Do what README.md says: paste its commands into terminals of a fresh clone, type what it types, and compare.

The test plays the blocks of a section in order, in one fresh clone. README.md follows these rules:

- In a block marked sh each line, except empty ones and comments, is a command for a terminal of its own. The command
  must end with status 0; or it says that it is listening, runs until the section ends, and must then end with status 0
  on Ctrl-C; or it is the last of its block, and a block marked text follows that shows what its user types and sees.
- In a block marked text a line that begins with `> ` is typed. Where a line begins with a prompt, the rest of the line
  is typed; a prompt ends with `: `, `? ` or `> `. Every other line must appear as a whole row, in this order, perhaps
  with other rows in between. `...` matches anything.
- A number from 32768 on is a port that differs each time. It matches any number when it appears first, and stands for
  that number in the rest of the section.
- A word after sh or text names the terminal, so that a later text block can go on with it.
- Blocks with other marks, or none, are ignored. Of the demo, which test_demo.py runs, and of commands for developers
  (NOT_RUN) only the files that they name are looked for. test_network.py runs the lines for several hosts, below
  `# on ADDRESS`.
"""

import os
import re
import shutil
import signal
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from hosts import Network
from pseudo_terminal import Terminal
from readme import Block, Section, clone, read_sections

COMMAND_SECONDS = 60.0
ANSWER_SECONDS = 15.0
STOP_SECONDS = 5.0
NOT_RUN = re.compile(r"\b(git clone|pip|pytest|ruff|mypy|apt-get|brew)\b|benchmarks/|demo\.py")
LISTENS = re.compile(r"(Listening|Server \w listening) on .*:\d+|Ctrl-C here stops the servers\.")
BACK_END = re.compile(r"(Server \w) listening on ")
PORT = re.compile(r"(?:\b|(?<=\b0))(?:3[2-9]|[45]\d|6[0-5])\d{3}\b")  # perhaps behind a status digit
PROMPT = re.compile(r".*[:?>] ")
TOOL = re.compile(r"\b(telnet|nc|sqlite3|openssl|ncat)\b")
FILE = re.compile(r"[\w./-]+\.(?:py|txt|md|svg|run)\b|\.ci/run")
SECTIONS = [section for section in read_sections() if any(block.language == "sh" for block in section.blocks)]


class CommandTerminal(Terminal):
    """A terminal in which one command of README.md runs."""

    def __init__(self, command: str, prefix: tuple[str, ...], tree: Path) -> None:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        super().__init__(*prefix, "bash", "-c", command, cwd=tree, PATH=path, TERM="dumb")
        self.command = command
        self._next_row = 0

    def settle(self) -> None:
        """Wait until the command has ended with status 0, or listens."""
        wait_until(
            lambda: self.process.poll() is not None or self._listens(),
            f"the end of {self.command!r}, or that it listens, or else a text block below it",
            COMMAND_SECONDS,
        )
        if any(row.endswith("Address already in use") for row in self.rows()):
            pytest.skip(f"another program has the port of {self.command!r}, and network namespaces are not available")
        assert self.process.poll() in (None, 0), f"{self.command!r}: {self.rows()}"

    def follow(self, line: str, ports: dict[str, str]) -> None:
        """Type a line of a text block, or wait until it is shown; note which real ports its ports stand for."""
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
        """Return whether a row matches a line, or is a prompt with which it begins; append the match or the prompt."""
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
        """End the command if it still runs; a server must end with status 0 on Ctrl-C."""
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
    """Return the pattern of rows that match a line of README.md; it has a group for each port that is not known yet."""
    pattern = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
    for port in new_ports(line, ports):
        pattern = pattern.replace(port, r"(\d+)", 1)
    return re.compile(PORT.sub(lambda port: ports.get(port[0], r"\d+"), pattern))


def new_ports(line: str, ports: dict[str, str]) -> list[str]:
    """Return the ports in a line of README.md whose real numbers are not known yet, each once."""
    return [port for port in dict.fromkeys(PORT.findall(line)) if port not in ports]


class Reader:
    """Plays a section in a clone.

    Args:
        tree: the clone.
        prefix: a command with which to run the section's commands, or nothing.
    """

    def __init__(self, tree: Path, prefix: tuple[str, ...]) -> None:
        self._tree = tree
        self._prefix = prefix
        self._sessions: list[CommandTerminal] = []
        self._by_name: dict[str, CommandTerminal] = {}
        self._ports: dict[str, str] = {}  # the real ports, by those in README.md

    def read(self, section: Section) -> None:
        """Play the blocks."""
        for block, following in zip(section.blocks, [*section.blocks[1:], None], strict=True):
            if block.language == "sh" and not block.on_hosts:
                self._paste(block, shown=following is not None and following.language == "text")
            elif block.language == "text":
                session = self._by_name[block.name] if block.name else self._sessions[-1]
                for line in filter(None, block.lines):
                    session.follow(line, self._ports)

    def leave(self) -> None:
        """End all commands that still run, the latest first."""
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
                pytest.skip(f"{tool[0]} is not installed")
            session = CommandTerminal(command, self._prefix, self._tree)
            self._sessions.append(session)
            if not shown or number < len(commands):
                session.settle()
        self._wait_until_found()
        if block.name:
            self._by_name[block.name] = self._sessions[-1]

    def _wait_until_found(self) -> None:
        """Wait until a main server that runs has found the back ends that run, which may take two seconds."""
        rows = [row for session in self._sessions for row in session.rows()]
        if any(row.startswith("Listening on 127.0.0.1:25000") for row in rows):
            for back_end in filter(None, map(BACK_END.match, rows)):
                found = f"{back_end[1]} has sent its room status"
                wait_until(partial(self._is_shown, found), found)

    def _is_shown(self, text: str) -> bool:
        return any(text in row for session in self._sessions for row in session.rows())


@contextmanager
def new_reader(directory: Path) -> Iterator[Reader]:
    """Provide a reader with a fresh clone, in a network namespace of its own if possible: there all ports are free."""
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
    """Play a section in a fresh clone."""
    with new_reader(directory) as reader:
        try:
            reader.read(section)
        finally:
            reader.leave()


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Play the sections, two at a time; provide the outcome of each under its title."""
    with ThreadPoolExecutor(2) as pool:
        yield {section.title: pool.submit(read, section, tmp_path_factory.mktemp("reader")) for section in SECTIONS}


@pytest.mark.parametrize("section", SECTIONS, ids=lambda section: section.title)
def test_commands_of_a_section_do_what_the_readme_shows(section: Section, readings: dict[str, Future[None]]) -> None:
    readings[section.title].result()


def test_files_that_the_readme_names_exist() -> None:
    commands = [
        line for section in SECTIONS for block in section.blocks for line in block.commands if block.language == "sh"
    ]
    links = re.findall(r"\]\(([^):#]+)\)|src=\"([^\":]+)\"", (ROOT / "README.md").read_text(encoding="utf-8"))
    files = [name for command in commands for name in FILE.findall(command)] + ["".join(link) for link in links]
    assert [name for name in files if not (ROOT / name).exists()] == []
