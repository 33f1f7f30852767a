"""net/files.py: who may lock a file, what a replaced file keeps, mount points, and files that are refused."""

import errno
import fcntl
import os
import stat
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from box_office import another_writer
from conftest import ROOT, at_once, run_command

from net.files import NotFlushed, check_replaceable, locked, read_file, replace_file

ALICE, BOB, STAFF = 12345, 12346, 12347  # ids of users and a group that need not exist
GIGABYTES = 5 << 30

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="this needs Linux")

BECOME = f"""
import fcntl, os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from net import files
from net.files import check_replaceable, locked, read_file, replace_file
files.LOCK_SECONDS = 0.2
os.setgroups([{STAFF}])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv[1]))
file = Path("seats.txt")
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Provide a file of Alice, if the tests run as root, in a directory where she and her group may write."""
    file = tmp_path / "seats.txt"
    file.write_text("0 0\n")
    file.chmod(0o664)
    tmp_path.chmod(0o775)
    if os.geteuid() == 0:
        for path in (tmp_path, file):
            os.chown(path, ALICE, STAFF)
    return file


def run_as(user: int, directory: Path, *statements: str) -> str:
    """Run statements in a process of a user, who may be unable to enter the directories above; return the output."""
    program = "\n".join([BECOME, *statements])
    done = run_command([sys.executable, "-W", "error", "-c", program, str(user)], cwd=directory)
    assert done.returncode == 0, done.stderr
    return done.stdout


def sell_as(user: int, file: Path) -> str:
    """Replace a file's contents in a process of a user; return the error, if there is one."""
    sale = 'with locked(file): replace_file(file, b"0 1\\n")'
    return run_as(user, file.parent, "try:", f"    {sale}", "except OSError as error: print(error)")


def permissions(path: Path) -> tuple[int, int, int]:
    """Return the mode, the owner and the group of a file."""
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


# Locks


@pytest.mark.parametrize(("mode", "lock_mode"), [(0o644, 0o600), (0o664, 0o660), (0o666, 0o666), (0o400, 0o600)])
def test_lock_file_can_be_opened_by_those_who_may_write_the_file(file: Path, mode: int, lock_mode: int) -> None:
    lock = file.with_name("seats.txt.lock")
    file.chmod(mode)
    for older_mode in (None, 0o644, 0o666):
        if older_mode:
            lock.chmod(older_mode)
        with locked(file):
            assert permissions(lock) == (lock_mode, *permissions(file)[1:])


@needs_root
def test_user_who_cannot_write_the_file_cannot_lock_it(file: Path) -> None:
    with locked(file):
        pass
    attempt = 'fcntl.flock(os.open("seats.txt.lock", os.O_RDONLY), fcntl.LOCK_SH)'
    assert run_as(ALICE, file.parent, attempt) == ""  # she is in the group of the file
    file.chmod(0o644)
    file.with_name("seats.txt.lock").chmod(0o644)  # as an older server left it
    with locked(file):
        pass
    refused = run_as(BOB, file.parent, "try:", f"    {attempt}", "except PermissionError: print('refused')")
    assert refused == "refused\n"


@needs_root
@pytest.mark.parametrize("left", ["by this program", "readable", "unreadable"])
def test_lock_file_that_root_has_left_does_not_stop_the_owner(file: Path, left: str) -> None:
    lock = file.with_name("seats.txt.lock")
    if left == "by this program":
        with locked(file):
            pass
    else:
        lock.touch(mode=0o644 if left == "readable" else 0o600)
        os.chown(lock, 0, 0)
    assert sell_as(ALICE, file) == ""
    assert file.read_text() == "0 1\n"
    assert permissions(lock) == (0o660, ALICE, STAFF)
    with locked(file):  # root may still lock it
        pass


@needs_root
def test_lock_that_root_holds_on_an_older_lock_file_is_respected(file: Path) -> None:
    lock = file.with_name("seats.txt.lock")
    lock.touch(mode=0o644)
    with another_writer(file):
        assert "another program keeps it locked" in sell_as(ALICE, file)
    assert sell_as(ALICE, file) == ""


@needs_root
def test_lock_file_of_another_user_in_a_directory_of_others_is_named(file: Path) -> None:
    lock = file.with_name("seats.txt.lock")
    lock.touch(mode=0o600)
    os.chown(file.parent, 0, 0)
    file.parent.chmod(0o755)
    assert sell_as(ALICE, file) == "[Errno 13] Permission denied: 'seats.txt.lock'\n"


def test_lock_file_that_is_replaced_while_a_program_waits_for_it_is_not_used(file: Path) -> None:
    lock = file.with_name("seats.txt.lock")
    with another_writer(file):
        inode = lock.stat().st_ino
        lock.rename(file.with_name("old.lock"))  # the file system must not give its number to the next file
        with locked(file):
            assert lock.stat().st_ino != inode


@pytest.mark.parametrize("error", [None, errno.EPERM], ids=["", "no links, as on FAT"])
def test_one_of_many_threads_at_a_time_holds_a_lock_whose_file_does_not_exist_yet(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: int | None
) -> None:
    inside: list[int] = []
    seen: list[int] = []

    def refuse(*_: object) -> None:
        raise OSError(error, "no links")

    def lock(number: int) -> None:
        with locked(file):
            inside.append(number)
            seen.append(len(inside))
            inside.pop()

    if error:
        monkeypatch.setattr(os, "link", refuse)
    at_once(8, lock)
    assert seen == [1] * 8
    assert sorted(path.name for path in file.parent.iterdir()) == ["seats.txt", "seats.txt.lock"]


