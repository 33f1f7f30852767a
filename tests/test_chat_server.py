"""The chat server as its users meet it: the dialogue, and what it must survive."""

import contextlib
import itertools
import os
import pty
import random
import re
import resource
import select
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    ROOT,
    STOP_SECONDS,
    WAIT_SECONDS,
    Peer,
    Program,
    Start,
    looking_after,
    run_program,
    run_programs,
    server_has_read,
    wait_until,
)

from chat_server import Users
from net.log import StatusLog

PERIOD_SECONDS = 1.5  # in which a client must take something, instead of five
SLACK_SECONDS = 2.5  # for a machine that is busy
UNREGISTERED = "Unregistered User. Use JOIN <username> to register."
C_CHAT = "Client \\(\\d+\\): "


@pytest.fixture(scope="module")
def common_server() -> Iterator[Program]:
    """Give the chat server of all tests that only talk."""
    with looking_after() as launch:
        server = launch("chat_server.py", "0")
        server.wait_for_start()
        yield server


@pytest.fixture
def server(common_server: Program) -> Iterator[Program]:
    """Give a chat server; a test must leave nothing there, for others talk to it too."""
    yield common_server
    common_server.expect_rest()


@pytest.fixture
def fresh_server(start: Start) -> Program:
    """Give a chat server to one test alone."""
    return start("chat_server.py", "0")


def join(server: Program, name: str, receive_buffer: int = 0) -> Peer:
    """Give a client that is registered."""
    peer = server.connect(receive_buffer)
    peer.send(f"JOIN {name}")
    peer.expect(f"JOIN {name} accepted")
    return peer


def expect_no_message(peer: Peer) -> None:
    """Fail if anything has been sent to a user; the answer to a request comes after it."""
    peer.send("MESG nobody hi")
    peer.expect("Unknown Recipient nobody")


