"""TLS with real clients: Python's ssl, openssl s_client, ncat and the clients of the project."""

import argparse
import os
import shutil
import signal
import socket
import ssl
import subprocess
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

import pytest
from certificates import Certificates, Pair
from conftest import WAIT_SECONDS, Peer, Program, Start, fake_server, meanwhile, run_command, run_program, wait_until
from dorm import PASSWORDS, Dormitory
from pseudo_terminal import OpenTerminal

from net.connect import CannotConnect, connect
from net.connection import Connection
from net.log import LOG
from net.output import Patience
from net.tls import Certificate, TlsLayer

PERIOD_SECONDS = 0.5  # instead of net.output's
LONG_TEXT = "x" * 1000


class TlsPeer(Peer):
    """A client's connection over TLS; a connection that is cut without close_notify raises ssl.SSLEOFError."""

    def __init__(self, port: int, context: ssl.SSLContext, receive_buffer: int = 0) -> None:
        super().__init__(port, receive_buffer)
        self.tls = context.wrap_socket(self.sock, server_hostname="localhost", suppress_ragged_eofs=False)
        self.sock = self.tls

    def end_input(self) -> None:
        """Send close_notify, and leave the TCP connection open in both directions."""
        self.tls.setblocking(False)
        with suppress(ssl.SSLWantReadError):
            self.tls.unwrap()
        self.tls.settimeout(WAIT_SECONDS)


class RecordClient:
    """A TLS client that leaves it to the test to send its records."""

    def __init__(self, sock: socket.socket, context: ssl.SSLContext) -> None:
        self.sock = sock
        sock.settimeout(WAIT_SECONDS)
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._text = b""  # which read_line() has not returned
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_hostname="localhost")

    def hello(self) -> bytes:
        """Return the first message of a handshake."""
        with suppress(ssl.SSLWantReadError):
            self._tls.do_handshake()
        return self._outgoing.read()

    def shake_hands(self, send: Callable[[bytes], None]) -> None:
        """Carry out the handshake."""
        while True:
            with suppress(ssl.SSLWantReadError):
                self._tls.do_handshake()
                send(self._outgoing.read())
                return
            send(self._outgoing.read())
            self._incoming.write(self.sock.recv(1 << 16))

    def records(self, *texts: bytes, close_notify: bool = False) -> bytes:
        """Return a record for each text, as the network would carry them."""
        for text in texts:
            self._tls.write(text)
        if close_notify:
            with suppress(ssl.SSLWantReadError):
                self._tls.unwrap()
        return self._outgoing.read()

    def read_line(self) -> bytes:
        """Return data up to and including a newline, or up to close_notify, which ends the input."""
        while b"\n" not in self._text:
            try:
                text = self._tls.read(1 << 16)
            except ssl.SSLZeroReturnError:
                text = b""
            except ssl.SSLWantReadError:
                self._incoming.write(self.sock.recv(1 << 16) or pytest.fail("the end came without close_notify"))
                continue
            if not text:
                break
            self._text += text
        line, newline, self._text = self._text.partition(b"\n")
        return line + newline

    def expect(self, *lines: bytes) -> None:
        """Fail unless the next lines are these; b"" is the end of the input."""
        for line in lines:
            assert self.read_line() == line

    def send_byte_by_byte(self, data: bytes) -> None:
        """Send each byte in a segment of its own."""
        for i in range(len(data)):
            self.sock.sendall(data[i : i + 1])


@contextmanager
def record_client(server: Program, certificates: Certificates) -> Iterator[RecordClient]:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        client = RecordClient(sock, certificates.client_context)
        client.shake_hands(sock.sendall)
        yield client


@pytest.fixture
def start_tls(start: Start, certificates: Certificates) -> Start:
    def start_server(*arguments: str, pair: Pair = certificates.good) -> Program:
        return start(*arguments, *pair.options)

    return start_server


@pytest.fixture
def server(start_tls: Start) -> Program:
    return start_tls("chat_server.py", "0")


@pytest.fixture
def join(certificates: Certificates) -> Callable[..., TlsPeer]:
    """Provide a function that connects a client over TLS."""

    def connect_peer(server: Program, port: int = 0, receive_buffer: int = 0) -> TlsPeer:
        peer = TlsPeer(port or server.port, certificates.client_context, receive_buffer)
        server.peers.append(peer)
        return peer

    return connect_peer


