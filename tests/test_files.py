"""net/files.py: who may lock a file, what a replaced file keeps, mount points, and files that are refused."""

import errno
import fcntl
import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest
from conftest import ROOT, at_once, run_command

from net.files import MAX_FILE_BYTES, NotFlushed, check_replaceable, is_mount_point, locked, read_file, replace_file

ALICE, BOB, STAFF = 12345, 12346, 12347  # ids of users and a group that need not exist

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
needs_linux = pytest.mark.skipif(sys.platform != "linux", reason="this needs Linux")

BECOME = f"""
import fcntl, os, sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from cinema.booking import SeatFileError, Theatre
from net import files
from net.files import locked, replace_file
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


def new(file: Path) -> Path:
    """Return the second file, which is the lock."""
    return file.with_name(f"{file.name}.new")


def names_beside(file: Path) -> list[str]:
    """Return the names in a file's directory."""
    return sorted(path.name for path in file.parent.iterdir())


def permissions(path: Path) -> tuple[int, int, int]:
    """Return the mode, the owner and the group of a file."""
    status = path.stat()
    return stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid


@pytest.mark.parametrize(("mode", "lock_mode"), [(0o644, 0o600), (0o664, 0o660), (0o666, 0o666), (0o400, 0o600)])
def test_locked_file_can_be_opened_by_those_who_may_write_the_first_file(file: Path, mode: int, lock_mode: int) -> None:
    file.chmod(mode)
    with locked(file):
        assert permissions(new(file)) == (lock_mode, *permissions(file)[1:])
    assert names_beside(file) == ["seats.txt"]


@needs_root
def test_server_that_root_has_run_stops_neither_the_owner_nor_the_group(file: Path) -> None:
    with locked(file):
        assert replace_file(file, b"1 1\n")
    file.with_name("seats.txt.lock").touch(mode=0o644)  # as earlier versions left it
    new(file).touch(mode=0o644)  # as a killed server leaves it
    assert sell_as(ALICE, file) == ""
    assert (file.read_text(), permissions(file)) == ("0 1\n", (0o664, ALICE, STAFF))
    assert sell_as(BOB, file) == ""  # Bob, who is in the group, cannot give the file away
    assert permissions(file) == (0o664, BOB, STAFF)


@needs_root
def test_file_that_another_user_owns_is_not_sold_from(file: Path) -> None:
    file.chmod(0o644)
    attempt = ("try: Theatre(file).check()", "except SeatFileError as error: print(error)")
    refusal = run_as(BOB, file.parent, "os.path.realpath = str", *attempt)
    assert refusal == "seats.txt: read-only; write permission is expected\n"


@needs_root
def test_file_of_root_that_stops_the_owner_is_named(file: Path) -> None:
    new(file).touch(mode=0o600)
    assert sell_as(ALICE, file) == "[Errno 13] Permission denied: 'seats.txt.new'\n"
    assert file.read_text() == "0 0\n"


def test_programs_that_wait_for_a_lock_replace_the_file_in_turn_and_keep_its_permissions_and_owner(file: Path) -> None:
    kept = permissions(file)

    def add_a_seat(_: int) -> None:
        with locked(file):
            before = read_file(file)
            assert replace_file(file, before + b"0\n", old=before)

    at_once(8, add_a_seat)
    assert file.read_text() == "0 0\n" + "0\n" * 8
    assert permissions(file) == kept
    assert names_beside(file) == ["seats.txt"]


def test_program_that_has_replaced_the_file_leaves_the_lock_of_the_next_one_alone(file: Path) -> None:
    with ExitStack() as next_program:
        with locked(file):
            assert replace_file(file, b"0 1\n")
            next_program.enter_context(locked(file))
        assert new(file).exists()