def at_once(count: int, work: Callable[[int], None]) -> None:
    """Run work(0), work(1), ... at the same moment, each in a thread."""
    barrier = threading.Barrier(count)

    def run(i: int) -> None:
        barrier.wait(WAIT_SECONDS)
        work(i)

    threads = [threading.Thread(target=run, args=(i,)) for i in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


# The dialogue


def test_three_users_chat(server: Program) -> None:
    alice, bob, carol = (join(server, name) for name in ("alice", "bob", "carol"))
    alice.send("BCST hello,  everybody ")
    for peer in (bob, carol):
        peer.expect("FROM alice (all): hello,  everybody ")
    bob.send("MESG alice hi alice")
    alice.expect("FROM bob: hi alice")
    carol.send("MESG carol note to myself")
    carol.expect("FROM carol: note to myself")
    alice.send("LIST")
    alice.expect("Registered users (3):", "alice", "bob", "carol")
    alice.send("QUIT")
    alice.expect_end()
    bob.send("MESG alice are you there?", "MESG caro hi", "MESG Carol hi", "LIST")
    bob.expect(
        *(f"Unknown Recipient {name}" for name in ("alice", "caro", "Carol")), "Registered users (2):", "bob", "carol"
    )
    expect_no_message(carol)


def test_join_is_needed_for_everything_but_join_and_quit(server: Program) -> None:
    peer = server.connect()
    for line in ("LIST", "MESG bob hi", "BCST hi", "nonsense", "QUITE", "join alice", " "):
        peer.send(line)
        peer.expect(UNREGISTERED)
    peer.send("QUIT")
    peer.expect_end()


def test_a_name_is_one_to_32_letters_and_digits(server: Program) -> None:
    peer = server.connect()
    for name in ("", "al ice", " alice", "alice ", "al-ice", "al\x07ice", "zoë", "a" * 33):
        peer.send(f"JOIN {name}")
        peer.expect("Invalid username")
    peer.send("JOIN", "JOIN " + "a" * 32)
    peer.expect("Invalid username", f"JOIN {'a' * 32} accepted")
    join(server, "Z9")


def test_a_second_join_is_discarded(server: Program) -> None:
    alice = join(server, "alice")
    bob = server.connect()
    bob.send("JOIN alice", "JOIN bob", "JOIN alice", "JOIN bob2", "JOIN ")
    bob.expect("Username alice is taken", "JOIN bob accepted", *["Already registered as bob"] * 3)
    alice.send("LIST")
    alice.expect("Registered users (2):", "alice", "bob")


def test_anything_else_is_unknown(server: Program) -> None:
    alice, bob = join(server, "alice"), join(server, "bob")
    for line in ("MESG bob", "MESG bob ", "MESG", "MESG  bob hi", "BCST", "BCST ", "LIST all", "list", "QUIT now", "?"):
        alice.send(line, " LIST", "LIST")
        alice.expect("Unknown Message", "Unknown Message", "Registered users (2):", "alice", "bob")
    expect_no_message(bob)


def test_an_empty_line_is_ignored(server: Program) -> None:
    peer = server.connect()
    peer.send_bytes(b"\n\r\nJOIN alice\r\n\r\n\nLIST\r\n")
    peer.expect("JOIN alice accepted", "Registered users (1):", "alice")
    peer.expect_nothing(0.05)


def test_the_eleventh_user_is_one_too_many_until_one_leaves(fresh_server: Program) -> None:
    users = [join(fresh_server, f"user{i}") for i in range(10)]
    eleventh = fresh_server.connect()
    eleventh.send("JOIN late", "LIST")
    eleventh.expect("Too Many Users")
    eleventh.expect_end()
    users[3].send("QUIT")
    users[3].expect_end()
    join(fresh_server, "late")
    users[4].close()
    wait_until(lambda: fresh_server.count_lines(C_CHAT + "disconnected.*") == 3, "the third disconnects")
    join(fresh_server, "later")


def test_a_message_follows_the_broadcast_that_was_sent_before_it(server: Program) -> None:
    alice, bob, carol = (join(server, name) for name in ("alice", "bob", "carol"))
    alice.send("BCST 1", "MESG bob 2", "BCST 3", "BCST 4", "MESG bob 5", "LIST", "BCST 6")
    alice.expect("Registered users (3):", "alice", "bob", "carol")
    bob.expect("FROM alice (all): 1", "FROM alice: 2", "FROM alice (all): 3", "FROM alice (all): 4", "FROM alice: 5")
    bob.expect("FROM alice (all): 6")
    carol.expect(*(f"FROM alice (all): {i}" for i in (1, 3, 4, 6)))


def test_the_end_of_input_is_answered_before_the_connection_closes(server: Program) -> None:
    peer = server.connect()
    peer.send("JOIN alice", *["LIST"] * 1000)
    peer.end_input()
    assert peer.read_all() == "JOIN alice accepted\n" + "Registered users (1):\nalice\n" * 1000


def test_what_comes_after_quit_is_not_heard(server: Program) -> None:
    alice, bob = join(server, "alice"), join(server, "bob")
    alice.send("BCST bye", "QUIT", "BCST still here")
    alice.expect_end()
    bob.expect("FROM alice (all): bye")
    expect_no_message(bob)


def test_a_user_is_found_only_when_the_answer_to_join_is_on_its_way() -> None:
    users = Users(max_users=2)
    found: list[object] = []
    seeker = threading.Thread(target=lambda: found.append(users.find("alice")))

    class Asking:
        def post(self, data: bytes) -> None:
            assert data == b"accepted\n"
            seeker.start()
            seeker.join(0.2)
            assert not found

    connection: Any = Asking()
    users.join("alice", connection, "accepted\n")
    seeker.join()
    assert found == [connection]


def test_a_user_hears_nothing_before_the_answer_to_join(server: Program) -> None:
    loud = join(server, "loud")
    over = threading.Event()

    def shout() -> None:
        while not over.is_set():
            loud.send(*["BCST hey"] * 10)

    shouter = threading.Thread(target=shout)
    shouter.start()
    try:
        for _ in range(200):
            peer = join(server, "guest")  # the first line is the answer
            peer.send("QUIT")
            peer.read_all()
            peer.close()
    finally:
        over.set()
        shouter.join()


# Real clients


needs_nc = pytest.mark.skipif(not shutil.which("nc"), reason="nc (netcat-openbsd) is not installed")
needs_telnet = pytest.mark.skipif(not shutil.which("telnet"), reason="telnet is not installed")


@needs_nc
def test_nc_gets_every_reply(fresh_server: Program) -> None:
    nc = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(fresh_server.port)],
        input=b"LIST\nJOIN alice\nLIST\nhalf a line",
        capture_output=True,
        timeout=WAIT_SECONDS,
    )
    assert nc.stdout.decode().splitlines() == [UNREGISTERED, "JOIN alice accepted", "Registered users (1):", "alice"]
    fresh_server.wait_for_line(C_CHAT + "discarded half a line: .*")


