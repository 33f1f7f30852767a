"""Read, lock and replace files that several programs share; after a crash, a file holds its old or its new contents.

There is one exception. No file can be renamed to a mount point, such as a file that `docker run -v` mounts. It is
written in place, and after a crash it may hold a mixture.
"""

import errno
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

MAX_FILE_BYTES = 1 << 24  # far more than any hall, inventory or list of members
LOCK_SECONDS = 5.0  # the longest wait for a lock that another program holds
LOCK_RETRY_SECONDS = 0.002  # as long as a write; in a longer pause, a busy second server would lock the file again
SECRET_MODE = 0o600  # readable and writable for the owner alone


class NotFlushed(OSError):
    """The new contents were written, but perhaps not to disk: after a power failure the file may hold the old ones."""


def read_file(file: Path, max_bytes: int = MAX_FILE_BYTES) -> bytes:
    """Return the contents of a regular file; raise OSError for any other file, and for one that is too large.

    There are few system calls here, because another thread may take the GIL at each of them.
    """
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening a FIFO would block
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", file)
        if status.st_size > max_bytes:
            raise OSError(errno.EFBIG, f"too large: at most {max_bytes} bytes are expected", file)
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


@contextmanager
def locked(file: Path) -> Iterator[None]:
    """Hold the lock that keeps other programs from replacing a file; raise TimeoutError after LOCK_SECONDS.

    The lock is on a second file, whose name ends with `.lock`, because the first one is replaced. Any user who can open
    a file can lock it, so only users who may write the first file can open the second. Editors ignore the lock.
    """
    lock = file.with_name(f"{file.name}.lock")
    end = time.monotonic() + LOCK_SECONDS
    while True:
        fd = _open_lock(lock, file)
        try:
            if _lock(fd) and _is_still(fd, lock):
                yield
                return
        finally:
            os.close(fd)
        if time.monotonic() > end:
            raise TimeoutError(errno.ETIMEDOUT, "another program keeps it locked", str(lock))
        time.sleep(LOCK_RETRY_SECONDS)  # flock() has no time limit


def _lock(fd: int) -> bool:
    """Lock a file, unless another program has locked it; return whether it is locked now."""
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_still(fd: int, lock: Path) -> bool:
    """Return whether an open lock file is still the one that other programs find."""
    try:
        return os.path.samestat(os.fstat(fd), lock.stat())
    except FileNotFoundError:
        return False


def _open_lock(lock: Path, file: Path) -> int:
    """Open a lock file for writing, as NFS requires; create it if there is none that this user may open."""
    try:
        fd = os.open(lock, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK)  # O_NONBLOCK: it may be a FIFO
        _admit_writers(fd, file)
        return fd
    except FileNotFoundError:
        pass
    except PermissionError:
        with suppress(FileNotFoundError):
            _remove_unusable(lock)
    return _create_lock(lock, file)


def _remove_unusable(lock: Path) -> None:
    """Remove another user's lock file unless it is locked, such as one that root has left.

    The lock on the directory keeps two programs from doing this at the same time: the second one would remove the new
    lock file of the first. If this user cannot even read the file, a lock of root on it goes unnoticed.
    """
    with _opened(lock.parent) as directory:
        if not _lock(directory) or os.access(lock, os.R_OK | os.W_OK):
            return
        with suppress(PermissionError), _opened(lock) as fd:
            if _lock(fd):
                lock.unlink()
            return
        lock.unlink()


def _create_lock(lock: Path, file: Path) -> int:
    """Create a lock file, unless another program is faster; it gets its name last, when it has its permissions."""
    unfinished = lock.with_name(f"{lock.name}.{secrets.token_hex(8)}")
    fd = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_EXCL, SECRET_MODE)
    _admit_writers(fd, file)
    try:
        os.link(unfinished, lock)
    except FileExistsError:
        pass
    except OSError:  # a file system without links, such as FAT, has no owners either
        with suppress(FileExistsError):
            os.close(os.open(lock, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE))
    finally:
        unfinished.unlink()
    return fd


