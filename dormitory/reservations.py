"""Keep the reservations of one kind of room in an SQLite file, and with them the replay cache.

The replay cache holds the reply to each change, under the request's id. A change and its reply are written in one
transaction. So even if any program is killed at any moment, a repeated request gets the recorded reply and changes
nothing.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormitory.wire import now_ms

MAX_CLOCK_DIFFERENCE_MS = 600_000  # a datagram whose time is further off is refused
KEEP_REPLIES_MS = 2 * MAX_CLOCK_DIFFERENCE_MS  # twice, because a clock may be set back after a reply was deleted
BUSY_SECONDS = 0.2  # how long to wait while another program has the file locked
SUFFIXES = ("", "-wal", "-shm")  # of SQLite's three files, which together hold what was committed

SCHEMA = """
    CREATE TABLE IF NOT EXISTS reservations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never used again, not even after a cancellation
        room TEXT NOT NULL,
        member TEXT NOT NULL,
        time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
    CREATE INDEX IF NOT EXISTS by_member ON reservations (member);
    CREATE TABLE IF NOT EXISTS replay_cache (
        time_ms INTEGER, request_id BLOB, reply TEXT NOT NULL, PRIMARY KEY (time_ms, request_id)
    ) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS identity (id BLOB NOT NULL);
    DROP TABLE IF EXISTS answers;  -- the replay cache of an earlier version
"""

Row = tuple[int, str, str, str]  # number, room, member, time


class FilesReplaced(Exception):
    """The open database is no longer the one that a restart would open; the text says so."""


def explain_database_error(path: Path, error: sqlite3.Error) -> str:
    """Return the line that says why a database cannot be used.

    The line advises moving the file away only if the file is not such a database: one that is locked, or on a full
    disk, holds reservations.
    """
    is_other_file = any(words in str(error) for words in ("not a database", "no such"))
    return f"{path}: {error}" + ("; move the file away, and the next start makes a new one" if is_other_file else "")


class Reservations:
    """The reservations and the replay cache; one thread at a time may use them.

    Args:
        path: the SQLite file; created if it does not exist.
        busy_seconds: how long to wait while another program has the file locked.

    Attributes:
        database: the random id that the database was given when it was created.
        taken: how many reservations there are of each room, as of the last transaction() or refresh().

    Raises:
        sqlite3.Error: the file cannot be used; explain_database_error() tells why.
        OSError: the file cannot be made.
    """

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self.taken: Counter[str] = Counter()
        self._counted_version: int | None = None  # the version of the file whose rows `taken` counts
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable by everybody
        self._db = sqlite3.connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
        try:
            self._prepare()
        except sqlite3.Error:
            self._db.close()
            raise
        self._files = self._find_files()

    def _prepare(self) -> None:
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA fullfsync = ON")  # macOS: also flush the drive's own cache
        self._db.executescript(SCHEMA)
        self._db.execute("SELECT number, room, member, time FROM reservations LIMIT 1")
        if not self._db.execute("SELECT id FROM identity").fetchone():
            self._db.execute("INSERT INTO identity SELECT randomblob(8) WHERE NOT EXISTS (SELECT 1 FROM identity)")
        (self.database,) = self._db.execute("SELECT id FROM identity").fetchone()
        self.refresh()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Carry out all changes of the with block or none; when the block has ended, they are on disk.

        Raises:
            sqlite3.Error: nothing was changed.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self.refresh()
            self._db.execute("DELETE FROM replay_cache WHERE time_ms < ?", (now_ms() - KEEP_REPLIES_MS,))
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._counted_version = None  # so that refresh() counts again: `taken` includes what is rolled back
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def refresh(self) -> None:
        """Count the rows again if another program has changed them."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()  # changed by other connections only
        if version != self._counted_version:
            rows = self._db.execute("SELECT room, count(*) FROM reservations GROUP BY room")
            self.taken = Counter(dict(rows.fetchall()))
            self._counted_version = version

    def check_files(self) -> None:
        """Check that what was committed is in the files that a restart would open.

        Raises:
            FilesReplaced: a file was deleted or replaced while it was open.
        """
        if self._find_files() != self._files:
            raise FilesReplaced(f"{self._path} was deleted or replaced while it was open; restart this server")

    def _find_files(self) -> list[tuple[int, int]]:
        """Return the device and the inode of those of the three files that exist."""
        found = []
        for suffix in SUFFIXES:
            try:
                status = os.stat(f"{self._path}{suffix}")  # noqa: PTH116
            except OSError:
                continue
            found.append((status.st_dev, status.st_ino))
        return found

    def reserve(self, room: str, member: str) -> int:
        """Add a reservation within a transaction; return its number."""
        number = self._db.execute("INSERT INTO reservations (room, member) VALUES (?, ?)", (room, member)).lastrowid
        assert number is not None
        self.taken[room] += 1
        return number

    def find(self, number: int) -> tuple[str, str] | None:
        """Return the room and the member of a reservation, or None if it does not exist."""
        query = "SELECT room, member FROM reservations WHERE number = ?"
        row: tuple[str, str] | None = self._db.execute(query, (number,)).fetchone()
        return row

    def cancel(self, number: int, room: str) -> None:
        """Delete a reservation of a room within a transaction."""
        self._db.execute("DELETE FROM reservations WHERE number = ?", (number,))
        self.taken[room] -= 1

    def of_member(self, member: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return number and room of a member's first `limit` reservations with a number greater than `after`."""
        query = "SELECT number, room FROM reservations WHERE member = ? AND number > ? ORDER BY number LIMIT ?"
        return self._db.execute(query, (member, after, limit)).fetchall()

    def all_rows(self) -> list[Row]:
        """Return all reservations in the order of their numbers."""
        return self._db.execute("SELECT number, room, member, time FROM reservations ORDER BY number").fetchall()

    def recorded_reply(self, time_ms: int, request_id: bytes) -> str | None:
        """Return the recorded reply to a request, or None if the request has not come before."""
        query = "SELECT reply FROM replay_cache WHERE time_ms = ? AND request_id = ?"
        row: tuple[str] | None = self._db.execute(query, (time_ms, request_id)).fetchone()
        return row and row[0]

    def record_reply(self, time_ms: int, request_id: bytes, reply: str) -> None:
        """Record the reply to a request, within the transaction of the change."""
        self._db.execute("INSERT INTO replay_cache VALUES (?, ?, ?)", (time_ms, request_id, reply))
