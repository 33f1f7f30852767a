"""What all clients share: whom they connect to and trust, and what they do about a lost, a wrong or a mad server."""

import argparse
import random
import shlex
import socket
import ssl
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from certificates import NAMES, Certificates
from conftest import (
    RESET,
    ROOT,
    Program,
    Start,
    changed_program,
    fake_server,
    free_port,
    in_thread,
    python,
    run_command,
    run_program,
    run_shell,
)
from dorm import Dormitory
from hosts import Network
from pseudo_terminal import OpenTerminal

import net.connect
from net.connect import connect

PLAIN = argparse.Namespace(tls=False, tls_ca=None)
CLIENTS = {
    "client.py": ("--host", "{host}", "--port", "{port}"),
    "chatroom_client.py": ("{host}", "{port}"),
    "ticket_client.py": ("{host}", "{port}"),
}
clients = pytest.mark.parametrize("client", CLIENTS)


def command(client: str, port: int, host: str = "localhost") -> list[str]:
    return [client, *(argument.format(host=host, port=port) for argument in CLIENTS[client])]


@clients
def test_a_server_that_cannot_be_reached_is_named_in_one_line(client: str) -> None:
    port = free_port()
    for host, address, why in (
        ("127.0.0.1", "127.0.0.1", "Connection refused\n"),
        ("[::1]", "[::1]", ""),  # as servers print it
        ("a..b", "a..b", "'a..b' is not a valid host name\n"),
    ):
        done = run_program(*command(client, port, host))
        assert (done.returncode, done.stdout) == (3 if client == "ticket_client.py" else 1, "")
        assert done.stderr.startswith(f"Cannot connect to {address}:{port}: {why}")
        assert done.stderr.count("\n") == 1


@clients
@pytest.mark.parametrize("streams", ["<&- >&-", "0>/dev/null", ">/dev/full", "| true"])
def test_standard_streams_that_cannot_be_used_cause_no_traceback(client: str, streams: str) -> None:
    def talk(sock: socket.socket) -> None:
        with suppress(OSError):  # the client has left
            sock.sendall({"client.py": b"GUEST eve\n", "chatroom_client.py": b"\0\n"}.get(client, b"Booked: 1-1\n"))
            sock.shutdown(socket.SHUT_WR)
            while sock.recv(100):
                pass

    with fake_server(talk) as port:
        done = run_shell(f"{shlex.join(python(*command(client, port)))} {streams}", "eve\n\n")
    full = "The output cannot be written: No space left on device\n" if streams == ">/dev/full" else ""
    assert done.stderr in (full, "The server closed the connection.\n")
    if full:
        assert done.returncode == (4 if client == "ticket_client.py" else 1)


def test_each_address_of_a_name_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    with fake_server(lambda sock: sock.sendall(b"hello")) as port:
        both = [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", number)) for number in (1, port)]
        monkeypatch.setattr(socket, "getaddrinfo", lambda *_: both)
        with connect("two.example", port, PLAIN) as sock:
            assert sock.recv(10) == b"hello"


def test_a_certificate_that_tls_ca_names_is_trusted_by_itself_even_if_python_is_strict(
    certificates: Certificates, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def strict_context(cafile: str) -> ssl.SSLContext:  # as since Python 3.13, but without VERIFY_X509_PARTIAL_CHAIN
        context = create_context(cafile=cafile)
        context.verify_flags |= ssl.VERIFY_X509_STRICT
        return context

    def serve(sock: socket.socket) -> None:
        with server_context.wrap_socket(sock, server_side=True) as tls:
            tls.sendall(b"hello")

    create_context = ssl.create_default_context
    monkeypatch.setattr(ssl, "create_default_context", strict_context)
    good, authority = certificates.good.certificate, certificates.authority
    plain = tmp_path / "plain.pem"  # without an authority key identifier
    (tmp_path / "extensions").write_text(f"{NAMES}\nsubjectKeyIdentifier=none\nauthorityKeyIdentifier=none\n")
    issue = f"openssl x509 -req -in {good.with_suffix('.request')} -extfile {tmp_path / 'extensions'} -set_serial 7"
    issuer = f"-CA {authority} -CAkey {authority.with_suffix('.key')} -out {plain}"
    subprocess.run(shlex.split(f"{issue} {issuer}"), check=True, capture_output=True)
    for certificate, trusted in ((good, good), (plain, plain), (plain, authority)):
        server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        server_context.load_cert_chain(certificate, certificates.good.key)
        options = argparse.Namespace(tls=True, tls_ca=str(trusted))
        with fake_server(serve) as port, connect("localhost", port, options) as sock:
            assert sock.recv(10) == b"hello"


def test_a_vanished_server_is_detected_within_two_minutes() -> None:
    with fake_server(lambda sock: sock.recv(1)) as port, connect("localhost", port, PLAIN) as sock:
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        idle = sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", 0)))
        interval = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL)
        assert idle + interval * sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) <= 120
        if sys.platform == "linux":  # while data is on its way, there are no probes
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) <= 120_000


