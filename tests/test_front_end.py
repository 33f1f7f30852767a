"""Test the front end from outside, as browsers and other programs use it."""

import json
import re
import shutil
import signal
import socket
import ssl
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as FutureTimeoutError  # not the built-in one before Python 3.11
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import NamedTuple

import pytest
from certificates import Certificates
from conftest import RESET, WAIT_SECONDS, Peer, Program, Start, changed_program, looking_after, run_programs, wait_until
from websocket_client import ACCEPT, BINARY, CLOSE, KEY, PING, PONG, WebSocket, ask, get, head, masked, text, upgrade

CHAT = "/ws/chat"
TICKETS = "/ws/tickets"
ROOMS = "/ws/chatrooms"
CREATE, JOIN, LIST, DELETE, SUCCESS = "\x01", "\x02", "\x03", "\x04", "\x00"


class Systems(NamedTuple):
    """Two systems, and a front end that was given these and a third that is not there."""

    front_end: Program
    chat: Program
    rooms: Program

    @property
    def port(self) -> int:
        """The front end's port."""
        return self.front_end.port

    def open(self, path: str, *headers: str, rest: bytes = b"") -> WebSocket:
        """Return a new tab's WebSocket."""
        return WebSocket(self.front_end, path, *headers, rest=rest)

    def join(self, name: str) -> WebSocket:
        """Return the WebSocket of a tab that has joined the chat."""
        websocket = self.open(CHAT)
        websocket.send(f"JOIN {name}")
        websocket.expect(f"JOIN {name} accepted")
        return websocket

    def join_directly(self, name: str) -> Peer:
        """Return the connection of a user of the chat who uses no browser."""
        peer = self.chat.connect()
        peer.send(f"JOIN {name}")
        peer.expect(f"JOIN {name} accepted")
        return peer


@pytest.fixture(scope="module")
def common_systems() -> Iterator[Systems]:
    """Provide the systems and the front end that the tests share; each test ends its connections to them."""
    with looking_after() as launch, socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # it does not listen
        chat, rooms = launch("chat_server.py", "0"), launch("chatroom_server.py", "0")
        systems = ("--chat", address(chat), "--chatrooms", address(rooms), "--tickets", name_of(unused))
        front_end = launch("front_end.py", "0", *systems)
        for server in (front_end, chat, rooms):
            server.wait_for_start()
        yield Systems(front_end, chat, rooms)


@pytest.fixture
def systems(common_systems: Systems) -> Iterator[Systems]:
    """Provide the systems; fail if a test leaves a connection open."""
    yield common_systems
    for server in common_systems:
        server.expect_rest()


class FakeSystem:
    """A system whose bytes a test chooses; path is where the front end offers it."""

    def __init__(self, start: Start, *arguments: str, path: str = TICKETS, script: str = "front_end.py") -> None:
        self.path = path
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.settimeout(WAIT_SECONDS)
        option = "--" + path.split("/")[2]
        self.front_end = start(script, "0", option, name_of(self.listener), *arguments)
        self.sock: socket.socket

    def open(self, receive_buffer: int = 0) -> WebSocket:
        """Return a new tab's WebSocket; self.sock is then the other end of its connection."""
        websocket = WebSocket(self.front_end, self.path, receive_buffer=receive_buffer)
        self.accept()
        return websocket

    def accept(self) -> None:
        """Accept a connection of a tab."""
        self.sock, _ = self.listener.accept()
        self.sock.settimeout(WAIT_SECONDS)

    def expect(self, data: bytes) -> None:
        """Fail unless these bytes come from the tab."""
        received = b""
        while len(received) < len(data):
            piece = self.sock.recv(len(data) - len(received))
            assert piece, f"the connection ended after {received!r}"
            received += piece
        assert received == data

    def expect_end(self) -> None:
        """Fail unless the tab's connection ends now; close it."""
        assert self.sock.recv(1) == b""
        self.sock.close()


# What changed_program() adds so that the front end waits less for a browser.
SHORT_PATIENCE = ("import web.tab", "web.tab.PING_SECONDS = 0.3", "web.tab.GONE_SECONDS = 2.0")


@pytest.fixture
def fake(start: Start) -> Iterator[FakeSystem]:
    system = FakeSystem(start)
    with system.listener:
        yield system


def address(server: Program) -> str:
    return f"127.0.0.1:{server.port}"


def name_of(sock: socket.socket) -> str:
    return f"127.0.0.1:{sock.getsockname()[1]}"


