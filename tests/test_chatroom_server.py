"""Transcripts of the chat room server: the lobby's requests, what happens in rooms, and how they end."""

import argparse
import re
import shutil
import socket
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import (
    Peer,
    Program,
    Start,
    at_once,
    changed_program,
    few_threads,
    flooding,
    meanwhile,
    reading,
    run_command,
    run_program,
    server_has_read,
    wait_until,
)

import chatroom_server

CREATE, JOIN, LIST, DELETE = "\1", "\2", "\3", "\4"
SUCCESS, ALREADY_EXISTS, DOES_NOT_EXIST, INVALID, UNKNOWN_FAILURE = "\0", "\1", "\2", "\3", "\4"
WARNING = "Warning: room tea is deleted"
DELETE_SECONDS = 3.0
FLOOD = b"tea is served " * 20 + b"\n"
CLIENT = r"Client \(\d+\): "
PROGRAM = "chatroom_server.py"
RELAYED = CLIENT + r"line to room tea, sent to \d+ clients?"
LINE_TOO_LONG = "Line too long: at most 4096 bytes are expected"
INVALID_NAME = "Invalid name: a room's name is 1 to 32 letters, digits, - or _"


@pytest.fixture
def start_rooms(start: Start) -> Iterator[Start]:
    """Provide a function that starts a server with options; delete the server's rooms after the test."""
    servers: list[Program] = []

    def start_server(*options: str, program: str = "chatroom_server.py", **how: Any) -> Program:
        servers.append(start(program, "0", *options, **how))
        return servers[-1]

    yield start_server
    for server in servers:
        if server.process.poll() is None:
            end_rooms(server)


@pytest.fixture
def server(common_server: Program) -> Iterator[Program]:
    """Provide the shared server, without rooms."""
    yield common_server
    end_rooms(common_server)
    common_server.expect_rest()


@pytest.fixture
def fresh_server(start_rooms: Start) -> Program:
    return start_rooms()


def end_rooms(server: Program) -> None:
    for peer in server.peers:
        peer.close()
    wait_until(lambda: delete_rooms(server.connect()), "no rooms")


def delete_rooms(lobby: Peer) -> bool:
    """Delete all rooms; return False if the server has refused the connection."""
    lobby.send(LIST)
    reply = lobby.read_line()
    if not reply.startswith(SUCCESS):
        return False
    for name in filter(None, reply[1:].split(",")):
        lobby.send(DELETE + name)
        lobby.expect(SUCCESS)
    lobby.close()
    return True


def create(lobby: Peer, name: str) -> None:
    lobby.send(CREATE + name)
    lobby.expect(SUCCESS)


def join(lobby: Peer, name: str, members: int | None = None) -> int:
    """Ask for a room, which must have this many members, if the test expects a number; return the room's port."""
    lobby.send(JOIN + name)
    return int(lobby.expect_match(SUCCESS + rf"(\d+) {r'[0-9]+' if members is None else members}")[1])


def enter(server: Program, port: int, receive_buffer: int = 0) -> Peer:
    member = Peer(port, receive_buffer)
    server.peers.append(member)
    return member


def new_room(server: Program, name: str = "tea") -> tuple[Peer, int]:
    lobby = server.connect()
    create(lobby, name)
    return lobby, join(lobby, name, 0)


def test_chatroom_server_has_the_functions_of_the_original_design() -> None:
    for name in ("main", "server", "connection_handler", "room_creation_handler"):
        assert callable(getattr(chatroom_server, name))


def test_a_room_is_created_listed_joined_and_deleted(server: Program) -> None:
    alice, bob = server.connect(), server.connect()
    alice.send(LIST, CREATE + "tea")
    alice.expect(SUCCESS, SUCCESS)
    bob.send(CREATE + "tea", CREATE + "Tea", CREATE + "1", LIST, JOIN + "tea")
    bob.expect(ALREADY_EXISTS + "Room tea already exists", SUCCESS, SUCCESS, SUCCESS + "tea,Tea,1")
    bob.expect_match(SUCCESS + r"\d+ 0")
    bob.send(DELETE + "tea")
    bob.expect(SUCCESS)
    alice.send(DELETE + "tea", JOIN + "tea", LIST)
    alice.expect(*[DOES_NOT_EXIST + "Room tea does not exist"] * 2, SUCCESS + "Tea,1")
    alice.send(CREATE + "tea", LIST)  # in order of creation
    alice.expect(SUCCESS, SUCCESS + "Tea,1,tea")


