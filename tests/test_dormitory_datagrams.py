"""Datagrams that are malformed, forged, stale, repeated or meant for another server: they change nothing."""

import re
import select
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, changed_program, skip_without_ipv6, wait_until
from dorm import Dormitory, ask, free_udp_port, needs_loopback_network

from dormitory.request_handler import RequestHandler
from dormitory.reservations import Reservations
from dormitory.textfiles import WatchedFile
from dormitory.udp_server import UdpServer, open_socket
from dormitory.wire import Action, BadDatagram, Datagram, new_request, now_ms, pack, unpack
from net.addresses import open_at_each_address
from net.command_line import shown_address

KEY = bytes(range(32))
REQUEST = new_request(Action.RESERVE, "S1 alice", b"database", 7)
MINUTE_MS = 60_000


class FakeMainServer:
    """A socket that sends datagrams as a main server does."""

    def __init__(self, port: int, key: bytes, host: str = "127.0.0.1") -> None:
        self.sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        self.sock.connect((host, port))
        self.sock.settimeout(WAIT_SECONDS)
        self.key = key

    def __enter__(self) -> "FakeMainServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.sock.close()

    @property
    def address(self) -> str:
        """Where it sends from, as status lines show it."""
        return shown_address(*self.sock.getsockname()[:2])

    def ask(self, action: Action, text: str, **fields: object) -> str:
        """Send a request and return the reply."""
        return self.repeat(new_request(action, text)._replace(**fields))  # type: ignore[arg-type]

    def repeat(self, request: Datagram) -> str:
        """Send a request that may have come before; return the reply."""
        self.sock.send(pack(self.key, request))
        reply = unpack(self.key, self.sock.recv(2000))
        assert reply[:3] == (Action.REPLY, request.request_id, request.time_ms)
        return reply.text

    def expect_no_reply(self, *datagrams: bytes) -> None:
        """Send datagrams; fail if one of them is answered. A last request shows that all of them were read."""
        for data in datagrams:
            self.sock.send(data)
        last = new_request(Action.AVAILABILITY, "S12")
        assert self.repeat(last) == "AVAILABLE 6"
        assert not select.select([self.sock], [], [], 0)[0]


@pytest.fixture
def main_server(dormitory: Dormitory) -> Iterator[FakeMainServer]:
    dormitory.start_back_end("S")
    with FakeMainServer(dormitory.port("S"), dormitory.key) as main_server:
        yield main_server


def test_junk_forged_and_malformed_datagrams_change_nothing(dormitory: Dormitory, main_server: FakeMainServer) -> None:
    key = main_server.key
    data = pack(key, new_request(Action.RESERVE, "S1 alice"))
    flipped = [data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :] for n in range(len(data))]
    wrong = [(Action.RESERVE, "S1"), (Action.RESERVE, "S1 a b"), (Action.MINE, "S"), (Action.REPLY, "S")]
    malformed = [pack(key, new_request(action, text)) for action, text in wrong]
    malformed += [pack(key, REQUEST._replace(action=200, database=bytes(8)))]  # type: ignore[arg-type]
    main_server.expect_no_reply(pack(bytes(32), REQUEST), b"", b"x", bytes(3000), *flipped, *malformed)
    assert dormitory.rows("S") == []
    back_end = dormitory.back_ends["S"]
    sender = re.escape(main_server.address)
    tag_is_wrong = r"whose tag is wrong: is dorm\.key the same on both hosts\?"
    for problem in (tag_is_wrong, "that has a valid tag but is malformed"):
        back_end.wait_for_line(f"Server S dropped a datagram from {sender} {problem}")
        assert back_end.count_lines(f"Server S dropped .* {problem}.*") == 1  # one line, not one for each datagram