def test_files_of_the_pages_and_nothing_else_are_served(start: Start, tmp_path: Path) -> None:
    pages = tmp_path / "pages"
    pages.mkdir()
    types = {"html": "text/html; charset=utf-8", "css": "text/css; charset=utf-8", "svg": "image/svg+xml"}
    types["js"] = "text/javascript; charset=utf-8"
    files = ("index.html", "chat.html", "style.css", "wire.js", "icon.svg")
    for name in files:
        (pages / name).write_text(f"the content of {name}: ☕")
    (pages / "page.html").write_text("<!-- HEAD --><!-- CONTENT -->")  # the frame of the pages
    (pages / "notes.txt").write_text("not for everybody")
    (tmp_path / "secret.html").write_text("not for everybody")
    lines = ("from pathlib import Path", f"program.PAGES = Path({str(pages)!r})")
    port = start(changed_program(tmp_path, "front_end.py", *lines), "0").port
    for name in files:
        response = get(port, f"/{name}?from=elsewhere")
        assert (response.status, response.body.decode()) == (200, f"the content of {name}: ☕")
        assert response.headers["content-type"] == types[name.partition(".")[2]]
        assert response.headers["content-length"] == str(len(response.body))
    assert get(port, "/").body == get(port, "/index.html").body != b""
    hidden = "/notes.txt /page.html /../secret.html /%2e%2e/secret.html /pages/ // /index.html/ /INDEX.HTML"
    for path in hidden.split():
        assert get(port, path).status == 404, path


def test_response_has_the_headers_that_keep_a_page_safe(systems: Systems) -> None:
    for path in ("/systems.json", "/nothing"):
        headers = get(systems.port, path).headers
        policy = dict(rule.split(" ", 1) for rule in headers["content-security-policy"].split("; "))
        assert policy["default-src"] == policy["frame-ancestors"] == policy["base-uri"] == "'none'"
        assert policy["script-src"] == policy["style-src"] == policy["connect-src"] == "'self'"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
        assert headers["connection"] == "close"


def test_list_of_systems_says_which_were_given_or_only_the_dormitory(systems: Systems, start: Start) -> None:
    given = get(systems.port, "/systems.json")
    assert given.headers["content-type"] == "application/json"
    assert json.loads(given.body) == {"dormitory": False, "tickets": True, "chat": True, "chatrooms": True}
    none_given = get(start("front_end.py", "0").port, "/systems.json")
    assert json.loads(none_given.body) == {"dormitory": True, "tickets": False, "chat": False, "chatrooms": False}


def test_head_request_gets_the_headers_alone(systems: Systems) -> None:
    whole, headers = get(systems.port, "/systems.json"), get(systems.port, "/systems.json", method="HEAD")
    for response in (whole, headers):
        sent = parsedate_to_datetime(response.headers.pop("date"))
        assert abs(sent.timestamp() - time.time()) < 60
    assert (headers.status, headers.body, headers.headers) == (200, b"", whole.headers)
    assert get(systems.port, "/nothing", method="HEAD").body == b""


@pytest.mark.parametrize(
    "request_of",
    [
        "\nGET /systems.json HTTP/1.0\nhost:localhost:{port}\n\n",  # as typed in nc
        "GET http://localhost:{port}/systems.json HTTP/1.1\r\nHost: localhost:{port}\r\n\r\n",
        "GET HTTP://LOCALHOST:{port}/systems.json?x=http://evil/ HTTP/1.1\r\nHost: another.example\r\n\r\n",
        "GET /systems.json HTTP/1.1\r\nHost: localhost.:{port}\r\n\r\n",
        "GET /systems.json HTTP/1.1\r\nHost: [0:0::1]:{port}\r\n\r\n",
    ],
)
def test_request_in_any_form_of_the_standard_is_answered_byte_by_byte(systems: Systems, request_of: str) -> None:
    peer = systems.front_end.connect()
    for byte in request_of.format(port=systems.port).encode():
        peer.send_bytes(bytes([byte]))
    assert re.match(r"(?s)HTTP/1\.1 200 OK\r\n.*Content-Type: application/json\r\n", peer.read_all())


HOST = "Host: 127.0.0.1:{port}"
WEBSOCKET = [HOST, "Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Version: 13"]
WEBSOCKET += [f"Sec-WebSocket-Key: {KEY}"]
FOREIGN_HOSTS = ["evil.example", "evil.example:{port}", "127.0.0.1.evil.example:{port}", "evil@localhost:{port}"]
FOREIGN_HOSTS += ["localhost", "localhost:{port}:{port}", "localhost..:{port}"]
FOREIGN_ORIGINS = ["http://evil.example", "http://evil127.0.0.1:{port}", "http://127.0.0.1:{port}.evil.example"]
FOREIGN_ORIGINS += ["http://127.0.0.1:1", "127.0.0.1:{port}", "null"]