def _admit_writers(fd: int, file: Path) -> None:
    """Let exactly those users open a lock file who may write the file that it guards."""
    with suppress(OSError):  # the guarded file need not exist; only the lock file's owner may change its permissions
        wanted, lock = file.stat(), os.fstat(fd)
        if (lock.st_uid, lock.st_gid) != (wanted.st_uid, wanted.st_gid):
            _copy_owner(wanted, fd)
            lock = os.fstat(fd)
        writers = wanted.st_mode & (0o022 if lock.st_gid == wanted.st_gid else 0o002)
        mode = SECRET_MODE | writers | writers << 1  # each of them may also read it
        if stat.S_IMODE(lock.st_mode) != mode:
            os.fchmod(fd, mode)


def replace_file(file: Path, new: bytes, old: bytes | None = None, private: bool = False) -> bool:
    """Replace the contents of a file atomically and durably: after a crash it holds the old ones or the new ones.

    The new file has the permissions, the extended attributes and, as far as possible, the owner and group of the old.
    After an OSError the file holds its old contents, except after NotFlushed. The error names a file.

    Args:
        file: the file, which need not exist; it must not be a symbolic link.
        new: the new contents.
        old: the contents that the file must still have when it is replaced; None if any will do.
        private: for secrets: only the owner may read and write the new file, and it must have the old one's owner.

    Returns:
        True if the file was replaced; False if it was not, because an edit had changed the old contents.
    """
    with _written_sibling(file, new, private) as sibling, _opened(file.parent) as directory:
        if old is not None and read_file(file) != old:
            return False
        try:
            sibling.replace(file)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            _write_in_place(file, new)
        else:
            _flush_directory(directory, file.parent)
    return True


def check_replaceable(file: Path) -> bool:
    """Do all that replace_file() does up to the rename, which must not fail; return whether a rename is possible.

    Otherwise the file is a mount point, and replace_file() will write it in place.
    """
    with locked(file), _written_sibling(file, read_file(file)) as sibling:
        sibling.unlink()
        try:
            os.link(file, sibling)
        except OSError as error:  # like a rename, a link cannot cross a mount point
            return error.errno != errno.EXDEV
        return True


@contextmanager
def _written_sibling(file: Path, contents: bytes, private: bool = False) -> Iterator[Path]:
    """Write a second file with the attributes of the first, and flush it to disk; remove it in the end.

    A file that already has this name is removed, not written to: it may be a read-only file that a killed program has
    left, or another user's symbolic link to a file that must not be overwritten.
    """
    sibling = file.with_name(f"{file.name}.new")
    try:
        sibling.unlink(missing_ok=True)
        with os.fdopen(os.open(sibling, os.O_WRONLY | os.O_CREAT | os.O_EXCL, SECRET_MODE), "wb") as new:
            if file.exists():
                _copy_attributes(file, new.fileno(), private)
            new.write(contents)
            new.flush()
            _flush(new.fileno())
        yield sibling
    except OSError as error:
        error.filename = error.filename or str(file)  # the errors of write() and fsync() name no file
        raise
    finally:
        with suppress(OSError):  # after a rename it no longer exists; an error here must not hide the outcome
            sibling.unlink()


def _copy_attributes(file: Path, fd: int, private: bool) -> None:
    status = file.stat()
    _copy_owner(status, fd)
    if private and os.fstat(fd).st_uid != status.st_uid:
        raise PermissionError(errno.EPERM, "another user's file, which only that user or root may replace", str(file))
    with suppress(OSError, AttributeError):  # other systems than Linux, and some file systems, have none
        for name in os.listxattr(file):
            with suppress(OSError):  # only root may set some
                os.setxattr(fd, name, os.getxattr(file, name))
    os.fchmod(fd, stat.S_IMODE(status.st_mode) & (SECRET_MODE if private else 0o7777))


def _copy_owner(status: os.stat_result, fd: int) -> None:
    """Give a file the owner and group of another one, or the group alone: only root may give a file away."""
    try:
        os.fchown(fd, status.st_uid, status.st_gid)
    except OSError:
        with suppress(OSError):
            os.fchown(fd, -1, status.st_gid)


def _write_in_place(file: Path, contents: bytes) -> None:
    try:
        with file.open("r+b") as opened:
            opened.write(contents)
            opened.truncate()
            opened.flush()
            _flush(opened.fileno())
    except OSError as error:
        raise NotFlushed(error.errno, error.strerror, str(file)) from error


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


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        yield fd
    finally:
        os.close(fd)
