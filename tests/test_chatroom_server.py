"""Transcripts of the chat room server: the lobby's requests, what happens in rooms, and how they end."""

import re
import shutil
import socket
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from conftest import Peer, Program, Start, looking_after, run_program, run_programs, server_has_read, wait_until

import chatroom_server
from net.connection import BACKLOG_BYTES

CREATE, JOIN, LIST, DELETE = "\1", "\2", "\3", "\4"
SUCCESS, ALREADY_EXISTS, DOES_NOT_EXIST, INVALID, UNKNOWN_FAILURE = "\0", "\1", "\2", "\3", "\4"
WARNING = "Warning: room tea is deleted"
DELETE_SECONDS = 2.0
FLOOD = b"tea is served\n"


@pytest.fixture
def start_rooms(start: Start) -> Iterator[Start]:
    """Give a function that starts a server with options; in the end its rooms are deleted."""
    servers: list[Program] = []

    def start_server(*options: str, **how: Any) -> Program:
        servers.append(start("chatroom_server.py", "0", *options, **how))
        return servers[-1]

    yield start_server
    for server in servers:
        if server.process.poll() is None:
            end_rooms(server)


@pytest.fixture(scope="module")
def common_server() -> Iterator[Program]:
    """Give the server of all tests that only talk."""
    with looking_after() as launch:
        server = launch("chatroom_server.py", "0")
        server.wait_for_start()
        yield server


@pytest.fixture
def server(common_server: Program) -> Iterator[Program]:
    """Give a server without rooms; a test must leave nothing but rooms there, for others talk to it too."""
    yield common_server
    end_rooms(common_server)
    common_server.expect_rest()


@pytest.fixture
def fresh_server(start_rooms: Start) -> Program:
    """Give a server to one test alone."""
    return start_rooms()


def end_rooms(server: Program) -> None:
    """Close all connections and delete all rooms."""
    for peer in server.peers:
        peer.close()
    wait_until(lambda: delete_rooms(server.connect()), "no rooms")


def delete_rooms(lobby: Peer) -> bool:
    """Delete all rooms; return whether the lobby has let us."""
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
    """Join a room that has so many members; return its port."""
    lobby.send(JOIN + name)
    return int(lobby.expect_match(SUCCESS + rf"(\d+) {r'[0-9]+' if members is None else members}")[1])


def enter(server: Program, port: int, receive_buffer: int = 0) -> Peer:
    """Return a new member's connection to the room at a port."""
    member = Peer(port, receive_buffer)
    server.peers.append(member)
    return member


def new_room(server: Program, name: str = "tea") -> tuple[Peer, int]:
    """Create a room; return a connection to the lobby and the room's port."""
    lobby = server.connect()
    create(lobby, name)
    return lobby, join(lobby, name, 0)


