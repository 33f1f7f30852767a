"""Read, lock and replace files that several programs share; after a crash, a file holds its old or its new contents.

There is one exception. No file can be renamed to a mount point, such as a file that `docker run -v` mounts. It is
written in place, and after a crash it may hold a mixture.

A second file, whose name ends with `.new`, is both the lock and the new contents: a program creates it, locks it,
writes it, and renames it to the first.
"""

import errno
import fcntl
import os
import re
import stat
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from pathlib import Path

MAX_FILE_BYTES = 1 << 24  # far more than any hall, inventory or list of members
LOCK_SECONDS = 5.0  # the longest wait for a lock that another program holds
LOCK_RETRY_SECONDS = 0.002  # in a longer pause, a busy second server would lock the file again
SECRET_MODE = 0o600  # readable and writable for the owner alone


class NotFlushed(OSError):
    """The new contents were written, but perhaps not to disk: after a power failure the file may hold the old ones."""


def read_file(file: Path) -> bytes:
    """Return the contents of a regular file; raise OSError for any other file, and for one that is too large.

    There are few system calls here, because another thread may take the GIL at each of them.
    """
    fd = os.open(file, os.O_RDONLY | os.O_NONBLOCK)  # otherwise opening a FIFO would block
    try:
        status = os.fstat(fd)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(errno.EINVAL, "not a regular file", file)
        if status.st_size > MAX_FILE_BYTES:
            raise OSError(errno.EFBIG, f"too large: at most {MAX_FILE_BYTES} bytes are expected", file)
        return os.read(fd, status.st_size)
    finally:
        os.close(fd)


@contextmanager
def locked(file: Path, may_wait: bool = True) -> Iterator[None]:
    """Hold the lock on a file; if another program keeps it for LOCK_SECONDS, raise FileExistsError or BlockingIOError.

    Any user who can open a file can lock it, so only users who may write the first file can open the second one until
    it is complete. Editors ignore the lock.
    """
    sibling = _sibling(file)
    end = time.monotonic() + (LOCK_SECONDS if may_wait else 0)
    with ExitStack() as opened:
        while True:
            try:
                _remove_unlocked(sibling)
                fd = opened.enter_context(_open_locked(sibling, os.O_RDWR | os.O_CREAT | os.O_EXCL))
                break
            except (FileExistsError, BlockingIOError, PermissionError):  # the last if root has not given it away yet
                if time.monotonic() > end or not os.access(sibling.parent, os.W_OK):
                    raise
            time.sleep(LOCK_RETRY_SECONDS)  # flock() has no time limit
        try:
            _admit_writers(file, fd)
            yield
        finally:
            with suppress(OSError):  # an error here must not hide the outcome
                if os.path.samestat(sibling.stat(), os.fstat(fd)):  # it has not been renamed
                    sibling.unlink()


def _sibling(file: Path) -> Path:
    return file.with_name(f"{file.name}.new")


@contextmanager
def _opened(path: Path, flags: int) -> Iterator[int]:
    fd = os.open(path, flags, SECRET_MODE)
    try:
        yield fd
    finally:
        os.close(fd)


@contextmanager
def _open_locked(path: Path, flags: int) -> Iterator[int]:
    """Open and lock a file; raise BlockingIOError if another program has locked it, renamed it or removed it."""
    with _opened(path, flags) as fd:
        is_locked = False
        with suppress(BlockingIOError, FileNotFoundError):
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            is_locked = os.path.samestat(path.stat(), os.fstat(fd))
        if not is_locked:
            raise BlockingIOError(errno.EAGAIN, "another program keeps it locked", str(path))
        yield fd


def _remove_unlocked(sibling: Path) -> None:
    """Remove a file that a killed program has left, or a symbolic link, which would lead to another file."""
    with suppress(FileNotFoundError):
        if sibling.is_symlink():
            sibling.unlink()
        access = os.O_RDWR if os.access(sibling, os.W_OK) else os.O_RDONLY  # NFS locks only what can be written
        with _open_locked(sibling, access | os.O_NOFOLLOW | os.O_NONBLOCK):  # opening a FIFO must not block
            sibling.unlink()