@pytest.mark.parametrize(
    ("status", "request_line", "headers"),
    [
        (400, "\x00", []),
        (400, "hello", []),
        (400, "GET  / HTTP/1.1", [HOST]),
        (400, "GET / HTTP/2.0", [HOST]),
        (400, "GET / HTTP/1.1", []),
        (400, "GET / HTTP/1.1", [HOST, HOST]),
        (400, "GET / HTTP/1.1", [HOST, "no colon"]),
        (400, "GET / HTTP/1.1", [HOST, "blank : before the colon"]),
        (400, "GET / HTTP/1.1", ["Host: evil.example\r\n Client (7): forged"]),
        (400, f"GET {CHAT} HTTP/1.1", [*WEBSOCKET, "Origin: http://evil.example\n\tClient (7): forged"]),
        (400, f"GET {CHAT} HTTP/1.1", [*WEBSOCKET[:4], "Sec-WebSocket-Key: c2hvcnQ="]),
        (400, f"GET {CHAT} HTTP/1.1", WEBSOCKET[:4]),
        *[(403, "GET / HTTP/1.1", [f"Host: {host}"]) for host in FOREIGN_HOSTS],
        (403, f"GET {CHAT} HTTP/1.1", ["Host: evil.example:{port}", *WEBSOCKET[1:]]),
        *[(403, f"GET {CHAT} HTTP/1.1", [*WEBSOCKET, f"Origin: {origin}"]) for origin in FOREIGN_ORIGINS],
        (403, "GET http://127.0.0.1:22/ HTTP/1.1", [HOST]),
        (403, "GET http://evil.example/ HTTP/1.1", [HOST]),
        (404, "GET /nothing HTTP/1.1", [HOST]),
        (404, "CONNECT 127.0.0.1:22 HTTP/1.1", [HOST]),
        *[(404, f"GET /ws/{name} HTTP/1.1", WEBSOCKET) for name in ("dormitory", "", "chat/tea", "chatrooms/")],
        *[(404, f"GET {ROOMS}/{room} HTTP/1.1", WEBSOCKET) for room in ("no%20room", "tea/tea", "x" * 33)],
        (405, "POST /systems.json HTTP/1.1", [HOST]),
        (405, f"POST {CHAT} HTTP/1.1", WEBSOCKET),
        (405, f"HEAD {CHAT} HTTP/1.1", WEBSOCKET),
        (414, f"GET /{'x' * 4200} HTTP/1.1", [HOST]),
        (426, f"GET {CHAT} HTTP/1.0", WEBSOCKET),
        (426, f"GET {CHAT} HTTP/1.1", [HOST]),
        (426, f"GET {CHAT} HTTP/1.1", [HOST, "Upgrade: h2c", *WEBSOCKET[2:]]),
        (426, f"GET {CHAT} HTTP/1.1", [*WEBSOCKET[:2], "Connection: close", *WEBSOCKET[3:]]),
        (426, f"GET {CHAT} HTTP/1.1", [*WEBSOCKET[:3], "Sec-WebSocket-Version: 8", WEBSOCKET[4]]),
        (431, "GET / HTTP/1.1", [HOST, f"Cookie: {'x' * 17000}"]),
        (431, "GET / HTTP/1.1", [HOST, *(f"X-{number}: y" for number in range(120))]),
    ],
)
def test_wrong_request_gets_its_status(systems: Systems, status: int, request_line: str, headers: list[str]) -> None:
    status_line = rf"Client \(\d+\): .*: {status} .*"
    before = systems.front_end.count_lines(status_line)
    response = ask(systems.port, head(request_line, *(header.format(port=systems.port) for header in headers)))
    assert response.status == status, response
    if not request_line.startswith("HEAD"):
        assert re.fullmatch(rb".+\n", response.body), "a sentence is expected"
    assert ("allow" in response.headers) == (status == 405)
    assert (response.headers.get("upgrade") == "websocket") == (status == 426)
    assert response.headers["connection"] == ("close, Upgrade" if status == 426 else "close")
    wait_until(lambda: systems.front_end.count_lines(status_line) == before + 1, "one status line")


def test_head_that_is_too_long_or_a_tls_handshake_is_refused_at_once(systems: Systems) -> None:
    for status, data in ((431, b"GET / HTTP/1.1\r\nCookie: " + b"x" * 17000), (400, bytes.fromhex("16030102000100"))):
        peer = systems.front_end.connect()
        peer.send_bytes(data)
        assert peer.read_all().startswith(f"HTTP/1.1 {status} ")


def test_late_head_is_refused_even_if_it_trickles(start: Start) -> None:
    server = start("front_end.py", "0", "--login-seconds", "1")
    silent, trickling = server.connect(), server.connect()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(send_until_cut_off, trickling.sock, b"x", 0.05)
        for peer in (silent, trickling):
            answer = peer.read_all()
            assert re.match(r"HTTP/1\.1 408 .*\r\n\r\nNo complete request within 1 seconds\n", answer, re.DOTALL)


def test_control_characters_in_a_refused_host_do_not_reach_the_log(systems: Systems) -> None:
    assert ask(systems.port, b"GET /marker HTTP/1.1\r\nHost: \x1b[31mred\r\n\r\n").status == 403
    systems.front_end.wait_for_line(r"Client \(\d+\): GET /marker: 403 Host \ufffd\[31mred is not .*")


def test_names_given_with_allow_host_are_served_on_any_port(start: Start) -> None:
    names = ("Lab.example.", "192.0.2.1", "[2001:DB8:0::1]")
    port = start("front_end.py", "0", *(argument for name in names for argument in ("--allow-host", name))).port
    for host in f"lab.example LAB.example:8443 192.0.2.1:80 [2001:db8::1]:1 [::1]:{port} lab.example.:".split():
        assert ask(port, head("GET /systems.json HTTP/1.1", f"Host: {host}")).status == 200, host
    for host in ("other.example", "x.lab.example", "192.0.2.2", "localhost:1"):
        assert ask(port, head("GET /systems.json HTTP/1.1", f"Host: {host}")).status == 403, host