@pytest.fixture
def host() -> Iterator[tuple[str, ...]]:
    """Provide the prefix that makes a command run on a host with a loopback interface of its own."""
    with closing(Network()) as network:
        try:
            prefix = network.add_host()
        except OSError as error:
            pytest.skip(f"network namespaces are not available: {error}")
        yield prefix


@pytest.mark.parametrize("typed", ["", "hello\n"], ids=["idle", "sending"])
def test_a_network_that_is_gone_is_told_apart_from_a_deleted_room(
    host: tuple[str, ...], open_terminal: OpenTerminal, tmp_path: Path, typed: str
) -> None:
    impatient = "dict(TCP_KEEPIDLE=1, TCP_KEEPINTVL=1, TCP_USER_TIMEOUT=1000)"
    statement = f"import net.addresses; net.addresses.KEEP_ALIVE.update({impatient})"
    script = changed_program(tmp_path, "chatroom_client.py", statement)
    with closing(Program("chatroom_server.py", "0", prefix=host)) as server:
        alice = open_terminal(*host, sys.executable, script, "127.0.0.1", str(server.port))
        alice.type("create tea\njoin tea\n")
        alice.expect_text("Members before you: 0.")
        subprocess.run([*host, "ip", "link", "set", "lo", "down"], check=True)
        alice.type(typed)
        alice.expect_text("The connection to room tea is lost: Connection timed out.\n")
        alice.expect_text("The connection to the server is lost: Connection timed out.\n")
        assert alice.wait() == 1


FIRST_WORDS = {  # what each server says to a client that sends a line
    "chat_server.py": "Unregistered User. Use JOIN <username> to register.",
    "chatroom_server.py": "Unknown action 76: 1 to 4 are expected",
    "ticket_server.py": "How many tickets do you want?",
    "serverM.py": "DENIED Log in first",
    "front_end.py": "HTTP/1.1 400 Bad Request",
}
RIGHT = {  # the server of each client, and what the client calls it
    "client.py": ("serverM.py", "the dormitory's main server"),
    "chatroom_client.py": ("chatroom_server.py", "a chat room server"),
    "ticket_client.py": ("ticket_server.py", "a ticket server"),
}
WAITING = [(client, "front_end.py") for client in ("client.py", "ticket_client.py")]  # for the rest of the head
WAITING += [("ticket_client.py", server) for server in ("chat_server.py", "chatroom_server.py", "serverM.py")]


@pytest.mark.parametrize("server", FIRST_WORDS)
def test_wrong_server_is_reported(start: Start, dormitory: Dormitory, open_terminal: OpenTerminal, server: str) -> None:
    if server == "serverM.py":
        dormitory.start_main()
    port = dormitory.main.port if server == "serverM.py" else start(server, "0").port
    terminals = {client: open_terminal(*command(client, port)) for client in CLIENTS if RIGHT[client][0] != server}
    for terminal in terminals.values():
        terminal.type("alice\nsecret\n")
    for client, terminal in terminals.items():
        kind = RIGHT[client][1]
        if (client, server) in WAITING:
            hint = f"Perhaps it is not {kind}, or it speaks TLS (--tls)"
            terminal.expect_text(f"The server has sent nothing yet. {hint}.")
            terminal.process.terminate()
        else:
            terminal.expect_text(f"The server is not {kind}. It says: {FIRST_WORDS[server]}")
        assert terminal.wait() == 1
    assert net.connect.SILENCE_SECONDS < 2


