"""The scenarios of demo.py: for each system its servers, a short dialogue of several clients, and lines to paste."""

import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from scenarios.harness import HOST, ROOT, Harness, LineClient, ScriptProcess, Unmet

Check = Callable[[str, str, str], None]  # the situation, what is expected, what happened

LISTENING = f"istening on {HOST}:"  # preceded by "L" or "Server S l"
DORMITORY_FILES = ("single.txt", "double.txt", "suite.txt", "member.txt")
PASSWORDS = {"alice": "correct horse, battery", "bob": "tr0ub4dor"}  # of the members in member.txt
TWO_FREE_SEATS = "1 1 1 1 1\n1 1 1 0 1\n1 1 0 1 1\n1 1 1 1 1\n1 1 1 1 1\n"  # 2-4 and 3-3
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    " -out certificate.pem -keyout key.pem"
)


class NotPlayed(Exception):
    """A scenario cannot be played on this machine; the text says why."""


class OpenServer(NamedTuple):
    """The server to which clients connect.

    Attributes:
        program: the server.
        port: the port on which it listens.
        directory: the directory of its files.
        back_ends: the back ends of a dormitory and their ports, by letter.
    """

    program: ScriptProcess
    port: int
    directory: Path
    back_ends: dict[str, tuple[ScriptProcess, int]]


class Scenario(NamedTuple):
    """One of the scenarios.

    Attributes:
        title: its name in the output.
        open: starts the servers, with their files in a directory.
        play: starts the servers and plays the scenario.
        invite: returns lines to paste into other terminals.
        front_end_option: the option of front_end.py for this server, or an empty string if it has none.
    """

    title: str
    open: Callable[[Harness, Path], OpenServer]
    play: Callable[[Harness, Path, Check], None]
    invite: Callable[[OpenServer], list[str]]
    front_end_option: str = ""


def start_server(harness: Harness, directory: Path, script: str, *options: str) -> OpenServer:
    """Start a server that takes a port as its first argument."""
    program = harness.start(Path(script).stem, script, "0", "--host", HOST, *options)
    return OpenServer(program, program.expect_number(LISTENING), directory, {})


def end_of(participant: LineClient) -> str:
    """Return whether a connection ends within the time limit, as a word for the table."""
    return "disconnected" if participant.ends() else "connected"


def open_chat(harness: Harness, directory: Path) -> OpenServer:
    """Start a chat server."""
    return start_server(harness, directory, "chat_server.py")


def play_chat(harness: Harness, directory: Path, check: Check) -> None:
    """Show a name that is taken, messages, and one user too many."""
    server = start_server(harness, directory, "chat_server.py", "--max-users", "3")

    def request(client: LineClient, line: str) -> None:
        client.send(line)
        server.program.expect(line.split()[0])

    alice, bob, carol, dave = (harness.connect(name, server.port) for name in ("alice", "bob", "carol", "dave"))
    request(alice, "JOIN alice")
    alice.expect("JOIN alice accepted")
    request(bob, "JOIN alice")
    check("a name that is in use", "Username alice is taken", bob.reply())
    request(bob, "JOIN bob")
    bob.expect("JOIN bob accepted")
    request(carol, "BCST let me in")
    check("a request before JOIN", "Unregistered User.", carol.reply())
    request(carol, "JOIN carol")
    carol.expect("JOIN carol accepted")
    request(alice, "BCST hello, all")
    check("a broadcast, at bob", "FROM alice (all): hello, all", bob.reply())
    check("a broadcast, at carol", "FROM alice (all): hello, all", carol.reply())
    request(bob, "MESG alice psst")
    check("a message, at alice", "FROM bob: psst", alice.reply())
    request(alice, "MESG dave are you there?")
    check("a message to nobody", "Unknown Recipient dave", alice.reply())
    request(dave, "JOIN dave")
    check("a fourth user, of three", "Too Many Users", dave.reply())
    request(bob, "QUIT")
    check("after QUIT", "disconnected", end_of(bob))
    request(alice, "LIST")
    check("the users then", "alice, carol", ", ".join([alice.expect("users (2)") and alice.reply(), alice.reply()]))


def invite_to_chat(server: OpenServer) -> list[str]:
    """Return lines to paste, and what to type then."""
    line = f"telnet localhost {server.port}"
    return [
        f"{line}  # then type: JOIN alice",
        f"{line}  # then type: JOIN bob, and BCST hello, MESG alice hi, LIST or QUIT",
    ]


