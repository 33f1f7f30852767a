"""Read the data files that people edit, and read them again whenever they have changed.

Each line has two fields, separated by a comma. Empty lines are ignored.
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Generic, TypeVar

from net.command_line import reason
from net.files import read_file
from net.log import LOG

Content = TypeVar("Content")


class Malformed(Exception):
    """A file or an argument cannot be used; the text says what was expected and, for a file, where."""


def add_data_dir(parser: argparse.ArgumentParser) -> None:
    """Add the option --data-dir."""
    program = Path(__file__).resolve().parent.parent
    files = "directory of the data files, the databases and dorm.key (default: the directory of this program)"
    parser.add_argument("--data-dir", type=Path, default=program, metavar="D", help=files)


def read_text(path: Path) -> str:
    """Return the text of a file without a byte order mark; raise Malformed if it is not UTF-8."""
    try:
        return read_file(path).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise Malformed(f"{path}:{error.object[: error.start].count(10) + 1}: expected UTF-8") from None


def read_fields(path: Path, expected: str, is_secret: bool = False) -> Iterator[tuple[str, str, str]]:
    """Yield the place of each line, FILE:NUMBER, and its two fields; a Malformed quotes no line of a secret file."""
    for number, line in enumerate(read_text(path).splitlines(), 1):
        if not line.strip():
            continue
        first, comma, second = (part.strip() for part in line.partition(","))
        if not (first and comma and second):
            got = "" if is_secret else f", got {line.strip()!r}"
            raise Malformed(f"{path}:{number}: expected {expected}{got}")
        yield f"{path}:{number}", first, second


class WatchedFile(Generic[Content]):
    """A data file that is read again when it has changed; one thread at a time may use it."""

    def __init__(self, path: Path, read: Callable[[Path], Content]) -> None:
        self._path = path
        self._read = read
        self._version = self._find_version()  # before reading the file, so that refresh() notices an edit meanwhile
        self.content = read(path)  # which may raise Malformed or OSError

    def refresh(self) -> None:
        """Read the file again if it has changed; if that fails, the content stays. A status line tells either."""
        version = self._find_version()
        if version == self._version:
            return
        self._version = version
        try:
            self.content = self._read(self._path)
        except (Malformed, OSError) as error:
            LOG.write(f"{reason(error)}; the content read before stays in force")
        else:
            LOG.write(f"{self._path} has changed and was read again")

    def _find_version(self) -> tuple[int, ...]:
        """Return numbers that change when the file is edited, replaced, or given other permissions."""
        try:
            status = self._path.stat()
        except OSError:
            return ()
        return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns
