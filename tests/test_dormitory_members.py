"""The dormitory's members: their file, adding a member while the main server runs, and logins under attack."""

import shlex
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest
from conftest import ROOT, Peer, python, run_program, run_shell, wait_until
from dorm import PASSWORDS, Dormitory, cheap_hash, needs_loopback_network
from pseudo_terminal import OpenTerminal

from dormitory import login_queue
from dormitory.login_queue import FIRST_ESTIMATE_SECONDS, MAX_WAIT_SECONDS, LoginQueue, TooManyLogins
from dormitory.members import Members, add_member, matches, read_members
from dormitory.session import Session
from dormitory.textfiles import Malformed
from net.connection import Connection
from net.conversation import Conversation

REFUSED = "REFUSED Wrong username or password"
TRY_LATER = "TRY_LATER Too many people are logging in"
PASSWORD = "a long password"


def add(directory: Path, name: str, password: str) -> "subprocess.CompletedProcess[str]":
    return run_program("serverM.py", "--data-dir", str(directory), "--add-member", name, input=f"{password}\n")


def log_in(peer: Peer, user: str, password: str) -> str:
    peer.send(f"LOGIN {user} {password}")
    return peer.read_line()


# The file.


@pytest.mark.parametrize(
    ("members", "line"),
    [
        ("alice\n", 1),
        (f"alice, {cheap_hash('x')}\nbob, secret\n", 2),
        (f"alice, {cheap_hash('x')}\nalice, {cheap_hash('y')}\n", 2),
        (f"alice, {cheap_hash('x')[:-2]}\n", 1),
        (f"alice, {cheap_hash('x').replace('$2$', '$3$')}\n", 1),
        (f"alice, {cheap_hash('x').replace('$2$', '$1073741824$')}\n", 1),
        (f"alice, {cheap_hash('x').replace('$8$1$', '$8$1000000000$')}\n", 1),
        (f"alice liddell, {cheap_hash('x')}\n", 1),
    ],
)
def test_a_malformed_member_file_is_refused_with_its_line(tmp_path: Path, members: str, line: int) -> None:
    file = tmp_path / "member.txt"
    file.write_text(members)
    with pytest.raises(Malformed, match=rf"member.txt:{line}: expected"):
        read_members(file)


def test_names_and_passwords_that_cannot_be_used_are_refused_and_the_file_stays(tmp_path: Path) -> None:
    (tmp_path / "member.txt").write_text(f"alice, {cheap_hash('secret')}\n")
    before = (tmp_path / "member.txt").read_bytes()
    a_name = "a name of 1 to 32 visible characters"
    longer = "a password of at least 8 printable characters"
    refusals = [(name, PASSWORD, a_name) for name in ("", "a b", "a,b", "x" * 33, "\udcff")]
    refusals += [("dave", password, longer) for password in ("", "1234567", "\x1b[2J12345678")]
    refusals += [("alice", "1234567", longer), ("dave", "\u00e9" * 501, "a password of at most 1000 bytes")]
    for name, password, text in refusals:
        with pytest.raises(Malformed, match=f"^Expected {text}"):
            add_member(tmp_path / "member.txt", name, password)
    result = add(tmp_path, "a,b", PASSWORD)
    expected = "Expected a name of 1 to 32 visible characters without space and comma, got 'a,b'\n"
    assert (result.returncode, result.stderr) == (1, expected)
    assert (tmp_path / "member.txt").read_bytes() == before


def test_names_and_passwords_are_compared_in_one_normal_form(tmp_path: Path) -> None:
    file = tmp_path / "member.txt"
    composed, decomposed = "Zo\u00eb", "Zoe\u0308"
    file.write_text(f"{decomposed}, {cheap_hash('x')}\n")
    assert not add_member(file, decomposed, f"{decomposed} is here")
    assert list(read_members(file)) == [composed]
    assert Members(file).check(composed, f"{composed} is here", "127.0.0.1", lambda: False)
    file.write_text("".join(f"{name}, {cheap_hash('x')}\n" for name in (composed, decomposed)))
    with pytest.raises(Malformed, match=r"member\.txt:2: expected a name .* that no line above has"):
        read_members(file)


def test_no_second_member_is_added_who_looks_like_another(tmp_path: Path) -> None:
    file = tmp_path / "member.txt"
    file.write_text(f"alice, {cheap_hash('x')}\nBob, {cheap_hash('x')}\nbob, {cheap_hash('x')}\n")
    for name in ("Alice", "\uff41lice"):
        with pytest.raises(Malformed, match=f"^{name} looks like alice, who is a member already$"):
            add_member(file, name, PASSWORD)
    assert not add_member(file, "bob", PASSWORD)  # who edits the file may have both


@pytest.mark.parametrize("line", [b"zo\xeb, ", b"alice, "])
def test_a_member_file_in_another_encoding_is_refused_and_not_changed(tmp_path: Path, line: bytes) -> None:
    file = tmp_path / "member.txt"
    before = b"bob, " + cheap_hash("x").encode() + b"\n" + line + cheap_hash("\u00eb").encode() + b" \xeb\n"
    file.write_bytes(before)
    result = add(tmp_path, "zo\u00eb", PASSWORD)
    assert (result.returncode, result.stdout, result.stderr) == (1, "", f"{file}:2: expected UTF-8\n")
    assert file.read_bytes() == before


@pytest.mark.parametrize(
    ("lines", "status"), [(f"{PASSWORD}\n{PASSWORD}", 0), (f"\ufeff{PASSWORD}\r\n", 0), (f"{PASSWORD}\nother\n", 1)]
)
def test_a_password_from_a_pipe_may_be_there_twice_but_not_another(tmp_path: Path, lines: str, status: int) -> None:
    data = ("--data-dir", str(tmp_path))
    result = run_program("serverM.py", *data, "--add-member", "carol", input=lines, encoding="utf-8")
    assert (result.returncode, result.stderr) == (status, "The passwords differ; nothing was written\n" * status)
    assert (tmp_path / "member.txt").exists() == (status == 0)


def test_an_existing_member_gets_a_new_password_and_the_other_lines_stay(tmp_path: Path) -> None:
    lines = [f"alice, {cheap_hash('secret')}", "", f"  bob ,  {cheap_hash('secret')}", f"carol, {cheap_hash('secret')}"]
    (tmp_path / "member.txt").write_text("\n".join(lines))  # the last line has no newline
    assert not add_member(tmp_path / "member.txt", "bob", PASSWORD)
    assert add_member(tmp_path / "member.txt", "dave", PASSWORD)
    after = (tmp_path / "member.txt").read_text().splitlines()
    assert [after[0], after[1], after[3]] == [lines[0], lines[1], lines[3]]
    members = read_members(tmp_path / "member.txt")
    assert list(members) == ["alice", "bob", "carol", "dave"]
    assert all(matches(PASSWORD, members[name]) for name in ("bob", "dave"))


def test_a_written_file_has_mode_600_unless_the_old_one_was_stricter(tmp_path: Path) -> None:
    file = tmp_path / "member.txt"
    for before, after in ((None, 0o600), (0o644, 0o600), (0o660, 0o600), (0o400, 0o400)):
        if before:
            file.chmod(before)
        add_member(file, "alice", PASSWORD)
        assert file.stat().st_mode & 0o777 == after
    assert sorted(path.name for path in tmp_path.iterdir()) == ["member.txt"]


def test_programs_that_add_members_at_once_lose_none_and_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    file = tmp_path / "member.txt"
    file.touch()
    names = [f"member{number}" for number in range(24)]
    seen: set[str] = set()
    with ThreadPoolExecutor(2) as pool:
        adding = [pool.submit(add_all, tmp_path, part) for part in (names[::2], names[1::2])]
        while not all(part.done() for part in adding):
            now = set(read_members(file))
            assert seen <= now
            seen = now
        for part in adding:
            part.result()
    assert sorted(read_members(file)) == sorted(names)


def add_all(directory: Path, names: list[str]) -> None:
    code = "import pathlib, sys; from dormitory import members; members.COST = 2\n"
    code += "for name in sys.argv[2:]: members.add_member(pathlib.Path(sys.argv[1]), name, 'a long password')"
    subprocess.run([sys.executable, "-c", code, directory / "member.txt", *names], cwd=ROOT, check=True, timeout=10)


def test_a_terminal_asks_twice_for_a_new_password_and_hides_it(tmp_path: Path, open_terminal: OpenTerminal) -> None:
    prompts = ("New password for alice, at least 8 characters: ", "The same password again: ")
    for first, second, status, said in (
        (PASSWORD, "another password", 1, "The passwords differ; nothing was written"),
        (PASSWORD, PASSWORD, 0, "alice is now a member; a running main server needs no restart"),
    ):
        terminal = open_terminal("serverM.py", "--data-dir", str(tmp_path), "--add-member", "alice")
        for prompt, password in zip(prompts, (first, second), strict=True):
            terminal.expect_typing(prompt)
            terminal.type(f"{password}\n")
            terminal.expect(prompt)
        terminal.expect(said)
        assert terminal.wait() == status
    assert list(read_members(tmp_path / "member.txt")) == ["alice"]


# A main server that runs.


def test_a_member_added_while_a_server_runs_can_log_in_and_no_file_or_log_has_a_password(dormitory: Dormitory) -> None:
    password = "with space, comma and \u00e9 "
    dormitory.start_main()
    peer = dormitory.main.connect()
    assert log_in(peer, "carol", password) == REFUSED
    result = add(dormitory.directory, "carol", password)
    assert result.stdout == "carol is now a member; a running main server needs no restart\n"
    assert log_in(peer, "carol", password) == "MEMBER carol"
    assert log_in(peer, "carol", password.strip()) == REFUSED
    assert log_in(peer, "alice", PASSWORDS["alice"]) == "MEMBER alice"
    result = add(dormitory.directory, "alice", PASSWORD)
    assert result.stdout == "alice has a new password; a running main server needs no restart\n"
    assert log_in(peer, "alice", PASSWORDS["alice"]) == REFUSED
    assert log_in(peer, "alice", PASSWORD) == "MEMBER alice"
    texts = (dormitory.directory / "member.txt").read_text() + "\n".join(dormitory.main.lines)
    assert not any(word in texts for word in (password.strip(), *PASSWORDS.values()))


def test_nothing_that_may_be_a_password_is_logged_or_printed(dormitory: Dormitory) -> None:
    dormitory.start_main()
    peer = dormitory.main.connect()
    for separator in ("\t", ",", "\u00a0", "  ", "\u3000", "\0", ", "):
        peer.send(f"LOGIN alice{separator}pa55word")
        assert peer.read_line() in ("INVALID Expected LOGIN user [password]", REFUSED)
    peer.send("login alice pa55word")
    peer.expect("DENIED Log in first")
    shown = []
    for line in ("carol, pa55word", "carol pa55word", "pa55 word, scrypt$2", "pa55word pa55word, x"):
        dormitory.write("member.txt", f"{line}\n")
        assert log_in(peer, "alice", "x") == REFUSED
        result = run_program("serverM.py", "--data-dir", str(dormitory.directory))
        shown.append(result.stderr)
    assert all("member.txt:1: expected" in line for line in shown)
    wait_until(lambda: dormitory.main.count_lines(".*the content read before stays in force") == 4, "four reports")
    assert "pa55" not in "\n".join(dormitory.main.lines + shown)
    dormitory.log_in("alice")


def test_logins_take_turns_by_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "member.txt").write_text(f"alice, {cheap_hash('x')}\n")
    members = Members(tmp_path / "member.txt")
    seen: list[str] = []

    def check(user: str, password: str, address: str, has_left: Callable[[], bool]) -> bool:
        seen.append(address)
        return True

    monkeypatch.setattr(members, "check", check)
    here, there = socket.socketpair()
    with there:
        there.sendall(b"LOGIN alice x\n")
        there.shutdown(socket.SHUT_WR)
        connection = Connection(here, there.fileno(), "fe80::1%lo")
        Session(Conversation(connection), members, {}, b"", 1).run()
        connection.close()
    assert seen == ["fe80::/64"]


def test_each_published_password_is_reported_at_the_start_until_it_is_replaced(dormitory: Dormitory) -> None:
    file = dormitory.directory / "member.txt"
    dormitory.write("member.txt", (ROOT / "member.txt").read_text())
    warning = "Warning: {0} still has a published password; replace it with: serverM.py --add-member {0}"
    warnings = [warning.format(name) for name in ("alice", "bob")]
    dormitory.start_main()
    for warning in warnings:
        dormitory.main.wait_for_line(warning)
    add_member(file, "alice", PASSWORD)
    assert Members(file).warnings() == warnings[1:]
    add_member(file, "bob", PASSWORD)
    assert Members(file).warnings() == []


def test_an_empty_member_file_refuses_every_password(tmp_path: Path) -> None:
    (tmp_path / "member.txt").write_text("")
    assert not Members(tmp_path / "member.txt").check("alice", PASSWORD, "127.0.0.1", lambda: False)


