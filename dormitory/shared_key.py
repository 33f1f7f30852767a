"""Load the key under which the four servers tag their datagrams: dorm.key, created by the server that starts first.

Servers on other hosts need a copy of the file. Its owner alone may read it, as with BIND's rndc.key.
"""

import os
import secrets
from contextlib import suppress
from pathlib import Path

from dormitory.textfiles import Malformed

KEY_FILE = "dorm.key"
KEY_BYTES = 32


def load_key(directory: Path) -> bytes:
    """Return the key; create the file if it does not exist.

    Raises:
        Malformed: other users may read the file, or it does not hold a key.
        OSError: the file can neither be read nor created.
    """
    path = directory / KEY_FILE
    if not path.exists():
        _create(path)
    return _read(path)


def _create(path: Path) -> None:
    """Create the file, unless another server is faster; link() is atomic, so no server ever reads half a key."""
    temporary = path.with_name(f"{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(secrets.token_hex(KEY_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with suppress(FileExistsError):
            os.link(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        mode = os.fstat(file.fileno()).st_mode & 0o777
        if mode & 0o077:
            raise Malformed(f"{path}: expected mode 600, readable by its owner alone, got {mode:o}")
        text = file.read(KEY_BYTES * 4)
    with suppress(ValueError):  # also a UnicodeDecodeError
        key = bytes.fromhex(text.decode())
        if len(key) == KEY_BYTES:
            return key
    raise Malformed(
        f"{path}: expected {KEY_BYTES * 2} hexadecimal digits; delete it, and the next server to start makes a new key"
    )