def test_origin_and_host_behind_a_proxy_are_compared_as_the_standard_does(start: Start, systems: Systems) -> None:
    proxies = ("--allow-host", "chat.example.com", "--allow-origin", "HTTPS://Proxy.example")
    port = start("front_end.py", "0", "--chat", address(systems.chat), *proxies).port
    own = f"127.0.0.1:{port}"
    pairs = [
        *[(101, own, f"{scheme}://{own}") for scheme in ("http", "https", "HTTP")],
        (101, "chat.example.com:443", "https://chat.example.com"),
        (101, "chat.example.com", "https://chat.example.com:443"),
        (101, "chat.example.com:80", "http://chat.example.com"),
        (101, "Chat.Example.com.", "https://chat.example.com"),
        (101, f"localhost:{port}", "https://proxy.example:443"),
        (403, "chat.example.com:443", "http://chat.example.com"),
        (403, "chat.example.com:8443", "https://chat.example.com"),
        (403, f"localhost:{port}", f"http://evillocalhost:{port}"),
        (403, f"localhost:{port}", "http://proxy.example"),
        (403, f"localhost:{port}", "https://evilproxy.example"),
        (403, "proxy.example", "https://proxy.example"),  # --allow-origin says nothing about Host
    ]
    for status, host, origin in pairs:
        request = head(f"GET {CHAT} HTTP/1.1", f"Host: {host}", *WEBSOCKET[1:], f"Origin: {origin}")
        assert ask(port, request + masked(CLOSE)).status == status, (host, origin)


def test_browser_gets_503_until_a_place_is_free(start: Start, systems: Systems) -> None:
    server = start("front_end.py", "0", "--chat", address(systems.chat), "--max-connections", "2")
    tab = WebSocket(server, CHAT)
    refused = get(server.port, "/systems.json")
    assert (refused.status, refused.body) == (503, b"Too many connections from your address\n")
    server.wait_for_line(r"Client \(\d+\): GET /systems.json: 503 Too many connections from your address")
    tab.send("LIST")
    tab.expect("Unregistered User. Use JOIN <username> to register.")
    tab.close()
    wait_until(lambda: get(server.port, "/systems.json").status == 200, "a place")


def test_client_that_leaves_without_a_request_leaves_no_thread_or_socket(systems: Systems) -> None:
    for request, leave in ((b"", Peer.end_input), (b"GET / HT", Peer.end_input), (b"GET / HT", Peer.reset)):
        peer = systems.front_end.connect()
        peer.send_bytes(request)
        leave(peer)


def test_handshake_answers_the_key_of_the_rfc_and_close_a_close_without_code(systems: Systems) -> None:
    for tab in (systems.open(CHAT), systems.open(CHAT, "Upgrade: h2c")):
        assert tab.response.headers == {"upgrade": "websocket", "connection": "Upgrade", "sec-websocket-accept": ACCEPT}
        tab.send_bytes(masked(CLOSE))
        assert tab.read_frame() == (CLOSE, b"")  # no code, as in what it answers
        tab.peer.expect_end()


def test_chat_between_a_tab_and_a_direct_client(systems: Systems) -> None:
    alice = systems.join("alice")
    bob = systems.chat.connect()
    bob.send("JOIN bob", "BCST hello, Zoë ☕")
    bob.expect("JOIN bob accepted")
    alice.expect("FROM bob (all): hello, Zoë ☕")
    alice.send("MESG bob Grüße", "LIST")
    alice.expect("Registered users (2):", "alice", "bob")
    bob.expect("FROM alice: Grüße")
    alice.send("QUIT")
    alice.expect_close(1000, "The system ended the connection")
    systems.front_end.wait_for_line(rf"Client \(\d+\): {CHAT} closed, 1000 .*: 4 lines to the system, 5 to the browser")


def test_frames_split_anywhere_are_lines(systems: Systems) -> None:
    data = masked(0x01, b"JOIN ") + masked(PING, b"?" * 125) + masked(PONG, b"nobody asked")
    data += masked(0x80, b"alice") + text("LIST", "QUIT")
    tab = systems.open(CHAT, rest=data[:3])  # these come with the handshake
    for byte in data[3:]:
        tab.send_bytes(bytes([byte]))
    assert tab.read_frame() == (PONG, b"?" * 125)
    tab.expect("JOIN alice accepted", "Registered users (1):", "alice")
    tab.expect_close(1000)


