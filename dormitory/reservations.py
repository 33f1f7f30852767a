"""The reservations of one kind of room, in an SQLite file; what is left is the inventory less its rows.

Beside each change stands the answer that was given to its request, in the same transaction: whatever is killed when, a
request that comes again is answered from there and changes nothing.
"""

import sqlite3
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from dormitory.textfiles import Malformed
from dormitory.wire import PATIENCE_SECONDS

MINE_LIMIT = 50
BUSY_SECONDS = 0.2  # how long to wait for whoever else has the file locked
KEEP_ANSWERS_SECONDS = 20 * PATIENCE_SECONDS  # longer than a request is repeated, also if a clock is set meanwhile

SCHEMA = """
    CREATE TABLE IF NOT EXISTS reservations (
        number INTEGER PRIMARY KEY AUTOINCREMENT,  -- never given out again, also when cancelled
        room TEXT NOT NULL,
        member TEXT NOT NULL,
        time TEXT NOT NULL DEFAULT CURRENT_TIMESTAMP
    );
    CREATE INDEX IF NOT EXISTS by_member ON reservations (member);
    CREATE TABLE IF NOT EXISTS answers (request BLOB PRIMARY KEY, reply TEXT NOT NULL, time REAL NOT NULL);
"""


class Refused(Exception):
    """It cannot be done; the text is the status word of the reply."""


class Reservations:
    """The inventory and who has reserved what; used by one thread at a time.

    Args:
        path: the SQLite file; made if there is none.
        letter: with which the ids of reservations begin.
        inventory: how many rooms there are of each code.

    Raises:
        Malformed: the file cannot be used.
    """

    def __init__(self, path: Path, letter: str, inventory: dict[str, int]) -> None:
        self._letter = letter
        self._inventory = inventory
        try:
            self._db = _open(path)
            self._taken: Counter[str] = Counter()
            self._seen = -1  # the file's version when its rows were counted
            self.see_changes()
        except sqlite3.Error as error:
            raise Malformed(f"{path}: {error}") from error

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """Do all that follows or nothing of it; on leaving, it is on disk.

        Raises:
            sqlite3.Error: nothing was done.
        """
        self._db.execute("BEGIN IMMEDIATE")
        before = self._taken
        try:
            self.see_changes()
            before, self._taken = self._taken, self._taken.copy()
            yield
            self._db.execute("COMMIT")
        except BaseException:
            self._taken = before
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def see_changes(self) -> None:
        """Count the rows anew if another program, or a person, has changed them.

        Raises:
            sqlite3.Error: the file cannot be read; the counts are those of before.
        """
        (version,) = self._db.execute("PRAGMA data_version").fetchone()  # only other connections change it
        if version != self._seen:
            rows = self._db.execute("SELECT room, count(*) FROM reservations GROUP BY room")
            self._taken = Counter(dict(rows.fetchall()))
            self._seen = version

    def left(self, room: str) -> int:
        """Return how many of a room can be reserved.

        Raises:
            Refused: there is no such room.
        """
        if room not in self._inventory:
            raise Refused("UNKNOWN_ROOM")
        return max(0, self._inventory[room] - self._taken[room])

    def left_of_all(self) -> dict[str, int]:
        """Return how many of each room can be reserved, in the order of the inventory."""
        return {room: self.left(room) for room in self._inventory}

    def reserve(self, room: str, member: str) -> str:
        """Reserve a room within a transaction; return the reservation's id.

        Raises:
            Refused: there is no such room, or none is left.
        """
        if not self.left(room):
            raise Refused("FULL")
        row = self._db.execute("INSERT INTO reservations (room, member) VALUES (?, ?)", (room, member))
        self._taken[room] += 1
        return f"{self._letter}{row.lastrowid}"

    def cancel(self, reservation: str, member: str) -> str:
        """Cancel a reservation within a transaction; return its room.

        Raises:
            Refused: that member has no such reservation.
        """
        number = int(reservation.removeprefix(self._letter))
        mine = "FROM reservations WHERE number = ? AND member = ?"
        row: tuple[str] | None = self._db.execute(f"SELECT room {mine}", (number, member)).fetchone()
        if row is None:
            raise Refused("UNKNOWN_RESERVATION")
        self._db.execute(f"DELETE {mine}", (number, member))
        self._taken[row[0]] -= 1
        return row[0]

    def of_member(self, member: str) -> dict[str, str]:
        """Return the room of each reservation of a member by its id: the latest MINE_LIMIT, in their order."""
        query = "SELECT number, room FROM reservations WHERE member = ? ORDER BY number DESC LIMIT ?"
        rows = self._db.execute(query, (member, MINE_LIMIT)).fetchall()
        return {f"{self._letter}{number}": room for number, room in reversed(rows)}

    def answer_to(self, request: bytes) -> str | None:
        """Return the answer that was given to a request that changed something, or None."""
        row: tuple[str] | None = self._db.execute("SELECT reply FROM answers WHERE request = ?", (request,)).fetchone()
        return row and row[0]

    def record_answer(self, request: bytes, reply: str) -> None:
        """Keep the answer to a request, within the transaction in which it changed something."""
        self._db.execute("INSERT INTO answers VALUES (?, ?, ?)", (request, reply, time.time()))

    def forget_old_answers(self) -> None:
        """Delete the answers to requests that are no longer repeated.

        Raises:
            sqlite3.Error: not now.
        """
        self._db.execute("DELETE FROM answers WHERE time < ?", (time.time() - KEEP_ANSWERS_SECONDS,))


def _open(path: Path) -> sqlite3.Connection:
    db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False)
    try:
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA fullfsync = ON")  # macOS: past the drive's own cache
        db.executescript(SCHEMA)
    except sqlite3.Error:
        db.close()
        raise
    return db