class Terminal:
    """A command that runs in a pseudo-terminal."""

    def __init__(self, *command: str) -> None:
        self.pid, self.fd = pty.fork()
        if not self.pid:
            os.environ["TERM"] = "xterm"
            os.execvp(command[0], command)
        self.screen = ""

    def type(self, line: str) -> None:
        """Type a line."""
        os.write(self.fd, f"{line}\n".encode())

    def expect(self, text: str) -> None:
        """Wait until the screen shows a text, and forget what is before it."""
        end = time.monotonic() + WAIT_SECONDS
        while text not in self.screen:
            readable, _, _ = select.select([self.fd], [], [], max(0.0, end - time.monotonic()))
            assert readable, f"expected {text!r}, the screen is {self.screen!r}"
            self.screen += os.read(self.fd, 4096).decode().replace("\r\n", "\n")
        self.screen = self.screen.partition(text)[2]

    def close(self) -> None:
        """End the command."""
        os.close(self.fd)
        os.waitpid(self.pid, 0)


@needs_telnet
def test_telnet_is_a_full_client(server: Program) -> None:
    bob = join(server, "bob")
    telnet = Terminal("telnet", "127.0.0.1", str(server.port))
    try:
        telnet.expect("Escape character is")
        telnet.type("JOIN alice")
        telnet.expect("\nJOIN alice accepted\n")
        telnet.type("MESG bob hi")
        bob.expect("FROM alice: hi")
        bob.send("BCST hello")
        telnet.expect("FROM bob (all): hello\n")
        os.write(telnet.fd, b"\x03")  # Ctrl-C: telnet shows nothing more before it is answered
        telnet.type("MESG bob still here")
        bob.expect("FROM alice: still here")
        bob.send("BCST good")
        telnet.expect("FROM bob (all): good\n")
        telnet.type("QUIT")
        telnet.expect("Connection closed by foreign host.")
    finally:
        telnet.close()


# Strange input


def test_input_may_come_byte_by_byte(server: Program) -> None:
    peer = server.connect()
    for byte in b"JOIN alice\r\nLIST\n":
        peer.send_bytes(bytes([byte]))
        server_has_read(peer)
    peer.expect("JOIN alice accepted", "Registered users (1):", "alice")


def test_thousands_of_messages_in_one_write_all_arrive(server: Program) -> None:
    alice, bob = join(server, "alice"), join(server, "bob")
    alice.send(*(f"{'BCST' if i % 3 else 'MESG bob'} {i}" for i in range(20_000)))
    for i in range(20_000):
        bob.expect(f"FROM alice{' (all)' if i % 3 else ''}: {i}")


def test_half_a_line_and_silence_delay_nobody(server: Program) -> None:
    silent = server.connect()
    silent.send_bytes(b"JOIN sil")
    alice = join(server, "alice")
    alice.send("LIST")
    alice.expect("Registered users (1):", "alice")
    silent.send_bytes(b"ent\n")
    silent.expect("JOIN silent accepted")


def test_half_a_line_and_a_reset_cost_one_status_line(fresh_server: Program) -> None:
    alice, bob = join(fresh_server, "alice"), join(fresh_server, "bob")
    alice.send_bytes(b"BCST hal")
    alice.reset()
    fresh_server.wait_for_line(C_CHAT + "disconnected: Connection reset by peer")
    bob.send("LIST")
    bob.expect("Registered users (1):", "bob")


def test_a_line_without_an_end_is_told_and_closed(fresh_server: Program) -> None:
    peer = fresh_server.connect()
    peer.send("JOIN alice")
    peer.send_bytes(b"BCST " + b"x" * 200_000)
    peer.expect("JOIN alice accepted", "Line too long: at most 4096 bytes are expected")
    peer.expect_end()
    stubborn = fresh_server.connect()
    stubborn.send_bytes(b"x" * 5_000_000)  # is not met with a reset, which might destroy the answer
    stubborn.expect("Line too long: at most 4096 bytes are expected")
    fresh_server.wait_for_line(C_CHAT + "disconnected: Line too long.*")
    join(fresh_server, "alice")


def test_the_longest_line_arrives(server: Program) -> None:
    alice, bob = join(server, "alice"), join(server, "bob")
    alice.send("BCST " + "x" * 4091)
    bob.expect("FROM alice (all): " + "x" * 4091)