def open_cinema(harness: Harness, directory: Path) -> OpenServer:
    """Start a ticket server with a copy of the hall."""
    shutil.copy(ROOT / "seats.txt", directory)
    return start_server(harness, directory, "ticket_server.py", "--seats-file", str(directory / "seats.txt"))


def play_cinema(harness: Harness, directory: Path, check: Check) -> None:
    """Show two customers who want the last seat."""
    server = open_cinema(harness, directory)
    seats_file = directory / "seats.txt"
    seats_file.write_text(TWO_FREE_SEATS)  # the server reads it again for each customer

    def start_client(name: str, *options: str) -> ScriptProcess:
        return harness.start(name, "ticket_client.py", "localhost", str(server.port), *options)

    def ask_for_one_ticket(customer: ScriptProcess | LineClient) -> None:
        customer.expect("How many tickets do you want?")
        customer.send("1")
        server.program.expect("tickets asked for: 1")
        customer.expect("Row for ticket 1?")

    alice = start_client("alice")
    ask_for_one_ticket(alice)
    alice.send("2-4")
    server.program.expect("booked 2-4")
    check("a free seat", "Booked: 2-4", alice.expect("Booked"))
    alice.ends()
    bob, carol = harness.connect("bob", server.port), start_client("carol")
    for customer in (bob, carol):
        ask_for_one_ticket(customer)
    bob.send("3")
    bob.expect("Seat for ticket 1?")
    carol.send("3-3")
    bob.send("3")
    server.program.expect_all("booked 3-3", "cancelled")
    answers = sorted((bob.expect("3-3"), carol.expect("3-3")))
    check("the last seat, one of two", "Booked: 3-3", answers[0])
    check("the last seat, the other", "Seat 3-3 is taken.", answers[1])
    carol.ends()
    check("seats.txt", "25 taken, 0 free", "{} taken, {} free".format(*map(seats_file.read_text().count, "10")))
    dave = start_client("dave", "--seats", "1-1")
    server.program.expect("cancelled")
    check("a ticket too many", "Only 0 seats are free", dave.expect("Only"))


def invite_to_cinema(server: OpenServer) -> list[str]:
    """Return lines to paste."""
    return [command("ticket_client.py", "localhost", str(server.port)), f"telnet localhost {server.port}"]


def open_rooms(harness: Harness, directory: Path) -> OpenServer:
    """Start a chat room server."""
    return start_server(harness, directory, "chatroom_server.py")


class RoomUser:
    """A chatroom_client.py and its server."""

    def __init__(self, harness: Harness, server: OpenServer, name: str, *options: str) -> None:
        arguments = ("localhost", str(server.port), "--name", name, *options)
        self.client = harness.start(name, "chatroom_client.py", *arguments)
        self._server = server.program
        self._server.expect("LIST")
        self.client.expect("Command> ")

    def command(self, line: str, logged: str = "") -> None:
        """Enter a command; wait until the server has logged it."""
        self.client.send(line)
        self._server.expect(logged or line)

    def join(self) -> int:
        """Enter the room called tea; return its port."""
        self.client.expect("Command> ")
        self.command("JOIN tea", "entered room tea")
        port = self.client.expect_number("You are in room tea on port ")
        self.client.expect("Members before you: ")
        return port


def play_rooms(harness: Harness, directory: Path, check: Check) -> None:
    """Show a room, users who talk in it, and its end."""
    server = open_rooms(harness, directory)
    alice, bob = (RoomUser(harness, server, name) for name in ("alice", "bob"))
    alice.command("CREATE tea")
    alice.client.expect("Room tea is created.")
    bob.command("CREATE tea", "refused")
    check("a room that exists", "Room tea already exists.", bob.client.reply())
    bob.command("LIST")
    check("the rooms", "Rooms: tea", bob.client.reply())
    port = alice.join()
    bob.join()
    carol = harness.connect("carol", port)
    server.program.expect("entered room tea")
    carol.send("hello from telnet")
    server.program.expect("line to room tea")
    check("telnet talks, at alice", "hello from telnet", alice.client.expect("hello"))
    check("telnet talks, at bob", "hello from telnet", bob.client.reply())
    alice.command("have some tea", "line to room tea")
    check("alice talks, at carol", "alice: have some tea", carol.reply())
    bob.client.expect("alice: have some tea")
    dave = RoomUser(harness, server, "dave")
    dave.command("DELETE tea")
    for member in (alice.client, bob.client, carol):
        check(f"room deleted, at {member.name}", "Warning: room tea is deleted", member.reply())
    check("bob then", "Room tea is closed.", bob.client.reply())
    check("carol then", "disconnected", end_of(carol))
    dave.client.expect("Room tea is deleted.")
    dave.command("LIST")
    check("the rooms then", "There are no rooms.", dave.client.reply())


