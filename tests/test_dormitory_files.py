"""The dormitory's files: inventories, databases, the key; reports and cancellations; command lines."""

import csv
import os
import re
import shlex
import shutil
import socket
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from conftest import ROOT, Peer, at_once, python, run_program, run_programs, run_shell, wait_until
from dorm import KINDS, Dormitory, ask, free_udp_port

from dormitory.back_end import main
from dormitory.inventory import MAX_CODES, read_inventory
from dormitory.reservations import Damaged, Reservations, read_rows
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, WatchedFile


def expect_failure(result: "subprocess.CompletedProcess[str]", *texts: str) -> None:
    """Fail unless a program ended with status 1 and one line that contains all texts."""
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1, result.stderr
    for text in texts:
        assert text in result.stderr


def make_database(dormitory: Dormitory, letter: str) -> None:
    with closing(Reservations(dormitory.database(letter))) as reservations, reservations.transaction():
        for room, member in ("S1", "alice"), ("S12", "bob"):
            reservations.reserve(room, member)


@pytest.mark.parametrize(
    ("inventory", "line"),
    [
        ("S1, 2\nS2\n", 2),
        ("S1, 2\n\n\nS2, many\n", 4),
        ("S1, -1\n", 1),
        ("S1, 2, 3\n", 1),
        ("S1, 10000\n", 1),
        ("S1, " + "9" * 5000, 1),
        ("D1, 2\n", 1),
        (", 2\n", 1),
        ("S1 2\n", 1),
        ("S 1, 2\n", 1),
        ("S1, 2\nS1, 3\n", 2),
        ("S1, \u0662\n", 1),
        ("S1, 2\n\x00\n", 2),
        ("".join(f"S{number}, 1\n" for number in range(MAX_CODES + 1)), MAX_CODES + 1),
    ],
)
def test_a_malformed_inventory_is_refused_with_its_line(tmp_path: Path, inventory: str, line: int) -> None:
    file = tmp_path / "single.txt"
    file.write_text(inventory)
    with pytest.raises(Malformed, match=rf"single.txt:{line}: expected"):
        read_inventory(file, "S")


def test_an_inventory_may_have_a_byte_order_mark_spaces_empty_lines_and_carriage_returns(tmp_path: Path) -> None:
    file = tmp_path / "single.txt"
    file.write_bytes(b"\xef\xbb\xbfS1,2\r\n\r\n  S12 ,  0\r\nSabc, 007")
    assert read_inventory(file, "S") == {"S1": 2, "S12": 0, "Sabc": 7}


