"""Do what the documents say: paste their commands into terminals of a fresh clone, type what they type, and compare.

The test plays the blocks of a section in order, in one fresh clone. The documents follow these rules:

- In a block marked sh each line is a command for a terminal of its own, with bash, zsh or fish. It must end with status
  0; or it says that it is listening, runs until the section ends, and must then end with status 0 on Ctrl-C; or it is
  the last of its block, and a block marked text follows that shows what its user types and sees.
- In a block marked text a line that begins with `> ` is typed. Where a line begins with a prompt, the rest of the line
  is typed; a prompt ends with `: `, `? ` or `> `. Every other line must appear as a whole row, in this order, perhaps
  with other rows in between. `...` matches anything.
- A number from 32768 on is a port that differs each time. It matches any number when it appears first, and stands for
  that number in the rest of the section.
- A word after sh or text names the terminal, so that a later text block can go on with it. An address after sh is a
  host; test_network.py runs these blocks.
- Blocks with other marks, or none, are ignored. Of the demo, which test_demo.py runs, and of commands for developers
  (NOT_RUN) only the files that they name are looked for.
"""

import os
import re
import shutil
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, wait_until
from hosts import Network
from pseudo_terminal import Terminal
from readme import DOCUMENTS, Block, Section, clone, read_sections

COMMAND_SECONDS, ANSWER_SECONDS, STOP_SECONDS = 60.0, 15.0, 5.0
LINES_OFF = 0.15  # by how much the number of lines of a file may differ from what a document says
NOT_RUN = re.compile(r"\b(git clone|pip|pytest|ruff|mypy|apt-get|brew)\b|benchmarks/|demo\.py")
LISTENS = re.compile(r"(Listening|Server \w listening) on .*:\d+|Ctrl-C here stops the servers\.")
BACK_END = re.compile(r"(Server \w) listening on ")
PORT = re.compile(r"(?:\b|(?<=\b0))(?:3[2-9]|[45]\d|6[0-5])\d{3}\b")  # perhaps behind a status digit
PROMPT = re.compile(r".*[:?>] ")
TOOL = re.compile(r"(?:^|[|&] *|sudo )(?!printf\b|kill\b)([\w.-]+)")  # not what a shell has built in
FILE = re.compile(r"(?<![\w./-])[\w./-]+\.(?:py|txt|md|svg|run)\b|\.ci/run")
LINK = re.compile(r"\]\(([^):]+)\)|src=\"([^\":]+)\"")
NOT_IN_EVERY_SHELL = re.compile(r"^#|\s#|<<|^\w+=|\bexport\b")
COUNTED = re.compile(r"\| ((?:`[\w./-]+`[,; ]*)+) \| ([\d; ]+) \|")  # in a table: files, and the sums of their lines
RULES = re.compile(r"^\|.*\| ([A-Z][A-Z, -]+) \|$", re.MULTILINE)  # the last cell of a row
RULE = re.compile(r"^@rule\(\s*\"([A-Z-]+)\"", re.MULTILINE)
SECTIONS = list(read_sections())
PLAYED = [section for section in SECTIONS if any(block.is_played for block in section.blocks)]
REAL_PORTS = threading.Lock()  # held while a section that has no network namespace uses this host's ports


class CommandTerminal(Terminal):
    """A terminal in which one command of a document runs."""

    def __init__(self, command: str, prefix: tuple[str, ...], tree: Path) -> None:
        super().__init__(*prefix, "bash", "-c", command, cwd=tree, TERM="dumb")
        self.command = command
        self._has_own_ports = bool(prefix)
        self._next_row = 0

    def settle(self) -> None:
        """Wait until the command has ended with status 0, or listens."""
        wait_until(
            lambda: self.process.poll() is not None or self._listens(),
            f"the end of {self.command!r}, or that it listens, or else a text block below it",
            COMMAND_SECONDS,
        )
        if not self._has_own_ports and any(row.endswith("Address already in use") for row in self.rows()):
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
    """Return the pattern of rows that match a line; it has a group for each port that is not known yet."""
    pattern = re.escape(line.rstrip()).replace(r"\.\.\.", ".*")
    for port in new_ports(line, ports):
        pattern = pattern.replace(port, r"(\d+)", 1)
    return re.compile(PORT.sub(lambda port: ports.get(port[0], r"\d+"), pattern))