@pytest.mark.parametrize(("minutes", "direction"), [(-11, "behind"), (11, "ahead of")])
def test_a_datagram_that_is_eleven_minutes_off_is_refused_and_a_status_line_says_by_how_much(
    dormitory: Dormitory, main_server: FakeMainServer, minutes: int, direction: str
) -> None:
    wrong = new_request(Action.RESERVE, "S1 alice")._replace(time_ms=now_ms() + minutes * MINUTE_MS)
    main_server.expect_no_reply(pack(main_server.key, wrong), pack(main_server.key, wrong._replace(time_ms=1 << 63)))
    assert dormitory.rows("S") == []
    dormitory.back_ends["S"].wait_for_line(
        rf"Server S dropped a datagram from 127\.0\.0\.1:\d+ whose time is wrong: (659|660|661) seconds {direction}"
        " the clock of this host; at most 600 are accepted"
    )
    nearly = now_ms() + (minutes - minutes // 11 * 2) * MINUTE_MS
    assert main_server.ask(Action.RESERVE, "S1 alice", time_ms=nearly) == "RESERVED S1 8"


def test_a_repeated_change_gets_its_first_answer_again(dormitory: Dormitory, main_server: FakeMainServer) -> None:
    dormitory.write("single.txt", "S1, 1\nS12, 6\n")
    dormitory.back_ends["S"].wait_for_line(".*single.txt has changed and was read again")
    requests = [new_request(Action.RESERVE, text) for text in ("S1 alice", "S1 bob", "S9 bob")]
    requests += [new_request(Action.CANCEL, "S1 alice") for _ in range(2)]
    answers = ["RESERVED S1 0", "FULL", "UNKNOWN_ROOM", "CANCELLED S1 1", "UNKNOWN_RESERVATION"]
    assert [main_server.repeat(request) for request in requests] == answers
    assert [main_server.repeat(request) for request in requests] == answers
    dormitory.back_ends["S"].kill()
    dormitory.start_back_end("S")
    with FakeMainServer(dormitory.port("S"), main_server.key) as elsewhere:  # a recorded datagram, from elsewhere
        assert [elsewhere.repeat(request) for request in requests] == answers
    assert dormitory.rows("S") == []


@pytest.mark.parametrize(("changed_after", "set_back_to"), [(11, 0), (21, -9)])
def test_a_request_that_comes_again_after_the_clock_was_set_back_is_not_carried_out_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed_after: int, set_back_to: int
) -> None:
    (tmp_path / "single.txt").write_text("S1, 9\n")
    sent = now_ms()

    def set_clock(minutes: int) -> None:
        monkeypatch.setattr(time, "time_ns", lambda: (sent + minutes * MINUTE_MS) * 1_000_000)

    def change(request: Datagram) -> str:
        with closing(Reservations(tmp_path / "single.db")) as reservations, reservations.transaction():
            return RequestHandler("S", inventory, reservations, None).reply_to(request).text

    inventory: WatchedFile[dict[str, int]] = WatchedFile(tmp_path / "single.txt", lambda _: {"S1": 9})
    request = new_request(Action.RESERVE, "S1 alice")
    assert change(request) == "RESERVED S1 8"
    set_clock(changed_after)
    change(new_request(Action.RESERVE, "S1 bob"))  # deletes the recorded reply, if it is older than 20 minutes
    set_clock(set_back_to)
    if changed_after == 11:
        assert change(request) == "RESERVED S1 8"
    else:
        with pytest.raises(BadDatagram, match=r"may be a repetition, \d+ seconds too old to tell: was a clock set"):
            change(request)
    with closing(sqlite3.connect(tmp_path / "single.db")) as db:
        assert db.execute("SELECT number, member FROM reservations").fetchall() == [(1, "alice"), (2, "bob")]


