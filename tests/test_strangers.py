"""What strangers try: web pages that speak to other ports, forged proxies, crowds from one network, TLS without end."""

import re
import shutil
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from certificates import Certificates
from conftest import Peer, Program, Start, changed_program, fake_server, meanwhile, server_has_read, wait_until
from dorm import PASSWORDS, Dormitory

from net.addresses import network_of
from net.places import NoPlace, Places
from net.proxy import ProxyLine

CLIENT = r"Client \(\d+\): "
REFUSAL = "HTTP is not spoken here."
HEAD = "Host: 127.0.0.1\r\nContent-Type: text/plain\r\n\r\n"
PAGE_BODIES = {
    "chat": "x\nJOIN evil\nBCST hi\n",
    "lobby": "x\n1evil\n4tea\n",
    "room": "x\nevil words\n",
    "tickets": "1\n1\n1\n",
    "dormitory": "x\nLOGIN evil\nLOGIN alice " + PASSWORDS["alice"] + "\nRESERVE S1\n",
}


@pytest.fixture(params=["plain", "TLS"])
def five_ports(
    request: pytest.FixtureRequest, start: Start, dormitory: Dormitory, certificates: Certificates, tmp_path: Path
) -> Iterator[dict[str, tuple[Program, int]]]:
    """Provide the five kinds of servers, each with its port; over TLS, they have a certificate."""
    options = certificates.good.options if request.param == "TLS" else ()
    hall = tmp_path / "seats.txt"
    hall.write_text("0 0\n0 0\n")
    dormitory.start_back_ends("S")
    dormitory.start_main(*options)
    dormitory.wait_until_found("S")
    chat = start("chat_server.py", "0", *options)
    rooms = start("chatroom_server.py", "0", *options)
    tickets = start("ticket_server.py", "0", "--seats-file", str(hall), *options)
    lobby = connect(rooms, rooms.port, certificates if options else None)
    lobby.send("1tea", "2tea")
    lobby.expect("0")
    room_port = int(lobby.expect_match(r"0(\d+) 0")[1])
    yield {
        "chat": (chat, chat.port),
        "lobby": (rooms, rooms.port),
        "room": (rooms, room_port),
        "tickets": (tickets, tickets.port),
        "dormitory": (dormitory.main, dormitory.main.port),
    }
    lobby.send("4tea")
    lobby.expect("0")


def connect(server: Program, port: int, certificates: Certificates | None) -> Peer:
    peer = Peer(port)
    server.peers.append(peer)
    if certificates:
        peer.sock = certificates.client_context.wrap_socket(peer.sock, server_hostname="localhost")
    return peer


def test_a_web_page_can_do_nothing_on_any_port_and_is_told_so(
    five_ports: dict[str, tuple[Program, int]], certificates: Certificates, request: pytest.FixtureRequest
) -> None:
    trusted = certificates if "TLS" in request.node.name else None
    for name, (server, port) in five_ports.items():
        for first_line in ("POST / HTTP/1.1", "GET /x?y HTTP/1.0", "BREW /pot HTTP/1.1", "\x16\3\1 a ticket\b\b"):
            page = connect(server, port, trusted)
            page.send_bytes(f"{first_line}\r\n{HEAD}{PAGE_BODIES[name]}".encode())
            said = page.read_all().splitlines()
            assert [line for line in said if line != "How many tickets do you want?"] == [REFUSAL], name
            server.wait_for_line(CLIENT + f"disconnected: {re.escape(REFUSAL)}")
        log = "\n".join(server.lines)
        assert not re.search(r"evil|BCST|tickets asked|LOGIN|alice|DELETE", log), log


def test_the_text_of_an_http_request_later_in_a_conversation_is_just_text(start: Start) -> None:
    server = start("chat_server.py", "0")
    alice = server.connect()
    alice.send("JOIN alice", "POST / HTTP/1.1", "LIST")
    alice.expect("JOIN alice accepted", "Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")
    alice.expect("Registered users (1):", "alice")


def test_an_http_request_that_comes_byte_by_byte_is_refused(start: Start) -> None:
    server = start("chat_server.py", "0")
    page = server.connect()
    for byte in b"POST / HTTP/1.1\r\n":
        page.send_bytes(bytes([byte]))
        server_has_read(page)
    with suppress(OSError):
        page.send("JOIN evil")
    assert page.read_all() == f"{REFUSAL}\n"
    assert server.count_lines(CLIENT + "JOIN.*") == 0


def test_a_trusted_proxy_names_the_client_and_others_cannot(start: Start) -> None:
    server = start("chat_server.py", "0", "--proxy-from", "127.0.0.1", "--max-users-per-address", "1")
    behind, same, direct = server.connect(), server.connect(), server.connect()
    behind.send("PROXY TCP4 192.0.2.7 127.0.0.1 50123 5050\r", "JOIN alice")
    behind.expect("JOIN alice accepted")
    server.wait_for_line(CLIENT + "is 192.0.2.7, says the proxy at 127.0.0.1")
    same.send("PROXY TCP4 192.0.2.7 127.0.0.1 50124 5050\r", "JOIN bob")
    same.expect("Too many users from your address: at most 1 are allowed")
    direct.send("JOIN carol")
    direct.expect("JOIN carol accepted")
    stranger = server.connect(source="127.0.0.2")
    stranger.send("PROXY TCP4 192.0.2.9 127.0.0.1 50123 5050\r", "JOIN dave")
    stranger.expect("Unregistered User. Use JOIN <username> to register.", "JOIN dave accepted")


