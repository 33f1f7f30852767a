"""Transcripts of the chat room client, through pipes and in terminals, with the real server and with fake ones."""

import re
import shlex
import signal
import socket
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from certificates import Certificates
from conftest import RESET, Program, Start, fake_server, free_port, meanwhile, python, run_program, run_shell
from pseudo_terminal import ROWS, OpenTerminal, Terminal, orphaned

HELP = [
    "CREATE name   create a room",
    "JOIN name     enter a room: each line you type then goes to all others in it",
    "LIST          show the names of all rooms",
    "DELETE name   delete a room",
    "HELP or ?     show this help",
    "QUIT or EXIT  end, as Ctrl-D does",
]
OTHER = "The server is not a chat room server."
NO_ROOMS = "There are no rooms."
CLOSED = "The server closed the connection"
UNKNOWN = "Unknown command: CREATE, JOIN, LIST, DELETE, HELP or QUIT is expected."
NOT_SENT = "Not sent. /leave or Ctrl-D leaves the room; a blank before / sends the line."


@pytest.fixture
def server(start: Start) -> Iterator[Program]:
    server = start("chatroom_server.py", "0")
    yield server
    if server.process.poll() is None:
        lobby = server.connect()
        lobby.send("\3")
        for name in filter(None, lobby.read_line()[1:].split(",")):
            lobby.send(f"\4{name}")
            lobby.expect("\0")


@pytest.fixture
def client(server: Program, open_terminal: OpenTerminal) -> OpenTerminal:
    """Give a function that runs a client in a terminal, up to its first prompt."""

    def open_client(*arguments: str, **options: Any) -> Terminal:
        terminal = open_terminal("chatroom_client.py", "127.0.0.1", str(server.port), *arguments, **options)
        terminal.expect(*HELP)
        terminal.expect_match("ooms")
        terminal.expect_typing("Command> ")
        return terminal

    return open_client


@pytest.fixture
def piped(server: Program, run: Start) -> Start:
    return partial(run, "chatroom_client.py", "127.0.0.1", str(server.port))


def command(server: Program) -> str:
    return shlex.join(python("chatroom_client.py", "127.0.0.1", str(server.port)))


def commands(server: Program, *lines: str) -> subprocess.CompletedProcess[str]:
    return run_program("chatroom_client.py", "127.0.0.1", str(server.port), input="\n".join(lines))


def enter(client: Program) -> None:
    """Let a client that reads a pipe enter a room called tea."""
    client.type("join tea")
    client.wait_for_line(r"Members before you: \d+\. Leave with /leave or Ctrl-D\.")


