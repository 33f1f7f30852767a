"""Transcripts of the chat server: real clients, strange input, races, and clients that do not read.

The rules of the dialogue are checked in conformance/, which pytest also runs.
"""

import itertools
import re
import shutil
import socket
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Peer, Program, Start, changed_program, flooding, meanwhile, reading, wait_until
from pseudo_terminal import OpenTerminal, Terminal

from chat_server import Users

PERIOD_SECONDS = 1.5  # instead of the five seconds of net.output
SLACK_SECONDS = 2.5  # for a busy machine
UNREGISTERED = "Unregistered User. Use JOIN <username> to register."
UNKNOWN = "Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT."
MESG_USAGE = "Unknown Message. Use MESG <username> <text>."
LINE_TOO_LONG = "Line too long: at most 4096 bytes are expected"
LONG_BROADCAST = b"BCST " + b"x" * 994 + b"\n"
CLIENT = r"Client \(\d+\): "
PROGRAM = "chat_server.py"


@pytest.fixture
def server(common_server: Program) -> Iterator[Program]:
    """Provide the shared chat server; a test must leave no connection behind."""
    yield common_server
    common_server.expect_rest()


@pytest.fixture
def fresh_server(start: Start) -> Program:
    return start("chat_server.py", "0")


def join(server: Program, name: str, receive_buffer: int = 0) -> Peer:
    peer = server.connect(receive_buffer)
    peer.send(f"JOIN {name}")
    peer.expect(f"JOIN {name} accepted")
    return peer


def test_other_threads_find_a_user_only_after_the_reply_to_join_has_been_sent() -> None:
    users = Users(max_users=2)
    found: list[object] = []
    seekers = [
        threading.Thread(target=lambda: found.append(users.find("alice"))),
        threading.Thread(target=lambda: found.extend(users.everybody())),
    ]

    class Joining:
        address = ""

        def send_at_once(self, data: bytes) -> None:
            assert data == b"JOIN alice accepted\n"
            for seeker in seekers:
                seeker.start()
                seeker.join(0.1)
            assert not found

    connection: Any = Joining()
    users.join("alice", connection)
    for seeker in seekers:
        seeker.join()
    assert found == [connection, connection]


needs_telnet = pytest.mark.skipif(not shutil.which("telnet"), reason="telnet is not installed")
CTRL_C, CTRL_D, CTRL_Z, CTRL_BACKSLASH, CTRL_RIGHT_BRACKET = "\x03", "\x04", "\x1a", "\x1c", "\x1d"


@pytest.fixture
def telnet(server: Program, open_terminal: OpenTerminal) -> Terminal:
    terminal = open_terminal("telnet", "127.0.0.1", str(server.port), controls=True)
    terminal.expect_text("Escape character is")
    escape = CTRL_RIGHT_BRACKET.encode()
    wait_until(lambda: escape in termios.tcgetattr(terminal.tty)[6], "telnet watches for its escape key")
    return terminal


@needs_telnet
def test_telnets_ctrl_c_ctrl_z_and_ctrl_backslash_damage_no_request(server: Program, telnet: Terminal) -> None:
    bob = join(server, "bob")
    telnet.type("JOIN alice\n")
    telnet.expect_text("\nJOIN alice accepted\n")
    for key in (CTRL_C, CTRL_Z, CTRL_BACKSLASH):  # telnet discards output until the server has answered its TIMING-MARK
        telnet.type(key)
        telnet.type("MESG bob still here\n")
        bob.expect("FROM alice: still here")
        bob.send("BCST good")
        telnet.expect_text("FROM bob (all): good\n")
    telnet.type("QUIT\n")
    telnet.expect_text("Connection closed by foreign host.")


@needs_telnet
def test_ctrl_d_at_the_start_of_a_line_in_telnet_leaves_the_chat(server: Program, telnet: Terminal) -> None:
    bob = join(server, "bob")
    telnet.type("JOIN alice\n")
    telnet.expect_text("\nJOIN alice accepted\n")
    telnet.type("BCST in the mid" + CTRL_D)
    telnet.type("dle\n")
    bob.expect("FROM alice (all): in the middle")
    telnet.type(CTRL_D)
    telnet.expect_text("Connection closed by foreign host.")
    bob.send("LIST")
    bob.expect("Registered users (1):", "bob")


@needs_telnet
def test_telnet_in_character_mode_can_erase_characters_and_end_lines(server: Program, telnet: Terminal) -> None:
    bob = join(server, "bob")
    telnet.type(CTRL_RIGHT_BRACKET)
    telnet.expect_text("telnet> ")
    telnet.type("mode character\n")
    telnet.expect_text("\n")
    telnet.type("JOIN alicia\x7f\be\r")
    telnet.expect_text("JOIN alice accepted")
    telnet.type("BCST hello\r")
    bob.expect("FROM alice (all): hello")
    telnet.type(CTRL_D)
    telnet.expect_text("Connection closed by foreign host.")