def test_a_name_is_1_to_32_letters_digits_hyphens_or_underscores(server: Program) -> None:
    lobby = server.connect()
    for name in ("a", "A-1_b", "-", "x" * 32):
        create(lobby, name)
    bad = ["", " ", "x" * 33, "a b", "a,b", "a\tb", "a\0", "a\x1b[2J", "é", "a/b", "\u0661"]
    for action in (CREATE, JOIN, DELETE):
        for name in bad:
            lobby.send(action + name)
            lobby.expect(INVALID + INVALID_NAME)
    lobby.send_bytes(b"\1a\x1b[2Jb\xfe\n\1\t tea \r\n\3 \r\n")  # blanks around a name do not matter
    lobby.expect(INVALID + INVALID_NAME, SUCCESS, SUCCESS + "a,A-1_b,-," + "x" * 32 + ",tea")
    server.wait_for_line(CLIENT + r"CREATE a\ufffd\[2Jb\ufffd")  # harmless in the log


def test_an_unknown_action_is_invalid_and_the_next_request_is_served(server: Program) -> None:
    lobby = server.connect()
    for byte in {*range(256)} - {*b"\1\2\3\4\n\r\xff\b\x7f0123456789"}:  # \b and \x7f erase a character
        lobby.send_bytes(bytes([byte]) + b"tea\n")
        lobby.expect(INVALID + f"Unknown action {byte}: 1 to 4 are expected")
    for digit in "056789":
        lobby.send(digit + "tea")
        lobby.expect(f"3Unknown action {digit}: 1 to 4 are expected")
    lobby.send("", LIST)
    lobby.expect(INVALID + "Empty request: an action byte, 1 to 4, is expected", SUCCESS)


def test_a_line_that_is_too_long_is_answered_and_ends_the_connection(server: Program) -> None:
    lobby, visitor = server.connect(), server.connect()
    lobby.send(LIST, CREATE + "x" * 4096, LIST)
    lobby.expect(SUCCESS, INVALID + LINE_TOO_LONG)
    lobby.expect_end()
    visitor.send("3", "1" + "x" * 4096)
    visitor.expect("0", "3" + LINE_TOO_LONG)
    visitor.expect_end()


def test_a_signal_in_the_middle_of_deletions_stops_every_room_once(start: Start) -> None:
    server = start("chatroom_server.py", "0")
    lobby = server.connect()
    names = [f"room{number}" for number in range(20)]
    for name in names:
        create(lobby, name)
        enter(server, join(lobby, name))  # so that a deletion takes time
    lobby.send(*(DELETE + name for name in names))
    server.wait_for_line("Room room0: deleted")
    assert server.stop() == 0
    assert server.errors == ""
    assert not server.count_lines(".*Bad file descriptor.*")


def test_each_line_goes_to_all_other_members_of_its_room(server: Program) -> None:
    lobby, port = new_room(server)
    create(lobby, "soup")
    alice, bob, carol = (enter(server, port) for _ in range(3))
    elsewhere = enter(server, join(lobby, "soup"))
    join(lobby, "tea", 3)
    alice.send("Grüße  an\talle ", "", "LIST")
    alice.send_bytes(b"\1tea\nha")
    for other in (bob, carol):
        other.expect("Grüße  an\talle ", "", "LIST", "\N{REPLACEMENT CHARACTER}tea")
    bob.send("hello")
    alice.send_bytes(b"lf\n")
    alice.expect("hello")
    bob.expect("half")
    for member in (alice, bob, elsewhere):
        member.expect_nothing(0.05)


def test_one_of_25_clients_that_create_or_delete_the_same_room_at_once_succeeds(server: Program) -> None:
    clients = [server.connect() for _ in range(25)]

    def race(request: str) -> Counter[str]:
        at_once(25, lambda index: clients[index].send(request))
        return Counter(client.read_line()[0] for client in clients)

    assert race(CREATE + "tea") == {SUCCESS: 1, ALREADY_EXISTS: 24}
    clients[0].send(LIST)
    clients[0].expect(SUCCESS + "tea")
    member = enter(server, join(clients[0], "tea"))
    assert race(DELETE + "tea") == {SUCCESS: 1, DOES_NOT_EXIST: 24}
    assert member.read_all() == WARNING + "\n"