def test_an_unknown_name_always_costs_what_some_member_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "member.txt"
    costs: list[int] = []

    def hashed(password: str, cost: int, salt: bytes) -> str:
        costs.append(cost)
        return ""

    def cost_of_each(members: Members) -> list[int]:
        costs.clear()
        assert not any(members.check(name, "wrong", "127.0.0.1", lambda: False) for name in names)
        return costs[:]

    monkeypatch.setattr("dormitory.members.hashed", hashed)
    text = f"$8$1${'5a' * 16}${'00' * 32}\n"
    path.write_text(f"carol, scrypt$16384{text}dave, scrypt$512{text}")
    names = [f"nobody{number}" for number in range(40)]
    members = Members(path)
    assert set(cost_of_each(members)) == {16384, 512}
    assert cost_of_each(members) == cost_of_each(members)
    assert cost_of_each(Members(path)) != cost_of_each(members)  # another run of the server chooses otherwise
    path.write_text(f"carol, scrypt$4096{text}")
    assert set(cost_of_each(members)) == {4096}


# Logins under attack.


@pytest.fixture
def attacked(dormitory: Dormitory) -> Iterator[Dormitory]:
    """Give a dormitory whose main server runs, and whose member carol has a password hash of the usual cost."""
    add_member(dormitory.directory / "member.txt", "carol", PASSWORD)
    dormitory.start_main()
    yield dormitory
    assert dormitory.main.stop() == 0  # though many checks of passwords still wait


def seconds_to_log_in(dormitory: Dormitory, source: str) -> float:
    """Return how long carol needs to connect from an address and log in; try again when told to, as client.py does."""
    began = time.monotonic()
    peer = dormitory.main.connect(source=source)
    while (reply := log_in(peer, "carol", PASSWORD)) == TRY_LATER:
        time.sleep(0.1)
    peer.close()
    assert reply == "MEMBER carol"
    return time.monotonic() - began


@needs_loopback_network
def test_600_connections_with_five_wrong_logins_closed_at_once_delay_no_member(attacked: Dormitory) -> None:
    for _ in range(600):
        with socket.create_connection(("127.0.0.1", attacked.main.port)) as sock:
            sock.sendall(b"LOGIN carol wrong\n" * 5)
    for source in ("127.0.0.2", "127.0.0.1"):
        seconds_to_log_in(attacked, source)
        assert attacked.main.count_lines(f".*result sent: {REFUSED}") < 300


def test_five_wrong_logins_on_a_closed_connection_cost_one_check(attacked: Dormitory) -> None:
    peer = attacked.main.connect()
    peer.send(*["LOGIN carol wrong"] * 5)
    peer.close()
    attacked.main.wait_for_line(r"Client \(\d+\): disconnected: .*")
    assert attacked.main.count_lines(f".*result sent: {REFUSED}") == 1


@needs_loopback_network
def test_400_guessers_from_one_address_delay_no_member_from_another(attacked: Dormitory) -> None:
    with ExitStack() as guessers:
        for _ in range(400):
            guesser = guessers.enter_context(socket.create_connection(("127.0.0.1", attacked.main.port)))
            guesser.sendall(b"LOGIN carol wrong\n" * 50)
        attacked.main.wait_for_line(f".*result sent: {TRY_LATER}")
        logins = [seconds_to_log_in(attacked, "127.0.0.2") for _ in range(8)]
        assert min(logins) < 1.0, logins  # some may be late when other programs keep the machine busy
        attacked.main.wait_for_line(f".*result sent: {REFUSED}")


# The queue alone.


@contextmanager
def running(queue: LoginQueue, *checks: tuple[str, str, bool]) -> Iterator[tuple[list[str], threading.Event]]:
    """Block a queue with a check, then add others as name, address and has_left; give the order in which they run."""
    order: list[str] = []
    release = threading.Event()
    with ThreadPoolExecutor(len(checks) + 1) as pool:
        first_runs = threading.Event()

        def block() -> bool:
            first_runs.set()
            return release.wait(10)

        pool.submit(queue.run, block, "first", lambda: False)
        assert first_runs.wait(10)
        for name, address, gone in checks:
            arrive(pool, queue, partial(note, order, name), address, partial(bool, gone))
        yield order, release
        release.set()


def note(order: list[str], name: str) -> bool:
    order.append(name)
    return True