@pytest.mark.parametrize(
    ("frames", "code"),
    [
        (b"\x81\x01x", 1002),
        (masked(BINARY, b"x"), 1003),
        (masked(0x81, b"\xff"), 1007),
        (masked(0x81, b"LIST\nQUIT"), 1008),
        (masked(0x81, b"LIST\n\n"), 1008),
        (masked(0x81, b"LIST\r\0QUIT"), 1008),
        (masked(0x81, b"\x04"), 1008),
        (masked(0x81, b"x" * 4097), 1009),
    ],
    ids=lambda value: value.hex()[:20] if isinstance(value, bytes) else str(value),
)
def test_wrong_frame_gets_its_close_code_after_earlier_messages(systems: Systems, frames: bytes, code: int) -> None:
    bob = systems.join_directly("bob")
    alice = systems.join("alice")
    status_line = rf"Client \(\d+\): {CHAT} closed, {code} .*"
    before = systems.front_end.count_lines(status_line)
    alice.send_bytes(text("BCST last words") + frames + text("BCST never sent"))
    alice.expect_close(code, ".+")
    bob.expect("FROM alice (all): last words")
    bob.send("LIST")
    bob.expect("Registered users (1):", "bob")
    wait_until(lambda: systems.front_end.count_lines(status_line) == before + 1, "one status line")


def test_messages_are_lines_with_or_without_a_newline_at_their_end_in_both_directions(fake: FakeSystem) -> None:
    tab = fake.open()
    tab.send("", "", "\n", "one\n", "two\r\n", "a \x04", "x" * 4096)
    fake.expect(b"\n\n\none\ntwo\na \x04\n" + b"x" * 4096 + b"\n")
    fake.sock.sendall(b"\n\r\none\r\ncaf\xe9, not UTF-8\n" + "half a line ☕".encode())
    fake.sock.close()  # its last words come before the close frame
    tab.expect("", "", "one", "caf\N{REPLACEMENT CHARACTER}, not UTF-8", "half a line ☕")
    tab.expect_close(1000, "The system ended the connection")


def test_system_that_is_not_there_or_has_no_tls_closes_with_1014_and_a_sentence(systems: Systems, start: Start) -> None:
    server = start("front_end.py", "0", "--chat", address(systems.chat), "--tls")
    WebSocket(server, CHAT).expect_close(1014, r"Cannot connect to 127\.0\.0\.1:\d+ over TLS: .*")
    systems.open(TICKETS).expect_close(1014, r"Cannot connect to 127\.0\.0\.1:\d+: Connection refused")
    systems.front_end.wait_for_line(rf"Client \(\d+\): {TICKETS} closed, 1014 Cannot connect to .*")


def test_lost_connection_to_the_system_closes_with_1014(fake: FakeSystem) -> None:
    tab = fake.open()
    tab.send("hello")
    fake.expect(b"hello\n")  # the front end has connected
    fake.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    fake.sock.close()
    tab.expect_close(1014, "The connection to the system was lost: Connection reset by peer")


def test_long_reply_is_one_message_and_an_endless_one_closes_with_1011(fake: FakeSystem) -> None:
    tab = fake.open()
    fake.sock.sendall(b"x" * 200_000 + b"\n")
    tab.expect("x" * 200_000)
    fake.sock.sendall(b"x" * 1_200_000)
    tab.expect_close(1011, "The system sent a line of more than 1048576 bytes")
    fake.sock.close()


def test_system_that_says_goodbye_to_a_closed_tab_is_not_reset(fake: FakeSystem) -> None:
    tab = fake.open()
    tab.send("last words")
    tab.send_bytes(masked(CLOSE, b"\x03\xe8"))
    fake.expect(b"last words\n")
    assert fake.sock.recv(1) == b""
    for _ in range(10):  # all this within the time that a system may take to end its side
        fake.sock.sendall(b"goodbye\n")
        time.sleep(0.01)
    fake.expect_end()
    assert tab.read_frame() == (CLOSE, b"\x03\xe8")


@pytest.mark.parametrize("is_flooding", [False, True])
def test_system_that_does_not_end_is_cut_off_soon_after_its_tab(fake: FakeSystem, is_flooding: bool) -> None:
    tab = fake.open()
    tab.send_bytes(masked(CLOSE, b"\x03\xe8"))
    assert fake.sock.recv(1) == b""
    tab.peer.sock.settimeout(3)
    with fake.sock, ThreadPoolExecutor(1) as pool:
        flood = pool.submit(send_until_cut_off, fake.sock) if is_flooding else None
        assert tab.read_frame() == (CLOSE, b"\x03\xe8")
        if flood:
            flood.result(WAIT_SECONDS)


def send_until_cut_off(sock: socket.socket, data: bytes = b"goodbye\n" * 1000, pause: float = 0) -> None:
    """Send data again and again until the connection is cut, for at most WAIT_SECONDS."""
    end = time.monotonic() + WAIT_SECONDS
    with pytest.raises(ConnectionError):
        while time.monotonic() < end:
            sock.sendall(data)
            time.sleep(pause)


def test_tab_that_ends_without_a_close_frame_frees_its_name(systems: Systems) -> None:
    bob = systems.join_directly("bob")
    for end in (Peer.reset, Peer.end_input, Peer.close):
        tab = systems.join("alice")
        tab.send("BCST last words")
        bob.expect("FROM alice (all): last words")
        end(tab.peer)
        wait_until(lambda: count_users(bob) == 1, "alice's name is free", seconds=1)


def count_users(peer: Peer) -> int:
    peer.send("LIST")
    number = int(peer.expect_match(r"Registered users \((\d+)\):")[1])
    for _ in range(number):
        peer.read_line()
    return number


