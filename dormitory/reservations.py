"""Keep the reservations of one kind of room in an SQLite file, and with them the replay cache.

The replay cache holds the reply to each change, under the request's id. A change and its reply are written in one
transaction. So even if any program is killed at any moment, a repeated request gets the recorded reply and changes
nothing.
"""

import os
import sqlite3
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

from dormitory.wire import BadDatagram, Datagram, now_ms

MAX_CLOCK_DIFFERENCE_MS = 600_000  # a datagram whose time is further off is refused
KEEP_REPLIES_MS = 2 * MAX_CLOCK_DIFFERENCE_MS  # twice, because a clock may be set back after a reply was deleted
BUSY_SECONDS = 0.2  # how long to wait while another program has the file locked

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
    CREATE TABLE IF NOT EXISTS state (
        database BLOB NOT NULL,  -- the random id of this database
        forgotten_ms INTEGER NOT NULL  -- replies to requests that were sent before this time may have been deleted
    );
"""
DATABASE_ID = "SELECT database FROM state"
COUNT_BY_ROOM = "SELECT room, count(*) FROM reservations GROUP BY room"
ALL_ROWS = "SELECT number, room, member, time FROM reservations ORDER BY number"


class Damaged(Exception):
    """A restart would not find what was committed; the text says why."""


class Reservations:
    """The reservations and the replay cache; one thread at a time may use them."""

    def __init__(self, path: Path, busy_seconds: float = BUSY_SECONDS) -> None:
        self._path = path
        self.taken: Counter[str] = Counter()  # reservations by room, as of the last transaction() or refresh()
        self._seen_version: int | None = None  # the version of the file that `taken` describes
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))  # SQLite would make it readable by everybody
        self._db = _connect(path, timeout=busy_seconds, isolation_level=None, check_same_thread=False)
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
        self._db.execute(ALL_ROWS)
        if not self._db.execute("SELECT 1 FROM state").fetchone():
            self._db.execute("INSERT INTO state SELECT randomblob(8), 0 WHERE NOT EXISTS (SELECT 1 FROM state)")
        (self.database,) = self._db.execute(DATABASE_ID).fetchone()
        self.refresh()

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Carry out all changes of the with block or, if it raises, none; put them on disk, or raise Damaged."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self.refresh()
            before_ms = now_ms() - KEEP_REPLIES_MS
            if self._db.execute("DELETE FROM replay_cache WHERE time_ms < ?", (before_ms,)).rowcount:
                # So that once() still knows their requests after the clock was set back.
                self._db.execute("UPDATE state SET forgotten_ms = max(forgotten_ms, ?)", (before_ms,))
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._seen_version = None  # so that refresh() counts again: `taken` includes what is rolled back
            self._db.rollback()
            raise
        self.check_files()

    def refresh(self) -> None:
        """Read the counts again if another program has changed the file."""
        (version,) = self._db.execute("PRAGMA data_version").fetchone()  # changed by other connections only
        if version != self._seen_version:
            self.taken = Counter(dict(self._db.execute(COUNT_BY_ROOM)))
            self._seen_version = version

    def check_files(self) -> None:
        """Raise Damaged if one of the three files was deleted or replaced while it was open."""
        if self._find_files() != self._files:
            raise Damaged(f"{self._path} was deleted or replaced while it was open; restart this server")

    def _find_files(self) -> list[tuple[int, int]]:
        """Return the device and the inode of SQLite's files, which together hold what was committed."""
        found = []
        for suffix in "", "-wal", "-shm":
            with suppress(OSError):
                status = Path(f"{self._path}{suffix}").stat()
                found.append((status.st_dev, status.st_ino))
        return found

    def check_contents(self) -> None:
        """Raise Damaged if the files on disk do not hold what this connection knows.

        A connection keeps pages in memory, so it alone would not notice that a program has overwritten the files.
        Afterwards, if possible, the first file holds all that was committed, because SQLite ignores a write-ahead log
        that was damaged when it opens a database.
        """
        self.refresh()
        before = self._seen_version
        try:
            with closing(_connect(self._path, timeout=BUSY_SECONDS)) as fresh:
                (problem,) = fresh.execute("PRAGMA quick_check(1)").fetchone()
                database = fresh.execute(DATABASE_ID).fetchone()
                taken = Counter(dict(fresh.execute(COUNT_BY_ROOM)))
        except sqlite3.Error as error:
            problem = str(error)
        if problem != "ok":
            raise Damaged(f"{self._path} cannot be read back from the disk: {problem}")
        self.refresh()
        is_same = (database, taken) == ((self.database,), self.taken)
        if not is_same and self._seen_version == before:  # otherwise another program has committed meanwhile
            raise Damaged(f"{self._path} was overwritten while it was open; stop this server and restore a backup")
        with suppress(sqlite3.OperationalError):  # for example if the disk is full
            self._db.execute("PRAGMA wal_checkpoint")

    def reserve(self, room: str, member: str) -> int:
        """Add a reservation within a transaction; return its number."""
        number = self._db.execute("INSERT INTO reservations (room, member) VALUES (?, ?)", (room, member)).lastrowid
        assert number is not None
        self.taken[room] += 1
        return number

    def cancel(self, number: int, member: str | None = None) -> tuple[str, str] | None:
        """Delete a reservation, of this member if given, within a transaction; return its room and member, if any."""
        query = "SELECT room, member FROM reservations WHERE number = ?"
        row: tuple[str, str] | None = self._db.execute(query, (number,)).fetchone()
        if row is None or member not in (None, row[1]):
            return None
        self._db.execute("DELETE FROM reservations WHERE number = ?", (number,))
        self.taken[row[0]] -= 1
        return row

    def of_member(self, member: str, after: int, limit: int) -> list[tuple[int, str]]:
        """Return number and room of a member's first `limit` reservations with a number greater than `after`."""
        query = "SELECT number, room FROM reservations WHERE member = ? AND number > ? ORDER BY number LIMIT ?"
        return self._db.execute(query, (member, after, limit)).fetchall()

    def once(self, request: Datagram, change: Callable[[], str]) -> str:
        """Make a change within a transaction and record its reply; if the request has come before, only return that.

        Raise BadDatagram if the request may have come before and its reply was deleted.
        """
        key = (request.time_ms, request.request_id)
        query = "SELECT forgotten_ms, (SELECT reply FROM replay_cache WHERE time_ms = ? AND request_id = ?) FROM state"
        forgotten_ms, recorded = self._db.execute(query, key).fetchone()
        if request.time_ms < forgotten_ms:
            seconds = (forgotten_ms - request.time_ms) // 1000 + 1
            raise BadDatagram("that may be a repetition", f", {seconds} seconds too old to tell: was a clock set back?")
        if recorded is not None:
            return str(recorded)
        reply = change()
        self._db.execute("INSERT INTO replay_cache VALUES (?, ?, ?)", (*key, reply))
        return reply


def read_rows(path: Path, busy_seconds: float) -> list[tuple[object, ...]]:
    """Return number, room, member and time of all reservations, even if nothing can be written beside the file."""
    can_create_log = os.access(path.parent, os.W_OK)
    # SQLite creates the other two files in order to read the first, unless it may assume that nobody changes that one.
    access = "mode=rw" if can_create_log or Path(f"{path}-wal").exists() else "immutable=1"
    with closing(_connect(f"{path.resolve().as_uri()}?{access}", uri=True, timeout=busy_seconds)) as db:
        return db.execute(ALL_ROWS).fetchall()


def _connect(database: Path | str, **options: Any) -> sqlite3.Connection:
    """Open a database, and tolerate text that is not UTF-8, which only another program can have written."""
    db: sqlite3.Connection = sqlite3.connect(database, **options)
    db.text_factory = lambda text: text.decode(errors="replace")
    return db
