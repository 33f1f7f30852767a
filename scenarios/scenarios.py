"""The scenarios of demo.py: for each system its servers, a short dialogue of several clients, and lines to paste."""

import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Sequence
from typing import NamedTuple

from scenarios.harness import HOST, ROOT, Harness, Participant, ScriptProcess, Unmet

DORMITORY_FILES = ("single.txt", "double.txt", "suite.txt", "member.txt")
BACK_END_PORTS = {"S": 21000, "D": 22000, "U": 23000}
PASSWORDS = {"alice": "correct horse, battery", "bob": "tr0ub4dor"}  # of the members in member.txt
TWO_FREE_SEATS = "1 1 1 1 1\n1 1 1 0 1\n1 1 0 1 1\n1 1 1 1 1\n1 1 1 1 1\n"  # 2-4 and 3-3
MAKE_CERTIFICATE = (
    "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=localhost -addext subjectAltName=DNS:localhost"
    " -out certificate.pem -keyout key.pem"
)


class NotPlayed(Exception):
    """A scenario cannot be played on this machine; the text says why."""


class Scenario(NamedTuple):
    """A system's title; `open` starts its servers and returns the one for clients; `play` also plays a dialogue."""

    title: str
    open: Callable[[Harness], ScriptProcess]
    play: Callable[[Harness], None]


def command(script: str, *arguments: str) -> str:
    """Return a line that starts a program from any directory."""
    return shlex.join(["python3", str(ROOT / script), *arguments])


def open_chat(harness: Harness, *options: str) -> ScriptProcess:
    """Start a chat server."""
    server = harness.start_server("chat_server.py", harness.port(5050), *harness.listening, *options)
    line = shlex.join(["telnet", harness.addresses[0], str(server.port)])
    harness.invite([line], ["type JOIN alice, or JOIN bob; then BCST hello, MESG alice hi, LIST, QUIT"])
    return server


def play_chat(harness: Harness) -> None:
    """Show a name that is taken, messages, and one user too many."""
    server = open_chat(harness, "--max-users", "3")
    alice, bob, carol, dave = (harness.connect(name, server.port) for name in ("alice", "bob", "carol", "dave"))
    server.receive_from(alice, "JOIN alice")
    alice.expect("JOIN alice accepted")
    harness.check("a name that is in use", "Username alice is taken", server.answer_to(bob, "JOIN alice"))
    server.receive_from(bob, "JOIN bob")
    bob.expect("JOIN bob accepted")
    harness.check("a request before JOIN", "Unregistered User.", server.answer_to(carol, "BCST let me in"))
    server.receive_from(carol, "JOIN carol")
    carol.expect("JOIN carol accepted")
    server.receive_from(alice, "BCST hello, all")
    harness.check("a broadcast, at bob", "FROM alice (all): hello, all", bob.reply())
    harness.check("a broadcast, at carol", "FROM alice (all): hello, all", carol.reply())
    server.receive_from(bob, "MESG alice psst")
    harness.check("a message, at alice", "FROM bob: psst", alice.reply())
    harness.check("a message to nobody", "Unknown Recipient dave", server.answer_to(alice, "MESG dave are you there?"))
    server.receive_from(dave, "JOIN dave")
    server.expect("disconnected")
    harness.check("a fourth user, of three", "Too Many Users", dave.reply())
    harness.check("after QUIT", "disconnected", server.answer_to(bob, "QUIT", "disconnected"))
    server.receive_from(alice, "LIST")
    alice.expect("users (2)")
    harness.check("the users then", "alice, carol", f"{alice.reply()}, {alice.reply()}")


def open_tickets(harness: Harness) -> ScriptProcess:
    """Start a ticket server with a copy of the hall."""
    file = shutil.copy(ROOT / "seats.txt", harness.directory)
    server = harness.start_server("ticket_server.py", harness.port(5051), *harness.listening, "--seats-file", str(file))
    address = (harness.addresses[0], str(server.port))
    harness.invite([command("ticket_client.py", *address), shlex.join(["telnet", *address])], [])
    return server