def test_random_bytes_harm_nobody(server: Program) -> None:
    alice = join(server, "alice")
    chance = random.Random(7)
    for _ in range(20):
        peer = server.connect()
        peer.send_bytes(chance.randbytes(chance.randrange(3000)))
        peer.end_input()
        peer.read_all()
    alice.send("LIST")
    alice.expect("Registered users (1):", "alice")


def test_telnet_negotiation_is_removed_also_between_reads(server: Program) -> None:
    peer = server.connect()
    for part in (b"\xff", b"\xfb\x01JO", b"\xff\xfa\x18", b"\x00xterm\n\xff", b"\xf0IN al", b"ice\xff\xf4\r\n"):
        peer.send_bytes(part)
        server_has_read(peer)
    peer.expect("JOIN alice accepted")


def test_escapes_and_invalid_bytes_reach_neither_another_terminal_nor_the_log(fresh_server: Program) -> None:
    alice, bob = join(fresh_server, "alice"), join(fresh_server, "bob")
    evil = b"\x1b]0;title\x07\x9b31m\xc2\x9b31m\x00\xc3"
    alice.send_bytes(b"BCST " + evil + b"\nMESG bob " + evil + b"\nMESG " + evil + b" hi\nJOIN " + evil + b"\n")
    shown = "\ufffd]0;title\ufffd\ufffd31m\ufffd31m\ufffd\ufffd"
    bob.expect(f"FROM alice (all): {shown}", f"FROM alice: {shown}")
    alice.expect(f"Unknown Recipient {shown}", "Already registered as alice")
    fresh_server.wait_for_line(C_CHAT + "JOIN \ufffd.*")
    assert not [line for line in fresh_server.lines if re.search("[\x00-\x1f\x7f-\x9f]", line)]


# Races


def test_thirty_clients_race_for_one_place(start: Start) -> None:
    server = start("chat_server.py", "0", "--max-users", "1")
    peers = [server.connect() for _ in range(30)]
    at_once(30, lambda i: peers[i].send(f"JOIN user{i}"))
    answers = [peer.read_line() for peer in peers]
    assert len([answer for answer in answers if answer.endswith("accepted")]) == 1
    assert answers.count("Too Many Users") == 29


def test_clients_race_for_one_name(server: Program) -> None:
    for _ in range(20):
        peers = [server.connect() for _ in range(8)]
        at_once(8, lambda i, peers=peers: peers[i].send("JOIN same"))  # type: ignore[misc]
        answers = [peer.read_line() for peer in peers]
        assert sorted(answers) == ["JOIN same accepted"] + ["Username same is taken"] * 7
        for peer in peers:
            peer.end_input()
            peer.expect_end()


# Clients that do not read


def test_who_stops_reading_is_dropped_and_delays_others_once(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "short_period.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import chat_server; from net import connection\n"
        f"connection.PERIOD_SECONDS = {PERIOD_SECONDS}\n"
        "sys.exit(chat_server.main())\n"
    )
    server = start(str(script), "0")
    sleeper, greedy = join(server, "sleeper", receive_buffer=4096), server.connect(receive_buffer=4096)
    flooder, bob = join(server, "flooder"), join(server, "bob")
    over = threading.Event()
    arrivals: list[float] = []
    memory: list[int] = []

    def flood() -> None:
        while not over.is_set():
            flooder.send(*["BCST " + "x" * 194] * 100)

    def ask() -> None:
        with contextlib.suppress(ConnectionError):
            while True:
                greedy.send(*["LIST"] * 1000)  # and read no answer

    def read() -> None:
        while bob.sock.recv(1 << 16):
            arrivals.append(time.monotonic())

    def both_are_dropped() -> bool:
        memory.append(server.resident_bytes())
        return server.count_lines(C_CHAT + "dropped: it took less than 65536 bytes a second") == 2

    threads = [threading.Thread(target=work) for work in (flood, ask, read)]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: arrivals and time.monotonic() > arrivals[-1] + 1, "the flood is held up", 20)
        passer_by = server.connect()  # accepting goes on
        passer_by.send("LIST")
        passer_by.expect(UNREGISTERED)
        wait_until(both_are_dropped, "they are dropped", PERIOD_SECONDS + SLACK_SECONDS)
        count = len(arrivals)
        wait_until(lambda: len(arrivals) > count + 100, "the flood goes on")
    finally:
        over.set()
        sleeper.close()
        threads[0].join()
        flooder.end_input()
        bob.end_input()
        for thread in threads:
            thread.join()
    long_waits = [later - earlier for earlier, later in itertools.pairwise(arrivals) if later - earlier > 1]
    assert len(long_waits) == 1
    assert long_waits[0] < PERIOD_SECONDS + SLACK_SECONDS
    assert max(memory) < 60 << 20


