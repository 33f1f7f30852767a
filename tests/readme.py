"""Parse the sections and code blocks of README.md, and make a fresh clone in which to run them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

FENCE = "```"
HOST = re.compile(r"# on (\d+\.\d+\.\d+\.\d+)")
# Compiled modules (*.pyc) are copied, although no clone has them: to compile them again would take most of the time.
NOT_IN_A_CLONE = shutil.ignore_patterns(
    ".git",
    ".venv",
    ".*_cache",
    "*.pyc.*",
    "*.db",
    "*.db-*",
    "dorm.key*",
    "member.txt.*",
    "seats.txt.*",
    "tests",
    "benchmarks",
)


class Block(NamedTuple):
    """A code block.

    Attributes:
        language: the first word after the fence, such as sh.
        name: the second word after the fence, or an empty string.
        lines: the lines between the fences.
    """

    language: str
    name: str
    lines: list[str]

    @property
    def commands(self) -> list[str]:
        """The lines to run: all but empty ones and comments."""
        return [line for line in self.lines if line and not line.startswith("#")]

    @property
    def on_hosts(self) -> bool:
        """Whether comments in the block say on which host each line is to be run."""
        return any(HOST.fullmatch(line) for line in self.lines)

    def by_host(self) -> Iterator[tuple[str, str]]:
        """Yield each line to run, after the address of the host on which to run it."""
        address = ""
        for line in self.lines:
            if match := HOST.fullmatch(line):
                address = match[1]
            elif line and not line.startswith("#"):
                yield address, line


class Section(NamedTuple):
    """A heading and the code blocks below it."""

    title: str
    blocks: list[Block]


def read_sections() -> list[Section]:
    """Return the sections of README.md."""
    sections = [Section("", [])]
    block: Block | None = None
    for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines():
        if line.startswith(FENCE):
            if block is None:
                language, _, name = line.removeprefix(FENCE).partition(" ")
                block = Block(language, name.strip(), [])
                sections[-1].blocks.append(block)
            else:
                block = None
        elif block is not None:
            block.lines.append(line)
        elif line.startswith("#"):
            sections.append(Section(line.lstrip("# "), []))
    return sections


def clone(directory: Path) -> Path:
    """Make a directory that holds what a fresh clone would hold, with the programs as they are here; return it."""
    shutil.copytree(ROOT, directory, ignore=NOT_IN_A_CLONE)
    for name in ("seats.txt", "member.txt"):  # using the programs by hand changes them
        committed = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
        if committed.returncode == 0:
            (directory / name).write_bytes(committed.stdout)
    return directory
