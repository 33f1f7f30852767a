"""What demo.py plays: for each system its servers, a short story with several clients, and how to visit it oneself."""

import shlex
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from scenarios.harness import ROOT, Program, Stage

Check = Callable[[str, str, str], None]  # the situation, what is expected, what happened

HOST = "127.0.0.1"
DORMITORY_FILES = ("single.txt", "double.txt", "suite.txt", "member.txt")
PASSWORDS = {"alice": "correct horse, battery", "bob": "tr0ub4dor"}  # of the members in member.txt


class System(NamedTuple):
    """One of the four systems.

    Attributes:
        title: what it is called.
        open: starts its servers, with copies of its data files in a directory.
        play: starts them too, and plays the story.
        invite: returns lines to paste into other terminals.
    """

    title: str
    open: Callable[[Stage, Path], Any]
    play: Callable[[Stage, Path, Check], None]
    invite: Callable[[Any], list[str]]


class Server(NamedTuple):
    """The server of a system that has one."""

    program: Program
    port: int


class Dormitory(NamedTuple):
    """The four servers of the dormitory, by letter, and their ports."""

    programs: dict[str, Program]
    ports: dict[str, int]
    directory: Path


def open_chat(stage: Stage, directory: Path, *options: str) -> Server:
    """Start a chat server."""
    program = stage.program("chat_server", "chat_server.py", "0", "--host", HOST, *options)
    return Server(program, program.sees_number(f"Listening on {HOST}:"))


def play_chat(stage: Stage, directory: Path, check: Check) -> None:
    """Tell of a name that is taken, of messages, and of one user too many."""
    server = open_chat(stage, directory, "--max-users", "3")
    alice, bob, carol = (stage.telnet(name, server.port) for name in ("alice", "bob", "carol"))
    alice.types("JOIN alice")
    alice.sees("JOIN alice accepted")
    bob.types("JOIN alice")
    check("a name that is in use", "Username alice is taken", bob.reply())
    bob.types("JOIN bob")
    bob.sees("JOIN bob accepted")
    carol.types("BCST let me in")
    check("who has not joined", "Unregistered User.", carol.reply())
    carol.types("JOIN carol")
    carol.sees("JOIN carol accepted")
    alice.types("BCST hello, all")
    check("a broadcast, at bob", "FROM alice (all): hello, all", bob.reply())
    check("a broadcast, at carol", "FROM alice (all): hello, all", carol.reply())
    bob.types("MESG alice psst")
    check("a message, at alice", "FROM bob: psst", alice.reply())
    alice.types("MESG dave are you there?")
    check("a message to nobody", "Unknown Recipient dave", alice.reply())
    dave = stage.telnet("dave", server.port)
    dave.types("JOIN dave")
    check("a fourth user, of three", "Too Many Users", dave.reply())
    bob.types("QUIT")
    check("who quits is let go", "yes", "yes" if bob.sees_end() else "no")
    alice.types("LIST")
    check("who is there then", "alice, carol", ", ".join([alice.sees("users (2)") and alice.reply(), alice.reply()]))


def invite_to_chat(server: Server) -> list[str]:
    """Return lines to paste."""
    return [f"telnet localhost {server.port}", f"telnet localhost {server.port}"]


def open_cinema(stage: Stage, directory: Path) -> Server:
    """Start a ticket server with a copy of the hall."""
    shutil.copy(ROOT / "seats.txt", directory)
    arguments = ("0", "--host", HOST, "--seats-file", str(directory / "seats.txt"))
    program = stage.program("ticket_server", "ticket_server.py", *arguments)
    return Server(program, program.sees_number(f"Listening on {HOST}:"))