def arrive(
    pool: ThreadPoolExecutor, queue: LoginQueue, verify: Callable[[], bool], address: str, has_left: Callable[[], bool]
) -> None:
    """Let a check run in a thread; wait until it has its place in the queue."""
    arrived = threading.Event()

    def has_left_now() -> bool:
        arrived.set()  # from here to its place in the queue the check holds the queue's lock
        return has_left()

    pool.submit(queue.run, verify, address, has_left_now)
    assert arrived.wait(10)


def test_addresses_take_turns_and_clients_that_have_ended_their_side_come_last() -> None:
    checks = [(f"a{n}", "A", False) for n in (1, 2, 3)] + [("gone", "B", True), ("b1", "B", False)]
    checks += [("c1", "C", False), ("b2", "B", False), ("gone too", "D", True)]
    with running(LoginQueue(), *checks) as (order, release):
        release.set()
        wait_until(lambda: len(order) == len(checks), "all checks run")
    assert order == ["a1", "b1", "c1", "a2", "b2", "a3", "gone", "gone too"]


def test_a_check_whose_client_leaves_while_it_waits_comes_last() -> None:
    queue = LoginQueue()
    left = threading.Event()
    with ThreadPoolExecutor() as pool, running(queue) as (order, release):
        arrive(pool, queue, partial(note, order, "leaves"), "A", left.is_set)
        arrive(pool, queue, partial(note, order, "stays"), "B", lambda: False)
        left.set()
        release.set()
        wait_until(lambda: len(order) == 2, "both checks run")
    assert order == ["stays", "leaves"]


def test_a_check_whose_turn_does_not_come_in_time_raises_too_many_logins(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(login_queue, "MAX_WAIT_SECONDS", 0.2)
    queue = LoginQueue()
    with running(queue), pytest.raises(TooManyLogins):
        queue.run(lambda: True, "A", lambda: False)
    assert queue.run(lambda: True, "A", lambda: False)


def test_a_check_that_would_wait_too_long_is_refused_at_once_but_not_a_check_from_another_address() -> None:
    queue = LoginQueue()
    number = int(MAX_WAIT_SECONDS / FIRST_ESTIMATE_SECONDS)
    checks = [*((f"a{count}", "A", False) for count in range(number)), ("b", "B", False)]
    with running(queue, *checks) as (order, release):
        began = time.monotonic()
        with pytest.raises(TooManyLogins):
            queue.run(lambda: True, "A", lambda: False)
        assert time.monotonic() - began < 0.5
        release.set()
        wait_until(lambda: len(order) == len(checks), "all checks run")
    assert order[:3] == ["a0", "b", "a1"]


def test_a_check_is_refused_at_once_if_slow_checks_would_delay_it_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    def slow_check() -> bool:
        time.sleep(0.5)
        return True

    queue = LoginQueue()
    assert queue.run(slow_check, "A", lambda: False)
    with running(queue, *((f"a{count}", "A", False) for count in range(4))):
        monkeypatch.setattr(login_queue, "MAX_WAIT_SECONDS", 1.5)
        began = time.monotonic()
        with pytest.raises(TooManyLogins):
            queue.run(lambda: True, "A", lambda: False)
        assert time.monotonic() - began < 1.0


def test_an_address_whose_checks_arrive_one_after_the_other_does_not_overtake_one_whose_checks_wait() -> None:
    queue = LoginQueue()
    with ThreadPoolExecutor() as pool, running(queue, ("a1", "A", False), ("a2", "A", False)) as (order, release):

        def run_b1() -> bool:
            arrive(pool, queue, partial(note, order, "b2"), "B", lambda: False)
            return note(order, "b1")

        arrive(pool, queue, run_b1, "B", lambda: False)
        release.set()
        wait_until(lambda: len(order) == 4, "all checks run")
    assert order == ["a1", "b1", "a2", "b2"]


def test_an_error_in_a_check_reaches_the_thread_that_asked_for_it() -> None:
    def fail() -> bool:
        raise MemoryError

    queue = LoginQueue()
    with pytest.raises(MemoryError):
        queue.run(fail, "A", lambda: False)
    assert queue.run(lambda: True, "A", lambda: False)


def test_adding_a_member_with_output_to_a_full_disk_writes_the_file_and_fails_in_one_line(tmp_path: Path) -> None:
    add_carol = shlex.join(python("serverM.py", "--data-dir", str(tmp_path), "--add-member", "carol"))
    done = run_shell(f"{add_carol} >/dev/full", f"{PASSWORD}\n")
    assert (done.returncode, done.stderr) == (1, "The output cannot be written: No space left on device\n")
    assert list(read_members(tmp_path / "member.txt")) == ["carol"]