def test_messages_sent_right_before_a_tab_ends_reach_the_system(systems: Systems) -> None:
    bob, carol = systems.join_directly("bob"), systems.join_directly("carol")
    for number in range(20):
        tab = systems.join("alice")
        carol.send(*["MESG alice a line that alice does not read"] * 20)
        tab.send_bytes(text(f"MESG bob goodbye {number}") + masked(CLOSE, b"\x03\xe9"))
        bob.expect(f"FROM alice: goodbye {number}")
        wait_until(lambda: count_users(bob) == 2, "alice has left")
        tab.peer.close()


def test_rooms_are_created_entered_and_deleted_from_tabs(systems: Systems) -> None:
    lobby = systems.open(ROOMS)
    lobby.send(f"{CREATE}tea", LIST)
    lobby.expect(SUCCESS, f"{SUCCESS}tea")
    lobby.send(f"{JOIN}tea")
    assert re.fullmatch(rf"{SUCCESS}\d+ 0", lobby.read())
    alice, bob = systems.open(f"{ROOMS}/tea"), systems.open(f"{ROOMS}/tea")
    wait_until(lambda: systems.rooms.count_lines(r"Client \(\d+\): entered room tea") == 2, "both are in the room")
    alice.send("hello")
    bob.expect("hello")
    bob.send("hello, alice")
    alice.expect("hello, alice")
    lobby.send(f"{DELETE}tea", LIST)
    for member in (alice, bob):
        member.expect("Warning: room tea is deleted")
        member.expect_close(1000)
    lobby.expect(SUCCESS, SUCCESS)
    lobby.close()


@pytest.mark.parametrize(
    ("reply", "code", "sentence"),
    [
        (b"\x02Room tea does not exist\n", 1008, "Room tea does not exist"),
        (b"Too many connections\n", 1014, "Too many connections"),
        (b"", 1014, "The lobby of the chat rooms did not answer with a line"),
        (b"\x00", 1014, "The lobby of the chat rooms did not answer with a line"),
        (b"\x0099999 1\n", 1014, ".99999 1"),
        (b"\x00tea\n", 1014, ".tea"),
    ],
)
def test_lobby_that_names_no_port_closes_a_rooms_tab(start: Start, reply: bytes, code: int, sentence: str) -> None:
    lobby = FakeSystem(start, path=f"{ROOMS}/tea")
    with lobby.listener:
        tab = lobby.open()
        lobby.expect(b"\x02tea\n")
        lobby.sock.sendall(reply)
        lobby.sock.close()
        tab.expect_close(code, sentence)


def test_lobby_that_sends_byte_after_byte_without_end_is_given_up(start: Start, tmp_path: Path) -> None:
    script = changed_program(tmp_path, "front_end.py", "import web.tab", "web.tab.CONNECT_SECONDS = 0.5")
    lobby = FakeSystem(start, path=f"{ROOMS}/tea", script=script)
    with lobby.listener, ThreadPoolExecutor(1) as pool:
        tab = lobby.open()
        pool.submit(send_until_cut_off, lobby.sock, b"x", 0.02)
        tab.expect_close(1014, "The lobby of the chat rooms did not answer with a line")
    lobby.sock.close()


def test_stopping_front_end_tells_its_tabs(start: Start, systems: Systems) -> None:
    server = start("front_end.py", "0", "--chat", address(systems.chat))
    tabs = [WebSocket(server, CHAT) for _ in range(20)]
    assert server.threads_and_sockets()[0] in (0, 3 + len(tabs)), "one thread for each tab is expected"
    began = time.monotonic()
    server.process.send_signal(signal.SIGTERM)
    for tab in tabs:
        tab.expect_close(1001, "The front end is stopping")
    assert server.wait(2.0 - (time.monotonic() - began)) == 0


def test_browser_without_pongs_is_given_up(start: Start, systems: Systems, tmp_path: Path) -> None:
    server = start(changed_program(tmp_path, "front_end.py", *SHORT_PATIENCE), "0", "--chat", address(systems.chat))
    vanished, trickling, present = WebSocket(server, CHAT), WebSocket(server, CHAT), WebSocket(server, CHAT)
    for byte in text("never whole")[:8]:
        assert present.read_frame() == (PING, b"")
        present.send_bytes(masked(PONG))
        trickling.send_bytes(bytes([byte]))
    for gone in (vanished, trickling):
        gone.expect_close(1001, "Nothing came from the browser for 2 seconds")
    present.send("QUIT")
    present.expect_close(1000)