def play_cinema(stage: Stage, directory: Path, check: Check) -> None:
    """Tell of two who want the last seat."""
    server = open_cinema(stage, directory)
    seats_file = directory / "seats.txt"
    seats_file.write_text("1 1 1 1 1\n1 1 1 0 1\n1 1 0 1 1\n1 1 1 1 1\n1 1 1 1 1\n")  # between customers an edit counts
    alice = stage.program("alice", "ticket_client.py", "localhost", str(server.port))
    alice.sees("How many tickets do you want?")
    alice.types("1")
    alice.sees("Row for ticket 1?")
    alice.types("2-4")
    check("a free seat", "Booked: 2-4", alice.sees("Booked"))
    bob = stage.telnet("bob", server.port)
    carol = stage.program("carol", "ticket_client.py", "localhost", str(server.port))
    for customer in (bob, carol):
        customer.sees("How many tickets do you want?")
        customer.types("1")
        customer.sees("Row for ticket 1?")
    bob.types("3")
    bob.sees("Seat for ticket 1?")
    carol.types("3-3")
    bob.types("3")
    answers = sorted((bob.sees("3-3"), carol.sees("3-3")))
    check("the last seat, one of two", "Booked: 3-3", answers[0])
    check("the last seat, the other", "Seat 3-3 is taken.", answers[1])
    check("seats.txt", "25 taken, 0 free", "{} taken, {} free".format(*map(seats_file.read_text().count, "10")))
    dave = stage.program("dave", "ticket_client.py", "localhost", str(server.port), "--seats", "1-1")
    check("a ticket too many", "Only 0 seats are free", dave.sees("Only"))


def invite_to_cinema(server: Server) -> list[str]:
    """Return lines to paste."""
    return [command("ticket_client.py", "localhost", str(server.port)), f"telnet localhost {server.port}"]


def open_rooms(stage: Stage, directory: Path) -> Server:
    """Start a chat room server."""
    program = stage.program("chatroom_server", "chatroom_server.py", "0", "--host", HOST)
    return Server(program, program.sees_number(f"Listening on {HOST}:"))


def play_rooms(stage: Stage, directory: Path, check: Check) -> None:
    """Tell of a room, of who talks in it, and of its end."""
    server = open_rooms(stage, directory)
    alice, bob = (
        stage.program(name, "chatroom_client.py", "localhost", str(server.port), "--name", name)
        for name in ("alice", "bob")
    )
    alice.sees("Command> ")
    alice.types("CREATE tea")
    alice.sees("Room tea is created.")
    bob.sees("Command> ")
    bob.types("CREATE tea")
    check("a room that is there", "Room tea already exists.", bob.reply())
    bob.types("LIST")
    check("the rooms", "Rooms: tea", bob.reply())
    port = enter_room(server, alice)
    enter_room(server, bob)
    carol = stage.telnet("carol", port)
    server.program.sees("entered room tea")
    carol.types("hello from telnet")
    check("telnet talks, at alice", "hello from telnet", alice.reply())
    check("telnet talks, at bob", "hello from telnet", bob.reply())
    alice.types("have some tea")
    check("alice talks, at carol", "alice: have some tea", carol.reply())
    bob.sees("alice: have some tea")
    dave = stage.program("dave", "chatroom_client.py", "localhost", str(server.port))
    dave.sees("Command> ")
    dave.types("DELETE tea")
    for member in (alice, bob, carol):
        check(f"room deleted, at {member.name}", "Warning: room tea is deleted", member.reply())
    check("bob has left the room", "Room tea is closed.", bob.reply())
    check("carol is disconnected", "yes", "yes" if carol.sees_end() else "no")
    dave.sees("Room tea is deleted.")
    dave.types("LIST")
    check("the rooms then", "There are no rooms.", dave.reply())


def enter_room(server: Server, client: Program) -> int:
    """Have a client go in; return the room's port."""
    client.sees("Command> ")
    client.types("JOIN tea")
    port = client.sees_number("You are in room tea on port ")
    server.program.sees("entered room tea")
    return port


def invite_to_rooms(server: Server) -> list[str]:
    """Return lines to paste."""
    return [command("chatroom_client.py", "localhost", str(server.port), "--name", name) for name in ("alice", "bob")]


def open_dormitory(stage: Stage, directory: Path) -> Dormitory:
    """Start a main server and three back ends with copies of the inventory and the members."""
    for name in DORMITORY_FILES:
        shutil.copy(ROOT / name, directory)
    data = ("--data-dir", str(directory))
    main = stage.program("serverM", "serverM.py", "--tcp-port", "0", "--udp-port", "0", *data)
    dormitory = Dormitory(
        {"M": main},
        {"M": main.sees_number(f"Listening on {HOST}:"), "UDP": main.sees_number(f"over UDP on {HOST}:")},
        directory,
    )
    for letter in "SDU":
        open_back_end(stage, dormitory, letter)
    for _ in "SDU":
        main.sees("has sent its room status")
    return dormitory