Join = Callable[..., TlsPeer]


def register(server: Program, join: Join, name: str, receive_buffer: int = 0) -> TlsPeer:
    peer = join(server, receive_buffer=receive_buffer)
    peer.send(f"JOIN {name}")
    peer.expect(f"JOIN {name} accepted")
    return peer


# The transformer of bytes and the backlog, over a socket pair


@pytest.fixture
def ends(certificates: Certificates) -> Iterator[tuple[Connection, RecordClient]]:
    """Provide a server's connection whose handshake has not begun, and the client's end of it."""
    stop_fd, stop_writer = os.pipe()
    server_end, client_end = socket.socketpair()
    connection = Connection(server_end, stop_fd)
    connection.tls = TlsLayer(Certificate(certificates.good.certificate, certificates.good.key).context)
    connection.patience = Patience(PERIOD_SECONDS)
    yield connection, RecordClient(client_end, certificates.client_context)
    client_end.close()
    connection.drop()
    connection.close()
    os.close(stop_fd)
    os.close(stop_writer)


Ends = tuple[Connection, RecordClient]


def shake_hands(ends: Ends) -> None:
    connection, client = ends
    with meanwhile(connection.shake_hands):
        client.shake_hands(client.sock.sendall)


def test_messages_of_many_threads_stay_whole_and_in_order_while_the_backlog_grows(ends: Ends) -> None:
    connection, client = ends
    shake_hands(ends)
    sizes = [700_000, 1, 100, 10_000, 100_000]  # less and more than a record, a piece, a backlog

    def send(sender: int) -> None:
        for i in range(6):
            number = sender * 100 + i
            message = b"%03d" % number + b"." * sizes[number % len(sizes)] + b"\n"
            (connection.send_at_once if number % 3 == 0 else connection.send)(message)

    with meanwhile(*(partial(send, sender) for sender in range(4))):
        lines = [client.read_line() for _ in range(24)]
    numbers = [int(line[:3]) for line in lines]
    assert [line[3:-1] for line in lines] == [b"." * sizes[number % len(sizes)] for number in numbers]
    for first in (0, 100, 200, 300):
        assert [n for n in numbers if first <= n < first + 100] == [*range(first, first + 6)]


def test_a_farewell_at_any_moment_of_the_handshake_arrives_if_the_handshake_completes(ends: Ends) -> None:
    connection, client = ends
    connection.send(b"hello\n")
    client.sock.sendall(client.hello())
    connection.try_receive()
    client.shake_hands(client.sock.sendall)  # the server has not received its last message
    os.dup2(os.open(os.devnull, os.O_RDONLY), connection.stop_fd)  # it is readable now: the server stops
    connection.end(b"Warning: room tea is deleted\n")
    connection.shake_hands()
    with meanwhile(connection.close):
        client.expect(b"hello\n", b"Warning: room tea is deleted\n", b"")
        client.sock.close()


def test_an_end_during_a_handshake_waits_for_and_drops_nobody(ends: Ends, capfd: pytest.CaptureFixture[str]) -> None:
    connection, client = ends
    client.sock.sendall(client.hello())
    connection.send(b"secret\n" * 1000)
    connection.end(b"farewell\n")
    began = time.monotonic()
    with meanwhile(connection.close):
        assert b"secret" not in client.sock.recv(1 << 16)
        client.sock.shutdown(socket.SHUT_WR)
    assert time.monotonic() - began < PERIOD_SECONDS
    LOG.flush(WAIT_SECONDS)
    assert "dropped" not in capfd.readouterr().out


def test_a_client_that_is_dropped_during_the_handshake_ends_the_owners_wait(ends: Ends) -> None:
    connection, client = ends
    client.sock.sendall(client.hello()[:20])
    connection.send(b"x" * 1_000_000)  # what others send to a member who has not entered yet
    connection.set_time_limit(WAIT_SECONDS, "the owner still waits")
    with meanwhile(connection.shake_hands):
        connection.send(b"x" * 1_000_000)  # blocks until the client is dropped
    assert connection.is_dropped