def test_a_member_at_the_limit_is_denied_and_the_answer_is_recorded(dormitory: Dormitory) -> None:
    dormitory.start_back_end("S", "--max-per-member", "2")
    denied = "DENIED At most 2 reservations per member"
    with FakeMainServer(dormitory.port("S"), dormitory.key) as main_server:
        third = new_request(Action.RESERVE, "S1 alice")
        assert main_server.ask(Action.RESERVE, "S1 alice") == "RESERVED S1 8"
        assert main_server.ask(Action.RESERVE, "S12 alice") == "RESERVED S2 5"
        assert main_server.repeat(third) == denied
        assert main_server.ask(Action.RESERVE, "S9 alice") == "UNKNOWN_ROOM"
        assert main_server.ask(Action.RESERVE, "S1 bob") == "RESERVED S3 7"
        assert main_server.ask(Action.CANCEL, "S1 alice") == "CANCELLED S1 8"
        assert main_server.repeat(third) == denied
        assert main_server.ask(Action.RESERVE, "S1 alice") == "RESERVED S4 7"


def test_trace_shows_each_datagram_that_is_received_and_sent(dormitory: Dormitory) -> None:
    back_end = dormitory.start_back_end("S", "--trace")
    clock = r"\d\d:\d\d:\d\d\.\d{3}"
    with FakeMainServer(dormitory.port("S"), dormitory.key) as main_server:
        prefix = f"{clock} Server S {re.escape(main_server.address)}"
        request = new_request(Action.LIST, "S")
        main_server.repeat(request)
        back_end.wait_for_line(f"{prefix} <- LIST {request.request_id.hex()} {clock} 'S'")
        back_end.wait_for_line(f"{prefix} -> REPLY {request.request_id.hex()} {clock} 'S1=9 S12=6 S123=0'")
        odd = request._replace(action=Action.MINE, time_ms=1 << 63, page=7, text="\x1b")
        main_server.expect_no_reply(pack(dormitory.key, odd), b"\x1b]junk")
        back_end.wait_for_line(rf"{prefix} <- MINE {request.request_id.hex()} {clock} page 7 '\\x1b'")
        back_end.wait_for_line(rf"{prefix} <- b'\\x1b\]junk'")


@needs_loopback_network
@pytest.mark.parametrize("host", ["0.0.0.0", "::"])
def test_a_reply_leaves_from_the_address_that_was_asked(dormitory: Dormitory, host: str) -> None:
    if host == "::":
        skip_without_ipv6()
    dormitory.start_back_end("S", "--host", host)
    for asked in ("127.0.0.2", "::1") if host == "::" else ("127.0.0.2",):
        with FakeMainServer(dormitory.port("S"), dormitory.key, asked) as main_server:
            assert main_server.ask(Action.AVAILABILITY, "S12") == "AVAILABLE 6"


@needs_loopback_network
def test_a_back_end_answers_at_each_local_address_of_its_host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resolve_to(*addresses: str) -> None:
        found = socket.AF_INET, socket.SOCK_DGRAM, socket.IPPROTO_UDP, ""
        monkeypatch.setattr(socket, "getaddrinfo", lambda _, port, **options: [(*found, (a, port)) for a in addresses])

    resolve_to("240.0.0.1", "127.0.0.1", "127.0.0.2")
    inventory: WatchedFile[dict[str, int]] = WatchedFile(tmp_path / "single.txt", lambda _: {"S12": 6})
    with ExitStack() as cleanup:
        sockets = open_at_each_address("localhost", 0, socket.SOCK_DGRAM, open_socket)
        port = sockets[0].getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            open_at_each_address("localhost", port, socket.SOCK_DGRAM, open_socket)
        reservations = cleanup.enter_context(closing(Reservations(tmp_path / "single.db")))
        server = UdpServer(RequestHandler("S", inventory, reservations, None), sockets, KEY, is_traced=False)
        thread = threading.Thread(target=server.serve, args=[stopping := threading.Event()])
        thread.start()
        cleanup.callback(lambda: [stop() for stop in (stopping.set, thread.join, *(sock.close for sock in sockets))])
        for host in ("127.0.0.1", "127.0.0.2"):
            with FakeMainServer(port, KEY, host) as main_server:
                assert main_server.ask(Action.AVAILABILITY, "S12") == "AVAILABLE 6"
    resolve_to("240.0.0.1", "240.0.0.2")
    with pytest.raises(OSError, match=r"assign|available"):
        open_at_each_address("elsewhere", 0, socket.SOCK_DGRAM, open_socket)