def test_a_line_without_an_end_is_answered_and_ends_the_connection(fresh_server: Program) -> None:
    alice = join(fresh_server, "alice")
    alice.send_bytes(b"x" * 5_000_000)  # the server must not answer with a reset, which might destroy its last line
    alice.expect(LINE_TOO_LONG)
    alice.expect_end()
    fresh_server.wait_for_line(f"{CLIENT}disconnected: {LINE_TOO_LONG}")
    join(fresh_server, "alice")


def test_a_telnet_command_that_is_marked_as_urgent_is_removed_too(server: Program) -> None:
    peer = server.connect()
    peer.send_bytes(b"JO\xff")
    peer.sock.send(b"\xf2", socket.MSG_OOB)  # telnet's SYNCH (RFC 854)
    peer.send_bytes(b"IN alice\n")
    peer.expect("JOIN alice accepted")


def test_characters_that_could_forge_a_line_are_replaced_for_other_users_and_in_the_log(fresh_server: Program) -> None:
    alice, bob = join(fresh_server, "alice"), join(fresh_server, "bob")
    evil = b"\x1b]0;title\x07\x9b31m\xc2\x9b31m\x00\xc3" + "\u202eevil\u2066\u2029".encode()
    alice.send_bytes(b"BCST " + evil + b"\nMESG bob " + evil + b"\nMESG " + evil + b" hi\nJOIN " + evil + b"\n")
    shown = "?]0;title??31m?31m???evil??".replace("?", "\ufffd")
    bob.expect(f"FROM alice (all): {shown}", f"FROM alice: {shown}")
    alice.expect(f"Unknown Recipient {shown}", "Already registered as alice")
    fresh_server.wait_for_line(CLIENT + f"JOIN {re.escape(shown)}, refused: .*")
    assert not [line for line in fresh_server.lines if re.search("[\x00-\x1f\x7f-\x9f\u2029\u202e\u2066]", line)]


@pytest.mark.parametrize(("name", "options"), [("alice", ()), ("user{}", ("--max-users", "1"))])
def test_name_and_place_are_free_as_soon_as_a_user_has_closed_the_connection(
    start: Start, tmp_path: Path, name: str, options: tuple[str, ...]
) -> None:
    slow = changed_program(tmp_path, "chat_server.py", "program.LEAVING_SECONDS = 60")  # JOIN must not wait as long
    server = start(slow, "0", *options)
    for number in range(400):
        join(server, name.format(number)).close()
        server.peers.clear()


def test_a_name_is_free_as_soon_as_its_owner_has_ended_the_input(server: Program) -> None:
    alice = join(server, "alice")
    alice.send(*["LIST"] * 1000)
    alice.end_input()
    join(server, "alice")
    assert alice.read_all() == "Registered users (1):\nalice\n" * 1000


def test_a_newcomer_is_answered_while_three_users_flood_the_server_with_requests(fresh_server: Program) -> None:
    users = [join(fresh_server, f"user{i}") for i in range(3)]
    with flooding(b"LIST\n" * 1000, *users), reading(*users) as arrivals:
        wait_until(lambda: arrivals, "replies")
        newcomer = join(fresh_server, "newcomer")
        for _ in range(20):
            newcomer.send("MESG nobody hi")
            newcomer.expect("Unknown Recipient nobody")
        newcomer.send("QUIT")
        fresh_server.wait_for_line(CLIENT + "QUIT", 30)
    before = itertools.takewhile(lambda line: not line.endswith("QUIT"), fresh_server.lines)
    assert sum(line.endswith("LIST") for line in before) < 30_000  # about 55,000 if threads did not pause between turns


def test_a_client_that_stops_reading_is_dropped_and_delays_others_once(start: Start, tmp_path: Path) -> None:
    change = f"from net import output; patience = output.Patience({PERIOD_SECONDS}); output.Patience = lambda: patience"
    server = start(changed_program(tmp_path, "chat_server.py", change), "0")
    sleeper = join(server, "sleeper", receive_buffer=4096)
    greedy = server.connect(receive_buffer=4096)  # it sends LIST, and does not read the replies
    flooder, bob = join(server, "flooder"), join(server, "bob")
    dropped = CLIENT + "dropped: it took less than 65536 bytes a second"
    with flooding(LONG_BROADCAST * 100, flooder), flooding(b"LIST\n" * 1000, greedy), reading(bob) as arrivals:
        wait_until(lambda: arrivals and time.monotonic() > arrivals[-1] + 1, "the flood is blocked", 20)
        assert server.resident_bytes() < 60 << 20
        passer_by = server.connect()  # accepting goes on
        passer_by.send("LIST")
        passer_by.expect(UNREGISTERED)
        wait_until(lambda: server.count_lines(dropped) == 2, "they are dropped", PERIOD_SECONDS + SLACK_SECONDS)
        count = len(arrivals)
        wait_until(lambda: len(arrivals) > count + 100, "the flood goes on")
    long_waits = [later - earlier for earlier, later in itertools.pairwise(arrivals) if later - earlier > 1]
    assert len(long_waits) == 1
    assert long_waits[0] < PERIOD_SECONDS + SLACK_SECONDS
    with pytest.raises(ConnectionResetError):  # after an orderly end, half a message would look whole
        while sleeper.sock.recv(1 << 16):
            pass


