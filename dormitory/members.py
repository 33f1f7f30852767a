"""Check and change the members' passwords: member.txt has `name, scrypt-hash` on each line.

A hash reads scrypt$N$8$1$SALT$HASH: the parameters N, r and p of RFC 7914, then the salt and the hash in hexadecimal.
Each hash has its own salt and cost N, so the cost can be raised for new passwords while the old ones keep theirs.

Names and passwords are compared in Unicode's normal form NFC: keyboards differ in how they write "Zoë". Names that
differ in case are different names, but add_member() makes no second one that looks like an existing one.
"""

import hashlib
import hmac
import os
import random
import re
import secrets
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from dormitory.login_queue import LoginQueue
from dormitory.textfiles import Malformed, WatchedFile, read_fields, read_text
from net.files import locked, replace_file
from protocol import harmless

NAME = re.compile(r"[^\s,\ufffd]{1,32}")  # U+FFFD stands for a character that harmless() has replaced
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


def normalized(text: str) -> str:
    """Return the form in which names and passwords are compared."""
    return unicodedata.normalize("NFC", text)


def valid_name(text: str) -> str:
    """Return a name, 1 to 32 characters without space and comma, in the form for comparison; "" if it is not valid."""
    name = normalized(text)
    return name if NAME.fullmatch(name) else ""


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
        """Return the hash that str() has turned into this text; raise ValueError for any other text."""
        _, cost, _, _, salt, digest = text.split("$")
        parsed = cls(int(cost), bytes.fromhex(salt), bytes.fromhex(digest))
        if str(parsed) != text or parsed.cost not in COSTS or len(parsed.hash) != HASH_BYTES:
            raise ValueError("not a supported scrypt hash")
        return parsed

    def derive(self, password: str) -> bytes:
        """Return the hash of a password with this salt and cost; scrypt releases the GIL."""
        parameters = {"n": self.cost, "r": BLOCK_SIZE, "p": PARALLELISM, "maxmem": MAX_MEMORY_BYTES}
        return hashlib.scrypt(normalized(password).encode(), salt=self.salt, dklen=HASH_BYTES, **parameters)


class Members:
    """The members and their passwords; the file is read again when it has changed.

    After the constructor and warnings(), only the login queue's thread uses the file, so there is no lock.
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

        To check an unknown name takes as long as to check a wrong password. LoginQueue.run() explains the rest.
        """
        return self._logins.run(lambda: self._verify(user, password), address, has_left)

    def _verify(self, user: str, password: str) -> bool:
        self._file.refresh()
        expected = self._file.content.get(user)
        if expected is None:  # a hash that no password matches, with the cost of a member, which the name determines
            hashes = list(self._file.content.values()) or [PasswordHash.of("")]
            expected = random.Random(self._secret + user).choice(hashes)._replace(hash=bytes(HASH_BYTES))
        return hmac.compare_digest(expected.derive(password), expected.hash)


def read_members(path: Path) -> dict[str, PasswordHash]:
    """Return the hash of each member's password; the text of a Malformed quotes nothing that may be a password."""
    members: dict[str, PasswordHash] = {}
    for where, name, text in read_fields(path, LINE_FORM, is_secret=True):
        name = valid_name(name)
        if not name or name in members:
            raise Malformed(f"{where}: expected a name of 1 to 32 characters that no line above has")
        try:
            members[name] = PasswordHash.parse(text)
        except ValueError:
            raise Malformed(f"{where}: expected {LINE_FORM}") from None
    return members


def add_member(path: Path, name: str, password: str) -> bool:
    """Add a member to the file, or give an existing member a new password; return whether the member is new."""
    name = normalized(name)
    if not valid_name(name) or not _arrives_unchanged(name):
        raise Malformed(f"Expected a name of 1 to 32 visible characters without space and comma, got {name!r}")
    if not _arrives_unchanged(password) or len(password) < MIN_PASSWORD_CHARACTERS:
        raise Malformed(f"Expected a password of at least {MIN_PASSWORD_CHARACTERS} printable characters")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise Malformed(f"Expected a password of at most {MAX_PASSWORD_BYTES} bytes")
    line = f"{name}, {PasswordHash.of(password)}"
    path = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link
    with locked(path):
        members = read_members(path) if path.exists() else {}
        is_new = name not in members
        for other in members:
            if is_new and _skeleton(other) == _skeleton(name):
                raise Malformed(f"{name} looks like {other}, who is a member already")
        old = read_text(path).splitlines() if path.exists() else []
        lines = [line if normalized(other.partition(",")[0].strip()) == name else other for other in old]
        if is_new:
            lines.append(line)
        replace_file(path, ("\n".join(lines) + "\n").encode(), private=True)
    return is_new


def _arrives_unchanged(text: str) -> bool:
    """Return whether a server receives this text as it is: it replaces control characters and invisible ones."""
    return harmless(text.encode(errors="surrogateescape")) == text and text.isprintable()


def _skeleton(name: str) -> str:
    """Return a text that names which look alike have in common (after Unicode Technical Standard 39, 4)."""
    return unicodedata.normalize("NFKC", name).casefold()