def test_60_of_80_rooms_are_created_if_60_are_allowed(start_rooms: Start) -> None:
    few = ("prlimit", "--nofile=100:")  # the server raises the limit by itself
    server = start_rooms("--max-rooms", "60", "--max-connections", "30", "--max-per-address", "30", prefix=few)
    clients = [server.connect() for _ in range(8)]
    replies: list[str] = []

    def create_ten(index: int) -> None:
        for number in range(10):
            clients[index].send(f"{CREATE}room-{index}-{number}")
            replies.append(clients[index].read_line())

    at_once(8, create_ten)
    assert Counter(replies) == {SUCCESS: 60, UNKNOWN_FAILURE + "Too many rooms: at most 60 are allowed": 20}
    lobby = clients[0]
    lobby.send(LIST)
    names = lobby.read_line()[1:].split(",")
    assert len(names) == 60
    lobby.send(DELETE + names[0], CREATE + "tea", CREATE + "soup")
    lobby.expect(SUCCESS, SUCCESS)
    lobby.expect_match(UNKNOWN_FAILURE + "Too many rooms.+")


def test_create_without_a_free_descriptor_is_refused_without_a_leak_and_the_lobby_goes_on(start_rooms: Start) -> None:
    server = start_rooms(prefix=("prlimit", "--nofile=20"))
    lobby = server.connect()
    created = 0
    lobby.send(CREATE + "room-0")
    while (reply := lobby.read_line()) == SUCCESS:
        created += 1
        lobby.send(f"{CREATE}room-{created}")
    assert reply == f"{UNKNOWN_FAILURE}Room room-{created} cannot be opened: Too many open files"
    full = server.threads_and_sockets()
    lobby.send(*[CREATE + "more"] * 50, LIST)
    for _ in range(50):
        lobby.expect_match(UNKNOWN_FAILURE + "Room more cannot be opened: .+")
    lobby.expect(SUCCESS + ",".join(f"room-{number}" for number in range(created)))
    assert server.threads_and_sockets() == full
    lobby.send(DELETE + "room-0", CREATE + "more", DELETE + "more")
    lobby.expect(SUCCESS, SUCCESS, SUCCESS)


def test_create_without_a_free_thread_is_refused_without_a_leak(start_rooms: Start, tmp_path: Path) -> None:
    server = start_rooms(program=changed_program(tmp_path, "chatroom_server.py", few_threads(5)))
    lobby = server.connect()
    lobby.send(*[CREATE + "tea", LIST] * 2)
    for _ in range(2):
        lobby.expect(UNKNOWN_FAILURE + "Room tea cannot be opened: can't start new thread", SUCCESS)
    assert server.threads_and_sockets()[1] == 2  # the lobby listens, and has one client


@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit is not installed")
def test_members_talk_while_no_descriptor_is_free_for_a_client_that_wants_to_enter(start_rooms: Start) -> None:
    server = start_rooms()
    _, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port)
    wait_until(lambda: server.count_lines(CLIENT + "entered room tea") == 2, "both are members")
    run_command(["prlimit", "--pid", str(server.pid), "--nofile=20"])
    for _ in range(20):
        server.connect()
    server.wait_for_line("Cannot accept for now: Too many open files")
    enter(server, port)  # the kernel connects it
    alice.send("can you hear me?")
    bob.expect("can you hear me?")
    bob.send("yes")
    alice.expect("yes")


def test_delete_warns_the_members_closes_them_and_then_answers(server: Program) -> None:
    lobby, port = new_room(server)
    members = [enter(server, port) for _ in range(30)]
    members[0].send("hello")
    for member in members[1:]:
        member.expect("hello")
    lobby.send(DELETE + "tea", LIST)
    lobby.expect(SUCCESS)
    for member in members:
        member.sock.settimeout(0)  # everything has arrived before the reply to DELETE
        assert member.sock.recv(1 << 16).decode() == WARNING + "\n"
        assert member.sock.recv(1) == b""
    lobby.expect(SUCCESS)
    with pytest.raises(ConnectionRefusedError):
        Peer(port)


