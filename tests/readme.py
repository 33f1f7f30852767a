"""Parse the sections and code blocks of the documents, and make a fresh clone in which to run them."""

import re
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from conftest import ROOT

DOCUMENTS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "benchmarks" / "README.md"]
FENCE = "```"
HOST = re.compile(r"\d+\.\d+\.\d+\.\d+")
# Compiled modules (*.pyc) are copied, although no clone has them: to compile them again would take most of the time.
NOT_IN_A_CLONE = shutil.ignore_patterns(
    *(".git", ".venv", ".*_cache", "*.pyc.*", "*.db", "*.db-*", "dorm.key*", "member.txt.*", "seats.txt.*"),
    *("tests", "benchmarks"),
)


class Block(NamedTuple):
    """A code block: the two words after the fence, the second of which may be empty, and the lines below."""

    language: str
    name: str
    lines: list[str]

    @property
    def is_for_host(self) -> bool:
        """Whether the block's lines are to be run on the host whose address is the block's name."""
        return HOST.fullmatch(self.name) is not None

    @property
    def is_played(self) -> bool:
        """Whether the block's lines are to be run in terminals of one host."""
        return self.language == "sh" and not self.is_for_host


class Section(NamedTuple):
    """A heading, the code blocks below it, and the document in which it stands."""

    document: Path
    title: str
    blocks: list[Block]

    def __str__(self) -> str:
        return f"{self.document.relative_to(ROOT)}: {self.title}"


def read_sections() -> Iterator[Section]:
    """Yield the sections of all documents."""
    for document in DOCUMENTS:
        section = Section(document, "", [])
        block: Block | None = None
        for line in document.read_text(encoding="utf-8").splitlines():
            if line.startswith(FENCE):
                if block is None:
                    language, _, name = line.removeprefix(FENCE).partition(" ")
                    block = Block(language, name.strip(), [])
                    section.blocks.append(block)
                else:
                    block = None
            elif block is not None:
                block.lines.append(line)
            elif line.startswith("#"):
                yield section
                section = Section(document, line.lstrip("# "), [])
        yield section


def host_lines() -> list[tuple[str, str]]:
    """Return the lines that the documents want to be run on several hosts, each after the address of its host."""
    blocks = [block for section in read_sections() for block in section.blocks if block.is_for_host]
    return [(block.name, line) for block in blocks for line in block.lines if line]


def clone(directory: Path) -> Path:
    """Make a directory that holds what a fresh clone would hold, with the programs as they are here; return it."""
    shutil.copytree(ROOT, directory, ignore=NOT_IN_A_CLONE)
    for name in ("seats.txt", "member.txt"):  # using the programs by hand changes them
        with suppress(OSError):  # without git, the files are used as they are
            committed = subprocess.run(["git", "show", f"HEAD:./{name}"], cwd=ROOT, capture_output=True)
            if committed.returncode == 0:
                (directory / name).write_bytes(committed.stdout)
    return directory
