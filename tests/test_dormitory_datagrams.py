"""Who speaks to the dormitory's servers over UDP without being one of them: nothing changes, and nobody answers."""

import math
import select
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, Program, wait_until
from dorm import Dormitory, make_dormitory  # noqa: F401
from relay import Relay, relay_to

from dormitory import calls
from dormitory.backend import BackEnd
from dormitory.calls import Calls
from dormitory.reservations import Reservations
from dormitory.udp import bind
from dormitory.wire import (
    MAX_DATAGRAM_BYTES,
    Action,
    BadDatagram,
    Datagram,
    pack,
    pack_announcement,
    unpack,
    unpack_announcement,
)

DROPPED = r"Dropped datagrams: {}; the latest from 127\.0\.0\.1:{}"
KEY = bytes(range(32))


@pytest.fixture
def outsider() -> Iterator[socket.socket]:
    """Give the UDP socket of somebody who does not know the key."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.settimeout(WAIT_SECONDS)
        yield sock


def expect_no_answer(outsider: socket.socket) -> None:
    """Fail if anything has come; what the servers have counted as dropped they would have answered before."""
    assert not select.select([outsider], [], [], 0)[0]


def test_a_datagram_is_unpacked_as_it_was_packed() -> None:
    data = pack(KEY, Action.RESERVE, b"12345678", 1 << 40, b"session. S1 alice")
    assert unpack(KEY, data) == Datagram(Action.RESERVE, b"12345678", 1 << 40, b"session. S1 alice")


def test_a_datagram_that_was_changed_anywhere_has_no_right_tag() -> None:
    data = pack(KEY, Action.RESERVE, b"12345678", 1, b"session. S1 alice")
    changed = [data[:n] + bytes([data[n] ^ 1]) + data[n + 1 :] for n in range(len(data))]
    for bad in (*changed, *(data[:n] for n in range(len(data))), data + b"x", b"", bytes(2000)):
        with pytest.raises(BadDatagram, match="without a right tag"):
            unpack(KEY, bad)
    with pytest.raises(BadDatagram, match="without a right tag"):
        unpack(KEY[::-1], data)


def test_outsiders_are_not_answered_and_their_datagrams_counted_in_one_line(
    dormitory: Dormitory, outsider: socket.socket
) -> None:
    dormitory.start_main()
    with relay_to(dormitory.udp_port) as relay:
        dormitory.start_back_end("S", main_port=relay.port)
        dormitory.wait_until_found("S")
        alice = dormitory.log_in("alice")
        alice.send("RESERVE S1", "RESERVE S1")
        alice.expect("RESERVED S1 8", "RESERVED S2 7")
        main, back_end = dormitory.main, dormitory.back_ends["S"]
        key, wrong_key = dormitory.key, bytes(32)
        old_session = bytes(8)
        announcement = pack_announcement("S", old_session, bytes(8), "S1=9")
        reserve = old_session + b"S1 alice"
        for number in range(1, 101):
            replay(outsider, [pack(wrong_key, Action.RESERVE, b"caller..", number, reserve)], back_end.port)
            replay(outsider, [pack(wrong_key, Action.ANNOUNCE, b"run.....", number, announcement)], dormitory.udp_port)
        # A right tag alone is not enough: replies that nobody asked for, and what is nothing that is ever sent.
        for action in (Action.REPLY, Action.CONFIRM, Action.RESERVE, 99):
            replay(outsider, [pack(key, action, b"caller..", 1, b"RESERVED S1 1")], dormitory.udp_port)
        replay(outsider, [pack(key, Action.ANNOUNCE, b"run.....", 1, b"S")], dormitory.udp_port)
        replay(outsider, [pack(key, Action.CONFIRM, b"caller..", 1, bytes(8))], back_end.port)
        replay(outsider, [pack(key, Action.RESERVE, b"caller..", 1, reserve)], back_end.port)
        request = next(unpack(key, data) for data in relay.to_back_end if data[16] == Action.RESERVE)
        replay(
            outsider, [*malformed_requests(key, request.fields[:8]), b"", bytes(MAX_DATAGRAM_BYTES + 1)], back_end.port
        )
        replies = [data for data in relay.to_main if data[16] == Action.REPLY]
        forged = pack(wrong_key, Action.REPLY, b"caller..", 3, b"RESERVED S9 9")
        pattern = r"Client .* received from Server S over UDP with port (\d+): .*"
        replay(outsider, [*replies, forged], int(main.wait_for_line(pattern)[1]))
        began = time.monotonic()
        alice.send("RESERVE S1")
        alice.expect("RESERVED S3 6")
        assert time.monotonic() - began < 1.0
        assert dropped(back_end, outsider) == {
            "without a right tag": 102,
            "that nobody asked for": 1,
            "of an old session": 1,
            "with a right tag but malformed": 6,
        }
        assert dropped(main, outsider) == {
            "without a right tag": 101,
            "that nobody asked for": 6,
            "with a right tag but malformed": 1,
        }
        expect_no_answer(outsider)
        assert main.count_lines("Dropped.*") == back_end.count_lines("Dropped.*") == 1
        assert len(dormitory.rows("S")) == 3


def malformed_requests(key: bytes, session: bytes) -> list[bytes]:
    """Return requests of a session that have a right tag, but are none that the main server sends."""
    requests = [
        (Action.RESERVE, b"S1"),
        (Action.RESERVE, b"S1 alice bob"),
        (Action.CANCEL, b"\xff\xfe alice"),
        (Action.REPLY, b"x"),
        (200, b""),
        (Action.MINE, b""),
    ]
    return [
        pack(key, action, b"caller..", number, session + fields) for number, (action, fields) in enumerate(requests)
    ]


def dropped(program: Program, outsider: socket.socket) -> dict[str, int]:
    """Wait until a server tells of datagrams that it dropped; return how many there were for each reason."""
    told = program.wait_for_line(DROPPED.format("(.*)", outsider.getsockname()[1]))[1]
    return {reason: int(number) for number, reason in (part.split(" ", 1) for part in told.split(", "))}


def test_a_replayed_request_is_neither_carried_out_nor_answered(dormitory: Dormitory, outsider: socket.socket) -> None:
    dormitory.start_main()
    with relay_to(dormitory.udp_port) as relay:
        for letter in "SD":
            dormitory.start_back_end(letter, main_port=relay.port)
        dormitory.wait_until_found("SD")
        alice = dormitory.log_in("alice")
        alice.send("RESERVE S1", "AVAILABILITY S1", "RESERVE S1")
        alice.expect("RESERVED S1 8", "AVAILABLE 8", "RESERVED S2 7")
        alice.send("RESERVE D1", "AVAILABILITY D1", "RESERVE D1")
        alice.expect("RESERVED D1 1", "AVAILABLE 1", "RESERVED D2 0")
        requests = [data for data in relay.to_back_end if data[16] != Action.CONFIRM]
        assert len(requests) == 6
        replay(outsider, requests[:3], dormitory.back_ends["S"].port)
        replay(outsider, relay.to_main, dormitory.udp_port)  # replies, as if they were announcements
        dormitory.back_ends["D"].kill()  # and with it goes what is not on disk
        relay.lets_through = 0
        dormitory.start_back_end("D", main_port=relay.port)
        back_end = dormitory.back_ends["D"]
        replay(outsider, requests[3:], back_end.port)
        replay(outsider, [data for data in relay.to_back_end if data[16] == Action.CONFIRM], back_end.port)
        dormitory.back_ends["S"].wait_for_line(DROPPED.format("3 that had come before", r"\d+"))
        dormitory.main.wait_for_line(DROPPED.format(r"\d+ that had come before, 6 that nobody asked for", r"\d+"))
        dropped = back_end.wait_for_line(DROPPED.format(r"3 of an old session, (\d+) that nobody asked for", r"\d+"))
        assert int(dropped[1]) == len(relay.to_back_end) - len(requests) >= 2
        assert back_end.count_lines("Server D has sent its room status.*") == 0
        expect_no_answer(outsider)
        relay.lets_through = math.inf
        alice.send("CANCEL D1", "RESERVE S1")
        alice.expect("CANCELLED D1", "RESERVED S3 6")
        assert dormitory.rows("D") == [("D2", "D1", "alice")]
        assert len(dormitory.rows("S")) == 3


def test_a_doubled_request_gets_the_same_answer_and_does_nothing_again(dormitory: Dormitory) -> None:
    dormitory.write("single.txt", "S1, 1\n")
    dormitory.start_main()
    with relay_to(dormitory.udp_port) as relay:
        dormitory.start_back_end("S", main_port=relay.port)
        dormitory.wait_until_found("S")
        alice, bob = dormitory.log_in("alice"), dormitory.log_in("bob")
        alice.send("RESERVE S1")
        alice.expect("RESERVED S1 0")
        bob.send("RESERVE S1")
        bob.expect("FULL")
        alice.send("CANCEL S1")
        alice.expect("CANCELLED S1")
        relay.repeat(Action.RESERVE)  # both: they arrive once more, from where they had come
        wait_until(lambda: len(replies(dormitory, relay)) == 4, "an answer")
        alice.send("AVAILABILITY S1")
        alice.expect("AVAILABLE 1")
        assert replies(dormitory, relay) == [
            b"RESERVED S1 0",
            b"FULL",
            b"CANCELLED S1",
            b"FULL",  # alice's is older than her last
            b"AVAILABLE 1",
        ]


def replies(dormitory: Dormitory, relay: Relay) -> list[bytes]:
    """Return what back ends have answered so far."""
    datagrams = [unpack(dormitory.key, data) for data in relay.to_main]
    return [datagram.fields for datagram in datagrams if datagram.action == Action.REPLY]


def replay(outsider: socket.socket, datagrams: list[bytes], port: int) -> None:
    """Send recorded datagrams to a port."""
    for data in datagrams:
        outsider.sendto(data, ("127.0.0.1", port))


def test_a_replayed_announcement_from_another_address_changes_nothing(
    dormitory: Dormitory, outsider: socket.socket
) -> None:
    dormitory.start_main()
    with relay_to(dormitory.udp_port) as relay:
        dormitory.start_back_end("S", main_port=relay.port)
        dormitory.wait_until_found("S")
        key = dormitory.key
        announcements = list(relay.to_main)
        assert {data[16] for data in announcements} == {Action.ANNOUNCE}
        # One that the main server never heard is answered, but only the real back end can make use of the answer.
        dormitory.back_ends["S"].kill()
        relay.lets_through = 2  # an announcement, and the answer that says what the next one must repeat
        dormitory.start_back_end("S", main_port=relay.port)
        first = len(announcements)
        wait_until(lambda: len(relay.to_main) > first + 1, "two announcements")
        unheard = relay.to_main[first + 1]
        replay(outsider, relay.to_main[: first + 2], dormitory.udp_port)
        answer = unpack(key, outsider.recv(2000))
        assert answer[:3] == (Action.CONFIRM, *unpack(key, unheard)[1:3])
        expect_no_answer(outsider)
        relay.lets_through = math.inf
        guest = dormitory.log_in("eve")
        guest.send("AVAILABILITY S1")
        guest.expect("AVAILABLE 9")
        port = outsider.getsockname()[1]
        dormitory.main.wait_for_line(DROPPED.format(f"{first + 1} that had come before", port))
        assert dormitory.main.count_lines(rf"Server S at 127\.0\.0\.1:{port} .*") == 0
        # A main server that was restarted does not know them. The same holds.
        dormitory.main.kill()
        dormitory.back_ends["S"].kill()
        dormitory.start_main()
        for data in announcements:
            replay(outsider, [data], dormitory.udp_port)
            assert unpack(key, outsider.recv(2000)).action == Action.CONFIRM
        dormitory.start_back_end("S", main_port=relay.port)
        dormitory.wait_until_found("S")
        assert dormitory.main.count_lines("Server S at .*") == 1
        guest = dormitory.log_in("eve")
        guest.send("AVAILABILITY S1")
        guest.expect("AVAILABLE 9")


class SlowReservations(Reservations):
    """Reservations of which nobody learns anything until `go_on` is set: a back end that stands still."""

    go_on = threading.Event()

    def left(self, room: str) -> int:
        """Wait, then return what is left."""
        assert self.go_on.wait(10.0)
        return super().left(room)


def test_requests_that_waited_while_a_back_end_stood_still_are_void(
    tmp_path: Path, outsider: socket.socket, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(calls, "STANDSTILL_SECONDS", 0.3)  # three ticks of an idle back end
    outsider.settimeout(10.0)  # this time it has the key: a main server
    main = outsider.getsockname()
    with (
        closing(SlowReservations(tmp_path / "single.db", "S", {"S1": 9})) as reservations,
        bind("127.0.0.1", 0) as sock,
    ):
        reservations.go_on.set()
        back_end = BackEnd("S", sock, main, KEY, reservations)
        back_end.start()
        session = unpack_announcement(next_datagram(outsider, Action.ANNOUNCE).fields).session
        reservations.go_on.clear()
        for number, (action, fields) in enumerate([(Action.AVAILABILITY, b"S1"), (Action.RESERVE, b"S1 alice")], 1):
            outsider.sendto(pack(KEY, action, b"caller..", number, session + fields), sock.getsockname())
        assert not reservations.go_on.wait(0.4)
        reservations.go_on.set()
        assert next_datagram(outsider, Action.REPLY).fields == b"AVAILABLE 9"
        new_session = unpack_announcement(next_datagram(outsider, Action.ANNOUNCE).fields).session
        assert new_session != session
        assert reservations.left("S1") == 9
        outsider.sendto(pack(KEY, Action.RESERVE, b"caller..", 2, new_session + b"S1 alice"), sock.getsockname())
        assert next_datagram(outsider, Action.REPLY).fields == b"RESERVED S1 8"
        back_end.stop()


def next_datagram(sock: socket.socket, action: Action) -> Datagram:
    """Wait for a datagram with an action, among a few others; return it."""
    datagrams = (unpack(KEY, sock.recv(2000)) for _ in range(10))
    return next(datagram for datagram in datagrams if datagram.action == action)


def test_sessions_end_and_what_was_remembered_in_them_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(calls, "SESSION_SECONDS", 0.0)
    caller, address = b"caller..", ("127.0.0.1", 1)
    table = Calls()
    assert table.session_ended()
    session = table.session
    table.remember(caller, 1, address, "FULL")
    table.settle()
    table.renew_session()
    assert table.reply_to(session, caller, 1, address) == "FULL"
    with pytest.raises(BadDatagram, match="that had come before"):
        table.reply_to(session, caller, 1, ("127.0.0.1", 2))
    table.renew_session()
    with pytest.raises(BadDatagram, match="of an old session"):
        table.reply_to(session, caller, 1, address)
    assert table.reply_to(table.session, caller, 1, address) is None
    monkeypatch.setattr(calls, "SESSION_SECONDS", 10.0)
    table.renew_session()
    assert not table.session_ended()