def play_tickets(harness: Harness) -> None:
    """Show two customers who want the last seat."""
    server = open_tickets(harness)
    seats_file = harness.directory / "seats.txt"
    seats_file.write_text(TWO_FREE_SEATS)  # the server reads it again for each customer
    client = ("ticket_client.py", "localhost", str(server.port))

    def ask_for_one_ticket(customer: Participant) -> None:
        customer.expect("How many tickets do you want?")
        server.receive_from(customer, "1", "tickets asked for: 1")
        customer.expect("Row for ticket 1?")

    alice = harness.start("alice", *client)
    ask_for_one_ticket(alice)
    server.receive_from(alice, "2-4", "disconnected")
    harness.check("a free seat", "Booked: 2-4", alice.expect("Booked"))
    alice.read_rest()
    bob, carol = harness.connect("bob", server.port), harness.start("carol", *client)
    for customer in (bob, carol):
        ask_for_one_ticket(customer)
    bob.send("3")
    bob.expect("Seat for ticket 1?")
    carol.send("3-3")
    bob.send("3")
    server.expect("booked 3-3", "cancelled", "disconnected", "disconnected")
    answers = sorted((bob.expect("3-3"), carol.expect("3-3")))
    harness.check("the last seat, one of two", "Booked: 3-3", answers[0])
    harness.check("the last seat, the other", "Seat 3-3 is taken.", answers[1])
    carol.read_rest()
    taken, free = map(seats_file.read_text().count, "10")
    harness.check("seats.txt", "25 taken, 0 free", f"{taken} taken, {free} free")
    dave = harness.start("dave", *client, "--seats", "1-1")
    server.expect("cancelled", "disconnected")
    harness.check("a ticket too many", "Only 0 seats are free", dave.expect("Only"))


def open_chat_rooms(harness: Harness, *options: str, usual: int = 5052, trust: Sequence[str] = ()) -> ScriptProcess:
    """Start a chat room server; its clients need options to trust it if it speaks TLS."""
    server = harness.start_server("chatroom_server.py", harness.port(usual), *harness.listening, *options)
    line = command("chatroom_client.py", harness.addresses[0], str(server.port), *trust, "--name")
    harness.invite([f"{line} alice", f"{line} bob"], ["type CREATE tea (one of the two), then JOIN tea"])
    return server


def enter_lobby(harness: Harness, server: ScriptProcess, name: str, *options: str) -> Participant:
    """Start a chatroom_client.py."""
    client = harness.start(name, "chatroom_client.py", "localhost", str(server.port), "--name", name, *options)
    server.expect("LIST")
    client.expect("Command> ")
    return client


def join_tea(server: ScriptProcess, client: Participant) -> int:
    """Enter the room called tea; return its port."""
    client.expect("Command> ")
    server.receive_from(client, "JOIN tea", "entered room tea")
    port = client.expect("You are in room tea on port ").rpartition(" ")[2]
    client.expect("Members before you: ")
    return int(port.removesuffix("."))


def play_chat_rooms(harness: Harness) -> None:
    """Show a room, users who talk in it, and its end."""
    server = open_chat_rooms(harness)
    alice, bob = (enter_lobby(harness, server, name) for name in ("alice", "bob"))
    server.receive_from(alice, "CREATE tea")
    alice.expect("Room tea is created.")
    harness.check("a room that exists", "Room tea already exists.", server.answer_to(bob, "CREATE tea", "refused"))
    harness.check("the rooms", "Rooms: tea", server.answer_to(bob, "LIST"))
    port = join_tea(server, alice)
    join_tea(server, bob)
    carol = harness.connect("carol", port)
    server.expect("entered room tea")
    server.receive_from(carol, "hello from telnet", "line to room tea")
    harness.check("telnet talks, at alice", "hello from telnet", alice.expect("hello"))
    harness.check("telnet talks, at bob", "hello from telnet", bob.reply())
    server.receive_from(alice, "have some tea", "line to room tea")
    harness.check("alice talks, at carol", "alice: have some tea", carol.reply())
    bob.expect("alice: have some tea")
    dave = enter_lobby(harness, server, "dave")
    server.receive_from(dave, "DELETE tea", "Room tea: deleted")
    for member in (alice, bob, carol):
        harness.check(f"room deleted, at {member.name}", "Warning: room tea is deleted", member.reply())
    harness.check("bob then", "Room tea is closed.", bob.reply())
    harness.check("carol then", "disconnected", carol.reply())
    dave.expect("Room tea is deleted.")
    harness.check("the rooms then", "There are no rooms.", server.answer_to(dave, "LIST"))