def test_browser_that_does_not_read_is_dropped(start: Start, systems: Systems, tmp_path: Path) -> None:
    patience = "net.output.Patience = functools.partial(net.output.Patience, period_seconds=0.5)"
    script = changed_program(tmp_path, "front_end.py", "import functools, net.output", patience)
    server = start(script, "0", "--chat", address(systems.chat))
    deaf, reader = WebSocket(server, CHAT, receive_buffer=4096), WebSocket(server, CHAT)
    deaf.send("JOIN deaf")
    reader.send("JOIN reader")
    reader.expect("JOIN reader accepted")
    line, lines = "x" * 4000, 4000
    sender = systems.join_directly("sender")
    began = time.monotonic()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(sender.send, *[f"BCST {line}"] * lines)
        for _ in range(lines):
            reader.expect(f"FROM sender (all): {line}")
        sent.result(WAIT_SECONDS)
    assert time.monotonic() - began < 5
    server.wait_for_line(r"Client \(\d+\): dropped: it took less than 65536 bytes a second")
    wait_until(lambda: count_users(sender) == 2, "the name of the deaf browser is free")
    assert server.resident_bytes() < 100 << 20
    reader.close()


def test_browser_that_reads_late_gets_everything_in_order_and_is_not_given_up(start: Start, tmp_path: Path) -> None:
    fake = FakeSystem(start, script=changed_program(tmp_path, "front_end.py", *SHORT_PATIENCE))
    lines = [f"{number} {'x' * 4000}" for number in range(3000)]
    with fake.listener, ThreadPoolExecutor(1) as pool:
        tab = fake.open(receive_buffer=1 << 16)
        sent = pool.submit(fake.sock.sendall, "".join(f"{line}\n" for line in lines).encode())
        with pytest.raises(FutureTimeoutError):
            sent.result(2.5)
        tab.expect(*lines)
        sent.result(WAIT_SECONDS)
        tab.close()
        fake.expect_end()


def test_system_that_does_not_read_slows_its_tab_down_and_loses_nothing(fake: FakeSystem) -> None:
    tab = fake.open()
    lines = [f"{number} {'x' * 4000}" for number in range(250)]
    messages = text(*lines)
    before = fake.front_end.resident_bytes()
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(tab.send_bytes, messages * 30)
        with pytest.raises(FutureTimeoutError):
            sent.result(0.5)
        assert fake.front_end.resident_bytes() - before < 3 << 20
        for _ in range(30):
            fake.expect("".join(f"{line}\n" for line in lines).encode())
        sent.result(WAIT_SECONDS)
    fake.sock.sendall(b"all of them came\n")
    tab.expect("all of them came")
    tab.close()
    fake.expect_end()


def test_system_that_accepts_nothing_is_blamed_rather_than_the_browser(start: Start, tmp_path: Path) -> None:
    fake = FakeSystem(start, script=changed_program(tmp_path, "front_end.py", *SHORT_PATIENCE))
    with fake.listener, ThreadPoolExecutor(1) as pool:
        tab = fake.open()
        sent = pool.submit(tab.send_bytes, text("x" * 4000) * 4000)
        frame = tab.read_frame_after_pings()
        assert frame == (CLOSE, b"\x03\xf6The system has not accepted the browser's messages for 2 seconds")
        with suppress(ConnectionError):  # the front end discards what follows, but only for a second
            sent.result(WAIT_SECONDS)
        fake.sock.close()


def test_browser_and_system_over_tls(start: Start, certificates: Certificates, tmp_path: Path) -> None:
    own = certificates.good.options
    chat = start("chat_server.py", "0", *own)
    authority = shutil.copy(certificates.authority, tmp_path)
    server = start("front_end.py", "0", *own, "--chat", address(chat), "--tls-ca", authority)
    Path(authority).unlink()  # it was read at the start, not for each tab
    browser = certificates.client_context
    response = ask(server.port, head("GET /systems.json HTTP/1.1", f"Host: localhost:{server.port}"), browser)
    assert response.status == 200
    alice = WebSocket(server, CHAT, f"Origin: https://127.0.0.1:{server.port}", tls=browser)
    bob = WebSocket(server, CHAT, tls=browser)
    for name, tab in (("alice", alice), ("bob", bob)):
        tab.send(f"JOIN {name}")
        tab.expect(f"JOIN {name} accepted")
    long = "x" * 980
    server.process.send_signal(signal.SIGSTOP)  # so that several records have arrived when the front end reads
    for _ in range(2):  # together they are more than it reads at once
        alice.send(*[f"MESG bob {long}"] * 10)  # a record of 10,000 bytes
    server.process.send_signal(signal.SIGCONT)
    bob.expect(*[f"FROM alice: {long}"] * 20)
    alice.close()
    bob.send("LIST", "QUIT")
    bob.expect("Registered users (1):", "bob")
    bob.expect_close(1000)
    wait_until(lambda: chat.count_lines(r"Client \(\d+\): disconnected") == 2, "both ended in order")


def test_end_of_tls_with_a_browsers_last_message(start: Start, certificates: Certificates) -> None:
    chat = start("chat_server.py", "0")
    server = start("front_end.py", "0", *certificates.good.options, "--chat", address(chat))
    tab = WebSocket(server, CHAT, tls=certificates.client_context)
    server.process.send_signal(signal.SIGSTOP)  # so that both are there when the front end reads
    tab.send("JOIN alice")
    end_tls(tab.peer.sock)
    server.process.send_signal(signal.SIGCONT)
    chat.wait_for_line(r"Client \(\d+\): JOIN alice")
    chat.wait_for_line(r"Client \(\d+\): disconnected")


