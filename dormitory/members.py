"""The members and their passwords: member.txt, `name, scrypt-hash` on each line.

A hash reads scrypt$N$r$p$SALT$HASH, the last two in hexadecimal (RFC 7914): each carries its own salt and cost, so the
cost may be raised for new members without touching the old ones.
"""

import fcntl
import hashlib
import hmac
import io
import os
import re
import secrets
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from dormitory.textfiles import Malformed, read_fields

NAME = re.compile(r"[^\s,]{1,32}")
MAX_PASSWORD_BYTES = 1000
COST, BLOCK_SIZE, PARALLELISM = 1 << 14, 8, 1  # 16 MiB and about 40 ms
MAX_MEMORY_BYTES = 1 << 28  # for hashes with a higher cost
SALT_BYTES = 16
HASH_BYTES = 32


class PasswordHash(NamedTuple):
    """What is kept of a password."""

    cost: int
    block_size: int
    parallelism: int
    salt: bytes
    hash: bytes

    def __str__(self) -> str:
        cost = f"{self.cost}${self.block_size}${self.parallelism}"
        return f"scrypt${cost}${self.salt.hex()}${self.hash.hex()}"

    @classmethod
    def of(cls, password: str) -> "PasswordHash":
        """Return the hash of a password, with a new salt."""
        unsalted = cls(COST, BLOCK_SIZE, PARALLELISM, secrets.token_bytes(SALT_BYTES), b"")
        return unsalted._replace(hash=unsalted.derive(password))

    @classmethod
    def parse(cls, text: str) -> "PasswordHash":
        """Return the hash that a text shows.

        Raises:
            ValueError: it shows none, or one that costs more memory than is allowed.
        """
        name, cost, block_size, parallelism, salt, digest = text.split("$")
        parsed = cls(int(cost), int(block_size), int(parallelism), bytes.fromhex(salt), bytes.fromhex(digest))
        if name != "scrypt" or len(parsed.hash) != HASH_BYTES or not parsed.affordable():
            raise ValueError("no such hash is written here")
        return parsed

    def affordable(self) -> bool:
        """Return whether scrypt takes these parameters, and they take neither too much memory nor too much time."""
        power_of_two = self.cost > 1 and self.cost & (self.cost - 1) == 0
        ranges = 8 <= self.block_size <= 32 and 1 <= self.parallelism <= 16
        return power_of_two and ranges and 128 * self.cost * self.block_size < MAX_MEMORY_BYTES

    def derive(self, password: str) -> bytes:
        """Return what the password gives with this salt and cost; other threads run meanwhile."""
        return hashlib.scrypt(
            password.encode(),
            salt=self.salt,
            n=self.cost,
            r=self.block_size,
            p=self.parallelism,
            maxmem=2 * MAX_MEMORY_BYTES,
            dklen=HASH_BYTES,
        )


class Members:
    """Who may log in as a member.

    Raises:
        Malformed: the file is not as it should be.
        OSError: it cannot be read.
    """

    def __init__(self, path: Path) -> None:
        self._hashes = read_members(path)  # never changes
        self._nobody = PasswordHash(COST, BLOCK_SIZE, PARALLELISM, secrets.token_bytes(SALT_BYTES), bytes(HASH_BYTES))
        self._checker = ThreadPoolExecutor(1)  # many at once would leave no memory and no processor to others
        self._checker.submit(int)  # begins its thread now, while there are threads to be had

    def verify(self, name: str, password: str) -> bool:
        """Return whether this is a member and his password; takes the same time when it is not."""
        expected = self._hashes.get(name, self._nobody)
        derived = self._checker.submit(expected.derive, password).result()
        return hmac.compare_digest(derived, expected.hash)


def read_members(path: Path) -> dict[str, PasswordHash]:
    """Return the hash of each member's password.

    Raises:
        Malformed: a line is not `name, scrypt-hash`, or a member is there twice.
        OSError: the file cannot be read.
    """
    expected = '"name, scrypt-hash" as serverM.py --add-member writes it'
    members: dict[str, PasswordHash] = {}
    for where, name, text in read_fields(path, expected):
        if name in members or not NAME.fullmatch(name):
            raise Malformed(f"{where}: expected a name that is new and has 1 to 32 characters, got {name!r}")
        try:
            members[name] = PasswordHash.parse(text)
        except ValueError:
            raise Malformed(f"{where}: expected {expected}, got {text[:40]!r}") from None
    return members


def add_member(path: Path, name: str, password: str) -> None:
    """Add a member to the file.

    Raises:
        Malformed: the file is not as it should be, or the name or the password cannot be used.
        OSError: the file cannot be read or written.
    """
    if not NAME.fullmatch(name) or not name.isprintable():
        raise Malformed(f"Expected a name of 1 to 32 characters without space and comma, got {name!r}")
    if not password.isprintable() or not 1 <= len(password.encode()) <= MAX_PASSWORD_BYTES:
        raise Malformed(f"Expected a password of 1 to {MAX_PASSWORD_BYTES} bytes that can be printed")
    line = f"{name}, {PasswordHash.of(password)}\n".encode()
    with path.open("a+b", buffering=0) as file:
        fcntl.flock(file, fcntl.LOCK_EX)  # somebody else may be adding the same name
        if name in read_members(path):
            raise Malformed(f"{path}: {name} is a member already; delete that line to give a new password")
        text = path.read_bytes()
        _append_whole(file, len(text), line if text.endswith(b"\n") or not text else b"\n" + line)


def _append_whole(file: io.FileIO, size: int, line: bytes) -> None:
    """Add a line to a file of so many bytes, or leave it as it is."""
    try:
        while line:
            line = line[file.write(line) :]
        os.fsync(file.fileno())
    except OSError as error:
        file.truncate(size)
        raise OSError(error.errno, error.strerror, file.name) from error