def test_the_warning_is_the_last_line_that_members_get_even_if_they_flood_the_room(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    members = [enter(fresh_server, port) for _ in range(4)]
    ends: dict[Peer, str] = {}

    def read(member: Peer, pause_seconds: float) -> None:
        end = b""
        with suppress(ConnectionError):  # after everything has been read
            while data := member.sock.recv(1 << 16):
                end = (end + data)[-1000:]
                time.sleep(pause_seconds)
        ends[member] = end.decode()

    slow, *others = members
    readers = [partial(read, slow, 0.004), *(partial(read, other, 0.0) for other in others)]
    with flooding(FLOOD * 200, *members), meanwhile(*readers):
        wait_until(lambda: fresh_server.count_lines(RELAYED) > 500, "a flood")
        began = time.monotonic()
        lobby.send(DELETE + "tea")
        lobby.expect(SUCCESS)
        assert time.monotonic() - began < DELETE_SECONDS
    for member in members:
        assert ends[member].endswith(f"{FLOOD.decode()}{WARNING}\n")


def test_a_member_that_does_not_read_delays_a_deletion_briefly_and_no_other_request(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    other = fresh_server.connect()
    create(other, "soup")
    quiet = enter(fresh_server, join(other, "soup"))
    enter(fresh_server, port, receive_buffer=4096)
    with flooding(FLOOD * 200, enter(fresh_server, port), enter(fresh_server, port)):
        wait_until(lambda: fresh_server.has_stalled(RELAYED), "a member's backlog is full", 10)
        lobby.send(CREATE + "salad", DELETE + "tea")
        lobby.expect(SUCCESS)  # this reply does not wait for the deletion
        fresh_server.wait_for_line(CLIENT + "DELETE tea")
        began = time.monotonic()
        other.send(LIST, CREATE + "tea", LIST)
        other.expect(SUCCESS + "soup,salad", SUCCESS, SUCCESS + "soup,salad,tea")
        assert time.monotonic() - began < 0.9
        lobby.expect(SUCCESS)
        assert time.monotonic() - began < DELETE_SECONDS
        wait_until(lambda: fresh_server.count_lines(CLIENT + "disconnected.*") == 3, "all are cut off", 1.0)
    join(lobby, "soup", 1)
    quiet.expect_nothing(0.05)


def test_a_lobby_client_without_any_request_in_time_is_told_so_and_disconnected(start_rooms: Start) -> None:
    server = start_rooms("--login-seconds", "1")
    lobby, port = new_room(server)
    member, silent, half, refused, empty = enter(server, port), *(server.connect() for _ in range(4))
    half.send_bytes(b"\1tea")
    refused.send(CREATE + "a b")
    refused.expect(INVALID + INVALID_NAME)
    empty.send("")
    empty.expect_match(INVALID + "Empty request.+")
    for client in (silent, half):
        client.expect(UNKNOWN_FAILURE + "No request within 1 seconds")
        client.expect_end()
    for client in (lobby, refused, empty):  # a refused request is a request too
        client.send(LIST)
        client.expect(SUCCESS + "tea")
    member.expect_nothing(0.05)
    server.wait_for_line(CLIENT + "No request within 1 seconds")


def test_a_client_that_connects_during_the_warning_is_warned_or_kept_out(start_rooms: Start, tmp_path: Path) -> None:
    slow_warning = (
        "import time, net.output\n"
        "end = net.output.Output.end\n"
        "net.output.Output.end = lambda *farewell: (time.sleep(0.3 * len(farewell[1:])), end(*farewell))"
    )
    server = start_rooms(program=changed_program(tmp_path, "chatroom_server.py", slow_warning))
    lobby, port = new_room(server)
    members = [enter(server, port)]
    server.wait_for_line(CLIENT + "entered room tea")
    lobby.send(DELETE + "tea")
    server.wait_for_line(CLIENT + "DELETE tea")
    with suppress(ConnectionError):  # the room may no longer listen
        members.append(enter(server, port))
    lobby.expect(SUCCESS)
    server.wait_for_line("Room tea: deleted")
    told = [member.read_all() for member in members].count(WARNING + "\n")
    assert server.count_lines(CLIENT + "entered room tea") == told


def test_ten_clients_that_create_join_and_delete_the_same_rooms_leave_nothing_behind(fresh_server: Program) -> None:
    clients = [fresh_server.connect() for _ in range(10)]
    ports: set[int] = set()

    def storm(index: int) -> None:
        lobby = clients[index]
        for name in ("tea", "soup") * 15:
            lobby.send(CREATE + name, JOIN + name)
            assert lobby.read_line()[0] in SUCCESS + ALREADY_EXISTS
            if (reply := lobby.read_line())[0] == SUCCESS:
                ports.add(port := int(reply[1:].split()[0]))
                with suppress(ConnectionError), closing(Peer(port)) as member:
                    member.send("hello", "half")
            lobby.send(DELETE + name)
            assert lobby.read_line()[0] in SUCCESS + DOES_NOT_EXIST

    at_once(10, storm)
    clients[0].send(DELETE + "tea", DELETE + "soup", LIST)
    clients[0].read_line(), clients[0].read_line()
    clients[0].expect(SUCCESS)
    assert len(ports) > 10
    fresh_server.expect_rest()


def test_members_that_end_reset_or_send_too_much_have_left_and_half_a_line_is_not_sent(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    alice, bob, carol, dave = (enter(fresh_server, port) for _ in range(4))
    join(lobby, "tea", 4)
    bob.send_bytes(b"I think that")
    server_has_read(bob)
    bob.reset()
    fresh_server.wait_for_line(CLIENT + "disconnected: Connection reset by peer")
    carol.send_bytes(b"hello\ngoodbye")
    carol.end_input()
    alice.expect("hello", "goodbye")
    carol.expect_end()
    dave.send("x" * 4096, "y" * 4097)
    dave.expect("hello", "goodbye", LINE_TOO_LONG)
    dave.expect_end()
    alice.expect("x" * 4096)
    fresh_server.wait_for_line(CLIENT + "disconnected: Line too long.*")
    wait_until(lambda: fresh_server.count_lines(CLIENT + "left room tea") == 3, "three have left")
    join(lobby, "tea", 1)
    eve = enter(fresh_server, port)
    join(lobby, "tea", 2)
    eve.send("anybody here?")
    alice.expect("anybody here?")


def test_a_deletion_waits_for_a_member_who_reads_slowly_so_that_the_warning_arrives(server: Program) -> None:
    lobby, port = new_room(server)
    alice, slow = enter(server, port), enter(server, port, receive_buffer=4096)
    alice.send(*["x" * 4000] * 100)
    lines = rf"{CLIENT}line to room tea, sent to 1 client"
    wait_until(lambda: server.count_lines(lines) >= 100, "all lines are sent on or kept")
    lobby.send(DELETE + "tea")
    server.wait_for_line(CLIENT + "DELETE tea")
    time.sleep(1.2)  # longer than a stopping server waits
    assert slow.read_all().splitlines()[-1] == WARNING
    lobby.expect(SUCCESS)


@pytest.mark.parametrize("keys", [b"/leave\r\n", b"/leave \n", b"\4", b"/leev\b\bave\r\0"])
def test_a_member_leaves_with_a_line_or_with_ctrl_d(server: Program, keys: bytes) -> None:
    lobby, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port)
    join(lobby, "tea", 2)
    alice.send("bye /leave", "/leaves", " /leave")
    alice.send_bytes(keys + b"not sent\n")
    bob.expect("bye /leave", "/leaves", " /leave")
    assert alice.sock.recv(1) == b""  # the server waits for her end, and does not count her
    join(lobby, "tea", 1)
    bob.send("alone")
    bob.expect_nothing(0.05)


def test_lobby_and_rooms_share_places_and_a_refused_client_gets_no_line_and_is_not_counted(start_rooms: Start) -> None:
    server = start_rooms("--max-per-address", "3")
    lobby, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port)
    join(lobby, "tea", 2)
    refusal = "Too many connections from your address\n"
    with flooding(FLOOD * 200, alice), reading(bob):
        for _ in range(100):
            assert enter(server, port).read_all() == refusal
            join(lobby, "tea", 2)
        assert server.connect().read_all() == refusal
    wait_until(lambda: server.count_lines(CLIENT + "left room tea") == 2, "both have left")
    alice.close()
    bob.close()
    wait_until(lambda: server.count_lines(CLIENT + "disconnected.*") == 2, "their places are free")
    carol, dave = enter(server, port), enter(server, port)
    carol.send("hello")
    dave.expect("hello")


def test_a_signal_stops_lobby_and_rooms_within_two_seconds(start_rooms: Start) -> None:
    server = start_rooms()
    ports = [new_room(server, f"room-{number}")[1] for number in range(50)]
    members = [enter(server, port) for port in ports for _ in range(2)]
    enter(server, ports[0], receive_buffer=4096)
    with flooding(FLOOD * 200, *members[:6]):
        wait_until(lambda: server.count_lines(CLIENT + r"line to room .*") > 500, "a flood")
        assert server.stop() == 0
    for member in members[6:]:
        member.expect_end()


def test_rooms_use_the_room_ports_and_no_others_and_leak_no_descriptor_if_none_is_free(
    start_rooms: Start,
) -> None:
    ports = free_ports(3)
    first, last = ports[0], ports[-1]
    server = start_rooms("--room-ports", f"{first}-{last}", prefix=("prlimit", "--nofile=64"))
    lobby = server.connect()
    for name in ("tea", "soup", "salad"):
        create(lobby, name)
    assert {join(lobby, name) for name in ("tea", "soup", "salad")} == set(ports)
    lobby.send(*[CREATE + "cake"] * 64, LIST)
    why = f"Room cake cannot be opened: all ports from {first} to {last} are in use"
    lobby.expect(*[UNKNOWN_FAILURE + why] * 64, SUCCESS + "tea,soup,salad")
    lobby.send(DELETE + "soup", CREATE + "cake")
    lobby.expect(SUCCESS, SUCCESS)


def free_ports(count: int) -> range:
    for first in range(20_000, 30_000, count):
        with suppress(OSError), ExitStack() as listeners:
            for port in range(first, first + count):
                listeners.enter_context(socket.create_server(("0.0.0.0", port)))
            return range(first, first + count)
    pytest.fail("no ports from 20000 to 29999 are free")


def test_wrong_room_ports_are_a_usage_error() -> None:
    done = run_program("chatroom_server.py", "0", "--room-ports", "5000")
    assert done.returncode == 2
    assert "--room-ports: '5000' is not valid: FIRST-LAST, two ports from 1 to 65535, is expected" in done.stderr
    for ports in ("0-5", "6000-5000", "x-y", "5000-70000", "-", "5000-", "-5000", "1-2-3"):
        with pytest.raises(argparse.ArgumentTypeError):
            chatroom_server.port_range(ports)
    assert chatroom_server.port_range("5000-5002") == range(5000, 5003)


def test_status_lines_show_every_request_and_name_the_client_by_its_descriptor(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    member, other = enter(fresh_server, port), enter(fresh_server, port)
    join(lobby, "tea", 2)
    member.send("hello")
    other.expect("hello")
    member.close()
    other.close()
    wait_until(lambda: fresh_server.count_lines(CLIENT + "disconnected") == 2, "the members have left")
    lobby.send(CREATE + "tea", LIST, DELETE + "tea", "x")
    lobby.expect_match(ALREADY_EXISTS + ".+")
    lobby.expect(SUCCESS + "tea", SUCCESS)
    lobby.expect_match(INVALID + ".+")
    lobby.close()
    wait_until(lambda: fresh_server.count_lines(CLIENT + "disconnected") == 3, "the client of the lobby has left")
    fds = re.findall(r"Client \((\d+)\): accepted from 127\.0\.0\.1:\d+", "\n".join(fresh_server.lines))
    said = [line for line in fresh_server.lines if line.startswith((f"Client ({fds[0]})", "Room"))]
    assert [line.removeprefix(f"Client ({fds[0]}): ") for line in said[2:]] == [
        "CREATE tea",
        f"Room tea: listening on port {port}",
        "JOIN tea",
        "JOIN tea",
        "CREATE tea",
        "refused: Room tea already exists",
        "LIST",
        "DELETE tea",
        "Room tea: deleted",
        "refused: Unknown action 120: 1 to 4 are expected",
        "disconnected",
    ]
    said = [line for line in fresh_server.lines if line.startswith(f"Client ({fds[1]})")]
    assert [line.partition(": ")[2] for line in said[2:]] == [
        "entered room tea",
        "line to room tea, sent to 1 client",
        "left room tea",
        "disconnected",
    ]