@pytest.mark.parametrize(
    ("is_orderly", "code", "sentence"),
    [
        (True, 1000, "The system ended the connection"),
        (False, 1014, "The connection to the system was lost: it was cut without close_notify"),
    ],
)
def test_end_of_tls_that_comes_with_a_systems_last_line(
    start: Start, certificates: Certificates, is_orderly: bool, code: int, sentence: str
) -> None:
    fake = FakeSystem(start, "--tls-ca", str(certificates.authority))
    with fake.listener:
        tab = WebSocket(fake.front_end, TICKETS)
        with server_context(certificates).wrap_socket(fake.listener.accept()[0], server_side=True) as system:
            fake.front_end.process.send_signal(signal.SIGSTOP)
            system.sendall(b"Goodbye\n")
            if is_orderly:
                end_tls(system)
            else:
                socket.socket.shutdown(system, socket.SHUT_WR)
            fake.front_end.process.send_signal(signal.SIGCONT)
            tab.expect("Goodbye")
            tab.expect_close(code, sentence)


def server_context(certificates: Certificates) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.good.certificate, certificates.good.key)
    return context


def end_tls(sock: socket.socket) -> None:
    """Send close_notify at once, and leave the TCP connection open in both directions."""
    assert isinstance(sock, ssl.SSLSocket)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setblocking(False)
    with suppress(ssl.SSLWantReadError):
        sock.unwrap()
    sock.settimeout(WAIT_SECONDS)


@pytest.mark.parametrize("is_encrypted", [False, True])
def test_lobby_and_room_are_told_the_browser(start: Start, certificates: Certificates, is_encrypted: bool) -> None:
    tls = ("--tls-ca", str(certificates.authority)) if is_encrypted else ()
    fake = FakeSystem(start, "--send-proxy", *tls, path=f"{ROOMS}/tea")

    def expect_connection() -> None:
        fake.expect(f"PROXY TCP4 127.0.0.1 127.0.0.1 {browser_port} {fake.front_end.port}\r\n".encode())
        if is_encrypted:
            fake.sock = server_context(certificates).wrap_socket(fake.sock, server_side=True)

    with fake.listener:
        tab = fake.open()
        browser_port = tab.peer.sock.getsockname()[1]
        expect_connection()
        fake.expect(b"\x02tea\n")
        fake.sock.sendall(b"\x00%d 0\n" % fake.listener.getsockname()[1])
        fake.sock.close()
        fake.accept()
        expect_connection()
        tab.send("hello")
        fake.expect(b"hello\n")
        tab.close()
        fake.expect_end()


@pytest.mark.parametrize(
    ("from_proxy", "to_system"),
    [
        (b"", "TCP6 ::1 ::1 {browser} {own}"),
        (b"PROXY TCP6 2001:db8::9 ::1 1 2\r\n", "TCP6 2001:db8::9 ::1 {browser} {own}"),
        (b"PROXY TCP4 192.0.2.9 127.0.0.1 1 2\r\n", "UNKNOWN"),  # version 1 has no words for two families
    ],
)
def test_system_is_told_the_address_that_a_proxy_names(start: Start, from_proxy: bytes, to_system: str) -> None:
    with socket.socket(socket.AF_INET6) as browser:
        try:
            browser.bind(("::1", 0))
        except OSError:
            pytest.skip("no IPv6 here")
        fake = FakeSystem(start, "--host", "::1", "--send-proxy", "--proxy-from", "::1")
        own = fake.front_end.port
        browser.connect(("::1", own))
        browser.sendall(from_proxy + upgrade(own, TICKETS))
        with fake.listener:
            fake.accept()
            fake.expect(f"PROXY {to_system.format(browser=browser.getsockname()[1], own=own)}\r\n".encode())
            fake.sock.close()


def test_wrong_command_lines_end_with_a_sentence(systems: Systems, tmp_path: Path) -> None:
    (tmp_path / "empty.pem").touch()
    usage = [("x",), ("--dormitory", "127.0.0.1:99999")]
    hosts = ("", "http://lab.example", "lab.example:80", "::1", "[::1]:80", "[::g]", "192.0.2", "*.example", "a..b")
    origins = ("lab.example", "https://lab.example/", "ftp://lab.example", "https://", "*", "null")
    usage += [(f"--allow-host={host}",) for host in hosts] + [(f"--allow-origin={origin}",) for origin in origins]
    commands = [*usage, (str(systems.port),), ("--tls-ca", "missing.pem"), ("--tls-ca", str(tmp_path / "empty.pem"))]
    results = run_programs(*(("front_end.py", *arguments) for arguments in commands))
    assert [result.returncode for result in results] == [2] * len(usage) + [1] * 3
    assert [result.stderr for result in results[len(usage) :]] == [
        f"Cannot listen on 127.0.0.1:{systems.port}: Address already in use\n",
        "missing.pem: No such file or directory\n",
        f"{tmp_path / 'empty.pem'}: a file of PEM certificates is expected\n",
    ]
    for result in results[2 : len(usage)]:
        assert re.search(r"error: argument --allow-(host|origin): '.*' is not valid: .* is expected", result.stderr)
