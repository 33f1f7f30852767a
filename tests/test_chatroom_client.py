"""Transcripts of the chat room client, through pipes and in terminals, with the real server and with made-up ones."""

import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import ROOT, Program, Start, run_program, run_programs
from pseudo_terminal import Terminal

HELP = [
    "CREATE name   create a room",
    "JOIN name     enter a room; /leave or Ctrl-D leaves it",
    "LIST          show the names of all rooms",
    "DELETE name   delete a room",
    "Ctrl-D        end",
]
LOST = "The server is lost: "
UNKNOWN = "Unknown command: CREATE name, JOIN name, LIST or DELETE name is expected."


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
def open_terminal() -> Iterator[Callable[..., Terminal]]:
    """Give a function that runs a program in a terminal, and look after it."""
    terminals: list[Terminal] = []

    def open_one(*command: str) -> Terminal:
        terminals.append(Terminal(*command))
        return terminals[-1]

    yield open_one
    for terminal in terminals:
        terminal.close()


@pytest.fixture
def client(server: Program, open_terminal: Callable[..., Terminal]) -> Callable[..., Terminal]:
    """Give a function that runs a client in a terminal, up to its first prompt."""

    def open_client(*options: str) -> Terminal:
        terminal = open_terminal("chatroom_client.py", "127.0.0.1", str(server.port), *options)
        terminal.expect(*HELP)
        terminal.expect_typing("Command> ")
        return terminal

    return open_client


@pytest.fixture
def piped(server: Program) -> Iterator[Callable[..., Program]]:
    """Give a function that runs a client whose input is a pipe."""
    clients: list[Program] = []

    def run_client(*options: str) -> Program:
        clients.append(Program("chatroom_client.py", "127.0.0.1", str(server.port), *options, stdin=subprocess.PIPE))
        return clients[-1]

    yield run_client
    for client in clients:
        client.kill()


def write(client: Program, *lines: str) -> None:
    """Write lines to a client's pipe."""
    assert client.process.stdin
    client.process.stdin.write("".join(f"{line}\n" for line in lines).encode())
    client.process.stdin.flush()


def end_input(client: Program) -> None:
    """Close a client's pipe."""
    assert client.process.stdin
    client.process.stdin.close()


def commands(server: Program, *lines: str) -> subprocess.CompletedProcess[str]:
    """Run a client on commands from a pipe."""
    return run_program("chatroom_client.py", "127.0.0.1", str(server.port), input="\n".join(lines))


def test_wrong_arguments_are_told_with_the_usage() -> None:
    wrong = [[], ["localhost"], ["localhost", "tea"], ["localhost", "1", "x"]]
    wrong += [["localhost", "1", "--name", name] for name in ("", "x" * 33, "a\nb")]
    for done in run_programs(*(("chatroom_client.py", *arguments) for arguments in wrong)):
        assert done.returncode == 2
        assert done.stderr.startswith("usage: chatroom_client.py")


def test_a_server_that_is_not_there_is_told_in_one_line() -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        done = run_program("chatroom_client.py", "127.0.0.1", str(port))
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == f"Cannot connect to 127.0.0.1:{port}: Connection refused\n"


def test_commands_from_a_pipe_have_any_capitalisation_and_names_keep_theirs(server: Program) -> None:
    done = commands(server, "create Tea", "CREATE  tea ", "Create tea", "lIsT", "delete Tea", "", "LIST\r", "list")
    assert done.stdout.split("\n") == [
        *HELP,
        "Command> Room Tea is created.",
        "Command> Room tea is created.",
        "Command> Room tea already exists.",
        "Command> Rooms: Tea, tea",
        "Command> Room Tea is deleted.",
        "Command> Command> Rooms: tea",
        "Command> Rooms: tea",
        "Command> ",
        "",
    ]
    assert (done.returncode, done.stderr) == (0, "")


