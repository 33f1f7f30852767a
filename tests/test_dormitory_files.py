"""The dormitory's files: inventories, members, the key; and command lines."""

import signal
import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from conftest import ROOT, STOP_SECONDS, Program, run_program, run_programs
from dorm import KINDS, PASSWORDS, Dormitory, cheap_hash, make_dormitory  # noqa: F401

from dormitory import reservations
from dormitory.inventory import read_inventory
from dormitory.members import PasswordHash, read_members
from dormitory.reservations import KEEP_ANSWERS_SECONDS, Refused, Reservations
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, read_fields
from dormitory.wire import PATIENCE_SECONDS


def expect_failure(result: "subprocess.CompletedProcess[str]", *texts: str) -> None:
    """Fail unless a program ended with status 1 and one line that names all that it must."""
    assert result.returncode == 1, result
    assert result.stderr.count("\n") == 1, result.stderr
    for text in texts:
        assert text in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("inventory", "line"),
    [
        ("S1, 2\nS2\n", 2),
        ("S1, 2\n\n\nS2, many\n", 4),
        ("S1, -1\n", 1),
        ("S1, 2, 3\n", 1),
        ("S1, 10000\n", 1),
        ("D1, 2\n", 1),
        (", 2\n", 1),
        ("S1 2\n", 1),
        ("S 1, 2\n", 1),
        ("S1, 2\nS1, 3\n", 2),
        ("S1, \u0662\n", 1),
        ("S1, 2\n\x00\n", 2),
    ],
)
def test_a_malformed_inventory_is_refused_with_its_line(tmp_path: Path, inventory: str, line: int) -> None:
    file = tmp_path / "single.txt"
    file.write_text(inventory)
    with pytest.raises(Malformed, match=rf"single.txt:{line}: expected"):
        read_inventory(file, "S")


def test_an_inventory_may_have_spaces_empty_lines_and_carriage_returns(tmp_path: Path) -> None:
    file = tmp_path / "single.txt"
    file.write_bytes(b"S1,2\r\n\r\n  S12 ,  0\r\nSabc, 007")
    assert read_inventory(file, "S") == {"S1": 2, "S12": 0, "Sabc": 7}


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ("alice\n", 1),
        (f"alice, {cheap_hash('x')}\nbob, secret\n", 2),
        (f"alice, {cheap_hash('x')}\nalice, {cheap_hash('y')}\n", 2),
        (f"alice, {cheap_hash('x')[:-2]}\n", 1),
        (f"alice, {cheap_hash('x').replace('$2$', '$3$')}\n", 1),
        (f"alice, {cheap_hash('x').replace('$2$', '$1073741824$')}\n", 1),
        (f"alice liddell, {cheap_hash('x')}\n", 1),
    ],
)
def test_a_malformed_member_file_is_refused_with_its_line(tmp_path: Path, members: str, line: int) -> None:
    file = tmp_path / "member.txt"
    file.write_text(members)
    with pytest.raises(Malformed, match=rf"member.txt:{line}: expected"):
        read_members(file)