@needs_loopback_network
def test_the_main_server_uses_the_address_of_a_name_that_answers(dormitory: Dormitory, tmp_path: Path) -> None:
    resolve = "lambda host, port, kind: [(2, ('127.0.0.3', port)), (2, ('127.0.0.1', port))]"
    dormitory.scripts["M"] = changed_program(tmp_path, "serverM.py", f"program.resolve_all = {resolve}")
    dormitory.start()
    alice = dormitory.log_in("alice")
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"
    dormitory.back_ends["S"].kill()
    assert ask(alice, "RESERVE S1") == "TRY_LATER Server S is not answering"
    port = dormitory.port("S")
    dormitory.main.wait_for_line(rf"Server S at 127\.0\.0\.3:{port} or 127\.0\.0\.1:{port} is not answering")
    dormitory.start_back_end("S")
    dormitory.wait_until_found("S", times=2, seconds=2.0)
    assert ask(alice, "RESERVE S1") == "RESERVED S2 7"


@pytest.mark.skipif(not shutil.which("strace"), reason="strace is not installed")
def test_changes_that_arrive_together_are_synced_once_before_the_replies(dormitory: Dormitory, tmp_path: Path) -> None:
    trace = tmp_path / "trace"
    strace = ("strace", "-D", "-f", "-o", str(trace), "-e", "trace=fdatasync,fsync,sendmsg")
    back_end = dormitory.start_back_end("S", prefix=strace)
    with FakeMainServer(dormitory.port("S"), dormitory.key) as main_server:
        assert main_server.ask(Action.RESERVE, "S1 alice") == "RESERVED S1 8"
        before = trace.read_text()
        back_end.process.send_signal(signal.SIGSTOP)  # so that all changes are there when it receives the first
        state = Path(f"/proc/{back_end.pid}/stat")
        wait_until(lambda: state.read_text().rpartition(") ")[2][0] in "Tt", "it has stopped", got=state.read_text)
        for _ in range(5):
            main_server.sock.send(pack(main_server.key, new_request(Action.RESERVE, "S1 alice")))
        back_end.process.send_signal(signal.SIGCONT)
        replies = [unpack(main_server.key, main_server.sock.recv(2000)).text for _ in range(5)]
    assert replies == [f"RESERVED S{number} {10 - number - 1}" for number in range(2, 7)]
    back_end.wait_for_line("Server S has 3 of room S1 left")
    calls = trace.read_text().removeprefix(before)
    assert re.findall(r"(sync|sendmsg)\(", calls) == ["sync"] + ["sendmsg"] * 5


def test_a_request_for_another_database_is_not_carried_out(dormitory: Dormitory, main_server: FakeMainServer) -> None:
    assert main_server.ask(Action.RESERVE, "S1 alice", database=b"database") == ""
    assert main_server.ask(Action.AVAILABILITY, "S1") == "AVAILABLE 9"
    assert dormitory.rows("S") == []