def open_back_end(stage: Stage, dormitory: Dormitory, letter: str) -> None:
    """Start a back end; if it ran before, on the same port."""
    ports = ("--port", str(dormitory.ports.get(letter, 0)), "--main-port", str(dormitory.ports["UDP"]))
    data = ("--data-dir", str(dormitory.directory))
    program = stage.program(f"server{letter}", f"server{letter}.py", *ports, *data)
    dormitory.programs[letter] = program
    dormitory.ports[letter] = program.sees_number(f"listening on {HOST}:")


def play_dormitory(stage: Stage, directory: Path, check: Check) -> None:
    """Tell of a guest, of the last room, and of a back end that is killed in the middle of a reservation."""
    dormitory = open_dormitory(stage, directory)
    guest, alice, bob = (log_in(stage, dormitory, name) for name in ("dave", "alice", "bob"))
    guest.types("S410")
    guest.types("availability")
    check("a guest asks", "Room S410 is available: 1 left", guest.reply())
    guest.types("S410")
    guest.types("reservation")
    check("a guest reserves", "Denied: Guests cannot reserve.", guest.reply())
    for member in (alice, bob):
        member.types("S410")
    for member in (alice, bob):
        member.types("reservation")
    answers = sorted((alice.reply(), bob.reply()))
    check("the last room, one of two", "Room S410 is yours", answers[1])
    check("the last room, the other", "Room S410 is not available", answers[0])
    kill_while_reserving(stage, dormitory, alice, check)
    guest.types("S233")
    guest.types("availability")
    check("rooms left then, of 6", "Room S233 is available: 5 left", guest.reply())


def log_in(stage: Stage, dormitory: Dormitory, name: str) -> Program:
    """Start a client that has logged in; who has no password is a guest."""
    client = stage.program(name, "client.py", "--port", str(dormitory.ports["M"]))
    client.types(name)
    client.types(PASSWORDS.get(name, ""), shown="(a password)" if name in PASSWORDS else "(Enter)")
    client.sees(f"Welcome, {'member' if name in PASSWORDS else 'guest'} {name}.")
    return client


def kill_while_reserving(stage: Stage, dormitory: Dormitory, alice: Program, check: Check) -> None:
    """Have a back end stand still, so that a reservation is under way when it is killed; then start it again."""
    dormitory.programs["S"].freeze()
    alice.types("S233")
    alice.types("reservation")
    dormitory.programs["M"].sees("RESERVE S233 from alice")
    dormitory.programs["S"].kill()
    open_back_end(stage, dormitory, "S")
    answer = alice.reply()
    situation = "Server S killed meanwhile"
    if "Try later" in answer:  # the machine is so slow that a restart takes longer than the main server waits
        check(situation, "Server S is not answering", answer)
        if not reservations(alice, "S233"):
            alice.types("S233")
            alice.types("reservation")
    else:
        check(situation, "Room S233 is yours", answer)
    check("alice has it", "once", {1: "once"}.get(reservations(alice, "S233"), "not once"))


def reservations(member: Program, room: str) -> int:
    """Return how many reservations of a room a member has."""
    member.types("mine")
    member.types("help")
    return sum(line.endswith(f" {room}") for line in member.sees_all("leave"))


def invite_to_dormitory(dormitory: Dormitory) -> list[str]:
    """Return lines to paste."""
    line = command("client.py", "--port", str(dormitory.ports["M"]))
    hints = [f"# as {name}, whose password is: {password}" for name, password in PASSWORDS.items()]
    return [*(f"{line}  {hint}" for hint in hints), f"{line}  # as a guest"]


def command(script: str, *arguments: str) -> str:
    """Return a line that starts a program from any directory."""
    return shlex.join(["python3", str(ROOT / script), *arguments])


SYSTEMS = {
    "chat": System("Chat", open_chat, play_chat, invite_to_chat),
    "cinema": System("Cinema tickets", open_cinema, play_cinema, invite_to_cinema),
    "rooms": System("Chat rooms", open_rooms, play_rooms, invite_to_rooms),
    "dormitory": System("Dormitory", open_dormitory, play_dormitory, invite_to_dormitory),
}