def test_what_is_no_command_is_told_and_the_prompt_comes_back(server: Program) -> None:
    done = commands(server, "list", "hello", "LIST all", "create", "join a b", "delete a,b", "join tea", "delete tea")
    rule = "a room's name is 1 to 32 letters, digits, - or _."
    assert done.stdout.split("Command> ")[1:] == [
        "There are no rooms.\n",
        f"{UNKNOWN}\n",
        f"{UNKNOWN}\n",
        f"CREATE needs a name: {rule}\n",
        f"JOIN needs a name: {rule}\n",
        f"DELETE needs a name: {rule}\n",
        "Room tea does not exist.\n",
        "Room tea does not exist.\n",
        "\n",
    ]
    assert done.returncode == 0


def test_two_talk_through_pipes(server: Program, piped: Callable[..., Program]) -> None:
    alice, bob = piped("--name", "alice"), piped("--name", "bob")
    write(alice, "create tea", "join tea")
    alice.wait_for_line(r"Command> You are in room tea on port \d+; members before you: 0\. .*")
    write(bob, "join tea")
    bob.wait_for_line(r"Command> You are in room tea on port \d+; members before you: 1\. .*")
    write(alice, "hello", "", "Grüße")
    for text in ("hello", "", "Grüße"):
        bob.wait_for_line("alice: " + text)
    write(bob, "hi", " /leave ", "list")
    alice.wait_for_line("bob: hi")
    bob.wait_for_line(r"You have left room tea\.")
    bob.wait_for_line(r"Command> Rooms: tea")
    end_input(alice)
    alice.wait_for_line(r"You have left room tea\.")
    end_input(bob)
    assert (alice.wait(), bob.wait()) == (0, 0)
    assert alice.errors + bob.errors == ""
    assert alice.lines[len(HELP) + 2 :] == ["bob: hi", "You have left room tea.", "Command> "]


def test_three_who_flood_each_other_get_all_until_they_leave(server: Program, piped: Callable[..., Program]) -> None:
    commands(server, "create tea")
    clients = [piped("--name", name) for name in ("alice", "bob", "carol")]
    for client in clients:
        write(client, "join tea")
        client.wait_for_line(r".*You are in room tea .*")
    lines = [f"{number:04} {'x' * 3900}" for number in range(4000)]
    writers = [threading.Thread(target=write, args=(client, *lines, "/leave")) for client in clients]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    for client in clients:
        client.wait_for_line(r"You have left room tea\.")
    assert not server.count_lines(".*dropped.*")
    last = max(clients, key=lambda client: len(client.lines))  # who was there until the others had left
    others = {"alice", "bob", "carol"} - {("alice", "bob", "carol")[clients.index(last)]}
    for name in others:
        said = [line.removeprefix(f"{name}: ") for line in last.lines if line.startswith(f"{name}: ")]
        assert said == lines


def test_a_deleted_room_gives_the_prompt_back_after_its_warning(server: Program, piped: Callable[..., Program]) -> None:
    alice = piped()
    write(alice, "create tea", "join tea")
    alice.wait_for_line(r".*You are in room tea .*")
    commands(server, "delete tea")
    alice.wait_for_line("Warning: room tea is deleted")
    alice.wait_for_line(r"Room tea is closed\.")
    write(alice, "list")
    alice.wait_for_line(r"Command> There are no rooms\.")
    end_input(alice)
    assert alice.wait() == 0


def test_a_lost_server_is_told_at_once_at_the_prompt_and_in_a_room(
    server: Program, piped: Callable[..., Program]
) -> None:
    alice, bob = piped(), piped()
    write(alice, "create tea", "join tea")
    alice.wait_for_line(r".*You are in room tea .*")
    bob.wait_for_line(HELP[-1])
    server.stop()
    assert (alice.wait(), bob.wait()) == (1, 1)
    assert alice.errors == bob.errors == LOST + "it closed the connection\n"
    assert alice.lines[-2:] == ["Room tea is closed.", "Command> "]