def test_commands_are_not_case_sensitive_but_names_are(server: Program) -> None:
    done = commands(server, "create Tea", "CREATE  tea ", "lIsT", "delete Tea", "", "LIST\r", "list")
    assert done.stdout.split("\n") == [
        *HELP,
        NO_ROOMS,
        "Command> Room Tea is created.",
        "Command> Room tea is created.",
        "Command> Rooms: Tea, tea",
        "Command> Room Tea is deleted.",
        "Command> Command> Rooms: tea",
        "Command> Rooms: tea",
        "Command> ",
        "",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_refused_commands_of_a_script_are_answered_and_make_the_exit_status_1(server: Program) -> None:
    rule = "a room's name is 1 to 32 letters, digits, - or _."
    answers = {
        "list": NO_ROOMS,
        "hello": UNKNOWN,
        "/quit": UNKNOWN,
        "LIST all": "LIST takes no name.",
        "create": f"CREATE needs a name: {rule}",
        "join a b": f"JOIN needs a name: {rule}",
        "delete a,b": f"DELETE needs a name: {rule}",
        "join tea": "Room tea does not exist.",
        "delete tea": "Room tea does not exist.",
    }
    done = commands(server, *answers)
    assert done.stdout.split("Command> ")[1:] == [f"{answer}\n" for answer in [*answers.values(), ""]]
    assert (done.returncode, done.stderr) == (1, "")
    single = ("hello", "join a b", "delete tea")
    with ThreadPoolExecutor(2) as pool:
        assert {done.returncode for done in pool.map(lambda command: commands(server, command), single)} == {1}


@pytest.mark.parametrize("end", ["quit", "EXIT", "Quit "])
def test_help_shows_the_commands_and_quit_ends_the_client(server: Program, end: str) -> None:
    done = commands(server, "help", "?", end, "list")
    shown = "\n".join(HELP)
    assert done.stdout == f"{shown}\n{NO_ROOMS}\nCommand> {shown}\nCommand> {shown}\nCommand> "
    assert (done.returncode, done.stderr) == (0, "")


def test_a_client_may_be_idle_at_its_prompt_for_longer_than_login_seconds(start: Start, run: Start) -> None:
    server = start("chatroom_server.py", "0", "--login-seconds", "1")
    client = run("chatroom_client.py", "127.0.0.1", str(server.port))
    client.wait_for_line(re.escape(NO_ROOMS))
    silent = server.connect()
    assert silent.read_all().endswith("No request within 1 seconds\n")  # unlike a client that sends nothing
    client.type("create tea", "delete tea")
    client.wait_for_line(r"Command> Room tea is created\.")
    client.end_input()
    assert (client.wait(), client.errors) == (0, "")


def test_two_clients_talk_through_pipes(server: Program, piped: Start) -> None:
    alice, bob = piped("--name", "alice"), piped("--name", "bob")
    alice.type("create tea", "join tea")
    alice.wait_for_line(r"Command> You are in room tea on port \d+\.")
    alice.wait_for_line(r"Members before you: 0\. Leave with /leave or Ctrl-D\.")
    bob.type("join tea")
    bob.wait_for_line(r"Members before you: 1\. Leave with /leave or Ctrl-D\.")
    alice.type("hello", "", " \t", "Grüße")
    bob.wait_for_line("alice: Grüße")
    assert bob.lines[-2:] == ["alice: hello", "alice: Grüße"]
    bob.type("hi", "/leave ", "list")
    alice.wait_for_line("bob: hi")
    bob.wait_for_line(r"You have left room tea\.")
    bob.wait_for_line(r"Command> Rooms: tea")
    alice.end_input()
    alice.wait_for_line(r"You have left room tea\.")
    bob.end_input()
    assert (alice.wait(), bob.wait()) == (0, 0)
    assert alice.errors + bob.errors == ""
    assert alice.lines[len(HELP) + 4 :] == ["bob: hi", "You have left room tea.", "Command> "]


def test_a_mistyped_command_in_a_room_is_answered_and_not_sent(server: Program, piped: Start) -> None:
    commands(server, "create tea")
    alice, bob = piped(), piped("--name", "bob")
    for client in (alice, bob):
        enter(client)
    bob.type("/quit", "/help", "/", "/Leave", " /etc/hosts", "/leave now", "hello")
    alice.wait_for_line("bob: hello")
    assert alice.lines[-2:] == ["bob:  /etc/hosts", "bob: hello"]
    alice.type(" /leave")  # as the advice says
    bob.wait_for_line(" /leave")
    bob.end_input()
    assert bob.wait() == 1
    assert bob.count_lines(re.escape(NOT_SENT)) == 5
    assert len(NOT_SENT) < 80


def test_three_clients_that_flood_each_other_get_every_line_until_they_leave(server: Program, piped: Start) -> None:
    commands(server, "create tea")
    names = ("alice", "bob", "carol")
    clients = [piped("--name", name) for name in names]
    for client in clients:
        enter(client)
    lines = [f"{number:04} {'x' * 3900}" for number in range(4000)]
    with meanwhile(*(partial(client.type, *lines, "/leave") for client in clients)):
        pass
    for client in clients:
        client.wait_for_line(r"You have left room tea\.")
    assert not server.count_lines(".*dropped.*")
    last = max(clients, key=lambda client: len(client.lines)).lines  # of the client that left last
    received = {name: [line[len(name) + 2 :] for line in last if line.startswith(f"{name}: ")] for name in names}
    assert sorted(received.values(), key=len)[1:] == [lines, lines]


def test_a_lost_server_is_reported_at_once_at_the_prompt_and_in_a_room(server: Program, piped: Start) -> None:
    alice, bob = piped(), piped()
    alice.type("create tea")
    enter(alice)
    bob.wait_for_line(".* room.*")
    server.wait_for_line(r"Client \(\d+\): entered room tea")
    server.stop()
    assert (alice.wait(), bob.wait()) == (1, 1)
    assert alice.errors == bob.errors == f"{CLOSED}.\n"
    assert alice.lines[-2:] == ["Room tea is closed.", "Command> "]


def test_the_sentence_of_a_server_that_is_full_is_shown(start: Start, run: Start) -> None:
    server = start("chatroom_server.py", "0", "--max-connections", "1")
    lobby = server.connect()
    lobby.send("\3")
    lobby.expect("\0")
    client = run("chatroom_client.py", "127.0.0.1", str(server.port))
    assert (client.wait(), client.errors) == (1, f"{CLOSED}: Too many connections\n")


def test_a_line_that_is_too_long_is_not_sent(server: Program, piped: Start) -> None:
    alice, bob = piped(), piped("--name", "bob")
    alice.type("create tea")
    enter(alice)
    enter(bob)
    bob.type("x" * 4092, "y" * 4091, "hello")
    bob.wait_for_line(r"Not sent\. Line too long: at most 4096 bytes are expected")
    alice.wait_for_line("bob: hello")
    assert alice.lines[-2:] == ["bob: " + "y" * 4091, "bob: hello"]
    bob.end_input()
    assert bob.wait() == 1


def play(*commands: str, replies: bytes, first: bytes = b"\0\n") -> subprocess.CompletedProcess[str]:
    """Run a client on commands from a pipe; answer its first LIST, then send a reply to each request."""

    def talk(sock: socket.socket) -> None:
        for reply in [first, *replies.splitlines(keepends=True)]:
            sock.recv(1 << 16)
            sock.sendall(reply)
        if reply.endswith(b"\n"):
            sock.recv(1 << 16)

    with fake_server(talk) as port:
        return run_program("chatroom_client.py", "127.0.0.1", str(port), input="\n".join(commands))


def test_a_room_that_is_gone_when_the_client_connects_is_reported() -> None:
    port = free_port()
    done = play("join tea", "list", replies=b"\0%d 2\n\0\n" % port)
    why = f"Perhaps room tea was deleted, or a firewall blocks port {port} (see --room-ports of the server)"
    gone = f"Cannot connect to 127.0.0.1:{port}: Connection refused. {why}.\n"
    assert done.stdout.split("Command> ")[1:] == [gone, f"{NO_ROOMS}\n", "\n"]
    assert (done.returncode, done.stderr) == (1, "")


def test_a_room_that_is_reset_while_the_client_enters_is_reported() -> None:
    def reset(sock: socket.socket) -> None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with fake_server(reset) as room:
        done = play("join tea", replies=b"\0%d 2\n" % room)
    outcomes = r"(The connection to room tea is lost|Perhaps room tea was deleted|You have left room tea)"
    assert re.search(outcomes, done.stdout)  # a race decides which
    assert (done.returncode, done.stderr) == (0 if "You have left" in done.stdout else 1, "")


def test_text_from_a_server_is_made_harmless_and_a_line_that_does_not_end_is_shown_in_pieces() -> None:
    size = 200_000

    def talk(sock: socket.socket) -> None:
        sock.sendall(b"a\x1b[2Jb\xfe\r\nc\x07\tend\n" + b"x" * size)
        assert sock.recv(1 << 16) == b"/leave\n"  # at the end of the client's input; the room closes then

    with fake_server(talk) as room:
        shown = play("list", "join tea", replies=b"\0te\x1b[2Ja,\xfe\n\0%d 0\n" % room).stdout
    assert "Rooms: te\ufffd[2Ja, \ufffd\n" in shown
    assert "a\ufffd[2Jb\ufffd\nc\ufffd\tend\n" in shown
    assert shown.count("x") == size
    assert max(map(len, shown.splitlines())) < size


@pytest.mark.parametrize(
    "reply, reason",
    [
        (b"\0tea\n", f"{OTHER} Its reply to JOIN is 'tea'.\n"),
        (b"\0" + b"99999 1\n", f"{OTHER} Its reply to JOIN is '99999 1'.\n"),
        (b"\n", f"{OTHER} It says: \n"),
        (b"HTTP/1.1 400 Bad Request\r\n", f"{OTHER} It says: HTTP/1.1 400 Bad Request\n"),
        (b"\0", f"{CLOSED}.\n"),
    ],
)
def test_a_reply_of_another_form_is_reported_in_one_line(reply: bytes, reason: str) -> None:
    done = play("join tea", replies=reply)
    assert (done.returncode, done.stderr) == (1, reason)


def test_a_refusal_of_the_first_list_is_shown_above_the_prompt() -> None:
    done = play(replies=b"", first=b"\3busy\n")
    assert done.stdout.splitlines()[len(HELP) :] == ["busy.", "Command> "]
    assert (done.returncode, done.stderr) == (1, "")


def test_an_unreadable_terminal_ends_the_input(server: Program, open_terminal: OpenTerminal, tmp_path: Path) -> None:
    terminal = open_terminal(*orphaned(command(server)), controls=True, cwd=tmp_path)
    terminal.expect_text("Command> ")
    terminal.type("\n")
    terminal.wait()
    assert (tmp_path / "status").read_text() == "0\n"
    assert "Traceback" not in terminal.output


def test_a_client_reads_commands_from_a_file_and_ends_at_once_without_an_input(server: Program, tmp_path: Path) -> None:
    script = tmp_path / "commands"
    script.write_text("create tea\njoin tea\nhello\n")
    done = run_shell(f"{command(server)} <{script}")
    assert done.stdout.endswith(" Ctrl-D.\nYou have left room tea.\nCommand> \n")
    for closed in ("<&-", "</dev/null"):
        done = run_shell(f"{command(server)} {closed}")
        assert (done.returncode, done.stdout.split("\n")[-2:], done.stderr) == (0, ["Command> ", ""], "")


def enter_room(terminal: Terminal, *commands: str) -> None:
    """Type commands, the last of which is a join, for a room called tea."""
    for command in commands:
        terminal.type(f"{command} tea\n")
        terminal.expect(f"Command> {command} tea")
        if command == "create":
            terminal.expect("Room tea is created.")
    terminal.expect_match("You are in room tea")
    terminal.expect_match("Leave with /leave or Ctrl-D.")


def test_a_line_being_typed_stays_whole_when_lines_come_in(client: OpenTerminal) -> None:
    alice, bob = client("--name", "alice"), client("--name", "bob")
    enter_room(alice, "create", "join")
    enter_room(bob, "join")
    bob.type("I am ty")
    bob.expect_typing("I am ty")
    alice.type("hello\n")
    bob.expect("alice: hello")
    bob.expect_typing("I am ty")
    bob.type("ping, 日本\x02\x02")
    bob.expect_typing("I am typing, ", "日本")
    alice.type("hello again\n")
    bob.expect("alice: hello again")
    bob.expect_typing("I am typing, ", "日本")
    bob.type("\n")
    alice.expect("hello", "hello again", "bob: I am typing, 日本")
    alice.type("x" * 130)
    alice.expect_typing("x" * 119)
    alice.type("\x01y")
    alice.expect_typing("y", "x" * 118)
    bob.type("ok\n")
    alice.expect("bob: ok")
    alice.type("\n")
    bob.expect("I am typing, 日本", "ok", "alice: y" + "x" * 130)


EDITS = [  # keys, and what is then before and after the cursor
    ("one two\x1b[D\x1bOD!", "one t!", "wo"),
    ("one two\x02\x02\x06!", "one tw!", "o"),
    ("one two\x1b[D\x1b[D\x1b[C\x1bOC!", "one two!", ""),
    ("one\x1b[H!", "!", "one"),
    ("one\x1bOH!\x1b[F?", "!one?", ""),
    ("one\x1b[1~!\x1b[4~?", "!one?", ""),
    ("one\x01!\x05?", "!one?", ""),
    ("one\x01\x1b[3~\x04!", "!", "e"),
    ("one two\x7f\b\x02\x7f!", "one!", "t"),
    ("one two \x17!", "one !", ""),
    ("one two\x02\x17!", "one !", "o"),
    ("one two\x02\x15!", "!", "o"),
    ("one two\x02\x02\x0b!", "one t!", ""),
    ("one two\x1b\x7f", "one two", ""),
    ("\x7f\x1b[3~\x1b[D\x1b[Cone\x1b[C\x04\x0b", "one", ""),
    ("one\x1b[1;5D\x1b[15~\x1b[Z\x00\x0c!", "one!", ""),  # keys without a meaning here
    ("a\x1b\x1b[Db", "b", "a"),  # Esc in the same read as the next key
    ("one\x1b[[A\x1b[[B\x1b[[E!", "one!", ""),  # F1, F2 and F5 of the Linux console
    ("one\x1bb\x1bx\x1bé!", "one!", ""),  # Alt and a letter
    ("one\x1b]11;rgb:0000/0000/0000\x1b\\\x1b]0;title\a\x1bP1+r\x1b\\!", "one!", ""),  # a terminal's late replies
    ("日本\x02é\x02", "日", "é本"),
    ("ae\u0301b\x02\x02!", "a!", "e\u0301b"),  # a letter and its accent
    ("한국\u1112\u1161\u11ab\x02", "한국", "\u1112\u1161\u11ab"),  # decomposed Hangul
    ("a\u00ad\U0001f469\u200d\U0001f467b\x02\x02!", "a\u00ad!", "\U0001f469\u200d\U0001f467b"),
    ("ae\u0301\x7fb", "ab", ""),
    ("a\tb\x1b[D", "a ", "b"),
]


def test_keys_edit_the_line_at_the_prompt_and_in_a_room(client: OpenTerminal) -> None:
    alice = client()
    for prompt in ("Command> ", ""):
        if not prompt:
            enter_room(alice, "create", "join")
        for keys, before, after in EDITS:
            alice.type(keys)
            alice.expect_typing(prompt + before, after)
            alice.type("\x05\x15")
            alice.expect_typing(prompt)


def test_up_and_down_recall_lines_of_the_prompt_and_of_the_room(client: OpenTerminal) -> None:
    up, down = "\x1b[A", "\x1b[B"
    alice = client()
    alice.type("list\nlist\nhelp me\n \n")
    alice.expect("Command> list", NO_ROOMS, "Command> list", NO_ROOMS, "Command> help me", "HELP takes no name.")
    alice.expect("Command>  ")
    for keys, line in (
        ("new" + up, "help me"),
        ("\x7f" + up, "list"),  # the second list, which repeats the first, is recalled as one
        (up + up, "list"),
        (down, "help m"),
        (down, "new"),
        (down, "new"),
        ("\x15\x10\x10\x0e", "help m"),
    ):
        alice.type(keys)
        alice.expect_typing(f"Command> {line}")
    alice.type("\x15")
    enter_room(alice, "create", "join")
    alice.type(f"hello\n{up}")
    alice.expect("hello")
    alice.expect_typing("hello")
    alice.type(f"{up} again\n\x04")
    alice.expect("hello again", "You have left room tea.")
    alice.type(up)
    alice.expect_typing("Command> join tea")


def test_esc_alone_does_not_swallow_the_next_key(client: OpenTerminal) -> None:
    alice = client()
    alice.expect_text("Command> ")
    alice.type("\x1b")
    alice.expect_text("Command> ")  # drawn again, when no more bytes have followed the Esc in time
    alice.type("[")
    alice.expect_text("Command> [")
    alice.type("\x1b")
    alice.expect_text("Command> [")
    alice.type("O")
    alice.expect_typing("Command> [O")


def test_a_narrower_window_leaves_no_stale_row(client: OpenTerminal) -> None:
    alice = client(window=(ROWS, 100))
    alice.type("list\n")
    alice.expect("Command> list", NO_ROOMS)
    typed = "".join(f"{number:03} " for number in range(22))
    alice.type(typed)
    alice.expect_typing("Command> " + typed)
    for columns in (60, 100, 48, 97, 25, 61, 30, 100):
        alice.resize(ROWS, columns)
        before = ("Command> " + typed)[-(columns - 1) :]
        alice.expect_typing(before)
    alice.type("\x1b[H")
    alice.expect_typing("Command> ", typed)
    alice.resize(ROWS, 40)
    alice.expect_typing("Command> ", typed[:30])
    alice.type("list \x0b\n")
    alice.expect("Command> list ", NO_ROOMS)


def test_a_dumb_terminal_gets_no_escape_sequences(client: OpenTerminal) -> None:
    alice, bob = client(TERM="dumb"), client(TERM="dumb")
    enter_room(alice, "create", "join")
    enter_room(bob, "join")
    bob.type("hello\n")
    alice.expect("hello")
    alice.type("\x04")
    alice.expect("You have left room tea.")
    alice.expect_typing("Command> ")
    alice.type("list\n")
    alice.expect("Command> list", "Rooms: tea")
    alice.type("\x04")
    assert alice.wait() == 0
    assert "\x1b" not in alice.output + bob.output


def test_a_deleted_room_gives_the_prompt_back_while_a_line_is_typed(server: Program, client: OpenTerminal) -> None:
    alice = client()
    enter_room(alice, "create", "join")
    alice.type("But I was")
    alice.expect_typing("But I was")
    commands(server, "delete tea")
    alice.expect("Warning: room tea is deleted", "Room tea is closed.")
    alice.expect_typing("Command> ")
    alice.type("list\n")
    alice.expect("Command> list", NO_ROOMS)


@pytest.mark.parametrize("how", ["Ctrl-D", "Ctrl-C", "the server is lost", "SIGTERM"])
def test_the_terminal_shows_keys_again_at_the_end(server: Program, client: OpenTerminal, how: str) -> None:
    alice = client()
    assert not alice.shows_keys()
    if how == "Ctrl-D":
        alice.type("hello\n\x04")  # a refused command, which counts in scripts only
    elif how == "the server is lost":
        server.stop()
    else:
        alice.process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
    assert alice.wait() == (0 if how.startswith("Ctrl") else 1)
    assert alice.shows_keys()


def test_the_lobby_and_the_rooms_are_reached_over_tls(start: Start, run: Start, certificates: Certificates) -> None:
    server = start("chatroom_server.py", "0", *certificates.good.options)
    arguments = ("chatroom_client.py", "127.0.0.1", str(server.port), "--tls", "--tls-ca", str(certificates.authority))
    alice, bob = (run(*arguments, "--name", name) for name in ("alice", "bob"))
    alice.wait_for_line(re.escape(NO_ROOMS))
    alice.type("create tea")
    enter(alice)
    enter(bob)
    lines = [f"{number:04} {'x' * 3900}" for number in range(500)]
    bob.type(*lines)
    alice.wait_for_line(f"bob: {lines[-1]}")
    assert alice.lines[-500:] == [f"bob: {line}" for line in lines]
    bob.type("/leave", "delete tea")
    alice.wait_for_line("Warning: room tea is deleted")
    for client in (alice, bob):
        client.end_input()
        assert (client.wait(), client.errors) == (0, "")