def new_ports(line: str, ports: dict[str, str]) -> list[str]:
    """Return the ports in a line of a document whose real numbers are not known yet, each once."""
    return [port for port in dict.fromkeys(PORT.findall(line)) if port not in ports]


class Reader:
    """Plays a section in a clone; the prefix is a command with which to run the section's commands, or nothing."""

    def __init__(self, tree: Path, prefix: tuple[str, ...]) -> None:
        self._tree = tree
        self._prefix = prefix
        self._sessions: list[CommandTerminal] = []
        self._by_name: dict[str, CommandTerminal] = {}
        self._ports: dict[str, str] = {}  # the real ports, by those in the document

    def read(self, section: Section) -> None:
        """Play the blocks."""
        for block, following in zip(section.blocks, [*section.blocks[1:], None], strict=True):
            if block.is_played:
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
        commands = [command for command in block.lines if command and not NOT_RUN.search(command)]
        if not commands:
            return
        for number, command in enumerate(commands, 1):
            command = PORT.sub(lambda port: self._ports.get(port[0], port[0]), command)
            if missing := [tool for tool in TOOL.findall(command) if not shutil.which(tool)]:
                pytest.skip(f"{missing[0]} is not installed")
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


def play(section: Section, directory: Path) -> None:
    """Play a section in a fresh clone, in a network namespace of its own if possible: there all ports are free."""
    with ExitStack() as stack:
        network = Network()
        stack.callback(network.close)
        try:
            prefix: tuple[str, ...] = network.add_host()
        except OSError:
            prefix = ()
            stack.enter_context(REAL_PORTS)
        reader = Reader(clone(directory / "socket-systems"), prefix)
        stack.callback(reader.leave)
        reader.read(section)


@pytest.fixture(scope="module")
def readings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    """Play the sections, two at a time; provide the outcome of each."""
    with ThreadPoolExecutor(2) as pool:
        yield {str(section): pool.submit(play, section, tmp_path_factory.mktemp("reader")) for section in PLAYED}


@pytest.mark.parametrize("section", PLAYED, ids=str)
def test_commands_of_a_section_do_what_the_document_shows(section: Section, readings: dict[str, Future[None]]) -> None:
    readings[str(section)].result()


def test_commands_can_be_pasted_into_every_shell_and_name_files_that_exist() -> None:
    blocks = [block for section in SECTIONS for block in section.blocks if block.language == "sh"]
    commands = [line for block in blocks for line in block.lines]
    assert [command for command in commands if NOT_IN_EVERY_SHELL.search(command)] == []
    files = {name for command in commands if "scp" not in command for name in FILE.findall(command)}
    assert [name for name in files if not (ROOT / name).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere_and_numbers_of_lines_are_about_right(document: Path) -> None:
    text = document.read_text(encoding="utf-8")
    for link in LINK.findall(text):
        name, _, anchor = "".join(link).partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.exists(), f"there is no {name}"
        assert not anchor or anchor in anchors(target), f"{name or document.name} has no heading #{anchor}"
    for files, counts in COUNTED.findall(text):
        for group, stated in zip(files.split(";"), counts.split(";"), strict=True):
            lines = sum(len((ROOT / name).read_text(encoding="utf-8").splitlines()) for name in FILE.findall(group))
            assert lines == pytest.approx(int(stated), rel=LINES_OFF), group


def anchors(document: Path) -> set[str]:
    """Return the names by which a link can lead to the headings of a document, as GitHub makes them."""
    titles = [section.title.lower() for section in SECTIONS if section.document == document]
    return {re.sub(r"[^\w\- ]", "", title).replace(" ", "-") for title in titles}


def test_diagrams_have_no_semicolon_which_would_end_a_statement_of_mermaid() -> None:
    blocks = [block for section in SECTIONS for block in section.blocks if block.language == "mermaid"]
    assert [line for block in blocks for line in block.lines if ";" in line] == []


def test_the_table_of_the_chat_names_each_rule_of_the_conformance_checks_once() -> None:
    checks = (ROOT / "conformance" / "test_chat.py").read_text(encoding="utf-8")
    cells = RULES.findall((ROOT / "docs" / "chat.md").read_text(encoding="utf-8"))
    assert sorted(rule for cell in cells for rule in cell.split(", ")) == sorted(RULE.findall(checks))