def test_a_server_without_a_place_is_told(start: Start) -> None:
    server = start("chatroom_server.py", "0", "--max-connections", "1")
    lobby = server.connect()
    lobby.send("\3")
    lobby.expect("\0")
    with subprocess.Popen(
        [sys.executable, str(ROOT / "chatroom_client.py"), "127.0.0.1", str(server.port)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
    ) as client:
        assert client.wait(10) == 1
        assert client.stderr
        assert client.stderr.read().decode() == LOST + "Too many connections\n"


def test_a_line_too_long_is_not_sent(server: Program, piped: Callable[..., Program]) -> None:
    alice, bob = piped(), piped("--name", "bob")
    write(alice, "create tea", "join tea")
    alice.wait_for_line(r".*You are in room tea .*")
    write(bob, "join tea", "x" * 4092, "y" * 4091, "hello")
    bob.wait_for_line(r"Not sent\. Line too long: at most 4096 bytes are expected")
    alice.wait_for_line("bob: hello")
    assert alice.lines[-2:] == ["bob: " + "y" * 4091, "bob: hello"]


@pytest.fixture
def made_up() -> Iterator[socket.socket]:
    """Give a listening socket for a server that the test plays."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        listener.settimeout(10)
        yield listener


def play(listener: socket.socket, *commands: str, replies: bytes) -> subprocess.CompletedProcess[str]:
    """Answer a client that gets commands from a pipe with replies, whatever it asks."""

    def serve() -> None:
        sock, _ = listener.accept()
        with sock:
            for reply in replies.splitlines(keepends=True):
                sock.settimeout(10)
                sock.recv(1 << 16)
                sock.sendall(reply)
            if reply.endswith(b"\n"):
                sock.recv(1 << 16)

    server = threading.Thread(target=serve)
    server.start()
    port = listener.getsockname()[1]
    try:
        return run_program("chatroom_client.py", "127.0.0.1", str(port), input="\n".join(commands))
    finally:
        server.join()


def test_a_room_that_is_gone_when_the_client_connects_is_told(made_up: socket.socket) -> None:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        done = play(made_up, "join tea", "list", replies=b"\0%d 2\n\0\n" % port)
    assert done.stdout.split("Command> ")[1:] == ["Room tea is gone.\n", "There are no rooms.\n", "\n"]
    assert (done.returncode, done.stderr) == (0, "")


def test_a_room_that_is_reset_while_the_client_enters_is_told(made_up: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as room:

        def reset() -> None:
            sock, _ = room.accept()
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            sock.close()

        resetter = threading.Thread(target=reset)
        resetter.start()
        done = play(made_up, "join tea", replies=b"\0%d 2\n" % room.getsockname()[1])
        resetter.join()
    assert re.search(
        r"(You have left room tea|Room tea is gone|Room tea is closed)\.\nCommand> \n", done.stdout
    )  # as the race goes
    assert (done.returncode, done.stderr) == (0, "")


def test_other_servers_reach_the_terminal_only_with_harmless_text(made_up: socket.socket) -> None:
    with socket.create_server(("127.0.0.1", 0)) as room:

        def serve() -> None:
            sock, _ = room.accept()
            with sock:
                sock.sendall(b"a\x1b[2Jb\xfe\r\nc\x07\tend")
                sock.shutdown(socket.SHUT_WR)
                while sock.recv(1 << 16):
                    pass

        talker = threading.Thread(target=serve)
        talker.start()
        replies = b"\0te\x1b[2Ja,\xfe\n\0%d 0\n\2no \x1b such\n" % room.getsockname()[1]
        done = play(made_up, "list", "join tea", replies=replies[:-1] + b"\n")
        talker.join()
    assert "Rooms: te\ufffd[2Ja, \ufffd\n" in done.stdout
    assert "a\ufffd[2Jb\ufffd\nc\ufffd\tend\n" in done.stdout


@pytest.mark.parametrize(
    "reply, reason",
    [
        (b"HTTP/1.1 400 Bad Request\r\n", "HTTP/1.1 400 Bad Request"),
        (b"\0tea\n", "a port and a number of members are expected, but it answered 'tea'"),
        (b"\0" + b"99999 1\n", "a port and a number of members are expected, but it answered '99999 1'"),
        (b"\0", "it closed the connection"),
    ],
)
def test_a_server_that_answers_nonsense_is_told_in_one_line(made_up: socket.socket, reply: bytes, reason: str) -> None:
    done = play(made_up, "join tea", replies=reply)
    assert (done.returncode, done.stderr) == (1, f"{LOST}{reason}\n")


def test_nobody_who_reads_the_output_is_no_reason_for_a_traceback(server: Program) -> None:
    client = f"{sys.executable} {ROOT / 'chatroom_client.py'} 127.0.0.1 {server.port}"
    command = f"yes list | {client} | true; echo ${{PIPESTATUS[1]}}"
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, timeout=10, check=True)
    assert (done.stdout, done.stderr) == ("1\n", "")


def test_input_may_be_a_file_and_may_be_closed(server: Program, tmp_path: Path) -> None:
    script = tmp_path / "commands"
    script.write_text("create tea\njoin tea\nhello\n")
    client = f"{sys.executable} -W error {ROOT / 'chatroom_client.py'} 127.0.0.1 {server.port}"
    done = subprocess.run(f"{client} <{script}", shell=True, capture_output=True, text=True, timeout=10, check=True)
    assert done.stdout.endswith(" leaves it.\nYou have left room tea.\nCommand> \n")
    for closed in ("<&-", "</dev/null"):
        done = subprocess.run(f"{client} {closed}", shell=True, capture_output=True, text=True, timeout=10, check=True)
        assert (done.stdout.split("\n")[-2:], done.stderr) == (["Command> ", ""], "")


def test_what_one_types_stays_whole_when_lines_come_in(client: Callable[..., Terminal]) -> None:
    alice, bob = client("--name", "alice"), client("--name", "bob")
    enter(alice, "create", "join")
    enter(bob, "join")
    bob.type("I am ty")
    bob.expect_typing("I am ty")
    alice.type("hello\n")
    bob.expect("alice: hello")
    bob.expect_typing("I am ty")
    bob.type("ping, 日本\n")
    alice.expect("hello", "bob: I am typing, 日本")
    alice.type("x" * 130)
    alice.expect_typing("x" * 119)
    bob.type("ok\n")
    alice.expect("bob: ok")
    alice.type("\n")
    bob.expect("I am typing, 日本", "ok", "alice: " + "x" * 130)


def enter(terminal: Terminal, *commands: str) -> None:
    """Type commands, the last of which is a join, for a room called tea."""
    for command in commands:
        terminal.type(f"{command} tea\n")
        terminal.expect(f"Command> {command} tea")
        if command == "create":
            terminal.expect("Room tea is created.")
    terminal.expect_match("You are in room tea")


def test_a_typed_line_can_be_edited(client: Callable[..., Terminal]) -> None:
    alice = client()
    alice.type("lost\x15creaze\x7f\x7fte coffeé\b\x17t\x1b[A\x1bOA\x1b[1;5De\x01a\x1b")
    alice.expect_typing("Command> create tea")
    alice.type("[D\nlist\n")
    alice.expect("Command> create tea", "Room tea is created.", "Command> list", "Rooms: tea")
    alice.type("x\x04\n\x04")
    alice.expect("Command> x", UNKNOWN, "Command> ")
    assert alice.wait() == 0


def test_a_deleted_room_gives_the_prompt_back_while_one_types(server: Program, client: Callable[..., Terminal]) -> None:
    alice = client()
    enter(alice, "create", "join")
    alice.type("But I was")
    alice.expect_typing("But I was")
    commands(server, "delete tea")
    alice.expect("Warning: room tea is deleted", "Room tea is closed.")
    alice.expect_typing("Command> ")
    alice.type("list\n")
    alice.expect("Command> list", "There are no rooms.")


def test_leave_and_ctrl_d_give_the_prompt_back(client: Callable[..., Terminal]) -> None:
    alice = client()
    enter(alice, "create", "join")
    alice.type("/leave\n")
    alice.expect("/leave", "You have left room tea.")
    enter(alice, "join")
    alice.type("\x04")
    alice.expect("You have left room tea.")
    alice.expect_typing("Command> ")
    alice.type("\x04")
    alice.expect("Command> ")
    assert alice.wait() == 0


@pytest.mark.parametrize("how", ["Ctrl-D", "Ctrl-C", "the server is lost"])
def test_the_terminal_shows_keys_again_at_the_end(server: Program, client: Callable[..., Terminal], how: str) -> None:
    alice = client()
    assert not alice.shows_keys()
    if how == "Ctrl-D":
        alice.type("\x04")
    elif how == "Ctrl-C":
        alice.process.send_signal(signal.SIGINT)
    else:
        server.stop()
    assert alice.wait() == (1 if how == "the server is lost" else 0)
    assert alice.shows_keys()


@pytest.mark.skipif(not shutil.which("telnet"), reason="telnet is not installed")
def test_an_evening(client: Callable[..., Terminal], open_terminal: Callable[..., Terminal]) -> None:
    alice = client("--name", "alice")
    alice.type("LIST\nCREATE tea\ncreate tea\nCREATE Soup\nLIST\n")
    alice.expect("Command> LIST", "There are no rooms.")
    alice.expect("Command> CREATE tea", "Room tea is created.")
    alice.expect("Command> create tea", "Room tea already exists.")
    alice.expect("Command> CREATE Soup", "Room Soup is created.")
    alice.expect("Command> LIST", "Rooms: tea, Soup")
    alice.type("join tea\n")
    alice.expect("Command> join tea")
    entered = alice.expect_match("members before you: 0.")

    bob = client("--name", "bob")
    bob.type("list\njoin tea\nhello alice\n")
    bob.expect("Command> list", "Rooms: tea, Soup", "Command> join tea")
    bob.expect_match("members before you: 1.")
    bob.expect("hello alice")
    alice.expect("bob: hello alice")
    alice.type("hello bob\n")
    alice.expect("hello bob")
    bob.expect("alice: hello bob")

    port = re.search(r"on port (\d+)", entered)
    assert port
    carol = open_terminal("telnet", "127.0.0.1", port[1])
    carol.expect("Trying 127.0.0.1...", "Connected to 127.0.0.1.", "Escape character is '^]'.")
    carol.type("carol is here\n")
    carol.expect("carol is here")
    for other in (alice, bob):
        other.expect("carol is here")
    carol.type("\n")
    for other in (carol, alice, bob):
        other.expect("")
    bob.type("Still typ")
    bob.expect_typing("Still typ")
    alice.type("welcome\n")
    alice.expect("welcome")
    for other in (bob, carol):
        other.expect("alice: welcome")
    bob.expect_typing("Still typ")

    dave = client()
    dave.type("join soup\ndelete tea\ndelete tea\nlist\n")
    dave.expect("Command> join soup", "Room soup does not exist.")
    dave.expect("Command> delete tea", "Room tea is deleted.")
    dave.expect("Command> delete tea", "Room tea does not exist.")
    dave.expect("Command> list", "Rooms: Soup")
    for member in (alice, bob, carol):
        member.expect("Warning: room tea is deleted")
    carol.expect("Connection closed by foreign host.")
    for member in (alice, bob):
        member.expect("Room tea is closed.")
        member.expect_typing("Command> ")
    for person in (alice, bob, dave):
        person.type("\x04")
        person.expect("Command> ")
        assert person.wait() == 0


@pytest.mark.parametrize("host", ["a..b", "x" * 70])
def test_a_host_whose_name_cannot_be_one_is_one_line(host: str) -> None:
    done = run_program("chatroom_client.py", host, "5000")
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(f"Cannot connect to {host}:5000: ")
    assert done.stderr.count("\n") == 1