def test_nothing_is_sent_in_clear_text_after_close_notify(ends: Ends) -> None:
    connection, client = ends
    shake_hands(ends)
    connection.end()
    connection.send(b"secret\n")
    connection.send_at_once(b"secret\n")
    connection.drop()
    received = b"".join(iter(lambda: client.sock.recv(1 << 16), b""))
    assert received
    assert b"secret" not in received


def test_sending_to_a_client_that_has_violated_tls_does_nothing(ends: Ends) -> None:
    connection, client = ends
    shake_hands(ends)
    client.sock.sendall(bytes([23, 3, 3, 0, 32]) + bytes(32))  # a record of application data that is not encrypted
    with pytest.raises(OSError, match=r"bad record mac|record layer failure"):
        connection.receive()
    connection.send(b"from another thread, whose own connection goes on\n")


def test_close_notify_reaches_a_client_that_is_slow_to_read_what_precedes_it(ends: Ends) -> None:
    connection, client = ends
    shake_hands(ends)
    connection.send(b"." * 900_000 + b"\n")  # more than the kernel takes
    with meanwhile(connection.close):
        client.expect(b"." * 900_000 + b"\n", b"")
        client.sock.close()


def test_failed_handshakes_delay_nobody_and_say_why(start_tls: Start, join: Join, certificates: Certificates) -> None:
    server = start_tls("chat_server.py", "0", "--login-seconds", "1")
    with socket.socket() as sock:
        hello = RecordClient(sock, certificates.client_context).hello()
    first_bytes = {
        b"": "No complete request within 1 seconds",
        hello[:100]: "No complete request within 1 seconds",
        b"JOIN alice\n": "TLS handshake failed: not TLS",
        b"\3\n": "TLS handshake failed: not TLS",
        hello[:1]: "No complete request within 1 seconds",
        b"GET / HTTP/1.1\r\n\r\n": "TLS handshake failed: not TLS but plain HTTP",
        bytes(range(200, 250)): "TLS handshake failed: not TLS",
        hello[:5] + bytes(len(hello) - 5): "TLS handshake failed: .*",
    }
    peers = []
    for data in first_bytes:
        for _ in range(5):
            peers.append(server.connect())
            peers[-1].send_bytes(data)
    began = time.monotonic()
    alice = register(server, join, "alice")
    assert time.monotonic() - began < 5  # one after the other, the silent clients would take 15 seconds
    server.connect().close()
    server.connect().reset()
    for line in {*first_bytes.values(), "TLS handshake failed: the client has left"}:
        server.wait_for_line(rf"Client \(\d+\): disconnected: {line}")
    for peer in peers:  # each connection ends in order, not with a reset that could destroy the alert
        while peer.sock.recv(1 << 16):
            pass
        peer.close()
    accepted = server.count_lines(".*: accepted from .*")
    assert accepted >= len(peers) + 2  # accept() may never return a connection that was reset
    wait_until(lambda: server.count_lines(".*: disconnected: .*") == accepted - 1, "one line for each client but alice")
    waited = [data for data, line in first_bytes.items() if line.startswith("No complete request")]
    assert server.count_lines(".*: disconnected: No complete request .*") == 5 * len(waited)
    assert server.count_lines(".*: dropped: .*") == 0  # what can never be sent delays no end of a connection
    alice.send("LIST")
    alice.expect("Registered users (1):", "alice")


@pytest.mark.parametrize("version", ["tls1_1", "tls1_2", "tls1_3"])
def test_tls_1_2_is_the_oldest_version(server: Program, version: str) -> None:
    result = s_client(server, "QUIT\n", f"-{version}", "-cipher", "ALL:@SECLEVEL=0")
    if version == "tls1_1":
        assert "alert protocol version" in result.stderr
        server.wait_for_line(r"Client \(\d+\): disconnected: TLS handshake failed: unsupported protocol")
    else:
        assert result.returncode == 0
        server.wait_for_line(r"Client \(\d+\): QUIT")


def s_client(server: Program, input: str, *options: str) -> subprocess.CompletedProcess[str]:
    command = ["openssl", "s_client", "-quiet", "-connect", f"localhost:{server.port}", *options]
    return run_command(command, input)


