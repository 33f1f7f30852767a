"""The dormitory's data files: where they are, and how those that people edit are read.

Those have two fields on each line, with a comma between. Empty lines do not count.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path


class Malformed(Exception):
    """A file is not as it should be; the text names the file, the line if there is one, and what is expected."""


def explain(error: Malformed | OSError) -> str:
    """Return the line that says what is wrong with a file."""
    return str(error) if isinstance(error, Malformed) else f"{error.filename}: {error.strerror}"


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option that says where the files are; by default beside the programs."""
    parser.add_argument(
        "--data-dir",
        type=Path,
        default=Path(__file__).resolve().parent.parent,
        metavar="D",
        help="where the data files are (default: beside the program)",
    )


def read_fields(path: Path, expected: str) -> Iterator[tuple[str, str, str]]:
    """Give the two fields of each line, without the space around them, and where the line is: FILE:NUMBER.

    Raises:
        Malformed: a line has not two fields; the text says what is expected.
        OSError: the file cannot be read.
    """
    for number, line in enumerate(path.read_text(encoding="utf-8-sig", errors="replace").split("\n"), 1):
        if not line.strip():
            continue
        first, comma, second = (part.strip() for part in line.partition(","))
        if not (first and comma and second):
            raise Malformed(f"{path}:{number}: expected {expected}, got {line.strip()!r}")
        yield f"{path}:{number}", first, second