def test_a_name_is_free_again_though_its_owners_thread_waits_for_another_user(start: Start, tmp_path: Path) -> None:
    patient = "from net import output; patience = output.Patience(60); output.Patience = lambda: patience"
    server = start(changed_program(tmp_path, "chat_server.py", "program.LEAVING_SECONDS = 0.5", patient), "0")
    alice = join(server, "alice")
    join(server, "deaf", receive_buffer=4096)
    alice.send_bytes(LONG_BROADCAST * 1250)  # more than a backlog holds; the kernel keeps the rest, and the end
    wait_until(lambda: server.has_stalled(CLIENT + "BCST.*"), "alice's thread waits")
    alice.close()
    join(server, "alice")


def test_a_client_without_a_complete_request_in_time_is_told_so_and_disconnected(start: Start) -> None:
    server = start("chat_server.py", "0", "--login-seconds", "1")
    alice, silent, dripping, busy = join(server, "alice"), server.connect(), server.connect(), server.connect()
    began = time.monotonic()
    told: list[float] = []

    def expect_sentence(peer: Peer) -> None:
        peer.expect("No JOIN within 1 seconds")
        peer.expect_end()
        told.append(time.monotonic() - began)

    with meanwhile(partial(expect_sentence, silent), partial(expect_sentence, dripping)):
        while time.monotonic() < began + 1.6:
            busy.send("LIST")  # a complete request restarts the deadline
            busy.expect(UNREGISTERED)
            if time.monotonic() < began + 0.8:
                dripping.send_bytes(b"J")  # bytes without a newline do not
            time.sleep(0.2)
    assert all(0.9 < seconds < 1 + SLACK_SECONDS for seconds in told)
    server.wait_for_line(CLIENT + "disconnected: No JOIN within 1 seconds")
    alice.send("LIST")
    alice.expect("Registered users (1):", "alice")
    expect_sentence(busy)


def test_status_lines_show_every_request_and_every_message_sent_on(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice, bob, carol = (join(server, name) for name in ("alice", "bob", "carol"))
    bob.send("BCST x", "MESG carol x", "LIST", "nonsense", "MESG nobody x", "JOIN al", "MESG carol", "QUIT")
    bob.expect("Registered users (3):", "alice", "bob", "carol")
    bob.read_all()
    carol.close()
    wait_until(lambda: server.count_lines(CLIENT + "disconnected.*") == 2, "both leave")
    alice.send("BCST to nobody")
    server.wait_for_line(CLIENT + "BCST, sent to 0 clients")
    fds = re.findall(r"Client \((\d+)\): JOIN", "\n".join(server.lines))
    said = [line for line in server.lines if line.startswith(f"Client ({fds[1]}): ")]
    assert re.fullmatch(r".*: accepted from 127\.0\.0\.1:\d+", said[0])
    assert [line.partition(": ")[2] for line in said[1:]] == [
        "handler started",
        "JOIN bob",
        "BCST, sent to 2 clients",
        f"MESG carol, sent to client ({fds[2]})",
        "LIST",
        f"nonsense, refused: {UNKNOWN}",
        "MESG nobody, refused: Unknown Recipient nobody",
        "JOIN al, refused: Already registered as bob",
        f"MESG carol, refused: {MESG_USAGE}",
        "QUIT",
        "disconnected",
    ]


def test_after_a_signal_queued_output_is_sent(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice, slow = join(server, "alice"), join(server, "slow", receive_buffer=4096)
    idle = server.connect()
    alice.send_bytes(LONG_BROADCAST * 600)  # more than the kernel accepts, less than a full backlog
    wait_until(lambda: server.count_lines(CLIENT + "BCST.*") == 600, "all are handled")
    with meanwhile(server.stop):
        assert slow.read_all() == ("FROM alice (all): " + "x" * 994 + "\n") * 600
    assert server.process.returncode == 0
    assert idle.sock.recv(1) == b""  # an orderly end, no reset
    assert server.errors == ""


def test_a_signal_stops_a_server_with_a_client_that_does_not_read_and_150_that_flood(start: Start) -> None:
    def flood(peer: Peer) -> None:
        with suppress(OSError):  # the server has ended
            while True:
                peer.send(*["LIST"] * 200)
                peer.sock.recv(1 << 16)

    server = start("chat_server.py", "0")
    alice = join(server, "alice")
    join(server, "sleeper", receive_buffer=4096)
    with flooding(LONG_BROADCAST * 100, alice):
        server.wait_for_line(CLIENT + "BCST.*")
        peers = [server.connect() for _ in range(150)]
        with meanwhile(*(partial(flood, peer) for peer in peers)):
            server.wait_for_line(CLIENT + "LIST, refused: Unregistered.*")
            assert server.stop() == 0  # within two seconds
    assert server.errors == ""