def test_lines_in_many_segments_or_records_are_whole(server: Program, join: Join, certificates: Certificates) -> None:
    with socket.create_connection(("127.0.0.1", server.port)) as sock:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        client = RecordClient(sock, certificates.client_context)
        client.shake_hands(client.send_byte_by_byte)
        client.send_byte_by_byte(client.records(b"JOIN alice\nLIST\n"))
        client.expect(b"JOIN alice accepted\n", b"Registered users (1):\n", b"alice\n")
        client.send_byte_by_byte(client.records(*(bytes([byte]) for byte in b"LIST\nQUIT\n")))
        client.expect(b"Registered users (1):\n", b"alice\n", b"")
    bob = register(server, join, "bob")
    for byte in b"LIST\n":
        bob.send_bytes(bytes([byte]))
    bob.expect("Registered users (1):", "bob")


def test_records_that_arrive_together_are_all_handled(server: Program, join: Join, certificates: Certificates) -> None:
    alice = register(server, join, "alice")
    with record_client(server, certificates) as client:
        client.sock.sendall(client.records(b"JOIN bob\n"))
        client.expect(b"JOIN bob accepted\n")
        line = b"BCST " + b"x" * 94 + b"\n"
        server.process.send_signal(signal.SIGSTOP)  # so that everything has arrived when the server reads
        # These are records of 10,000 bytes, which no buffer's size divides.
        client.sock.sendall(client.records(*[line * 100] * 20))
        server.process.send_signal(signal.SIGCONT)
        alice.expect(*["FROM bob (all): " + "x" * 94] * 2000)


def test_close_notify_with_a_last_line_is_answered_after_the_reply(server: Program, certificates: Certificates) -> None:
    with record_client(server, certificates) as client:
        client.sock.sendall(client.records(b"JOIN alice\nLIST", close_notify=True))  # TCP stays open in both directions
        client.expect(b"JOIN alice accepted\n", b"Registered users (1):\n", b"alice\n", b"")
    server.wait_for_line(r"Client \(\d+\): disconnected")


def test_a_client_that_ends_without_close_notify_gets_every_reply_but_to_half_a_line(
    server: Program, join: Join, certificates: Certificates
) -> None:
    with record_client(server, certificates) as client:
        server.process.send_signal(signal.SIGSTOP)  # so that the lines and the end arrive together
        client.sock.sendall(client.records(b"JOIN alice\nLIST\nQU"))
        client.sock.shutdown(socket.SHUT_WR)
        server.process.send_signal(signal.SIGCONT)
        client.expect(b"JOIN alice accepted\n", b"Registered users (1):\n", b"alice\n", b"")
    server.wait_for_line(r"Client \(\d+\): disconnected: the connection was cut without close_notify")
    register(server, join, "alice").reset()
    ended = r"Client \(\d+\): disconnected: .*(reset|cut).*"
    wait_until(lambda: server.count_lines(ended) == 2, "a line for each of the two")


def test_lines_of_a_client_that_reads_nothing_arrive(server: Program, join: Join, certificates: Certificates) -> None:
    alice = register(server, join, "alice")
    with record_client(server, certificates) as client:
        client.sock.sendall(client.records(b"JOIN bob\n", *[b"MESG alice %d\n" % i for i in range(100)]))
        # Closing with the server's session tickets unread sends a reset.
    alice.expect(*(f"FROM bob: {i}" for i in range(100)))


def test_sigterm_ends_a_server_with_tls_clients_in_every_state(server: Program, join: Join) -> None:
    server.connect()  # in the middle of the handshake
    alice, bob = (register(server, join, name) for name in ("alice", "bob"))
    silent = register(server, join, "silent", receive_buffer=1 << 12)
    alice.send(*[f"MESG silent {LONG_TEXT}"] * 900, "MESG bob done")
    bob.expect("FROM alice: done")
    alice.send_bytes(b"LI")
    assert server.stop() == 0
    alice.expect_end()  # with close_notify, or it would raise ssl.SSLEOFError
    silent.close()


def test_a_client_over_the_limit_gets_no_handshake(start_tls: Start, join: Join, certificates: Certificates) -> None:
    server = start_tls("chat_server.py", "0", "--max-connections", "2", "--max-per-address", "2")
    alice, bob = (register(server, join, name) for name in ("alice", "bob"))
    server.process.send_signal(signal.SIGSTOP)  # so that the handshake has begun when the server accepts
    refused = server.connect()
    refused.send_bytes(RecordClient(refused.sock, certificates.client_context).hello())
    server.process.send_signal(signal.SIGCONT)
    refused.expect_end()
    server.wait_for_line(r"Client \(\d+\): refused: Too many connections")
    alice.close()
    server.wait_for_line(r"Client \(\d+\): disconnected.*")
    register(server, join, "alice")
    bob.send("LIST")
    bob.expect("Registered users (2):", "bob", "alice")