def test_the_places_of_an_address_behind_a_proxy_are_its_own(start: Start) -> None:
    options = ("--proxy-from", "127.0.0.1", "--max-connections", "6", "--max-per-address", "2")
    server = start("chat_server.py", "0", *options)
    peers = [server.connect() for _ in range(3)]
    for peer in peers:
        peer.send("PROXY TCP4 192.0.2.7 127.0.0.1 50123 5050\r", "LIST")
    refused = [peer.read_line() for peer in peers].count("Too many connections from your address")
    assert refused == 1
    other = server.connect()
    other.send("PROXY TCP4 192.0.2.8 127.0.0.1 50123 5050\r", "JOIN alice")
    other.expect("JOIN alice accepted")


def test_a_proxy_line_precedes_the_tls_handshake(start: Start, certificates: Certificates) -> None:
    server = start("chat_server.py", "0", "--proxy-from", "127.0.0.1", *certificates.good.options)
    peer = server.connect()
    peer.send_bytes(b"PROXY TCP6 2001:db8::7 ::1 50123 5050\r\n")
    peer.sock = certificates.client_context.wrap_socket(peer.sock, server_hostname="localhost")
    peer.send("JOIN alice")
    peer.expect("JOIN alice accepted")
    server.wait_for_line(CLIENT + "is 2001:db8::7, says the proxy at 127.0.0.1")