def test_lock_that_is_held_is_refused_at_once_or_in_the_end(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("net.files.LOCK_SECONDS", 0.1)
    with locked(file):
        for may_wait in (False, True):
            with pytest.raises(BlockingIOError, match=r"keeps it locked: '.*seats\.txt\.new'"), locked(file, may_wait):
                pass


def test_locked_file_is_opened_for_writing_as_nfs_requires(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: list[int] = []
    lock = fcntl.flock

    def flock(fd: int, operation: int) -> None:
        modes.append(fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE)
        lock(fd, operation)

    new(file).touch(mode=0o644)
    monkeypatch.setattr(fcntl, "flock", flock)
    with locked(file):
        pass
    assert set(modes) == {os.O_RDWR}


@pytest.mark.parametrize("kind", ["symbolic link", "FIFO", "read-only file"])
def test_what_is_left_over_is_removed_and_leads_nowhere(file: Path, kind: str) -> None:
    other = file.with_name("other")
    other.write_text("other")
    other.chmod(0o444)
    if kind == "symbolic link":
        new(file).symlink_to(other)
    elif kind == "FIFO":
        os.mkfifo(new(file))
    else:
        new(file).hardlink_to(other)
    with locked(file):
        assert replace_file(file, b"0 1\n")
    assert (file.read_text(), other.read_text(), stat.S_IMODE(other.stat().st_mode)) == ("0 1\n", "other", 0o444)
    assert not file.is_symlink()
    assert names_beside(file) == ["other", "seats.txt"]


def test_group_is_asked_for_alone_in_case_the_owner_is_refused(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []

    def fchown(_: int, user: int, group: int) -> None:
        asked.append((user, group))
        if user != -1:
            raise OSError(errno.EINVAL, "an owner that does not exist in this container")

    monkeypatch.setattr(os, "fchown", fchown)
    _, user, group = permissions(file)
    with locked(file):
        assert replace_file(file, b"0 1\n")
    assert asked == [(-1, group), (user, group)]


@needs_linux
def test_extended_attributes_are_kept(file: Path) -> None:
    try:
        os.setxattr(file, "user.hall", b"the large one")
    except OSError:
        pytest.skip("the file system has no extended attributes")
    with locked(file):
        assert replace_file(file, b"0 1\n")
    assert file.read_text() == "0 1\n"
    assert os.getxattr(file, "user.hall") == b"the large one"


MOUNTED = f"""
import sys
sys.path.insert(0, {str(ROOT)!r})
from pathlib import Path
from net.files import check_replaceable, is_mount_point, locked, replace_file
file = Path("a hall.txt").resolve()
assert is_mount_point(file) and not is_mount_point(Path("source.txt").resolve())
check_replaceable(file)
with locked(file): assert replace_file(file, b"0 1\\n", old=b"0 0\\n")
with locked(file): assert not replace_file(file, b"1 1\\n", old=b"0 0\\n")
"""


@needs_linux
def test_mounted_file_is_written_in_place(tmp_path: Path) -> None:
    source, file = tmp_path / "source.txt", tmp_path / "a hall.txt"
    for path in (source, file):
        path.write_text("0 0\n")
    mount = 'mount --bind source.txt "a hall.txt" && echo mounted && exec "$0" "$@"'
    namespace = ["unshare", "--map-root-user", "--mount", "bash", "-c", mount]
    try:
        done = run_command([*namespace, sys.executable, "-W", "error", "-c", MOUNTED], cwd=tmp_path)
    except FileNotFoundError:
        pytest.skip("unshare is not installed")
    if "mounted" not in done.stdout:
        pytest.skip("this user may not mount a file")
    assert done.stderr == ""
    assert (source.read_text(), file.read_text()) == ("0 1\n", "0 0\n")
    assert names_beside(file) == ["a hall.txt", "source.txt"]
    assert not is_mount_point(file)


def busy(*_: object) -> None:
    """Fail as a rename to a mount point does."""
    raise OSError(errno.EBUSY, os.strerror(errno.EBUSY))


def test_file_that_cannot_be_renamed_over_is_written_in_place_whole(
    file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Path, "replace", busy)
    inode = file.stat().st_ino
    for contents in (b"0 1 1 1\n", b"0 1\n"):
        with locked(file):
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
    with pytest.raises(NotFlushed, match=r"seats\.txt'"), locked(file):
        replace_file(file, b"0 1\n")


def test_check_changes_nothing(file: Path) -> None:
    before = file.stat()
    check_replaceable(file)
    after = file.stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert names_beside(file) == ["seats.txt"]


def test_what_is_not_a_regular_file_or_too_large_is_refused(tmp_path: Path) -> None:
    directory, fifo, sparse = (tmp_path / name for name in ("directory", "fifo", "sparse"))
    directory.mkdir()
    os.mkfifo(fifo)
    with sparse.open("wb") as file:
        file.truncate(MAX_FILE_BYTES + 1)  # takes no space
    faults = dict.fromkeys((directory, fifo, Path("/dev/zero")), "not a regular file")
    faults[sparse] = "too large: at most 16777216 bytes are expected"
    for path, fault in faults.items():
        with pytest.raises(OSError) as error:
            read_file(path)
        assert (error.value.strerror, error.value.filename) == (fault, path)


def test_limit_of_a_file_is_inclusive(file: Path) -> None:
    os.truncate(file, MAX_FILE_BYTES)
    assert len(read_file(file)) == MAX_FILE_BYTES