def test_openssl_s_client_gets_every_reply(server: Program, certificates: Certificates) -> None:
    trust = ("-CAfile", str(certificates.authority), "-verify_return_error", "-verify_hostname", "localhost")
    result = s_client(server, "JOIN alice\nLIST\nQUIT\n", *trust)
    assert (result.returncode, result.stdout) == (0, "JOIN alice accepted\nRegistered users (1):\nalice\n")
    server.wait_for_line(r"Client \(\d+\): disconnected")  # and no reason


@pytest.mark.skipif(not shutil.which("ncat"), reason="ncat is not installed")
def test_ncat_gets_every_reply_at_the_end_of_its_input(server: Program, certificates: Certificates) -> None:
    trust = ("--ssl-verify", "--ssl-trustfile", str(certificates.authority))
    command = ["ncat", "--ssl", *trust, "localhost", str(server.port)]
    result = run_command(command, "JOIN alice\nLIST\n")
    assert (result.returncode, result.stdout) == (0, "JOIN alice accepted\nRegistered users (1):\nalice\n")


def test_a_client_that_distrusts_a_server_is_logged_with_its_alert(server: Program, certificates: Certificates) -> None:
    result = s_client(server, "JOIN alice\n", "-verify_return_error")
    assert result.returncode == 1
    server.wait_for_line(r"Client \(\d+\): disconnected: .*the peer sent the alert 'unknown ca'")
    assert server.count_lines(".*JOIN alice.*") == 0


def test_an_unusable_certificate_ends_the_server_with_one_line(certificates: Certificates, tmp_path: Path) -> None:
    good = certificates.good
    damaged = tmp_path / "damaged.pem"
    damaged.write_text(good.certificate.read_text()[:300])
    empty = tmp_path / "empty.pem"
    empty.touch()
    missing = tmp_path / "missing.pem"
    fifo = tmp_path / "fifo.pem"
    os.mkfifo(fifo)
    weak = certificates.weak
    expected = {
        (weak.certificate, weak.key): f"{weak.certificate}: ee key too small",
        (missing, good.key): f"{missing}: No such file or directory",
        (good.certificate, missing): f"{missing}: No such file or directory",
        (tmp_path, good.key): f"{tmp_path}: not a regular file",
        (good.certificate, fifo): f"{fifo}: not a regular file",
        (damaged, good.key): f"{damaged}: a certificate in PEM form is expected",
        (good.key, good.certificate): f"{good.key}: a certificate in PEM form is expected",
        (good.certificate, empty): f"{empty}: a private key in PEM form is expected",
        (good.certificate, certificates.renewed.key): f"{certificates.renewed.key}: "
        f"the key of {good.certificate} is expected, but this is another key",
        (good.certificate, certificates.encrypted_key.key): f"{certificates.encrypted_key.key}: "
        "a key that is not encrypted is expected",
    }
    with ThreadPoolExecutor(2) as pool:
        run = pool.map(lambda pair: run_program("chat_server.py", "0", *Pair(*pair).options), expected)
        results = dict(zip(expected, run, strict=True))
        alone = run_program("chatroom_server.py", "0", "--tls-certificate", str(good.certificate))
    for pair, sentence in expected.items():
        assert (results[pair].returncode, results[pair].stdout, results[pair].stderr) == (1, "", f"{sentence}\n")
    assert (alone.returncode, alone.stderr) == (1, "--tls-certificate and --tls-key are expected together\n")