def test_a_malformed_file_is_reported_in_one_line_that_names_the_file_and_its_line(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    dormitory.write("member.txt", "alice, secret\n")
    for letter, kind in KINDS.items():
        dormitory.write(f"{kind}.txt", f"{letter}1, 1\n{letter}2\n")
    where = ["member.txt:1", "single.txt:2", "double.txt:2", "suite.txt:2"]
    results = run_programs(*((f"server{letter}.py", *arguments) for letter in "MSDU"))
    for line, result in zip(where, results, strict=True):
        expect_failure(result, f"{line}: expected")


def test_files_that_are_missing_or_not_a_database_are_named(dormitory: Dormitory) -> None:
    arguments = ("--port", "0", "--data-dir", str(dormitory.directory))
    dormitory.database("S").write_bytes(b"not a database" * 100)
    with closing(sqlite3.connect(dormitory.database("D"))) as db:
        db.execute("CREATE TABLE reservations (seat TEXT)")
    (dormitory.directory / "suite.txt").unlink()
    missing_directory = ("serverM.py", "--data-dir", "/nowhere")
    results = run_programs(*((f"server{letter}.py", *arguments) for letter in "SDU"), missing_directory)
    expect_failure(results[0], "single.db", "not a database; move the file away")
    expect_failure(results[1], "double.db", "member; move the file away")
    expect_failure(results[2], "suite.txt", "No such file")
    expect_failure(results[3], "/nowhere/member.txt", "No such file")


def test_a_database_that_cannot_be_used_now_is_named_without_advice_to_move_it_away(dormitory: Dormitory) -> None:
    os.mkfifo(dormitory.database("S"))  # SQLite cannot read it
    make_database(dormitory, "D")
    with closing(sqlite3.connect(dormitory.database("D"))) as db:
        failure = "CREATE TRIGGER failure BEFORE DELETE ON reservations BEGIN SELECT RAISE(ABORT, 'out of order'); END"
        db.execute(failure)
    data = ("--data-dir", str(dormitory.directory))
    commands = (("serverS.py", "--port", "0"), ("serverS.py", "--report"), ("serverD.py", "--cancel", "D1"))
    results = run_programs(*((*command, *data) for command in commands))
    for result in results[:2]:
        expect_failure(result, "single.db: ")
        assert "move the file away" not in result.stderr
    expect_failure(results[2], "double.db: out of order\n")


def test_a_key_that_others_may_read_is_refused(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    key = dormitory.directory / "dorm.key"
    key.write_text("00" * 32 + "\n")
    key.chmod(0o602)
    with pytest.raises(Malformed, match=r"dorm\.key: expected mode 600, .* got 602"):
        load_key(dormitory.directory)
    key.chmod(0o640)
    for result in run_programs(("serverM.py", *arguments), ("serverS.py", *arguments)):
        expect_failure(result, "dorm.key", "640", "600")
    key.chmod(0o600)
    key.write_text("00" * 31)
    expect_failure(run_program("serverU.py", *arguments), "dorm.key", "64 hexadecimal")


def make_fifo(path: Path) -> None:
    path.unlink(missing_ok=True)
    os.mkfifo(path, 0o600)


def make_huge(path: Path) -> None:
    """Make a file of eight gigabytes that needs no space on the disk."""
    path.touch(0o600)
    os.truncate(path, 8 << 30)


@pytest.mark.parametrize("damage", [make_fifo, make_huge])
def test_a_file_that_is_irregular_or_huge_is_refused(dormitory: Dormitory, damage: Callable[[Path], None]) -> None:
    data = ("--data-dir", str(dormitory.directory))
    for name, command in (
        ("dorm.key", ("serverS.py",)),
        ("single.txt", ("serverS.py",)),
        ("member.txt", ("serverM.py",)),
        ("member.txt", ("serverM.py", "--add-member", "dave")),
    ):
        damage(dormitory.directory / name)
        result = run_program(*command, *data, input="a long password\n")
        expect_failure(result, f"{name}: ", "not a regular file" if damage is make_fifo else "bytes are expected")
        (dormitory.directory / name).unlink()


def test_servers_that_start_together_create_one_key_and_all_read_it(tmp_path: Path) -> None:
    for number in range(30):
        directory = tmp_path / str(number)
        directory.mkdir()
        keys: list[bytes] = []
        at_once(8, lambda _, directory=directory, keys=keys: keys.append(load_key(directory)))  # type: ignore[misc]
        assert len(keys) == 8
        assert len(set(keys)) == 1
        assert sorted(path.name for path in directory.iterdir()) == ["dorm.key"]
        assert (directory / "dorm.key").stat().st_mode & 0o777 == 0o600


def test_taken_ports_and_unknown_hosts_are_named(dormitory: Dormitory) -> None:
    data = ("--data-dir", str(dormitory.directory))
    with socket.create_server(("127.0.0.1", 0)) as tcp, free_udp_port() as udp:
        tcp_port, udp_port = (str(sock.getsockname()[1]) for sock in (tcp, udp))
        commands = {
            ("serverM.py", "--tcp-port", tcp_port): tcp_port,
            ("serverS.py", "--port", udp_port): udp_port,
            ("serverM.py", "--server-d", "a..b:1"): "a..b",
            ("serverS.py", "--host", "a..b"): "a..b",
        }
        for result, text in zip(run_programs(*((*line, *data) for line in commands)), commands.values(), strict=True):
            expect_failure(result, text)


# Inventories that change.


def wait_for_answer(peer: Peer, request: str, answer: str) -> None:
    """Repeat a request until its answer is the expected one; fail if it is not within two seconds."""
    wait_until(lambda: ask(peer, request) == answer, f"{answer} to {request}", 2.0)


def test_an_edited_inventory_takes_effect_within_two_seconds_and_keeps_the_reservations(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice = dormitory.log_in("alice")
    for number in (1, 2, 3):
        assert ask(alice, "RESERVE S1") == f"RESERVED S{number} {9 - number}"
    assert ask(alice, "RESERVE S12") == "RESERVED S4 5"
    dormitory.write("single.txt", "S7, 1\nS1, 2\n")  # fewer than are reserved; and S12 is gone
    wait_for_answer(alice, "AVAILABILITY S1", "FULL")
    assert ask(alice, "RESERVE S1") == "FULL"
    assert ask(alice, "LIST S") == "ROOMS S7=1 S1=0"
    assert ask(alice, "RESERVE S12") == ask(alice, "AVAILABILITY S12") == "UNKNOWN_ROOM"
    assert ask(alice, "MINE") == "RESERVATIONS S1=S1 S2=S1 S3=S1 S4=S12 D=? U=?"
    assert ask(alice, "CANCEL S4") == "CANCELLED S12"
    for reservation in ("S1", "S2"):
        assert ask(alice, f"CANCEL {reservation}") == "CANCELLED S1"
    assert ask(alice, "AVAILABILITY S1") == "AVAILABLE 1"
    dormitory.write("single.txt", "S1, 9\nS12, 6\n")
    wait_for_answer(alice, "AVAILABILITY S12", "AVAILABLE 6")


def test_an_inventory_that_becomes_malformed_is_reported_once_and_the_old_one_stays(dormitory: Dormitory) -> None:
    dormitory.start("S")
    guest = dormitory.log_in("eve")
    file = dormitory.directory / "single.txt"
    back_end = dormitory.back_ends["S"]
    stays = "the content read before stays in force"
    for break_file, complaint in (
        (lambda: file.write_text("S1, 5\nS2\n"), rf".*single\.txt:2: expected .*, got 'S2'; {stays}"),
        (file.unlink, rf".*single\.txt: No such file or directory; {stays}"),
        (lambda: os.mkfifo(file), rf".*single\.txt: not a regular file; {stays}"),  # to open it would block
    ):
        break_file()
        back_end.wait_for_line(complaint)
        assert ask(guest, "AVAILABILITY S1") == "AVAILABLE 9"
    time.sleep(1.1)  # the server checks the file twice more, and must not report it again
    file.unlink()
    file.write_text("S1, 4\n")
    wait_for_answer(guest, "AVAILABILITY S1", "AVAILABLE 4")
    assert back_end.count_lines(f".*{stays}") == 3


def test_a_file_is_read_again_if_edited_while_it_is_read_or_replaced_by_one_of_the_same_age(tmp_path: Path) -> None:
    path, other = tmp_path / "single.txt", tmp_path / "other"
    path.write_text("S1, 8\n")
    other.write_text("S1, 9\n")

    def read_slowly(path: Path) -> str:
        content = path.read_text()
        path.write_text("S1, 10\n")
        return content

    file = WatchedFile(path, read_slowly)
    assert file.content == "S1, 8\n"
    file.refresh()
    assert file.content == "S1, 10\n"
    os.utime(other, ns=(0, path.stat().st_mtime_ns))  # as cp -p and rsync -t do
    other.replace(path)
    file.refresh()
    assert file.content == "S1, 9\n"


# Databases.


def test_the_databases_are_created_with_mode_600(dormitory: Dormitory) -> None:
    dormitory.start("S")
    assert ask(dormitory.log_in("alice"), "RESERVE S1") == "RESERVED S1 8"
    modes = {path.name: path.stat().st_mode & 0o777 for path in dormitory.directory.glob("single.db*")}
    assert modes == {"single.db": 0o600, "single.db-wal": 0o600, "single.db-shm": 0o600}


def wal(database: Path) -> Path:
    return database.with_name(f"{database.name}-wal")


def delete_all(database: Path) -> None:
    for path in database.parent.glob(f"{database.name}*"):
        path.unlink()


def replace_by_copy(database: Path) -> None:
    Path(shutil.copy(database, database.with_name("copy"))).rename(database)


def test_a_back_end_whose_database_is_deleted_or_replaced_stops_answering_and_says_why(dormitory: Dormitory) -> None:
    dormitory.start()
    damages: dict[str, Callable[[Path], None]] = {
        "S": delete_all,
        "D": replace_by_copy,
        "U": lambda database: wal(database).unlink(),
    }
    clients = {letter: dormitory.log_in("alice") for letter in damages}
    for letter, damage in damages.items():
        assert ask(clients[letter], f"RESERVE {letter}1").startswith("RESERVED ")
        damage(dormitory.database(letter))
        clients[letter].send(f"RESERVE {letter}1", f"AVAILABILITY {letter}1")
    for letter, client in clients.items():
        client.expect(*[f"TRY_LATER Server {letter} is not answering"] * 2)
    end = time.monotonic() + 0.8
    while time.monotonic() < end:  # the main server asks for their rooms meanwhile, and must get no reply
        assert ask(clients["S"], "LIST") == "ROOMS S=? D=? U=?"
        time.sleep(0.1)
    for letter, back_end in dormitory.back_ends.items():
        problem = r".*\.db was deleted or replaced while it was open; restart this server"
        back_end.wait_for_line(f"Server {letter} cannot answer: {problem}")
        assert back_end.count_lines("Server . cannot answer.*") == 1
        assert back_end.stop() == 0
    dormitory.start_back_end("S")
    dormitory.main.kill()
    dormitory.start_main()
    assert ask(dormitory.log_in("alice"), "LIST S") == "ROOMS S1=9 S12=6 S123=0"


def overwrite(path: Path, data: bytes, offset: int = 0) -> None:
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(data)


def damage_page(database: Path, name: str = "by_member", head: bytes = bytes(8)) -> None:
    """Write over a page; without that of the index, all queries but those for a member still work."""
    with closing(sqlite3.connect(database)) as db:
        (page,) = db.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    overwrite(database, head, 4096 * (page - 1))


def overwrite_with_another(database: Path) -> None:
    """Copy another database over this one, as cp does."""
    other = database.with_name("other.db")
    with closing(Reservations(other)) as reservations, reservations.transaction():
        reservations.reserve("S1", "eve")
    database.write_bytes(other.read_bytes())


DAMAGES: dict[str, Callable[[Path], object]] = {
    "another database": overwrite_with_another,
    "zeros": lambda database: overwrite(database, bytes(database.stat().st_size)),
    "truncated": lambda database: database.write_bytes(b""),
    "a log of zeros": lambda database: overwrite(wal(database), bytes(wal(database).stat().st_size)),
    "a log of junk": lambda database: overwrite(wal(database), os.urandom(wal(database).stat().st_size)),
    "a log without its head": lambda database: overwrite(wal(database), bytes(32)),
    "a truncated log": lambda database: wal(database).write_bytes(b""),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("checked_after", [10, None])
@pytest.mark.parametrize("commits_after", [0, 1])
def test_an_overwritten_database_is_found_unless_a_restart_would_find_all_that_was_committed(
    tmp_path: Path, damage: str, checked_after: int | None, commits_after: int
) -> None:
    path = tmp_path / "single.db"
    with closing(Reservations(path)) as reservations:
        for number in range(20 + commits_after):
            if number == 20:
                DAMAGES[damage](path)
            with reservations.transaction():
                reservations.reserve("S1", "alice")
            if number + 1 == checked_after:
                reservations.check_contents()
        if not commits_after:
            DAMAGES[damage](path)
        try:
            reservations.check_contents()
        except Damaged:
            with pytest.raises(Damaged, match=r"was overwritten while it was open|cannot be read back from the disk: "):
                reservations.check_contents()
            return
        (tmp_path / "restart").mkdir()
        for file in path, wal(path):  # SQLite would not reconstruct the third one while this process uses it
            shutil.copy(file, tmp_path / "restart")
        with closing(sqlite3.connect(tmp_path / "restart" / "single.db")) as db:
            assert db.execute("PRAGMA integrity_check").fetchone() == ("ok",)
            assert db.execute("SELECT count(*) FROM reservations").fetchone() == (20 + commits_after,)


@pytest.mark.parametrize(
    "damage", [overwrite_with_another, damage_page, lambda path: damage_page(path, "state", b"\x0d\0\0\0\0\x10\0\0")]
)
def test_an_idle_overwritten_database_is_found(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    path = tmp_path / "single.db"
    Reservations(path).close()
    with closing(Reservations(path)) as reservations:
        damage(path)
        with pytest.raises(Damaged, match=r"was overwritten while it was open|cannot be read back from the disk: "):
            reservations.check_contents()


def test_an_overwritten_database_stops_answering_and_says_why(dormitory: Dormitory, tmp_path: Path) -> None:
    script = tmp_path / "often.py"
    script.write_text(
        f"import sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from dormitory import back_end, udp_server\n"
        "udp_server.CONTENT_CHECK_SECONDS = 0.2\n"
        "sys.exit(back_end.main('S', 0))\n"
    )
    dormitory.scripts["S"] = str(script)
    dormitory.start("SD")
    alice = dormitory.log_in("alice")
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"
    log = wal(dormitory.database("S"))
    overwrite(log, bytes(log.stat().st_size))  # first: a check could restore the database from it
    overwrite_with_another(dormitory.database("S"))
    back_end = dormitory.back_ends["S"]
    back_end.wait_for_line(r"Server S cannot answer: .*single\.db (was overwritten while it was open|cannot be read).*")
    assert ask(alice, "RESERVE S1") == ask(alice, "AVAILABILITY S1") == "TRY_LATER Server S is not answering"
    assert ask(alice, "LIST") == "ROOMS S=? D1=2 U=?"
    assert back_end.count_lines("Server S cannot answer.*") == 1


def test_two_back_ends_on_one_database_never_reserve_more_rooms_than_there_are(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "S1, 40\n")
    dormitory.start_back_end("S")
    first = dormitory.back_ends["S"]
    dormitory.start_main()
    clients = [dormitory.log_in("alice") for _ in range(4)]
    dormitory.launch_back_end("S", "--port", "0")
    dormitory.back_ends["S"].wait_for_start()
    assert first.process.poll() is None
    dormitory.ports["S"] = dormitory.back_ends["S"].port
    dormitory.start_main("--tcp-port", "0")
    clients += [dormitory.log_in("alice") for _ in range(4)]
    for client in clients:
        client.send(*["RESERVE S1"] * 10)
    replies = [client.read_line() for client in clients for _ in range(10)]
    reserved = [reply.split()[1] for reply in replies if reply.startswith("RESERVED")]
    rows = dormitory.rows("S")
    assert len(rows) == 40
    assert len(set(reserved)) == len(reserved)
    assert {row[0] for row in rows} >= set(reserved)
    assert all(reply == "FULL" for reply in replies if not reply.startswith(("RESERVED", "TRY_LATER")))


# Reports and cancellations.


def administer(dormitory: Dormitory, *arguments: str, **options: Any) -> "subprocess.CompletedProcess[str]":
    data = ("--data-dir", str(dormitory.directory))
    return run_program("serverS.py", *data, *arguments, encoding="utf-8", **options)


def test_report_shows_all_reservations_whether_the_server_is_running_or_not(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice, bob = dormitory.log_in("alice"), dormitory.log_in("bob")
    ask(alice, "RESERVE S12")
    ask(bob, "RESERVE S1")
    table = administer(dormitory, "--report")
    when = r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d"
    assert re.fullmatch(rf"id +room +time \(UTC\) +member\nS1 +S12 +{when}  alice\nS2 +S1 +{when}  bob\n", table.stdout)
    assert dormitory.back_ends["S"].stop() == 0
    text = administer(dormitory, "--report", "--csv").stdout.removeprefix("\ufeff")  # spreadsheets expect it
    rows = [(key, room, member) for key, room, _, member in csv.reader(text.splitlines())]
    assert rows == [("id", "room", "member"), ("S1", "S12", "alice"), ("S2", "S1", "bob")]


def insert(dormitory: Dormitory, *members: object) -> None:
    """Put reservations of room S1 into the database of Server S, whatever the members' names are."""
    make_database(dormitory, "S")
    with closing(sqlite3.connect(dormitory.database("S"), isolation_level=None)) as db:
        db.execute("DELETE FROM reservations")
        for member in members:
            db.execute("INSERT INTO reservations VALUES (NULL, 'S1', CAST(? AS TEXT), 'now')", (member,))


def test_report_aligns_columns_before_wide_and_combining_characters(dormitory: Dormitory) -> None:
    names = ["member", "\u738b\u5c0f\u660e", "Zoe\u0308", "bob"]
    insert(dormitory, *names[1:])
    lines = administer(dormitory, "--report").stdout.splitlines()
    for line, name in zip(lines, names, strict=True):
        assert line.index(name) == lines[0].index("member")


def test_csv_begins_with_a_byte_order_mark_and_contains_no_formula(dormitory: Dormitory) -> None:
    insert(dormitory, "=1+1", "-x", "@x", "+x", "\uff1dx", "a=b")
    result = administer(dormitory, "--report", "--csv", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    names = [row[3] for row in csv.reader(result.stdout.removeprefix("\ufeff").splitlines())]
    assert result.stdout.startswith("\ufeffid,room,time (UTC),member\n")
    assert names[1:] == ["'=1+1", "'-x", "'@x", "'+x", "'\uff1dx", "a=b"]
    assert result.stderr == ""


def test_a_report_says_that_the_locale_cannot_show_a_name(dormitory: Dormitory) -> None:
    insert(dormitory, "\u738b")
    ascii_only = {**os.environ, "PYTHONIOENCODING": "ascii"}
    result = administer(dormitory, "--report", env=ascii_only)
    assert re.fullmatch(r"id .*\nS3 +S1 +now +\\u738b\n", result.stdout)
    assert result.stderr == "ascii has no \\u... characters: use a UTF-8 locale, or --report --csv\n"
    assert administer(dormitory, "--cancel", "S3", env=ascii_only).stdout == "Cancelled S3: room S1 of \\u738b\n"


def test_a_report_shows_no_control_character_and_no_traceback_whatever_is_in_the_database(dormitory: Dormitory) -> None:
    odd = ["\x1b]0;title\x07", "a\nS9  S1    eve", "a\tb", "\u202eecila", b"\xff\xfe", "\x00"]
    insert(dormitory, *odd)
    with closing(sqlite3.connect(dormitory.database("S"), isolation_level=None)) as db:
        db.execute("UPDATE reservations SET room = x'1b5b' WHERE number = 3")
    for arguments in (("--report",), ("--report", "--csv"), ("--cancel", "S3"), ("--cancel", "S7")):
        result = administer(dormitory, *arguments)
        assert (result.returncode, result.stderr) == (0, "")
        assert not re.search(r"[^\n -\ufffd]|[\x7f-\x9f\u202e]", result.stdout)
        assert result.stdout.count("\n") == (1 + len(odd) if "--report" in arguments else 1)


def test_a_report_needs_no_directory_that_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, killed, stopped = tmp_path / "single.db", tmp_path / "killed", tmp_path / "stopped"
    monkeypatch.setattr(os, "access", lambda *_: False)  # root may write anywhere but on a read-only file system
    with closing(Reservations(path)) as reservations:
        with reservations.transaction():
            reservations.reserve("S1", "alice")
        killed.mkdir()
        for file in tmp_path.glob("single.db*"):  # as a killed server leaves them
            shutil.copy(file, killed)
    stopped.mkdir()
    (stopped / "single.db-shm").symlink_to("nowhere")  # so not even root can create such a file
    shutil.copy(path, stopped)
    for directory in (killed, stopped):
        assert [row[:3] for row in read_rows(directory / "single.db", 1.0)] == [(1, "S1", "alice")]


def test_cancel_deletes_any_reservation_whether_the_server_is_running_or_not(dormitory: Dormitory) -> None:
    dormitory.start("S")
    alice = dormitory.log_in("alice")
    for _ in range(2):
        ask(alice, "RESERVE S1")
    result = administer(dormitory, "--cancel", "S1")
    assert (result.returncode, result.stdout) == (0, "Cancelled S1: room S1 of alice\n")
    assert ask(alice, "RESERVE S1") == "RESERVED S3 7"  # the server has noticed
    assert ask(alice, "CANCEL S1") == "UNKNOWN_RESERVATION"
    assert dormitory.back_ends["S"].stop() == 0
    assert administer(dormitory, "--cancel", "S2").returncode == 0
    assert dormitory.rows("S") == [("S3", "S1", "alice")]
    expect_failure(administer(dormitory, "--cancel", "S2"), "There is no reservation S2")


def test_a_cancellation_while_the_database_is_replaced_fails_and_says_why(
    dormitory: Dormitory, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    make_database(dormitory, "S")
    monkeypatch.setattr(Reservations, "cancel", lambda *_: replace_by_copy(dormitory.database("S")))
    monkeypatch.setattr(sys, "argv", ["serverS.py", "--data-dir", str(dormitory.directory), "--cancel", "S1"])
    assert main("S", 0) == 1
    assert "single.db was deleted or replaced while it was open" in capsys.readouterr().err


def test_a_report_or_cancellation_that_fails_prints_one_line(dormitory: Dormitory) -> None:
    expect_failure(administer(dormitory, "--report"), "single.db: No such file or directory")
    assert not dormitory.database("S").exists()
    make_database(dormitory, "S")
    for reservation in ("", "D1", "S", "S01", "17", "S1 "):
        expect_failure(administer(dormitory, "--cancel", reservation), "such as S17", repr(reservation))
    assert len(dormitory.rows("S")) == 2


@pytest.mark.parametrize("arguments", ["--report", "--report --csv", "--cancel S1"])
def test_output_to_a_full_disk_or_a_closed_output_causes_no_traceback(dormitory: Dormitory, arguments: str) -> None:
    make_database(dormitory, "S")
    command = shlex.join(python("serverS.py", "--data-dir", str(dormitory.directory), *arguments.split()))
    done = run_shell(f"{command} >/dev/full")
    assert (done.returncode, done.stderr) == (1, "The output cannot be written: No space left on device\n")
    if "--cancel" not in arguments:
        assert run_shell(f"{command} >&-").returncode == 0
    else:
        assert dormitory.rows("S") == [("S2", "S12", "bob")]
