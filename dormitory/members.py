"""Check and change the members' passwords: member.txt has `name, scrypt-hash` on each line.

A hash reads scrypt$N$8$1$SALT$HASH: the parameters N, r and p of RFC 7914, then the salt and the hash in hexadecimal.
Each hash has its own salt and cost N, so the cost can be raised for new passwords while the old ones keep theirs.
"""

import hashlib
import hmac
import os
import random
import re
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dormitory.login_queue import LoginQueue
from dormitory.textfiles import Malformed, WatchedFile, read_fields
from net.files import locked, replace_file

NAME = re.compile(r"[^\s,]{1,32}")
MIN_PASSWORD_CHARACTERS = 8  # of new passwords
MAX_PASSWORD_BYTES = 1000
COST = 1 << 14  # of new passwords: 16 MiB and about 40 ms
COSTS = [1 << exponent for exponent in range(1, 18)]  # scrypt requires a power of two; the highest needs 128 MiB
MAX_MEMORY_BYTES = 1 << 28
BLOCK_SIZE, PARALLELISM = 8, 1
SALT_BYTES = 16
HASH_BYTES = 32
SHIPPED_SALTS = ("e7ddbf07b1aa11e99c978605aa783dcb", "b3ae45f2a0c0dd591d39706174ceaddc")  # in the published member.txt
LINE_FORM = '"name, scrypt-hash" as serverM.py --add-member writes it'


class PasswordHash(NamedTuple):
    """The cost, the salt and the hash that are stored instead of a password."""

    cost: int
    salt: bytes
    hash: bytes

    def __str__(self) -> str:
        return f"scrypt${self.cost}${BLOCK_SIZE}${PARALLELISM}${self.salt.hex()}${self.hash.hex()}"

    @classmethod
    def of(cls, password: str) -> "PasswordHash":
        """Return the hash of a password, with a new salt."""
        salted = cls(COST, secrets.token_bytes(SALT_BYTES), b"")
        return salted._replace(hash=salted.derive(password))

    @classmethod
    def parse(cls, text: str) -> "PasswordHash":
        """Return the hash that str() has turned into this text.

        Raises:
            ValueError: the text has another form, or the cost is not one of COSTS.
        """
        _, cost, _, _, salt, digest = text.split("$")
        parsed = cls(int(cost), bytes.fromhex(salt), bytes.fromhex(digest))
        if str(parsed) != text or parsed.cost not in COSTS or len(parsed.hash) != HASH_BYTES:
            raise ValueError("not a supported scrypt hash")
        return parsed

    def derive(self, password: str) -> bytes:
        """Return the hash of a password with this salt and cost; scrypt releases the GIL."""
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=self.cost,
            r=BLOCK_SIZE,
            p=PARALLELISM,
            maxmem=MAX_MEMORY_BYTES,
            dklen=HASH_BYTES,
        )


class Members:
    """The members and their passwords; the file is read again when it has changed.

    After the constructor and warnings(), only the login queue's thread uses the file, so there is no lock.

    Raises:
        Malformed: a line of the file is malformed.
        OSError: the file cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, read_members)
        self._logins = LoginQueue()
        self._secret = secrets.token_hex(SALT_BYTES)

    def warnings(self) -> list[str]:
        """Return a status line for each member who still has a password that README publishes."""
        return [
            f"Warning: {name} still has a published password; replace it with: serverM.py --add-member {name}"
            for name, expected in self._file.content.items()
            if expected.salt.hex() in SHIPPED_SALTS
        ]

    def check(self, user: str, password: str, address: str, has_left: Callable[[], bool]) -> bool:
        """Return whether this is a member's name and password; block until the turn of this check has come.

        Args:
            user: the name; to check an unknown one takes as long as to check a wrong password.
            password: the password.
            address: the client's address.
            has_left: returns whether the client has ended its side of the connection.

        Raises:
            TooManyLogins: the check would take more than 5 seconds.
        """
        return self._logins.run(lambda: self._verify(user, password), address, has_left)

    def _verify(self, user: str, password: str) -> bool:
        self._file.refresh()
        expected = self._file.content.get(user) or self._decoy(user)
        return hmac.compare_digest(expected.derive(password), expected.hash)

    def _decoy(self, user: str) -> PasswordHash:
        """Return a hash that no password matches; its cost is that of a member, which the name determines."""
        hashes = list(self._file.content.values()) or [PasswordHash.of("")]
        return random.Random(self._secret + user).choice(hashes)._replace(hash=bytes(HASH_BYTES))


def read_members(path: Path) -> dict[str, PasswordHash]:
    """Return the hash of each member's password.

    Raises:
        Malformed: a line is not `name, scrypt-hash`, or two lines have the same name.
        OSError: the file cannot be read.
    """
    members: dict[str, PasswordHash] = {}
    for where, name, text in read_fields(path, LINE_FORM):
        if name in members or not NAME.fullmatch(name):
            raise Malformed(f"{where}: expected a name that is new and has 1 to 32 characters, got {name!r}")
        try:
            members[name] = PasswordHash.parse(text)
        except ValueError:
            raise Malformed(f"{where}: expected {LINE_FORM}, got {text[:40]!r}") from None
    return members


def add_member(path: Path, name: str, password: str) -> bool:
    """Add a member to the file, or give an existing member a new password; return whether the member is new.

    The file is replaced atomically: if this program is killed, the file holds either its old contents or the new ones.

    Raises:
        Malformed: a line of the file is malformed, or the name or the password cannot be used.
        OSError: the file cannot be read or written.
    """
    if not NAME.fullmatch(name) or not name.isprintable():
        raise Malformed(f"Expected a name of 1 to 32 characters without space and comma, got {name!r}")
    if not password.isprintable() or len(password) < MIN_PASSWORD_CHARACTERS:
        raise Malformed(f"Expected a password of at least {MIN_PASSWORD_CHARACTERS} printable characters")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise Malformed(f"Expected a password of at most {MAX_PASSWORD_BYTES} bytes")
    line = f"{name}, {PasswordHash.of(password)}"
    path = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link
    with locked(path):
        is_new = not path.exists() or name not in read_members(path)
        old = path.read_text("utf-8-sig", "surrogateescape").splitlines() if path.exists() else []
        lines = [line if other.partition(",")[0].strip() == name else other for other in old]
        if is_new:
            lines.append(line)
        text = "\n".join(lines) + "\n"
        replace_file(path, text.encode(errors="surrogateescape"), private=True)
    return is_new