def test_sighup_renews_the_certificate_of_a_server_and_its_rooms_without_dropping_anybody(
    start_tls: Start, join: Join, certificates: Certificates, tmp_path: Path
) -> None:
    pair = Pair(tmp_path / "certificate.pem", tmp_path / "key.pem")
    pair.certificate.write_bytes(certificates.good.certificate.read_bytes())
    pair.key.write_bytes(certificates.good.key.read_bytes())
    server = start_tls("chatroom_server.py", "0", pair=pair)

    def install(certificate: Path, key: Path) -> None:
        pair.certificate.write_bytes(certificate.read_bytes())
        pair.key.write_bytes(key.read_bytes())
        server.process.send_signal(signal.SIGHUP)

    def name(port: int) -> str:
        peer = join(server, port)
        return dict(field[0] for field in peer.tls.getpeercert()["subject"])["commonName"]  # type: ignore

    lobby = join(server)
    lobby.send("1red", "2red")
    lobby.expect("0")
    room = int(lobby.expect_match(r"0(\d+) 0")[1])
    member, other = join(server, room), join(server, room)
    assert (name(server.port), name(room)) == ("good", "good")
    install(certificates.renewed.certificate, certificates.renewed.key)
    server.wait_for_line("The certificate was read again; new connections use it")
    assert (name(server.port), name(room)) == ("renewed", "renewed")
    install(certificates.good.certificate, certificates.renewed.key)
    server.wait_for_line(f"The certificate was not replaced: {pair.key}: the key of .* is expected, .*")
    pair.key.unlink()
    server.process.send_signal(signal.SIGHUP)
    server.wait_for_line(f"The certificate was not replaced: {pair.key}: No such file or directory")
    assert (name(server.port), name(room)) == ("renewed", "renewed")
    member.send("still here")
    other.expect("still here")
    lobby.send("3", "4red")
    lobby.expect("0red", "0")


@contextmanager
def recorder(pair: Pair | None) -> Iterator[tuple[int, list[bytes]]]:
    """Run a server for one client, with TLS if a pair is given; yield its port, and what the client sends."""
    recorded: list[bytes] = []

    def record(sock: socket.socket) -> None:
        if not pair:
            sock.sendall(b"Welcome\n")
            recorded.append(sock.recv(1 << 16))
            return
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(pair.certificate, pair.key)
        with suppress(OSError), context.wrap_socket(sock, server_side=True) as tls:
            recorded.append(tls.recv(1 << 16))

    with fake_server(record) as port:
        yield port, recorded


def tls_options(authority: Path | None = None) -> argparse.Namespace:
    return argparse.Namespace(tls=True, tls_ca=authority and str(authority))


def test_a_client_trusts_a_server_by_name_and_by_address(server: Program, certificates: Certificates) -> None:
    for host in ("localhost", "127.0.0.1"):
        with connect(host, server.port, tls_options(certificates.authority)) as sock:
            assert isinstance(sock, ssl.SSLSocket)
            sock.sendall(b"JOIN alice\nQUIT\n")
            assert sock.recv(100) == b"JOIN alice accepted\n"


HINT = "--tls-ca FILE names a certificate to trust"


@pytest.mark.parametrize(
    ("pair", "trusted", "sentence"),
    [
        ("expired", "authority", "certificate has expired"),
        ("self_signed", None, f"self-signed certificate; {HINT}"),
        ("other_host", "authority", "Hostname mismatch, certificate is not valid for 'localhost'."),
        ("good", None, f"unable to get local issuer certificate; {HINT}"),
    ],
)
def test_a_client_sends_nothing_to_a_server_that_it_does_not_trust(
    certificates: Certificates, pair: str, trusted: str | None, sentence: str
) -> None:
    options = tls_options(certificates.authority if trusted else None)
    with recorder(getattr(certificates, pair)) as (port, recorded), pytest.raises(CannotConnect) as refused:
        connect("localhost", port, options)
    assert str(refused.value) == f"Cannot trust localhost:{port}: {sentence}"
    assert recorded in ([], [b""])


def test_a_client_sends_no_request_to_a_server_without_tls(certificates: Certificates) -> None:
    with recorder(None) as (port, recorded), pytest.raises(CannotConnect) as refused:
        connect("localhost", port, tls_options(certificates.authority))
    assert str(refused.value) == f"Cannot connect to localhost:{port} over TLS: the server does not speak TLS"
    assert recorded[0][:1] == b"\x16"  # a handshake record, and nothing else


def test_a_client_gives_up_a_handshake_after_its_time_limit() -> None:
    with socket.create_server(("localhost", 0)) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(CannotConnect) as refused:
            connect("localhost", port, tls_options(), seconds=0.2)
    assert str(refused.value) == (
        f"Cannot connect to localhost:{port} over TLS: the server does not answer; perhaps it does not speak TLS"
    )