def invite_to_rooms(server: OpenServer) -> list[str]:
    """Return lines to paste, and what to type then."""
    line = ["chatroom_client.py", "localhost", str(server.port), "--name"]
    return [
        f"{command(*line, 'alice')}  # then type: CREATE tea, and JOIN tea",
        f"{command(*line, 'bob')}  # then type: JOIN tea",
    ]


def open_dormitory(harness: Harness, directory: Path) -> OpenServer:
    """Start three back ends and a main server, with copies of the inventories and the members."""
    for name in DORMITORY_FILES:
        shutil.copy(ROOT / name, directory)
    back_ends = {letter: open_back_end(harness, directory, letter) for letter in "SDU"}
    where = [part for letter in "SDU" for part in (f"--server-{letter.lower()}", f"{HOST}:{back_ends[letter][1]}")]
    main = harness.start("serverM", "serverM.py", "--tcp-port", "0", *where, "--data-dir", str(directory))
    server = OpenServer(main, main.expect_number(LISTENING), directory, back_ends)
    for letter, (back_end, _) in back_ends.items():
        back_end.expect(f"Server {letter} sent")
    main.expect_all(*(f"Server {letter} has sent its room status" for letter in back_ends))
    return server


def open_back_end(harness: Harness, directory: Path, letter: str, port: int = 0) -> tuple[ScriptProcess, int]:
    """Start a back end; return it and its port."""
    options = ("--port", str(port), "--data-dir", str(directory))
    program = harness.start(f"server{letter}", f"server{letter}.py", *options)
    return program, program.expect_number(LISTENING)


def play_dormitory(harness: Harness, directory: Path, check: Check) -> None:
    """Show a guest, the last room, and a back end that is killed during a reservation."""
    server = open_dormitory(harness, directory)
    guest, alice, bob = (log_in(harness, server, name) for name in ("dave", "alice", "bob"))
    ask_for_room(server, guest, "S410", "availability", "AVAILABLE")
    check("a guest asks", "Room S410 is available: 1 left", guest.reply())
    ask_for_room(server, guest, "S410", "reservation", "DENIED")
    check("a guest reserves", "Denied: Guests cannot reserve.", guest.reply())
    for member in (alice, bob):
        member.send("S410")
    for member in (alice, bob):
        member.send("reservation")
    server.back_ends["S"][0].expect_all("Server S sent RESERVED", "Server S sent FULL")
    server.program.expect_all("result sent: RESERVED", "result sent: FULL")
    answers = sorted((alice.reply(), bob.reply()))
    check("the last room, one of two", "Room S410 is yours", answers[1])
    check("the last room, the other", "Room S410 is not available", answers[0])
    kill_while_reserving(harness, server, alice, check)
    ask_for_room(server, guest, "S233", "availability", "AVAILABLE")
    check("rooms left then, of 6", "Room S233 is available: 5 left", guest.reply())


def log_in(harness: Harness, server: OpenServer, name: str) -> ScriptProcess:
    """Start a client and log in: as a member if the name has a password, otherwise as a guest."""
    client = harness.start(name, "client.py", "--port", str(server.port))
    client.send(name)
    client.send(PASSWORDS.get(name, ""), shown="(a password)" if name in PASSWORDS else "(Enter)")
    kind = "member" if name in PASSWORDS else "guest"
    server.program.expect(f"result sent: {kind.upper()} {name}")
    client.expect(f"Welcome, {kind} {name}.")
    return client


def ask_for_room(server: OpenServer, client: ScriptProcess, room: str, wish: str, result: str) -> None:
    """Ask for a single room; wait until the servers have logged the result."""
    client.send(room)
    client.send(wish)
    if result != "DENIED":  # the main server does not ask a back end then
        server.program.expect("request sent to Server S")
        server.back_ends["S"][0].expect(f"Server S sent {result}")
    server.program.expect(f"result sent: {result}")


