"""What README.md tells its reader to do: sections, code blocks, and a fresh clone to do it in."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

FENCE = "```"
HOST = re.compile(r"# on (\d+\.\d+\.\d+\.\d+)")
NOT_IN_A_CLONE = shutil.ignore_patterns(".git", ".venv", "*cache*", "*.db", "*.db-*", "dorm.key", "seats.txt.*")


class Block(NamedTuple):
    """A code block.

    Attributes:
        language: the word after the fence, such as sh.
        name: the word after that, if there is one.
        lines: what is in it.
    """

    language: str
    name: str
    lines: list[str]

    @property
    def commands(self) -> list[str]:
        """The lines to paste."""
        return [line for line in self.lines if line and not line.startswith("#")]

    @property
    def on_hosts(self) -> bool:
        """Whether it says on which host each of its lines is to be pasted."""
        return any(HOST.fullmatch(line) for line in self.lines)

    def by_host(self) -> Iterator[tuple[str, str]]:
        """Give the address of a host, and a line to paste there."""
        address = ""
        for line in self.lines:
            if match := HOST.fullmatch(line):
                address = match[1]
            elif line and not line.startswith("#"):
                yield address, line


class Section(NamedTuple):
    """What stands below a heading."""

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
    """Make a directory as a fresh clone would be, with the programs as they are here; return it."""
    shutil.copytree(ROOT, directory, ignore=NOT_IN_A_CLONE)
    for name in ("seats.txt", "member.txt"):  # playing changes them
        committed = subprocess.run(["git", "show", f"HEAD:{name}"], cwd=ROOT, capture_output=True)
        if committed.returncode == 0:
            (directory / name).write_bytes(committed.stdout)
    return directory