def test_a_tls_ca_file_that_cannot_be_used_is_reported_with_its_name(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing.pem", tmp_path / "empty.pem"
    empty.touch()
    expected = {missing: "No such file or directory", empty: "a file of PEM certificates is expected"}
    for path, sentence in expected.items():
        with pytest.raises(CannotConnect) as refused:
            connect("localhost", 1, tls_options(path))
        assert str(refused.value) == f"{path}: {sentence}"


REAL_CLIENTS = {
    "client.py": ("--port", "{port}", "--host", "localhost", "--user", "alice"),
    "chatroom_client.py": ("localhost", "{port}"),
    "ticket_client.py": ("localhost", "{port}", "--seats", "1-1"),
}


def client_command(program: str, port: int) -> list[str]:
    return [program, *(argument.format(port=port) for argument in REAL_CLIENTS[program])]


@pytest.mark.parametrize("program", REAL_CLIENTS)
def test_each_client_program_says_why_it_does_not_trust_a_server(certificates: Certificates, program: str) -> None:
    for options in (("--tls",), ("--tls-ca", "")):  # an empty name for the trusted certificates means TLS all the same
        with recorder(certificates.self_signed) as (port, recorded):
            done = run_program(*client_command(program, port), *options, input="a secret\n")
        assert (done.returncode, done.stdout) == (3 if program == "ticket_client.py" else 1, "")
        assert done.stderr == f"Cannot trust localhost:{port}: self-signed certificate; {HINT}\n"
        assert recorded in ([], [b""])


def test_a_client_program_asks_for_tls_when_a_server_is_silent_and_goes_on_waiting(open_terminal: OpenTerminal) -> None:
    with socket.create_server(("localhost", 0)) as listener:
        terminal = open_terminal(*client_command("chatroom_client.py", listener.getsockname()[1]))
        with listener.accept()[0] as sock:
            terminal.expect_text("or it speaks TLS (--tls).")
            sock.sendall(b"\0\n")  # the reply to the first LIST
            terminal.expect_text("CREATE name")


@pytest.mark.parametrize("program", ["client.py", "chatroom_client.py"])
def test_a_client_without_tls_whose_connection_a_tls_server_closes_asks_for_tls(start_tls: Start, program: str) -> None:
    server = start_tls("chat_server.py", "0")
    done = run_program(*client_command(program, server.port), input="a secret\n")
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert "connection before it sent a line; perhaps it speaks TLS (--tls)" in done.stderr


def test_rooms_are_reserved_over_tls(dormitory: Dormitory, certificates: Certificates) -> None:
    dormitory.start_back_ends("S")
    dormitory.start_main(*certificates.good.options)
    dormitory.wait_until_found("S")
    answers = "".join(f"{line}\n" for line in (PASSWORDS["alice"], "S12", "reservation", "quit"))
    client = client_command("client.py", dormitory.main.port)
    done = run_program(*client, "--tls-ca", str(certificates.authority), input=answers)
    assert (done.returncode, done.stderr, done.stdout.count("Room S12 is yours: reservation S1. 5 left.")) == (0, "", 1)
    dormitory.main.wait_for_line(r"Client \(\d+\): disconnected")  # and not: cut without close_notify
    lines = f"LOGIN alice {PASSWORDS['alice']}\nAVAILABILITY S12\nQUIT\n"
    replies = s_client(dormitory.main, lines, "-CAfile", str(certificates.authority), "-verify_return_error")
    assert replies.stdout == "MEMBER alice\nAVAILABLE 5\n"


def test_a_certificate_that_has_expired_or_expires_soon_is_reported_at_the_start_and_at_sighup(
    start_tls: Start, certificates: Certificates, tmp_path: Path
) -> None:
    pair = Pair(tmp_path / "certificate.pem", certificates.expired.key)
    pair.certificate.write_bytes(certificates.expired.certificate.read_bytes())
    server = start_tls("chat_server.py", "0", pair=pair)
    server.wait_for_line(f"Warning: {pair.certificate}: certificate has expired")
    soon = start_tls("chat_server.py", "0")
    soon.wait_for_line(f"Warning: {certificates.good.certificate} expires on .* GMT")
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: server.count_lines(f"Warning: {pair.certificate}: certificate has expired") == 2, "a warning")