def test_a_program_says_in_one_line_which_file_and_line_is_malformed(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    dormitory.write("member.txt", "alice, secret\n")
    for letter, kind in KINDS.items():
        dormitory.write(f"{kind}.txt", f"{letter}1, 1\n{letter}2\n")
    where = ["member.txt:1", "single.txt:2", "double.txt:2", "suite.txt:2"]
    results = run_programs(*((f"server{letter}.py", *arguments) for letter in "MSDU"))
    for line, result in zip(where, results, strict=True):
        expect_failure(result, f"{line}: expected")


def test_files_that_are_missing_or_no_database_are_named(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    (dormitory.directory / "single.db").write_bytes(b"no database" * 100)
    expect_failure(run_program("serverS.py", "--port", "0", *arguments), "single.db", "not a database")
    (dormitory.directory / "single.txt").unlink()
    expect_failure(run_program("serverS.py", "--port", "0", *arguments), "single.txt", "No such file")
    (dormitory.directory / "member.txt").unlink()
    expect_failure(run_program("serverM.py", *arguments), "member.txt", "No such file")
    expect_failure(run_program("serverM.py", "--data-dir", "/nowhere"), "/nowhere/member.txt", "No such file")


def test_an_inventory_that_does_not_fit_a_datagram_is_refused(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "".join(f"S{number:011}, 9999\n" for number in range(100)))
    expect_failure(run_program("serverS.py", "--data-dir", str(dormitory.directory)), "single.txt", "1300 bytes")


def test_a_key_that_others_may_read_is_refused(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    key = dormitory.directory / "dorm.key"
    key.write_text("00" * 32 + "\n")
    for mode in (0o644, 0o640, 0o602):
        key.chmod(mode)
        for result in run_programs(("serverM.py", *arguments), ("serverS.py", *arguments)):
            expect_failure(result, "dorm.key", f"{mode:o}", "600")
    key.chmod(0o600)
    key.write_text("00" * 31)
    expect_failure(run_program("serverU.py", *arguments), "dorm.key", "64 hexadecimal")


def test_whoever_starts_first_makes_the_key_and_all_read_the_same(tmp_path: Path) -> None:
    for number in range(30):
        directory = tmp_path / str(number)
        directory.mkdir()
        keys: list[bytes] = []
        barrier = threading.Barrier(8)

        def start(directory: Path = directory, keys: list[bytes] = keys, barrier: threading.Barrier = barrier) -> None:
            barrier.wait()
            keys.append(load_key(directory))

        starters = [threading.Thread(target=start) for _ in range(8)]
        for starter in starters:
            starter.start()
        for starter in starters:
            starter.join()
        assert len(keys) == 8
        assert len(set(keys)) == 1
        assert [path.name for path in directory.iterdir()] == ["dorm.key"]
        assert (directory / "dorm.key").stat().st_mode & 0o777 == 0o600


def test_a_member_that_was_added_can_log_in_and_no_password_is_in_clear(dormitory: Dormitory) -> None:
    password = "with space, comma and \u00e9 "
    path = dormitory.directory / "member.txt"
    path.write_text(path.read_text().rstrip("\n"))  # an editor that ends no last line
    arguments = ("--data-dir", str(dormitory.directory), "--add-member")
    result = run_program("serverM.py", *arguments, "carol", input=f"{password}\n")
    assert (result.returncode, result.stderr) == (0, "")
    dormitory.start_main()
    peer = dormitory.main.connect()
    peer.send(f"LOGIN carol {password}", f"LOGIN carol {password.strip()}", f"LOGIN alice {PASSWORDS['alice']}")
    peer.expect("MEMBER carol", "REFUSED Wrong username or password", "MEMBER alice")
    texts = path.read_text() + "\n".join(dormitory.main.lines)
    assert not any(word in texts for word in (password.strip(), *PASSWORDS.values()))
    before = path.read_text()
    bad = [("carol", "x"), ("", "x"), ("a b", "x"), ("a,b", "x"), ("x" * 33, "x"), ("\udcff", "x")]
    bad += [("dave", ""), ("dave", "\x1b[2J")]

    def add(name: str, word: str) -> "subprocess.CompletedProcess[str]":
        return run_program("serverM.py", *arguments, name, input=f"{word}\n")

    with ThreadPoolExecutor(2) as pool:
        for result in pool.map(add, *zip(*bad, strict=True)):
            expect_failure(result)
    assert path.read_text() == before


def test_a_hash_reads_as_it_was_written_and_carries_salt_and_cost() -> None:
    first, second = PasswordHash.of("secret"), PasswordHash.of("secret")
    assert PasswordHash.parse(str(first)) == first
    assert first.salt != second.salt
    assert first.hash != second.hash
    assert str(first).startswith("scrypt$16384$8$1$")
    assert first.derive("secret") == first.hash != first.derive("Secret")


def test_taken_ports_are_named(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    with socket.create_server(("127.0.0.1", 0)) as tcp, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        tcp_port, udp_port = str(tcp.getsockname()[1]), str(udp.getsockname()[1])
        expect_failure(run_program("serverM.py", "--tcp-port", tcp_port, "--udp-port", "0", *arguments), tcp_port)
        expect_failure(run_program("serverM.py", "--tcp-port", "0", "--udp-port", udp_port, *arguments), udp_port)
        expect_failure(run_program("serverS.py", "--port", udp_port, *arguments), udp_port)
    expect_failure(run_program("serverS.py", "--port", "0", "--main-host", "a..b", *arguments), "a..b")


def test_wrong_arguments_are_answered_with_the_usage() -> None:
    for result in run_programs(
        ("serverM.py", "--tcp-port", "65536"),
        ("serverM.py", "extra"),
        ("serverM.py", "--max-connections", "0"),
        ("serverD.py", "--port", "x"),
        ("client.py", "--port", "-1"),
        ("client.py", "--user", "a b"),
    ):
        assert result.returncode == 2
        assert result.stderr.startswith("usage: ")


FIRST_LINES = {
    "serverM.py": "Listening on 127.0.0.1:25000",
    "serverS.py": "Server S listening on 127.0.0.1:21000",
    "serverD.py": "Server D listening on 127.0.0.1:22000",
    "serverU.py": "Server U listening on 127.0.0.1:23000",
}


def test_the_default_ports_are_those_of_the_original(dormitory: Dormitory) -> None:
    arguments = ("--data-dir", str(dormitory.directory))
    servers = [Program(script, *arguments, cwd=Path("/")) for script in FIRST_LINES]
    try:
        for server, line in zip(servers, FIRST_LINES.values(), strict=True):
            assert server.port
            assert server.lines[0] == line
        for server in servers:
            server.process.send_signal(signal.SIGINT)
        for server in servers:
            assert server.wait(STOP_SECONDS) == 0
    finally:
        for server in servers:
            server.kill()


def test_two_back_ends_on_one_file_do_not_sell_a_room_twice(tmp_path: Path) -> None:
    with two_on_one_file(tmp_path, {"S1": 1}) as (first, second):
        with first.transaction():
            assert first.reserve("S1", "alice") == "S1"
        with second.transaction(), pytest.raises(Refused, match="FULL"):
            second.reserve("S1", "bob")
        with second.transaction():
            second.cancel("S1", "alice")
        assert first.left("S1") == 0
        first.see_changes()
        assert first.left("S1") == 1


def test_what_is_undone_leaves_the_counts_of_before(tmp_path: Path) -> None:
    with two_on_one_file(tmp_path, {"S1": 9}) as (first, second):
        with second.transaction():
            second.reserve("S1", "bob")
        with suppress(KeyError), first.transaction():
            first.reserve("S1", "alice")
            raise KeyError
        assert first.left("S1") == 8
        with suppress(sqlite3.Error), first.transaction():
            first.reserve("S1", "alice")
            first.close()  # from now on nothing can be counted
        assert first.left("S1") == 8


@contextmanager
def two_on_one_file(directory: Path, inventory: dict[str, int]) -> Iterator[tuple[Reservations, Reservations]]:
    """Give the reservations of two back ends that were started on the same directory."""
    first, second = (Reservations(directory / "single.db", "S", inventory) for _ in range(2))
    with closing(first), closing(second):
        yield first, second


def test_answers_on_disk_outlive_the_callers_patience_and_are_then_forgotten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert PATIENCE_SECONDS * 2 < KEEP_ANSWERS_SECONDS <= 60
    with closing(Reservations(tmp_path / "single.db", "S", {"S1": 9})) as kept:
        with kept.transaction():
            kept.record_answer(b"request", "RESERVED S1 8")
        kept.forget_old_answers()
        assert kept.answer_to(b"request") == "RESERVED S1 8"
        monkeypatch.setattr(reservations, "KEEP_ANSWERS_SECONDS", -1)
        kept.forget_old_answers()
        assert kept.answer_to(b"request") is None


def test_a_byte_order_mark_is_no_part_of_the_first_name(tmp_path: Path) -> None:
    (tmp_path / "file.txt").write_text("\ufeffalice, 1\n", encoding="utf-8")
    assert [fields[1:] for fields in read_fields(tmp_path / "file.txt", "name, number")] == [("alice", "1")]


def test_a_full_disk_leaves_the_member_file_as_it_was(tmp_path: Path) -> None:
    (tmp_path / "member.txt").write_text(f"alice, {cheap_hash('secret')}\n")
    before = (tmp_path / "member.txt").read_text()
    command = ["prlimit", f"--fsize={len(before) + 20}", sys.executable, str(ROOT / "serverM.py")]
    command += ["--data-dir", str(tmp_path), "--add-member", "carol"]
    done = subprocess.run(command, input="secret\n", capture_output=True, text=True, timeout=10)
    assert (done.returncode, done.stderr) == (1, f"{tmp_path}/member.txt: File too large\n")
    assert (tmp_path / "member.txt").read_text() == before


def test_of_three_who_add_the_same_name_one_does(tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / "serverM.py"), "--data-dir", str(tmp_path), "--add-member", "carol"]
    adding = [subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True) for _ in range(3)]
    for process in adding:
        process.communicate("secret\n", timeout=10)
    assert sorted(process.returncode for process in adding) == [0, 1, 1]
    assert (tmp_path / "member.txt").read_text().count("carol, ") == 1