def open_dormitory(harness: Harness) -> ScriptProcess:
    """Start three back ends and a main server, with copies of the inventories and the members."""
    for name in DORMITORY_FILES:
        shutil.copy(ROOT / name, harness.directory)
    data = ("--data-dir", str(harness.directory))
    options = ["--tcp-port", harness.port(25000), *harness.listening, *data]
    for letter, port in BACK_END_PORTS.items():
        back_end = harness.start_server(f"server{letter}.py", "--port", harness.port(port), *data)
        options += [f"--server-{letter.lower()}", f"{HOST}:{back_end.port}"]
    main = harness.start_server("serverM.py", *options)
    for letter in BACK_END_PORTS:
        harness.servers[f"server{letter}"].expect("sent")
    main.expect(*(f"Server {letter} has sent its room status" for letter in BACK_END_PORTS))
    client = command("client.py", "--host", harness.addresses[0], "--port", str(main.port))
    hints = [f"be {name}, whose password is: {password}" for name, password in PASSWORDS.items()]
    harness.invite([client], [*hints, "be a guest with any other name, and Enter"])
    return main


def play_dormitory(harness: Harness) -> None:
    """Show a guest, the last room, and a back end that is killed during a reservation."""
    main = open_dormitory(harness)
    guest, alice, bob = (log_in(harness, name) for name in ("dave", "alice", "bob"))
    harness.check("a guest asks", "Room S410 is available: 1 left", answer_about(harness, guest, "S410"))
    guest.send("S410")
    main.receive_from(guest, "reservation", "result sent: DENIED")
    harness.check("a guest reserves", "Denied: Guests cannot reserve.", guest.reply())
    for member in (alice, bob):
        member.send("S410")
    for member in (alice, bob):
        member.send("reservation")
    harness.servers["serverS"].expect("Server S sent RESERVED", "Server S sent FULL")
    main.expect("result sent: RESERVED", "result sent: FULL")
    answers = sorted((alice.reply(), bob.reply()))
    harness.check("the last room, one of two", "Room S410 is yours", answers[1])
    harness.check("the last room, the other", "Room S410 is not available", answers[0])
    kill_while_reserving(harness, main, alice)
    harness.check("rooms left then, of 6", "Room S233 is available: 5 left", answer_about(harness, guest, "S233"))


def log_in(harness: Harness, name: str) -> Participant:
    """Start a client and log in: as a member if the name has a password, otherwise as a guest."""
    main = harness.servers["serverM"]
    client = harness.start(name, "client.py", "--port", str(main.port))
    password = PASSWORDS.get(name, "")
    client.send(name)
    client.send(password, shown="(a password)" if password else "(Enter)")
    main.expect("result sent: ")
    client.expect(f"Welcome, {'member' if password else 'guest'} {name}.")
    return client


def answer_about(harness: Harness, client: Participant, room: str) -> str:
    """Return the answer to a client who asks whether a single room is available."""
    client.send(room)
    harness.servers["serverM"].receive_from(client, "availability", "request sent to Server S")
    harness.servers["serverS"].expect("Server S sent AVAILABLE")
    harness.servers["serverM"].expect("result sent: AVAILABLE")
    return client.reply()


