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

from dormitory.login_queue import LoginQueue
from dormitory.textfiles import Malformed, WatchedFile, read_fields, read_text
from net.files import locked, replace_file
from protocol import harmless

NAME = re.compile(r"[^\s,\ufffd]{1,32}")  # U+FFFD stands for a character that harmless() has replaced
MIN_PASSWORD_CHARACTERS = 8  # of new passwords
MAX_PASSWORD_BYTES = 1000
COST = 1 << 14  # of new passwords: 16 MiB and about 40 ms
COSTS = "|".join(str(1 << exponent) for exponent in range(1, 18))  # a power of two; the highest needs 128 MiB
MAX_MEMORY_BYTES = 1 << 28
SALT_BYTES = 16
HASH_BYTES = 32
HASH = re.compile(rf"scrypt\$({COSTS})\$8\$1\$([0-9a-f][0-9a-f])*\$[0-9a-f]{{64}}")
SHIPPED_SALTS = ("e7ddbf07b1aa11e99c978605aa783dcb", "b3ae45f2a0c0dd591d39706174ceaddc")  # in the published member.txt
LINE_FORM = '"name, scrypt-hash" as serverM.py --add-member writes it'


def valid_name(text: str) -> str:
    """Return a name, 1 to 32 characters without space and comma, in normal form; or "" if it is not valid."""
    name = unicodedata.normalize("NFC", text)
    return name if NAME.fullmatch(name) else ""


def hashed(password: str, cost: int, salt: bytes) -> str:
    """Return what is stored instead of a password; scrypt releases the GIL."""
    parameters = {"n": cost, "r": 8, "p": 1, "maxmem": MAX_MEMORY_BYTES, "dklen": HASH_BYTES}
    digest = hashlib.scrypt(unicodedata.normalize("NFC", password).encode(), salt=salt, **parameters)
    return f"scrypt${cost}$8$1${salt.hex()}${digest.hex()}"


def matches(password: str, stored: str) -> bool:
    """Return whether the stored hash is that of a password."""
    _, cost, _, _, salt, _ = stored.split("$")
    return hmac.compare_digest(hashed(password, int(cost), bytes.fromhex(salt)), stored)


class Members:
    """The members and their passwords; the file is read again when it has changed."""

    def __init__(self, path: Path) -> None:
        self._file = WatchedFile(path, read_members)  # without a lock: later, only the login queue's thread uses it
        self._logins = LoginQueue()
        self._secret = secrets.token_hex(SALT_BYTES)

    def warnings(self) -> list[str]:
        """Return a status line for each member who still has a password that README publishes."""
        names = [name for name, stored in self._file.content.items() if stored.split("$")[4] in SHIPPED_SALTS]
        advice = "still has a published password; replace it with: serverM.py --add-member"
        return [f"Warning: {name} {advice} {name}" for name in names]

    def check(self, user: str, password: str, address: str, has_ended_input: Callable[[], bool]) -> bool:
        """Return whether this is a member's name and password; block as LoginQueue.run() does."""
        return self._logins.run(lambda: self._verify(user, password), address, has_ended_input)

    def _verify(self, user: str, password: str) -> bool:
        self._file.refresh()
        hashes = self._file.content
        if user in hashes:
            return matches(password, hashes[user])
        decoy = random.Random(self._secret + user).choice([*hashes.values()] or [hashed("", COST, b"")])
        matches(password, decoy)  # takes as long as the check of a member, whom the name determines
        return False


def read_members(path: Path) -> dict[str, str]:
    """Return the hash of each member's password; the text of a Malformed quotes nothing that may be a password."""
    members: dict[str, str] = {}
    for where, name, stored in read_fields(path, LINE_FORM, is_secret=True):
        name = valid_name(name)
        if not name or name in members:
            raise Malformed(f"{where}: expected a name of 1 to 32 characters that no line above has")
        if not HASH.fullmatch(stored):
            raise Malformed(f"{where}: expected {LINE_FORM}")
        members[name] = stored
    return members


def add_member(path: Path, text: str, password: str) -> bool:
    """Add a member to the file, or give an existing member a new password; return whether the member is new."""
    name = valid_name(text)
    if not name or not _arrives_unchanged(text):
        raise Malformed(f"Expected a name of 1 to 32 visible characters without space and comma, got {text!r}")
    if not _arrives_unchanged(password) or len(password) < MIN_PASSWORD_CHARACTERS:
        raise Malformed(f"Expected a password of at least {MIN_PASSWORD_CHARACTERS} printable characters")
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        raise Malformed(f"Expected a password of at most {MAX_PASSWORD_BYTES} bytes")
    line = f"{name}, {hashed(password, COST, secrets.token_bytes(SALT_BYTES))}"
    path = Path(os.path.realpath(path))  # replace the target of a symbolic link, not the link
    with locked(path):
        members = read_members(path) if path.exists() else {}
        is_new = name not in members
        for other in members:
            if is_new and _skeleton(other) == _skeleton(name):
                raise Malformed(f"{name} looks like {other}, who is a member already")
        old = read_text(path).splitlines() if path.exists() else []
        lines = [line if valid_name(other.partition(",")[0].strip()) == name else other for other in old]
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