@pytest.mark.parametrize(
    ("line", "address"),
    [
        (b"PROXY TCP4 192.0.2.7 127.0.0.1 1 2\r\n", "192.0.2.7"),
        (b"PROXY TCP6 2001:db8::7 ::1 1 2\r\n", "2001:db8::7"),
        (b"PROXY UNKNOWN\r\n", ""),
        (b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n", ""),
        (b"JOIN alice\n", None),
        (b"\1tea\n", None),
        (b"PROX\n", None),
    ],
)
def test_a_proxy_line_is_taken_off_however_it_is_split(line: bytes, address: str | None) -> None:
    for size in (1, 7, len(line)):
        named: list[str] = []
        proxy_line = ProxyLine(named.append)
        data = line + b"rest"
        taken = b"".join(proxy_line.take_off(data[i : i + size]) for i in range(0, len(data), size))
        assert taken == (data if address is None else b"rest")
        assert named == ([address] if address else [])


@pytest.mark.parametrize("line", [b"PROXY TCP4 ::1 ::1 1 2", b"PROXY TCP4 x y 1 2", b"PROXY ", b"PROXY " + b"x" * 200])
def test_a_malformed_proxy_line_ends_the_connection(line: bytes) -> None:
    with pytest.raises(OSError, match=r"a PROXY line of version 1 is expected"):
        ProxyLine(pytest.fail).take_off(line + b"\r\n")


def test_all_addresses_of_an_ipv6_network_count_as_one() -> None:
    places = Places(total=10, per_address=2)
    places.take("2001:db8:0:1::1")
    places.take("2001:db8:0:1:ffff::2%eth0")
    with pytest.raises(NoPlace, match="Too many connections from your address"):
        places.take("2001:db8:0:1::3")
    places.take("2001:db8:0:2::1")
    places.release("2001:db8:0:1::1")
    places.take("2001:db8:0:1::3")
    assert network_of("::ffff:192.0.2.7") == network_of("192.0.2.7") == "192.0.2.7"


def test_one_address_can_create_only_so_many_rooms(start: Start) -> None:
    server = start("chatroom_server.py", "0", "--max-rooms-per-address", "2")
    lobby, other = server.connect(), server.connect(source="127.0.0.2")
    lobby.send("1a", "1b", "1c")
    lobby.expect("0", "0", "4Too many rooms from your address: at most 2 are allowed")
    other.send("1c", "4a", "4b", "4c")
    other.expect("0", "0", "0", "0")


def test_an_empty_room_whose_creator_has_left_is_closed_and_no_other(start: Start) -> None:
    server = start("chatroom_server.py", "0", "--empty-room-seconds", "1")
    lobby, creator = server.connect(), server.connect()
    creator.send("1left", "1used", "2used")
    creator.expect("0", "0")
    member = Peer(int(creator.expect_match(r"0(\d+) 0")[1]))
    server.peers.append(member)
    lobby.send("1kept")
    lobby.expect("0")
    creator.close()
    server.wait_for_line("Room left: closed, for it was empty and its creator has left")
    lobby.send("3", "4kept")
    lobby.expect("0used,kept", "0")
    member.close()
    server.wait_for_line("Room used: closed, for it was empty and its creator has left")


def test_a_low_hard_limit_on_open_files_is_reported_at_the_start(start: Start) -> None:
    server = start("chat_server.py", "0", prefix=("prlimit", "--nofile=200:200"))
    server.wait_for_line(r"Warning: the limit on open files allows 136 connections, not 2000; raise it with ulimit -n")
    assert server.lines[0].startswith("Listening on")


@pytest.mark.skipif(not shutil.which("openssl"), reason="openssl is not installed")
def test_a_tls_client_that_never_reads_is_dropped(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    small = (
        "from net import listener, output\n"
        "listener.SEND_BUFFER_BYTES = 1\n"
        "output.BACKLOG_BYTES, output.EXCESS_BYTES = 2000, 0\n"
        "patience = output.Patience(0.5)\n"
        "output.Patience = lambda: patience"
    )
    server = start(changed_program(tmp_path, "chat_server.py", small), "0", *certificates.good.options)
    reads = threading.Event()
    reads.set()
    with relay(server.port, reads) as port:
        command = ["openssl", "s_client", "-tls1_3", "-connect", f"127.0.0.1:{port}"]
        pipe = subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=subprocess.DEVNULL, bufsize=0) as client:
            keys, shown, text = client.stdin, client.stdout, b""
            assert keys and shown
            keys.write(b"JOIN alice\n")
            while b"JOIN alice accepted" not in text:  # s_client takes no key while it has half a message of TLS
                text += shown.read(1 << 16) or pytest.fail("openssl s_client has ended")
            reads.clear()

            def is_dropped() -> bool:
                with suppress(BrokenPipeError):
                    keys.write(b"K\n")  # s_client asks the server for new keys
                return server.count_lines(CLIENT + "dropped: it took less than 65536 bytes a second") > 0

            try:
                wait_until(is_dropped, "a client that is dropped", 30, 0.002, got=lambda: server.lines[-5:])
            finally:
                client.kill()


@contextmanager
def relay(port: int, reads: threading.Event) -> Iterator[int]:
    """Relay what one client sends, and what the server answers while an event is set; yield the port."""

    def forward(source: socket.socket, target: socket.socket, goes_on: Callable[[], bool] = lambda: True) -> None:
        with suppress(OSError):
            while (data := source.recv(1 << 16)) and goes_on():  # in this order: half a message would silence s_client
                target.sendall(data)

    def talk(client: socket.socket) -> None:
        with meanwhile(partial(forward, client, server)):
            forward(server, client, reads.is_set)

    with socket.socket() as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
        server.connect(("127.0.0.1", port))
        with fake_server(talk) as relay_port:
            yield relay_port


def test_trace_shows_each_recv_and_send_with_time_thread_and_client(start: Start) -> None:
    server = start("chat_server.py", "0", "--trace")
    alice, bob = server.connect(), server.connect()
    alice.send("JOIN alice")
    alice.expect("JOIN alice accepted")
    bob.send("JOIN bob", "MESG alice h\u00ef\x07")
    alice.expect("FROM bob: h\u00ef\ufffd")
    time_of_day = r"\d\d:\d\d:\d\d\.\d\d\d"
    server.wait_for_line(time_of_day + r" client \d+ +\(\d+\) <- b'JOIN alice\\n'")
    server.wait_for_line(time_of_day + r" client \d+ +\(\d+\) -> b'JOIN alice accepted\\n'")
    [thread, client] = server.wait_for_line(
        time_of_day + r" client (\d+) +\((\d+)\) -> b'FROM bob: h\\xc3\\xaf\\xef\\xbf\\xbd\\n'"
    ).groups()
    assert thread != client  # bob's thread sends to alice


def test_trace_over_tls_shows_the_plain_text_and_says_so(start: Start, certificates: Certificates) -> None:
    server = start("chat_server.py", "0", "--trace", *certificates.good.options)
    connect(server, server.port, certificates).send("JOIN alice")
    server.wait_for_line(r".* client \d+ +\(\d+, TLS\) <- b'JOIN alice\\n'")
    server.wait_for_line(r".* client \d+ +\(\d+, TLS\) -> b'JOIN alice accepted\\n'")


def test_trace_shows_a_password_as_dots_however_it_is_sent(dormitory: Dormitory) -> None:
    dormitory.start_main("--trace")
    main = dormitory.main
    secret = PASSWORDS["bob"]
    logins = ["LOGIN bob ", "LOGIN bob\t", "LOGIN bob,", "LOGIN bob\u00a0"]
    logins += ["LIST\rLOGIN bob ", "LOGIM\bN bob ", "\tlogin bob "]
    for login in (beginning + secret for beginning in logins):
        whole, pieces = main.connect(), main.connect()
        whole.send(login)
        whole.read_line()
        for byte in f"{login}\n".encode():
            pieces.send_bytes(bytes([byte]))
            server_has_read(pieces)
        pieces.read_line()
    guest = main.connect()
    guest.send("LOGIN carol")
    guest.expect("GUEST carol")
    main.wait_for_line(r".* <- b'LOGIN bob \.{6}\\n'")
    main.wait_for_line(r".* <- b'LOGIN carol\\n'")
    assert secret not in "\n".join(main.lines)