def kill_while_reserving(harness: Harness, main: ScriptProcess, alice: Participant) -> None:
    """Suspend a back end, so that it has received a reservation when it is killed; then start it again."""
    back_end = harness.servers["serverS"]
    back_end.process.send_signal(signal.SIGSTOP)
    alice.send("S233")
    main.receive_from(alice, "reservation", "request sent to Server S")
    back_end.kill()
    port, data = str(back_end.port), str(harness.directory)
    back_end = harness.start_server("serverS.py", "--port", port, "--data-dir", data)
    try:
        back_end.expect("Server S sent RESERVED")
    except Unmet:  # on a slow machine the restart takes longer than the main server waits: alice is told to try later
        alice.send("S233")
        alice.send("reservation")
        back_end.expect("Server S sent RESERVED")
    main.expect("result sent: RESERVED")
    harness.check("Server S killed meanwhile", "Room S233 is yours", alice.expect("S233"))
    alice.send("mine")
    for letter in BACK_END_PORTS:
        harness.servers[f"server{letter}"].expect("received MINE", "sent")
    reply = main.expect("result sent: RESERVATIONS")
    alice.expect(" S233")
    harness.check("alice has it", "once", "once" if reply.count("=S233") == 1 else reply)


def open_tls(harness: Harness) -> ScriptProcess:
    """Make a certificate, and start a chat room server that uses it."""
    if not shutil.which("openssl"):
        raise NotPlayed("openssl, which makes a certificate for this scenario, is not installed")
    done = subprocess.run(shlex.split(MAKE_CERTIFICATE), cwd=harness.directory, capture_output=True, text=True)
    if done.returncode:
        raise Unmet("openssl makes a certificate", " / ".join(done.stderr.split("\n")[-3:]))
    certificate, key = str(harness.directory / "certificate.pem"), str(harness.directory / "key.pem")
    options = ("--tls-certificate", certificate, "--tls-key", key)
    return open_chat_rooms(harness, *options, usual=5053, trust=("--tls", "--tls-ca", certificate))


def play_tls(harness: Harness) -> None:
    """Show clients that trust the server's certificate, one that does not, and one that speaks plain text."""
    server = open_tls(harness)
    trust = ("--tls", "--tls-ca", str(harness.directory / "certificate.pem"))
    alice, bob = (enter_lobby(harness, server, name, *trust) for name in ("alice", "bob"))
    server.receive_from(alice, "CREATE tea")
    for user in (alice, bob):
        join_tea(server, user)
    server.receive_from(alice, "nobody can read this on the way", "line to room tea")
    harness.check("encrypted, at bob", "alice: nobody can read this", bob.reply())
    carol = harness.start("carol", "chatroom_client.py", "localhost", str(server.port), "--tls")
    server.expect("TLS handshake failed")
    harness.check("an unknown certificate", f"Cannot trust localhost:{server.port}", carol.expect("certificate"))
    dave = harness.connect("dave", server.port)
    server.receive_from(dave, "1soup, in plain text", "TLS handshake failed")
    harness.check("a client without TLS", "disconnected", dave.reply())


def open_front_end(harness: Harness, systems: dict[str, ScriptProcess]) -> ScriptProcess:
    """Start the front end for servers by the names of their systems, which are options of the front end."""
    options = [f"--{name}={harness.local}:{server.port}" for name, server in systems.items()]
    options += [f"--allow-host=[{host}]" if ":" in host else f"--allow-host={host}" for host in harness.addresses]
    return harness.start_server("front_end.py", harness.port(8000), "--host", harness.host, "--send-proxy", *options)


SCENARIOS = {
    "chat": Scenario("Chat", open_chat, play_chat),
    "tickets": Scenario("Cinema tickets", open_tickets, play_tickets),
    "chatrooms": Scenario("Chat rooms", open_chat_rooms, play_chat_rooms),
    "dormitory": Scenario("Dormitory", open_dormitory, play_dormitory),
    "tls": Scenario("Chat rooms over TLS", open_tls, play_tls),
}
SYSTEMS = [name for name in SCENARIOS if name != "tls"]