def test_the_main_server_discards_forged_and_repeated_replies(dormitory: Dormitory) -> None:
    with free_udp_port() as back_end, free_udp_port() as outsider:
        back_end.settimeout(WAIT_SECONDS)
        dormitory.ports["S"] = back_end.getsockname()[1]
        dormitory.start_main()
        key = dormitory.key
        while not dormitory.main.count_lines("Server S has sent its room status: S1=9"):
            if select.select([back_end], [], [], 0.05)[0]:
                reply, address = next_reply(back_end, key, "S1=9")
                back_end.sendto(pack(key, reply), address)
        guest = dormitory.log_in("eve")
        guest.send("AVAILABILITY S1")
        reply, address = next_reply(back_end, key, "AVAILABLE 9")
        outsider.sendto(pack(key, reply._replace(text="AVAILABLE 1")), address)  # not from the back end
        for bad in (
            b"junk",
            pack(bytes(32), reply._replace(text="AVAILABLE 2")),
            pack(key, reply)[:-1] + b"3",
            pack(key, reply._replace(request_id=bytes(16), text="AVAILABLE 4")),
            pack(key, reply._replace(action=Action.AVAILABILITY, text="AVAILABLE 5")),
        ):
            back_end.sendto(bad, address)
        for _ in range(2):
            back_end.sendto(pack(key, reply), address)
        guest.expect("AVAILABLE 9")
        guest.send("AVAILABILITY S1")
        reply, address = next_reply(back_end, key, "FULL")
        back_end.sendto(pack(key, reply), address)
        guest.expect("FULL")


def next_reply(back_end: socket.socket, key: bytes, text: str) -> tuple[Datagram, tuple[str, int]]:
    """Receive a request; return a reply to it, and where the reply must go."""
    data, address = back_end.recvfrom(2000)
    return unpack(key, data)._replace(action=Action.REPLY, database=b"database", text=text), address


def test_answers_from_another_database_are_reported_and_not_mixed_in(dormitory: Dormitory, tmp_path: Path) -> None:
    dormitory.start("S")
    alice = dormitory.log_in("alice")
    assert ask(alice, "RESERVE S1") == "RESERVED S1 8"
    dormitory.back_ends["S"].kill()
    other = tmp_path / "other"
    other.mkdir()
    for name in ("single.txt", "dorm.key"):
        shutil.copy(dormitory.directory / name, other)
    dormitory.start_back_end("S", "--data-dir", str(other))
    assert ask(alice, "RESERVE S1") == "TRY_LATER Server S is not answering"
    report = r"Server S at .* now has database \w{16} instead of \w{16}: its answers are refused until .*"
    dormitory.main.wait_for_line(report)
    assert ask(alice, "MINE") == "RESERVATIONS S=? D=? U=?"
    dormitory.back_ends["S"].kill()
    with closing(sqlite3.connect(other / "single.db")) as db:
        assert db.execute("SELECT count(*) FROM reservations").fetchone() == (0,)
    dormitory.start_back_end("S")
    dormitory.wait_until_found("S", times=2, seconds=2.0)
    assert ask(alice, "RESERVE S1") == "RESERVED S2 7"
    assert dormitory.main.count_lines(report) == 1


def test_a_back_end_with_another_key_or_port_reports_what_it_drops(dormitory: Dormitory, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    shutil.copy(dormitory.directory / "single.txt", other)
    dormitory.start_back_end("S", "--data-dir", str(other))  # it creates a key of its own
    dormitory.start_back_end("D")
    dormitory.ports["U"] = dormitory.port("D")
    dormitory.start_main()
    dormitory.back_ends["S"].wait_for_line(
        r"Server S dropped a datagram from 127\.0\.0\.1:\d+ whose tag is wrong: is dorm\.key the same on both hosts\?"
    )
    dormitory.back_ends["D"].wait_for_line(
        r"Server D dropped a datagram from 127\.0\.0\.1:\d+ that is meant for another server, Server U"
    )
    dormitory.main.wait_for_line("Server U at .* is not answering")
    dormitory.back_ends["D"].kill()  # the next reply takes 3 seconds, more than a round of the search
    guest = dormitory.log_in("eve")
    assert ask(guest, "AVAILABILITY D1") == "TRY_LATER Server D is not answering"
    dormitory.main.wait_for_line("Server D at .* is not answering")
    for letter in "SDU":
        assert dormitory.main.count_lines(rf"Server {letter} at 127\.0\.0\.1:\d+ is not answering") == 1
    assert dormitory.back_ends["S"].count_lines(".*dorm.key.*") == 1
    assert dormitory.main.count_lines("Server D has sent its room status: D1=2") == 1