def test_a_flood_reaches_a_healthy_slower_reader_whole_and_in_order(fresh_server: Program) -> None:
    flooder, bob = join(fresh_server, "flooder"), join(fresh_server, "bob", receive_buffer=1 << 16)
    count, size = 30_000, 200
    line = "BCST %05d" + "x" * (size - len("BCST 00000\n"))

    def flood() -> None:
        for first in range(0, count, 500):
            flooder.send(*(line % number for number in range(first, first + 500)))

    thread = threading.Thread(target=flood)
    thread.start()
    expected = "".join(f"FROM flooder (all): {(line % number)[5:]}\n" for number in range(count)).encode()
    received = bytearray()
    began = time.monotonic()
    while len(received) < len(expected):
        received += bob.sock.recv(65_536) or pytest.fail(f"dropped after {len(received)} bytes")
        time.sleep(max(0.0, began + len(received) / 6_000_000 - time.monotonic()))  # 6 MB a second
    thread.join()
    assert received == expected
    assert fresh_server.count_lines(C_CHAT + "dropped.*") == 0


# Many connections


def test_five_thousand_connections_at_once(start: Start) -> None:
    raise_descriptor_limit(5100)
    few = ("prlimit", "--nofile=1024:6000")  # which it raises by itself
    server = start("chat_server.py", "0", "--max-connections", "5000", prefix=few)
    crowd = [server.connect() for _ in range(4998)]
    alice, bob = join(server, "alice"), join(server, "bob")
    alice.send("BCST hi")
    bob.expect("FROM alice (all): hi")
    crowd[-1].send("LIST")
    crowd[-1].expect(UNREGISTERED)
    one_more = server.connect()
    one_more.expect("Too many connections")
    one_more.expect_end()