PIECES = [
    *(b"\0", b"\1", b"\2", b"\3busy", b"\4", b"\xff", b"\x1b[2J", b"\r", b"\t", b" ", b"0", b"a,b", b"\xc3"),
    *(b"\xe2\x80\xae", b"%d 0", b"99999 1", b"0 0", b"MEMBER alice", b"GUEST", b"REFUSED", b"TRY_LATER soon"),
    *(b"ROOMS ====", b"ROOMS S=?", b"FULL", b"RESERVED", b"INVALID", b"AVAILABLE", b"UNKNOWN_ROOM"),
    *(b"Too many connections", b"HTTP/1.1 400 Bad Request", b"How many tickets do you want?", b"How many \xff?"),
    *(b"Row for ticket 1?", b"Seat for ticket 1?", b"Seat ?", b"Row ?", b" Seat 1 2 3", b"Row 1 0 0 1", b"Row 1 0"),
    *(b"Row 999999999 0", b"Row 0 1", b"Seat 9999999999 1", b"Ticket 1 reserved", b"Seat 1-1 is taken. Sorry"),
    *(b"Seat 0-0 is taken.", b"Booked: 1-1", b"Booked: ", b"A number of 1 or more is expected."),
]
ANSWERS = "list\njoin tea\nhello\n/leave\n2\n1-1\n\n1-2\nS1 r\nlist\nS1\na\ncancel S1\n日本\nquit\n"


@contextmanager
def babbling_server(seed: int) -> Iterator[int]:
    """Run a server that sends each client random pieces of replies, and then closes or resets; yield its port."""
    chosen = random.Random(seed)

    def babble(sock: socket.socket) -> None:
        with sock, suppress(OSError):
            for _ in range(chosen.randrange(12)):
                line = b"".join(chosen.choices(PIECES, k=chosen.randint(1, 2))).replace(b"%d", b"%d" % port)
                sock.sendall(line + chosen.choice([b"\n", b"\n", b"\n", b"\r\n", b""]))
            if chosen.random() < 0.2:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    def serve() -> None:
        with suppress(OSError):  # the listener is closed
            while True:
                babble(listener.accept()[0])

    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        thread = in_thread(serve)
        yield port
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


@pytest.mark.parametrize("client", [*CLIENTS, "ticket_client.py --seats", "ticket_client.py --best"])
def test_nothing_that_a_server_sends_causes_a_traceback(tmp_path: Path, client: str) -> None:
    seed = random.randrange(1 << 32)
    (tmp_path / "answers").write_text(ANSWERS)
    name, _, option = client.partition(" ")
    given = {"": [], "--seats": ["--seats", "1-1,1-2"], "--best": ["--best", "2"]}[option]
    with babbling_server(seed) as port:
        script = [
            f"import sys; sys.path.insert(0, {str(ROOT)!r})",
            f"sys.argv = {[*command(name, port, '127.0.0.1'), *given]!r}",
            "import net.connect",
            f"import {name.removesuffix('.py')} as program",
            "program.RETRY_SECONDS = program.LEAVE_SECONDS = net.connect.CLOSE_SECONDS = 0.001",
            "for _ in range(200):",
            f"    sys.stdin = open({str(tmp_path / 'answers')!r})",
            "    try: program.main()",
            "    except SystemExit: pass",
            "    sys.stdin.close()",
        ]
        done = run_command([sys.executable, "-c", "\n".join(script)])
    assert "Traceback" not in done.stderr, f"seed {seed}: {done.stderr[-2000:]}"
    assert done.returncode == 0, f"seed {seed}"