def _admit_writers(file: Path, fd: int) -> None:
    """Let exactly those users open a locked file who may write the file that it will replace."""
    with suppress(OSError):  # there need not be one
        status = file.stat()
        for owner in (-1, status.st_uid):  # first the group alone: only root may give a file away
            with suppress(OSError):
                os.fchown(fd, owner, status.st_gid)
        has_group = os.fstat(fd).st_gid == status.st_gid
        writers = status.st_mode & (0o022 if has_group else 0o002)
        os.fchmod(fd, SECRET_MODE | writers | writers << 1)  # each of them may also read it


def replace_file(file: Path, new: bytes, old: bytes | None = None, private: bool = False) -> bool:
    """Replace the contents of a locked file durably and, except for a mount point, atomically.

    If old contents are given and an edit has changed them, return False and replace nothing. The file need not exist;
    it must not be a symbolic link. The new file has the permissions, the extended attributes and, as far as possible,
    the owner and group of the old one. A private file can be read and written by its owner alone, and keeps this owner.
    After an OSError, which names a file, the file holds its old contents, except after NotFlushed.
    """
    with _opened(file.parent, os.O_RDONLY) as directory:
        _write_sibling(file, new, private)
        if old is not None and read_file(file) != old:
            return False
        finish = partial(_flush, directory)
        try:
            _sibling(file).replace(file)
        except OSError as error:
            if error.errno != errno.EBUSY:
                raise
            finish = partial(_write, file, new)  # it is a mount point
        try:
            finish()
        except OSError as error:
            raise NotFlushed(error.errno, error.strerror, error.filename or str(file.parent)) from error
    return True


def check_replaceable(file: Path, may_wait: bool = True) -> None:
    """Do all that it takes to replace a file, up to the rename, so that the same errors are raised."""
    with locked(file, may_wait):
        _write_sibling(file, read_file(file))


def is_mount_point(file: Path) -> bool:
    """Return whether a file, at an absolute path without symbolic links, is a mount point (Linux only)."""
    name = re.sub(rb"[\\ \t\n]", lambda match: b"\\%03o" % ord(match[0]), os.fsencode(file))
    with suppress(OSError):  # other systems have no such list; see proc_pid_mountinfo(5)
        return any(line.split(b" ")[4] == name for line in Path("/proc/self/mountinfo").read_bytes().splitlines())
    return False


def _write_sibling(file: Path, contents: bytes, private: bool = False) -> None:
    """Give the second file its contents and the attributes of the first; others may open it from now on."""
    sibling = _sibling(file)
    _write(sibling, contents)
    if not file.exists():
        return
    status = file.stat()
    if private and sibling.stat().st_uid != status.st_uid:
        raise PermissionError(errno.EPERM, "only its owner or root may replace it", str(file))
    with suppress(OSError, AttributeError):  # other systems than Linux, and some file systems, have none
        for name in os.listxattr(file):
            with suppress(OSError):  # only root may set some
                os.setxattr(sibling, name, os.getxattr(file, name))
    sibling.chmod(stat.S_IMODE(status.st_mode) & (SECRET_MODE if private else 0o7777))


def _write(file: Path, contents: bytes) -> None:
    """Replace the contents of a file in place, and flush them to disk; an error names the file."""
    try:
        with file.open("r+b") as opened:
            opened.truncate(len(contents))
            opened.write(contents)
            opened.flush()
            _flush(opened.fileno())
    except OSError as error:
        error.filename = str(file)
        raise


def _flush(fd: int) -> None:
    """Flush a file to disk; on macOS fsync() leaves the data in the drive's cache, and F_FULLFSYNC flushes that too."""
    with suppress(KeyError, OSError):  # other systems lack it, and some file systems do not offer it
        fcntl.fcntl(fd, vars(fcntl)["F_FULLFSYNC"])
        return
    os.fsync(fd)