def at_once(number: int, action: Callable[[int], None]) -> None:
    """Do the same from many threads at once."""
    barrier = threading.Barrier(number)

    def act(index: int) -> None:
        barrier.wait(10)
        action(index)

    threads = [threading.Thread(target=act, args=(index,)) for index in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


@contextmanager
def flooding(*members: Peer) -> Iterator[None]:
    """Have members send lines without end, until their connection ends or this does."""
    ended = threading.Event()

    def flood(member: Peer) -> None:
        with suppress(OSError):
            while not ended.is_set():
                member.sock.sendall(FLOOD * 200)

    threads = [threading.Thread(target=flood, args=(member,)) for member in members]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        ended.set()
        for member in members:
            with suppress(OSError):
                member.sock.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()


def expect_free(port: int) -> None:
    """Fail unless the port can be listened on."""
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        listener.listen()


def test_has_the_functions_of_the_original_design() -> None:
    for name in ("main", "server", "connection_handler", "room_creation_handler"):
        assert callable(getattr(chatroom_server, name))


def test_wrong_arguments_are_told_with_the_usage() -> None:
    wrong = ["", "tea", "70000", "0 --max-rooms 0", "0 --max-connections x", "0 1"]
    for done in run_programs(*(("chatroom_server.py", *arguments.split()) for arguments in wrong)):
        assert done.returncode == 2
        assert done.stderr.startswith("usage: chatroom_server.py")


def test_a_port_that_is_taken_is_told_in_one_line(server: Program) -> None:
    done = run_program("chatroom_server.py", str(server.port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Cannot listen on 0.0.0.0:{server.port}: Address already in use\n"


def test_a_room_is_created_listed_joined_and_deleted(server: Program) -> None:
    alice, bob = server.connect(), server.connect()
    alice.send(LIST)
    alice.expect(SUCCESS)
    alice.send(CREATE + "tea")
    alice.expect(SUCCESS)
    bob.send(CREATE + "tea", CREATE + "Tea")
    bob.expect(ALREADY_EXISTS + "Room tea already exists", SUCCESS)
    bob.send(LIST)
    bob.expect(SUCCESS + "tea,Tea")
    bob.send(JOIN + "tea")
    bob.expect_match(SUCCESS + r"\d+ 0")
    bob.send(DELETE + "tea")
    bob.expect(SUCCESS)
    alice.send(DELETE + "tea", JOIN + "tea", LIST)
    alice.expect(*[DOES_NOT_EXIST + "Room tea does not exist"] * 2, SUCCESS + "Tea")


def test_rooms_are_listed_in_order_of_creation(server: Program) -> None:
    lobby = server.connect()
    for name in ("z", "b", "y", "a"):
        create(lobby, name)
    lobby.send(DELETE + "b", CREATE + "b", LIST)
    lobby.expect(SUCCESS, SUCCESS, SUCCESS + "z,y,a,b")


def test_names_are_1_to_32_letters_digits_hyphens_or_underscores(server: Program) -> None:
    lobby = server.connect()
    for name in ("a", "A-1_b", "-", "x" * 32):
        create(lobby, name)
    bad = ["", "x" * 33, "a b", " a", "a ", "a,b", "a\tb", "a\0", "a\x1b[2J", "a\rb", "é", "a/b", "\u0661"]
    for action in (CREATE, JOIN, DELETE):
        for name in bad:
            lobby.send(action + name)
            lobby.expect(INVALID + "Invalid name: a room's name is 1 to 32 letters, digits, - or _")
    lobby.send_bytes(b"\1\xc3\n\1tea\r\n\3\r\n")
    lobby.expect_match(INVALID + ".+")
    lobby.expect(SUCCESS, SUCCESS + "a,A-1_b,-," + "x" * 32 + ",tea")


def test_an_unknown_action_is_invalid_and_the_next_request_is_served(server: Program) -> None:
    lobby = server.connect()
    for byte in {*range(256)} - {1, 2, 3, 4, ord("\n"), 255}:
        lobby.send_bytes(bytes([byte]) + b"tea\n")
        lobby.expect(INVALID + f"Unknown action {byte}: 1 to 4 are expected")
    lobby.send("")
    lobby.expect(INVALID + "Empty request: an action byte, 1 to 4, is expected")
    lobby.send(LIST)
    lobby.expect(SUCCESS)


def test_a_line_too_long_is_a_reply_and_ends_the_connection(server: Program) -> None:
    lobby = server.connect()
    lobby.send(LIST, CREATE + "x" * 4096, LIST)
    lobby.expect(SUCCESS, INVALID + "Line too long: at most 4096 bytes are expected")
    lobby.expect_end()


def test_requests_may_come_byte_by_byte_and_many_at_once(server: Program) -> None:
    lobby = server.connect()
    for byte in (CREATE + "tea\n" + LIST + "\n").encode():
        lobby.send_bytes(bytes([byte]))
        server_has_read(lobby)
    lobby.expect(SUCCESS, SUCCESS + "tea")
    lobby.send(*[CREATE + "soup", DELETE + "soup", LIST] * 300)
    lobby.expect(*[SUCCESS, SUCCESS, SUCCESS + "tea"] * 300)


def test_a_signal_in_the_middle_of_deletions_stops_all_once(start: Start) -> None:
    server = start("chatroom_server.py", "0")
    lobby = server.connect()
    names = [f"room{number}" for number in range(20)]
    for name in names:
        create(lobby, name)
        enter(server, join(lobby, name))  # so that a deletion takes a moment
    lobby.send(*(DELETE + name for name in names))
    server.wait_for_line("Room room0: deleted")
    assert server.stop() == 0
    assert server.errors == ""
    assert not server.count_lines(".*Bad file descriptor.*")


@pytest.mark.skipif(not shutil.which("nc"), reason="nc is not installed")
def test_the_end_of_input_is_answered_before_the_connection_closes(server: Program) -> None:
    requests = b"\1tea\n\3\n\4tea\n\3\n\1half"
    done = subprocess.run(
        ["nc", "-N", "127.0.0.1", str(server.port)], input=requests, capture_output=True, timeout=10, check=True
    )
    assert done.stdout == b"\0\n\0tea\n\0\n\0\n"


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


def test_control_characters_and_invalid_bytes_reach_no_other_terminal(fresh_server: Program) -> None:
    _, port = new_room(fresh_server)
    alice, bob = enter(fresh_server, port), enter(fresh_server, port)
    join(fresh_server.connect(), "tea", 2)
    alice.send_bytes(b"a\x1b[2J\x07\0\xfe\xc3 \xc2\x9b1m\xff\xfd\x03z\r\n")
    bob.expect("a?[2J????  ?1mz".replace("?", "\N{REPLACEMENT CHARACTER}").replace("  ", " "))
    lobby = fresh_server.connect()
    lobby.send_bytes(b"\1a\x1b[2Jb\xfe\n")
    lobby.expect_match(INVALID + ".+")
    fresh_server.wait_for_line(r"Client \(\d+\): CREATE a\ufffd\[2Jb\ufffd")
    fresh_server.wait_for_line(r"Client \(\d+\): lines to room tea: 1")


def test_join_counts_the_members_before_this_one(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    for members in range(40):
        join(lobby, "tea", members)
        enter(fresh_server, port)
    fresh_server.peers[-1].close()
    wait_until(lambda: join(lobby, "tea") and fresh_server.count_lines(r".*: left room tea"), "a member has left")
    wait_until(lambda: fresh_server.count_lines(r".*: disconnected"), "and is gone")
    join(lobby, "tea", 39)


def test_one_of_25_who_create_a_name_at_once_succeeds(server: Program) -> None:
    clients = [server.connect() for _ in range(25)]
    replies: Counter[str] = Counter()

    def race(index: int) -> None:
        clients[index].send(CREATE + "tea")
        replies[clients[index].read_line()[0]] += 1

    at_once(25, race)
    assert replies == {SUCCESS: 1, ALREADY_EXISTS: 24}
    clients[0].send(LIST)
    clients[0].expect(SUCCESS + "tea")


def test_60_of_80_rooms_are_created_where_60_are_allowed(start_rooms: Start) -> None:
    server = start_rooms("--max-rooms", "60")
    clients = [server.connect() for _ in range(8)]
    replies: list[str] = []

    def race(index: int) -> None:
        for number in range(10):
            clients[index].send(f"{CREATE}room-{index}-{number}")
            replies.append(clients[index].read_line())

    at_once(8, race)
    assert Counter(replies) == {SUCCESS: 60, UNKNOWN_FAILURE + "Too many rooms: at most 60 are allowed": 20}
    lobby = clients[0]
    lobby.send(LIST)
    names = lobby.read_line()[1:].split(",")
    assert len(names) == 60
    lobby.send(DELETE + names[0], CREATE + "tea", CREATE + "soup")
    lobby.expect(SUCCESS, SUCCESS)
    lobby.expect_match(UNKNOWN_FAILURE + "Too many rooms.+")


@pytest.mark.skipif(not shutil.which("prlimit"), reason="prlimit is not installed")
def test_a_room_that_finds_no_descriptor_leaves_nothing_over_and_the_lobby_serves_on(start_rooms: Start) -> None:
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


def test_a_room_that_finds_no_thread_leaves_nothing_over() -> None:
    rooms = chatroom_server.Rooms("127.0.0.1", threading.Semaphore(1), 1)
    usual = threading.stack_size(1 << 46)  # more than any address space has: no thread can begin
    try:
        for _ in range(2):
            with pytest.raises(chatroom_server.Refused, match=r"Room tea cannot be opened: .*thread") as refusal:
                chatroom_server.room_creation_handler(rooms, "tea")
            assert chr(refusal.value.status) == UNKNOWN_FAILURE
    finally:
        threading.stack_size(usual)
    assert rooms.all() == []


def test_delete_warns_the_members_closes_them_and_then_answers(server: Program) -> None:
    lobby, port = new_room(server)
    members = [enter(server, port) for _ in range(30)]
    members[0].send("hello")
    for member in members[1:]:
        member.expect("hello")
    lobby.send(DELETE + "tea", LIST)
    lobby.expect(SUCCESS)
    for member in members:
        member.sock.settimeout(0)  # it is all here already
        assert member.sock.recv(1 << 16).decode() == WARNING + "\n"
        assert member.sock.recv(1) == b""
    lobby.expect(SUCCESS)
    with pytest.raises(ConnectionRefusedError):
        Peer(port)
    expect_free(port)


def test_one_of_ten_who_delete_a_room_at_once_succeeds(server: Program) -> None:
    _, port = new_room(server)
    member = enter(server, port)
    clients = [server.connect() for _ in range(10)]
    replies: Counter[str] = Counter()

    def race(index: int) -> None:
        clients[index].send(DELETE + "tea")
        replies[clients[index].read_line()[0]] += 1

    at_once(10, race)
    assert replies == {SUCCESS: 1, DOES_NOT_EXIST: 9}
    assert member.read_all() == WARNING + "\n"


def test_the_warning_reaches_members_last_who_flood_the_room_while_it_is_deleted(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    members = [enter(fresh_server, port) for _ in range(4)]
    ends: dict[Peer, str] = {}

    def read(member: Peer, pause_seconds: float) -> None:
        end = b""
        with suppress(ConnectionError):  # once all is read
            while data := member.sock.recv(1 << 16):
                end = (end + data)[-1000:]
                time.sleep(pause_seconds)
        ends[member] = end.decode()

    slow, *others = members
    readers = [threading.Thread(target=read, args=(slow, 0.004))]
    readers += [threading.Thread(target=read, args=(other, 0.0)) for other in others]
    for reader in readers:
        reader.start()
    with flooding(*members):
        wait_until(lambda: fresh_server.count_lines(r".*: lines to room tea: .*") > 20, "a flood")
        began = time.monotonic()
        lobby.send(DELETE + "tea")
        lobby.expect(SUCCESS)
        assert time.monotonic() - began < DELETE_SECONDS
        for reader in readers:
            reader.join(10)
    for member in members:
        assert ends[member].endswith(f"{FLOOD.decode()}{WARNING}\n")


def test_who_does_not_read_delays_a_deletion_briefly_and_neither_requests_nor_time_outs(
    start_rooms: Start,
) -> None:
    server = start_rooms("--login-seconds", "1")
    lobby, port = new_room(server)
    other = server.connect()
    create(other, "soup")
    quiet = enter(server, join(other, "soup"))
    enter(server, port, receive_buffer=4096)
    silent, useless = server.connect(), server.connect()
    useless.send("hello", CREATE + "a b")
    useless.expect_match(INVALID + ".+")
    useless.expect_match(INVALID + ".+")
    with flooding(enter(server, port), enter(server, port)):
        wait_until(lambda: sent_is_stuck(server), "a member's backlog is full", 10)
        began = time.monotonic()
        lobby.send(DELETE + "tea")
        wait_until(lambda: server.count_lines(r".*: DELETE tea"), "the deletion has begun")
        other.send(LIST, CREATE + "tea", LIST)
        other.expect(SUCCESS + "soup", SUCCESS, SUCCESS + "soup,tea")
        seconds = time.monotonic() - began
        lobby.expect(SUCCESS)
        assert time.monotonic() - began < DELETE_SECONDS
        assert seconds < 0.9
    for client in (silent, useless):  # only who asks nothing useful in the lobby is timed out
        client.expect(UNKNOWN_FAILURE + "Timed out: nothing useful came in time")
        client.expect_end()
    join(lobby, "soup", 1)
    quiet.expect_nothing(0.05)


def sent_is_stuck(server: Program) -> bool:
    """Return whether no line was relayed for a moment."""
    before = server.count_lines(r".*: lines to room tea: .*")
    time.sleep(0.2)
    return 0 < before == server.count_lines(r".*: lines to room tea: .*")


def test_who_connects_while_a_room_is_deleted_is_told_or_turned_away(server: Program) -> None:
    lobby = server.connect()
    told = 0
    for _ in range(8):
        create(lobby, "tea")
        port = join(lobby, "tea", 0)
        members: list[Peer] = []

        def come(port: int = port, members: list[Peer] = members) -> None:
            with suppress(ConnectionError):
                while True:
                    members.append(Peer(port))

        comer = threading.Thread(target=come)
        comer.start()
        wait_until(lambda members=members: len(members) > 3, "members")  # type: ignore[misc]
        lobby.send(DELETE + "tea")
        lobby.expect(SUCCESS)
        comer.join()
        for member in members:
            with suppress(ConnectionError):  # Linux may let go of one in the queue silently, and say so when he speaks
                member.send("Am I in?")
            end = member.read_all()
            assert end in ("", WARNING + "\n")
            told += bool(end)
            member.close()
    assert told >= 24  # those who were there before


def test_nothing_is_left_over_when_ten_sides_create_join_and_delete_the_same_names(fresh_server: Program) -> None:
    clients = [fresh_server.connect() for _ in range(10)]
    ports: set[int] = set()
    end = time.monotonic() + 0.7

    def storm(index: int) -> None:
        lobby = clients[index]
        while time.monotonic() < end:
            for name in ("tea", "soup"):
                lobby.send(CREATE + name, JOIN + name)
                assert lobby.read_line()[0] in SUCCESS + ALREADY_EXISTS
                if (reply := lobby.read_line())[0] == SUCCESS:
                    ports.add(port := int(reply[1:].split()[0]))
                    with suppress(ConnectionError):
                        visit(port)
                lobby.send(DELETE + name)
                assert lobby.read_line()[0] in SUCCESS + DOES_NOT_EXIST

    def visit(port: int) -> None:
        member = Peer(port)
        try:
            member.send("hello", "half")
        finally:
            member.close()

    at_once(10, storm)
    clients[0].send(DELETE + "tea", DELETE + "soup", LIST)
    clients[0].read_line(), clients[0].read_line()
    clients[0].expect(SUCCESS)
    assert len(ports) > 10
    fresh_server.expect_rest()
    for port in ports:
        expect_free(port)


def test_members_that_vanish_are_no_longer_counted_and_their_half_lines_are_not_sent(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    alice, bob, carol = (enter(fresh_server, port) for _ in range(3))
    join(lobby, "tea", 3)
    bob.send_bytes(b"I think that")
    bob.reset()
    carol.send_bytes(b"hello\nand")
    alice.expect("hello")
    carol.close()
    wait_until(lambda: fresh_server.count_lines(r".*: disconnected.*") == 2, "both are gone")
    join(lobby, "tea", 1)
    dave = enter(fresh_server, port)
    join(lobby, "tea", 2)
    dave.send("anybody here?")
    alice.expect("anybody here?")


def test_a_line_too_long_ends_only_its_senders_stay(server: Program) -> None:
    _, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port)
    join(server.connect(), "tea", 2)
    alice.send("hello", "x" * 4096, "y" * 4097)
    bob.expect("hello", "x" * 4096)
    alice.expect("Line too long: at most 4096 bytes are expected")
    alice.expect_end()
    bob.expect_nothing(0.05)


def test_a_member_slower_than_the_flood_gets_every_line_in_order(server: Program) -> None:
    lobby, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port, receive_buffer=1 << 16)
    join(lobby, "tea", 2)
    lines = "".join(f"{number:07}: a line that is longer than it would have to be\n" for number in range(100_000))
    flooder = threading.Thread(target=alice.send_bytes, args=(lines.encode(),))
    flooder.start()
    received = b""
    while len(received) < len(lines):
        received += bob.sock.recv(1 << 16)
        time.sleep(0.001)
    flooder.join()
    assert received.decode() == lines


def test_who_does_not_read_the_replies_fills_no_memory(fresh_server: Program) -> None:
    lobby = fresh_server.connect()
    for number in range(40):
        create(lobby, f"{number:032}")
    before = fresh_server.resident_bytes()
    lobby.sock.settimeout(0.5)
    with suppress(TimeoutError):
        while True:
            lobby.sock.sendall(b"\3\n" * 100_000)
    assert fresh_server.resident_bytes() - before < 20 << 20
    lobby.reset()


def test_lobby_and_rooms_share_the_places_for_connections(start_rooms: Start) -> None:
    server = start_rooms("--max-connections", "3")
    lobby, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port)
    wait_until(lambda: server.count_lines(r".*: entered room tea") == 2, "both have their places")
    for refused in (enter(server, port), server.connect()):
        refused.expect("Too many connections")
        refused.expect_end()
    bob.close()
    wait_until(lambda: server.count_lines(r".*: disconnected"), "a place is free")
    carol = enter(server, port)
    join(lobby, "tea", 2)
    carol.send("hello")
    alice.expect("hello")


def test_a_signal_stops_lobby_and_rooms_within_two_seconds_and_their_ports_are_free(start_rooms: Start) -> None:
    server = start_rooms()
    lobby = server.connect()
    ports = [server.port]
    for number in range(50):
        create(lobby, f"room-{number}")
        ports.append(join(lobby, f"room-{number}"))
    members = [enter(server, port) for port in ports[1:] for _ in range(2)]
    enter(server, ports[1], receive_buffer=4096)
    with flooding(*members[:6]):
        wait_until(lambda: server.count_lines(r".*: lines to room .*") > 20, "a flood")
        assert server.stop() == 0
    for port in ports:
        expect_free(port)
    for member in members[6:]:
        member.expect_end()


def test_what_is_queued_for_members_goes_out_when_a_signal_stops_the_server(start_rooms: Start) -> None:
    server = start_rooms()
    _, port = new_room(server)
    alice, bob = enter(server, port), enter(server, port, receive_buffer=1 << 16)
    with flooding(alice):
        wait_until(lambda: sent_is_stuck(server), "bob's backlog is full", 10)
        server.process.terminate()
        received = len(bob.read_all())
    assert server.stop() == 0
    counts = [re.fullmatch(r".*: lines to room tea: (\d+)", line) for line in server.lines]
    relayed = sum(int(match[1]) for match in counts if match) * len(FLOOD)
    assert received > relayed - BACKLOG_BYTES // 2  # what waited to be queued may be missing


def test_status_lines_name_the_client_by_its_descriptor(fresh_server: Program) -> None:
    lobby, port = new_room(fresh_server)
    member = enter(fresh_server, port)
    join(lobby, "tea", 1)
    member.close()
    lobby.send(CREATE + "tea", LIST, DELETE + "tea")
    lobby.expect_match(ALREADY_EXISTS + ".+")
    lobby.expect(SUCCESS + "tea", SUCCESS)
    wait_until(lambda: fresh_server.count_lines(r".*: disconnected"), "the member has left")
    text = re.sub(r"\d+", "N", "\n".join(line for line in fresh_server.lines if "accepted" not in line))
    expected = ["CREATE tea", "refused: Room tea already exists", "LIST", "JOIN tea", "entered room tea", "DELETE tea"]
    for event in expected:
        assert f"Client (N): {event}\n" in text