def test_lock_file_is_opened_for_writing_as_nfs_requires(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    lock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        lock(fd, operation)

    with locked(file):
        pass
    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(file):
        assert modes == [os.O_RDWR]


@pytest.mark.parametrize("link", [True, False], ids=["symbolic link", "FIFO"])
def test_lock_file_that_is_no_file_neither_hangs_nor_leads_elsewhere(file: Path, link: bool) -> None:
    lock, other = file.with_name("seats.txt.lock"), file.with_name("other")
    other.touch(mode=0o644)
    if link:
        lock.symlink_to(other)
        with pytest.raises(OSError, match=r"seats\.txt\.lock"), locked(file):
            pass
    else:
        os.mkfifo(lock)
        with locked(file):
            pass
    assert stat.S_IMODE(other.stat().st_mode) == 0o644


# What a new file keeps


@needs_root
def test_group_alone_is_kept_when_the_owner_cannot_be(file: Path) -> None:
    assert sell_as(BOB, file) == ""  # Bob is in the group
    assert permissions(file) == (0o664, BOB, STAFF)


def test_group_alone_is_asked_for_when_the_owner_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def fchown(_: int, user: int, group: int) -> None:
        asked.append((user, group))
        if user != -1:
            raise OSError(errno.EINVAL, "an owner that does not exist in this container")

    monkeypatch.setattr(os, "fchown", fchown)
    _, user, group = permissions(file)
    assert replace_file(file, b"0 1\n")
    assert asked == [(user, group), (-1, group)]


@needs_linux
def test_extended_attributes_are_kept(file: Path) -> None:
    try:
        os.setxattr(file, "user.hall", b"the large one")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    assert replace_file(file, b"0 1\n")
    assert file.read_text() == "0 1\n"
    assert os.getxattr(file, "user.hall") == b"the large one"


# Mount points

MOUNTED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from net.files import check_replaceable, locked, replace_file
file = Path("seats.txt")
assert not check_replaceable(file)
with locked(file): assert replace_file(file, b"0 1\\n", old=b"0 0\\n")
assert not replace_file(file, b"1 1\\n", old=b"0 0\\n")
"""


@needs_linux
def test_mounted_file_is_written_in_place(file: Path) -> None:
    source = file.with_name("source.txt")
    source.write_text("0 0\n")
    for path in (file, file.parent):
        os.chown(path, os.geteuid(), os.getegid())  # the namespace knows no other user
    namespace = ["unshare", "--map-root-user", "--mount", "bash", "-c"]
    mount = 'mount --bind source.txt seats.txt && echo mounted && exec "$0" "$@"'
    try:
        done = run_command([*namespace, mount, sys.executable, "-W", "error", "-c", MOUNTED], cwd=file.parent)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "mounted" not in done.stdout:
        pytest.skip("this user may not mount a file")
    assert done.stderr == ""
    assert (source.read_text(), file.read_text()) == ("0 1\n", "0 0\n")
    assert sorted(path.name for path in file.parent.glob("seats*")) == ["seats.txt", "seats.txt.lock"]


def busy(*_: object) -> None:
    """Fail as a rename to a mount point does."""
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def test_file_that_cannot_be_renamed_over_is_written_in_place_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", busy)
    inode = file.stat().st_ino
    for contents in (b"0 1 1 1\n", b"0 1\n"):
        assert replace_file(file, contents)
        assert file.read_bytes() == contents
    assert file.stat().st_ino == inode


def test_write_in_place_that_fails_is_reported_as_uncertain(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    def replace(*_: object) -> None:
        monkeypatch.setattr(os, "fsync", fail)
        busy()

    monkeypatch.delattr(fcntl, "F_FULLFSYNC", raising=False)
    monkeypatch.setattr(Path, "replace", replace)
    with pytest.raises(NotFlushed, match=r"seats\.txt"):
        replace_file(file, b"0 1\n")


@pytest.mark.parametrize(("error", "possible"), [(None, True), (errno.EXDEV, False), (errno.EPERM, True)])
def test_check_says_whether_a_rename_is_possible_and_changes_nothing(
    file: Path, monkeypatch: pytest.MonkeyPatch, error: int | None, possible: bool
) -> None:
    before = file.stat()

    def link(*_: object) -> None:
        raise OSError(error, "no link")

    with locked(file):
        pass
    if error:
        monkeypatch.setattr(os, "link", link)
    assert check_replaceable(file) is possible
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_nlink) == (before.st_ino, before.st_mtime_ns, 1)
    assert sorted(path.name for path in file.parent.iterdir()) == ["seats.txt", "seats.txt.lock"]


# Files that are refused


def sparse(path: Path) -> None:
    """Make a file of gigabytes that takes no space."""
    with path.open("wb") as file:
        file.truncate(GIGABYTES)


@pytest.mark.parametrize(
    ("make", "fault"),
    [
        (Path.mkdir, "not a regular file"),
        (os.mkfifo, "not a regular file"),
        (lambda path: path.symlink_to("/dev/zero"), "not a regular file"),
        (sparse, "too large: at most 16777216 bytes are expected"),
    ],
    ids=["directory", "FIFO", "device", "sparse"],
)
def test_what_is_no_regular_file_or_too_large_is_refused(
    tmp_path: Path, make: Callable[[Path], None], fault: str
) -> None:
    path = tmp_path / "seats.txt"
    make(path)
    with pytest.raises(OSError) as error:
        read_file(path)
    assert (error.value.strerror, error.value.filename) == (fault, path)


def test_limit_of_a_file_is_inclusive(file: Path) -> None:
    assert read_file(file, max_bytes=4) == b"0 0\n"
    with pytest.raises(OSError, match="at most 3 bytes"):
        read_file(file, max_bytes=3)
