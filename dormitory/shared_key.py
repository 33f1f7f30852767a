"""Load the key of the datagrams from dorm.key: the first server creates it, for its owner alone, as BIND's rndc.key."""

import secrets
import stat
from contextlib import suppress
from pathlib import Path

from dormitory.textfiles import Malformed
from net.files import locked, read_file, replace_file

KEY_FILE = "dorm.key"
KEY_BYTES = 32


def load_key(directory: Path) -> bytes:
    """Return the key; create the file if it does not exist, and raise Malformed if others may read it."""
    path = directory / KEY_FILE
    if not path.exists():
        with locked(path):
            if not path.exists():  # otherwise another server has created it meanwhile
                replace_file(path, f"{secrets.token_hex(KEY_BYTES)}\n".encode(), private=True)
    mode = stat.S_IMODE(path.stat().st_mode)
    if mode & 0o077:
        raise Malformed(f"{path}: expected mode 600, readable by its owner alone, got {mode:o}")
    with suppress(ValueError):  # also a UnicodeDecodeError
        key = bytes.fromhex(read_file(path).decode())
        if len(key) == KEY_BYTES:
            return key
    expected = f"expected {KEY_BYTES * 2} hexadecimal digits"
    raise Malformed(f"{path}: {expected}; delete it, and the next server to start makes a new key")
