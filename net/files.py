"""Read, lock and replace files that several programs share; after a crash, a file holds its old or its new contents."""

import errno
import fcntl
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

LOCK_SECONDS = 5.0  # the longest wait for a lock that another program holds
LOCK_RETRY_SECONDS = 0.002  # as long as a write; in a longer pause, a busy second server would lock the file again


class NotFlushed(OSError):
    """The file holds its new contents, but after a power failure it may hold the old ones again."""


def read_file(file: Path) -> bytes:
    """Return the contents of a regular file.

    There are few system calls here, because another thread may take the GIL at each of them.

    Raises:
        OSError: the file cannot be read, or is not a regular file.
    """
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening a FIFO would block
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", file)
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


@contextmanager
def locked(file: Path, private: bool = False) -> Iterator[None]:
    """Hold the lock that keeps other programs from replacing a file; wait for it at most LOCK_SECONDS.

    The lock is on a second file, whose name ends with `.lock`, because the first one is replaced. The lock is advisory:
    editors ignore it.

    Args:
        file: the file to be replaced.
        private: whether only the owner may open the lock file.

    Raises:
        OSError: the lock file cannot be created or locked.
    """
    lock = f"{file}.lock"
    fd = os.open(lock, os.O_RDWR | os.O_CREAT, 0o600 if private else 0o666)  # NFS requires a writable descriptor
    try:
        end = time.monotonic() + LOCK_SECONDS
        while not _lock(fd):
            if time.monotonic() > end:
                raise TimeoutError(errno.ETIMEDOUT, "another program keeps it locked", lock)
            time.sleep(LOCK_RETRY_SECONDS)  # flock() has no time limit
        yield
    finally:
        os.close(fd)


def _lock(fd: int) -> bool:
    """Lock a file, unless another program has locked it; return whether it is locked now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def replace_file(file: Path, new: bytes, old: bytes | None = None, private: bool = False) -> bool:
    """Replace the contents of a file atomically and durably: after a crash it holds the old ones or the new ones.

    The new file has the permissions and, if possible, the owner of the old one.

    Args:
        file: the file, which need not exist; it must not be a symbolic link.
        new: the new contents.
        old: the contents that the file must still have when it is replaced; None if any will do.
        private: for secrets: only the owner may read and write the new file, and it must have the old one's owner.

    Returns:
        True if the file was replaced; False if it was not, because an edit had changed the old contents.

    Raises:
        NotFlushed: the file holds the new contents, but the directory could not be flushed.
        OSError: the file cannot be written; it holds the old contents. The error names a file.
    """
    sibling = file.with_name(f"{file.name}.new")
    directory = os.open(file.parent, os.O_RDONLY)
    try:
        _write_sibling(file, sibling, new, private)
        if old is not None and read_file(file) != old:
            return False
        sibling.replace(file)
        _flush_directory(directory, file.parent)
    except OSError as error:
        error.filename = error.filename or str(file)  # the errors of write() and fsync() name no file
        raise
    finally:
        os.close(directory)
        with suppress(OSError):  # after replace() it no longer exists; an error here must not hide the outcome
            sibling.unlink()
    return True


def _write_sibling(file: Path, sibling: Path, contents: bytes, private: bool) -> None:
    """Write a second file with the owner and the permissions of the first, and flush it to disk.

    A file that already has this name is removed, not written to: it may be a read-only file that a killed program has
    left, or another user's symbolic link to a file that must not be overwritten.
    """
    sibling.unlink(missing_ok=True)
    with os.fdopen(os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as new:
        if file.exists():
            _copy_owner_and_permissions(file, new.fileno(), private)
        new.write(contents)
        new.flush()
        _flush(new.fileno())


def _copy_owner_and_permissions(file: Path, fd: int, private: bool) -> None:
    status = file.stat()
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
    except PermissionError:  # only root may give a file to another user
        if private and status.st_uid != os.geteuid():
            raise
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & (0o600 if private else 0o7777))


def _flush_directory(fd: int, directory: Path) -> None:
    try:
        _flush(fd)
    except OSError as error:
        raise NotFlushed(error.errno, error.strerror, str(directory)) from error


def _flush(fd: int) -> None:
    """Flush a file to disk; on macOS fsync() leaves the data in the drive's cache, and F_FULLFSYNC flushes that too."""
    full_fsync = getattr(fcntl, "F_FULLFSYNC", None)
    if full_fsync is not None:
        with suppress(OSError):  # some file systems do not offer it
            fcntl.fcntl(fd, full_fsync)
            return
    os.fsync(fd)