def kill_while_reserving(harness: Harness, server: OpenServer, alice: ScriptProcess, check: Check) -> None:
    """Suspend a back end, so that it has received a reservation when it is killed; then start it again."""
    back_end, port = server.back_ends["S"]
    back_end.freeze()
    alice.send("S233")
    alice.send("reservation")
    server.program.expect("request sent to Server S")
    back_end.kill()
    server.back_ends["S"] = open_back_end(harness, server.directory, "S", port)
    server.back_ends["S"][0].shows("Server S sent RESERVED")
    server.program.expect("result sent: ")
    answer = alice.reply()
    situation = "Server S killed meanwhile"
    if "Try later" in answer:  # on a slow machine the restart takes longer than the main server waits
        check(situation, "Server S is not answering", answer)
        if not reservations(server, alice, "S233"):
            ask_for_room(server, alice, "S233", "reservation", "RESERVED")
    else:
        check(situation, "Room S233 is yours", answer)
    check("alice has it", "once", {1: "once"}.get(reservations(server, alice, "S233"), "not once"))


def reservations(server: OpenServer, member: ScriptProcess, room: str) -> int:
    """Return how many reservations of a room a member has."""
    member.send("mine")
    for letter, (back_end, _) in server.back_ends.items():
        back_end.expect(f"Server {letter} received MINE")
        back_end.expect(f"Server {letter} sent")
    server.program.expect("result sent: RESERVATIONS")
    member.send("help")
    return sum(line.endswith(f" {room}") for line in member.expect_lines("leave"))


def invite_to_dormitory(server: OpenServer) -> list[str]:
    """Return lines to paste."""
    line = command("client.py", "--port", str(server.port))
    hints = [f"# as {name}, whose password is: {password}" for name, password in PASSWORDS.items()]
    return [*(f"{line}  {hint}" for hint in hints), f"{line}  # as a guest"]


def open_tls(harness: Harness, directory: Path) -> OpenServer:
    """Make a certificate, and start a chat room server that uses it.

    Raises:
        NotPlayed: there is no openssl.
        Unmet: openssl made no certificate.
    """
    if not shutil.which("openssl"):
        raise NotPlayed("openssl, which makes a certificate for this scenario, is not installed")
    done = subprocess.run(shlex.split(MAKE_CERTIFICATE), cwd=directory, capture_output=True, text=True)
    if done.returncode:
        raise Unmet("openssl makes a certificate", " / ".join(done.stderr.split("\n")[-3:]))
    files = (str(directory / "certificate.pem"), "--tls-key", str(directory / "key.pem"))
    return start_server(harness, directory, "chatroom_server.py", "--tls-certificate", *files)


def play_tls(harness: Harness, directory: Path, check: Check) -> None:
    """Show clients that trust the server's certificate, one that does not, and one that speaks plain text."""
    server = open_tls(harness, directory)
    trust = ("--tls", "--tls-ca", str(directory / "certificate.pem"))
    alice, bob = (RoomUser(harness, server, name, *trust) for name in ("alice", "bob"))
    alice.command("CREATE tea")
    for user in (alice, bob):
        user.join()
    alice.command("nobody can read this on the way", "line to room tea")
    check("encrypted, at bob", "alice: nobody can read this", bob.client.reply())
    carol = harness.start("carol", "chatroom_client.py", "localhost", str(server.port), "--tls")
    server.program.expect("TLS handshake failed")
    check("an unknown certificate", f"Cannot trust localhost:{server.port}", carol.expect("certificate"))
    dave = harness.connect("dave", server.port)
    dave.send("1soup, in plain text")
    server.program.expect("TLS handshake failed")
    check("a client without TLS", "disconnected", end_of(dave))


def invite_to_tls(server: OpenServer) -> list[str]:
    """Return lines to paste."""
    trust = ("--tls", "--tls-ca", str(server.directory / "certificate.pem"))
    line = ["chatroom_client.py", "localhost", str(server.port), *trust, "--name"]
    return [command(*line, "alice"), command(*line, "bob")]


def command(script: str, *arguments: str) -> str:
    """Return a line that starts a program from any directory."""
    return shlex.join(["python3", str(ROOT / script), *arguments])


SCENARIOS = {
    "chat": Scenario("Chat", open_chat, play_chat, invite_to_chat, "--chat"),
    "cinema": Scenario("Cinema tickets", open_cinema, play_cinema, invite_to_cinema, "--tickets"),
    "rooms": Scenario("Chat rooms", open_rooms, play_rooms, invite_to_rooms, "--chatrooms"),
    "dormitory": Scenario("Dormitory", open_dormitory, play_dormitory, invite_to_dormitory, "--dormitory"),
    "tls": Scenario("Chat rooms over TLS", open_tls, play_tls, invite_to_tls),
}
OTHER_NAMES = {"tickets": "cinema", "chatrooms": "rooms"}