def raise_descriptor_limit(count: int) -> None:
    """Allow this process so many descriptors, or skip the test."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < count + 100:
        pytest.skip(f"only {hard} descriptors are allowed here")
    if soft < count:
        resource.setrlimit(resource.RLIMIT_NOFILE, (count, hard))


def test_more_connections_than_allowed_are_told_so(start: Start) -> None:
    server = start("chat_server.py", "0", "--max-connections", "2")
    alice, bob = join(server, "alice"), join(server, "bob")
    third = server.connect()
    third.expect("Too many connections")
    third.expect_end()
    bob.send("QUIT")
    bob.expect_end()
    bob.close()
    wait_until(lambda: server.count_lines(C_CHAT + "disconnected.*") == 1, "bob's place is free")
    join(server, "carol")
    alice.send("LIST")
    alice.expect("Registered users (2):", "alice", "carol")


def test_without_descriptors_it_says_so_once_and_serves_on(start: Start) -> None:
    server = start("chat_server.py", "0", prefix=("prlimit", "--nofile=64"))
    alice = join(server, "alice")
    crowd = [server.connect() for _ in range(80)]
    server.wait_for_line("Cannot accept for now: Too many open files")
    end = time.monotonic() + 0.3  # long enough to try several times
    while time.monotonic() < end:
        alice.send("LIST")
        alice.expect("Registered users (1):", "alice")
    for peer in crowd[:40]:
        peer.close()
    crowd[-1].send("JOIN last")
    crowd[-1].expect("JOIN last accepted")
    assert server.count_lines("Cannot accept for now.*") == 1


def test_without_threads_it_refuses_and_serves_on(start: Start, tmp_path: Path) -> None:
    """Threads are denied by a program that runs the server with fewer: what root may have is not limited."""
    script = tmp_path / "few_threads.py"
    script.write_text(
        "import sys, threading\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import chat_server\n"
        "start = threading.Thread.start\n"
        "def limited(thread):\n"
        "    if threading.active_count() > 4:\n"
        '        raise RuntimeError("can\'t start new thread")\n'
        "    start(thread)\n"
        "threading.Thread.start = limited\n"
        "sys.exit(chat_server.main())\n"
    )
    server = start(str(script), "0")
    alice, bob = join(server, "alice"), join(server, "bob")
    third = server.connect()
    third.expect("Too many threads")
    third.expect_end()
    bob.send("QUIT")
    bob.expect_end()
    wait_until(lambda: server.count_lines(C_CHAT + "disconnected.*") == 1, "bob's thread ends")
    join(server, "carol")
    alice.send("LIST")
    alice.expect("Registered users (2):", "alice", "carol")


def test_a_bug_costs_its_own_connection_alone(tmp_path: Path) -> None:
    script = tmp_path / "with_a_bug.py"
    script.write_text(
        "import sys\n"
        f"sys.path.insert(0, {str(ROOT)!r})\n"
        "import chat_server\n"
        "chat_server.HANDLERS['list'] = lambda *_: 1 / 0\n"
        "sys.exit(chat_server.main())\n"
    )
    server = Program(str(script), "0")
    try:
        alice, bob = join(server, "alice"), join(server, "bob")
        alice.send("LIST")
        alice.expect_end()
        server.wait_for_line(C_CHAT + "disconnected: a bug in its handler")
        bob.send("MESG alice hi")
        bob.expect("Unknown Recipient alice")
        assert server.stop() == 0
        assert server.errors.count("Traceback") == 1
        assert "ZeroDivisionError" in server.errors
    finally:
        server.kill()
        for peer in server.peers:
            peer.close()


def test_who_does_not_join_in_time_is_told_and_closed_also_who_never_pauses(start: Start) -> None:
    server = start("chat_server.py", "0", "--login-seconds", "1")
    alice, slow, busy = join(server, "alice"), server.connect(), server.connect()
    began = time.monotonic()
    end = began + 1 + SLACK_SECONDS

    def flood() -> None:
        with contextlib.suppress(OSError):
            while time.monotonic() < end:
                busy.send(*[""] * 1000)

    thread = threading.Thread(target=flood)
    thread.start()
    while time.monotonic() < began + 0.8:
        slow.send("LIST")  # busy, but nothing useful
        slow.expect(UNREGISTERED)
        time.sleep(0.1)
    slow.expect("Timed out: nothing useful came in time")
    slow.expect_end()
    assert busy.read_all() == "Timed out: nothing useful came in time\n"
    assert time.monotonic() < end
    thread.join()
    alice.send("LIST")
    alice.expect("Registered users (1):", "alice")


# Starting and stopping


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_lets_the_queue_go_out_and_frees_the_port(start: Start, number: int) -> None:
    server = start("chat_server.py", "0")
    alice, slow = join(server, "alice"), join(server, "slow", receive_buffer=4096)
    idle = server.connect()
    alice.send(*["BCST " + "x" * 994] * 600)  # more than the kernel takes, less than a backlog
    server.wait_for_line(C_CHAT + "BCST")
    wait_until(lambda: server.count_lines(C_CHAT + "BCST") == 600, "all are handled")
    port = server.port
    stopped: list[int] = []
    stopper = threading.Thread(target=lambda: stopped.append(server.stop(number)))
    stopper.start()
    assert slow.read_all() == ("FROM alice (all): " + "x" * 994 + "\n") * 600
    stopper.join()
    assert stopped == [0]
    assert idle.sock.recv(1) == b""  # an orderly end, no reset
    assert server.errors == ""
    again = start("chat_server.py", str(port))
    join(again, "alice")


def test_every_status_line_is_there_in_the_end(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice, bob = join(server, "alice"), join(server, "bob")
    alice.send(*["BCST x"] * 50_000, "MESG bob x", "nonsense", "MESG nobody x", "JOIN al")
    alice.expect("Unknown Message", "Unknown Recipient nobody", "Already registered as alice")
    alice.send("QUIT")
    alice.expect_end()
    bob.close()
    wait_until(lambda: server.count_lines(C_CHAT + "disconnected.*") == 2, "both leave")
    assert server.stop() == 0
    for line in ("handler started", "JOIN alice", "JOIN bob", "MESG bob", "MESG nobody", "QUIT"):
        assert server.count_lines(C_CHAT + line), line
    for reason in ("Unknown Message", "Unknown Recipient nobody", "Already registered as alice"):
        assert server.count_lines(C_CHAT + f"discarded a request: {reason}") == 1
    assert server.count_lines(C_CHAT + r"accepted from 127\.0\.0\.1:\d+") == 2
    assert server.count_lines(C_CHAT + "BCST") == 50_000


def test_a_signal_waits_neither_for_who_does_not_read_nor_for_hundreds_who_flood(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice = join(server, "alice")
    join(server, "sleeper", receive_buffer=4096)
    stops = threading.Event()

    def shout() -> None:
        with contextlib.suppress(ConnectionError):
            while not stops.is_set():
                alice.send(*["BCST " + "x" * 994] * 100)

    shouter = threading.Thread(target=shout)
    shouter.start()
    server.wait_for_line(C_CHAT + "BCST")
    peers = [server.connect() for _ in range(150)]

    def flood(peer: Peer) -> None:
        with contextlib.suppress(OSError):
            while not stops.is_set():
                peer.send(*["LIST"] * 200)
                peer.sock.recv(1 << 16)

    threads = [threading.Thread(target=flood, args=(peer,)) for peer in peers]
    for thread in threads:
        thread.start()
    server.wait_for_line(C_CHAT + "discarded a request: not registered")
    assert server.stop() == 0  # within two seconds
    shouter.join(STOP_SECONDS)
    assert not shouter.is_alive()  # alice is told too, in the middle of her flood
    stops.set()
    for thread in (shouter, *threads):
        thread.join()
    assert server.errors == ""


def test_the_last_status_lines_are_written_before_it_ends(fresh_server: Program) -> None:
    for i in range(10):
        join(fresh_server, f"user{i}")
    assert fresh_server.stop() == 0
    assert fresh_server.count_lines(C_CHAT + "disconnected") == 10


def test_a_log_that_nobody_reads_stops_nobody() -> None:
    process = subprocess.Popen(
        [sys.executable, str(ROOT / "chat_server.py"), "0"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
    )
    assert process.stdout
    try:
        port = int(process.stdout.readline().rpartition(b":")[2])
        alice = Peer(port)
        alice.send("JOIN alice")
        alice.expect("JOIN alice accepted")
        for _ in range(10):
            alice.send(*["BCST x"] * 5_000, *["MESG alice " + "x" * 100] * 5_000)
            for _ in range(5_000):
                alice.expect("FROM alice: " + "x" * 100)
        log = b""
        while not re.search(rb"\n[0-9]+ status lines were lost: nobody read them\n", log):
            log += os.read(process.stdout.fileno(), 1 << 16)
        alice.send("LIST")
        while not log.endswith(b": LIST\n"):
            log += os.read(process.stdout.fileno(), 1 << 16)
        lost = sum(map(int, re.findall(rb"([0-9]+) status lines were lost", log)))
        assert lost
        assert log.count(b"MESG alice") + log.count(b"BCST") + lost == 100_000
        alice.close()
        process.terminate()
        assert process.wait(WAIT_SECONDS) == 0
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_a_log_that_may_not_be_waited_for_is_written_all_the_same() -> None:
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    log = StatusLog(writer, "utf-8")
    for number in range(2000):
        log.write(f"{number:099}")  # more than a pipe holds
    data = b""
    while len(data) < 200_000:
        data += os.read(reader, 1 << 16)
    assert data == b"".join(b"%099d\n" % number for number in range(2000))
    os.close(reader)
    log.write("which ends the thread: nobody can read it")
    log.flush(WAIT_SECONDS)
    os.close(writer)


def test_it_runs_from_any_directory(start: Start, tmp_path: Path) -> None:
    join(start("chat_server.py", "0", cwd=tmp_path), "alice")


def test_wrong_arguments_get_a_usage_text() -> None:
    wrong = ["", "x", "-1", "65536", "5000 6000", "0 --max-users 0", "0 --max-users many"]
    for done in run_programs(*(("chat_server.py", *arguments.split()) for arguments in wrong)):
        assert done.returncode == 2
        assert done.stderr.startswith("usage: chat_server.py ")
        assert done.stdout == ""


def test_a_taken_port_is_named(server: Program) -> None:
    done = run_program("chat_server.py", str(server.port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Cannot listen on 0.0.0.0:{server.port}: Address already in use\n"


def test_a_host_that_is_none_is_named() -> None:
    done = run_program("chat_server.py", "5000", "--host", "no.such.host.invalid")
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Cannot listen on no\.such\.host\.invalid:5000: .+\n", done.stderr)


def test_the_first_line_names_host_and_port(start: Start) -> None:
    server = start("chat_server.py", "0", "--host", "127.0.0.1")
    assert re.fullmatch(r"Listening on 127\.0\.0\.1:\d+", server.lines[0])
    socket.create_connection(("127.0.0.1", server.port)).close()
