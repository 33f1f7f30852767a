"""The loop of a conversation: lines, gathered output and time limits, over socket pairs in the tests' own process."""

import itertools
import os
import socket
import sys
import threading
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress

import pytest
from conftest import WAIT_SECONDS, in_thread

from net.connection import Connection, TimeLimitPassed
from net.conversation import COMMANDS_PER_TURN, GATHERED_CHARACTERS, TURN_LINES, Conversation, InputEnded
from net.output import Patience
from protocol import MAX_LINE_BYTES, LineTooLong

PERIOD_SECONDS = 0.5
QUIET_SECONDS = 0.05  # how long a test waits for something that must not happen


class PairedClient:
    """A client, and the server's end of its connection."""

    def __init__(self, stop_fd: int) -> None:
        server_end, self.sock = socket.socketpair()
        self.sock.settimeout(WAIT_SECONDS)
        self.connection = Connection(server_end, stop_fd)
        self.connection.patience = Patience(PERIOD_SECONDS)
        self.conversation = Conversation(self.connection)
        self.conversation.set_time_limit(WAIT_SECONDS, "the test has waited for too long")

    def send(self, data: bytes) -> None:
        """Send bytes."""
        self.sock.sendall(data)

    def expect(self, data: bytes) -> None:
        """Fail unless these bytes arrive next."""
        received = b""
        while len(received) < len(data) and (more := self.sock.recv(len(data) - len(received))):
            received += more
        assert received == data

    def expect_nothing(self) -> None:
        """Fail if bytes have arrived, or arrive within a moment."""
        self.sock.settimeout(QUIET_SECONDS)
        with suppress(TimeoutError):
            assert self.sock.recv(1 << 16) == b"nothing"
        self.sock.settimeout(WAIT_SECONDS)

    def end_input(self) -> None:
        """End the client's side."""
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        """Close both ends."""
        self.sock.close()
        self.connection.drop()
        self.connection.close()


class LocalServer:
    """A server's clients, in this process; stop() makes their conversations end."""

    def __init__(self) -> None:
        self._stop_fd, self._stop_writer = os.pipe()
        self._clients: list[PairedClient] = []

    def client(self) -> PairedClient:
        """Return a new client."""
        self._clients.append(PairedClient(self._stop_fd))
        return self._clients[-1]

    def stop(self) -> None:
        """Make every conversation end."""
        os.write(self._stop_writer, b"x")

    def close(self) -> None:
        """Close everything."""
        for client in self._clients:
            client.close()
        os.close(self._stop_fd)
        os.close(self._stop_writer)


@pytest.fixture
def server() -> Iterator[LocalServer]:
    server = LocalServer()
    yield server
    server.close()


@pytest.fixture
def alice(server: LocalServer) -> PairedClient:
    return server.client()


@pytest.fixture
def bob(server: LocalServer) -> PairedClient:
    return server.client()


def test_lines_are_given_as_harmless_text_until_the_input_ends(alice: PairedClient) -> None:
    alice.send("grüße\r\n\n\x1b[2J\xff\n".encode("latin-1") + "zoë\nlast".encode())
    alice.end_input()
    assert list(alice.conversation.lines()) == ["gr\ufffd\ufffde", "", "\ufffd[2J\ufffd", "zoë", "last"]


def test_raw_lines_are_given_as_bytes_and_byte_4_is_data(alice: PairedClient) -> None:
    alice.send(b"\4tea\r\n\xff\xf4\3\n\4")
    alice.end_input()
    assert list(alice.conversation.raw_lines()) == [b"\4tea", b"\3", b"\4"]


def test_ctrl_d_at_the_start_of_a_line_ends_the_lines_though_more_has_arrived(alice: PairedClient) -> None:
    alice.send(b"one\n\4two\n")
    assert list(alice.conversation.lines()) == ["one"]


@pytest.mark.parametrize("end", ["the server stops", "the client is lost"])
def test_half_a_line_is_not_given_at_the_end(server: LocalServer, alice: PairedClient, end: str) -> None:
    alice.send(b"one\nhalf")
    lines = alice.conversation.lines()
    assert next(lines) == "one"
    if end == "the server stops":
        server.stop()
    else:
        alice.connection.drop()
    assert list(lines) == []


def test_questions_and_lines_share_the_input(alice: PairedClient) -> None:
    alice.send(b"4\n5\nlist\n6\n")
    assert alice.conversation.ask("Row?") == "4"
    assert alice.conversation.ask("Seat?") == "5"
    assert next(alice.conversation.lines()) == "list"
    assert alice.conversation.ask("Row?") == "6"
    alice.end_input()
    with pytest.raises(InputEnded):
        alice.conversation.ask("Seat?")
    alice.expect(b"Row?\nSeat?\nRow?\nSeat?\n")


def test_line_too_long_is_raised_after_the_lines_before_it_were_given(alice: PairedClient) -> None:
    alice.send(b"one\n" + b"x" * MAX_LINE_BYTES + b"y\ntwo\n")
    lines = alice.conversation.lines()
    assert next(lines) == "one"
    with pytest.raises(LineTooLong, match="Line too long: at most 4096 bytes are expected"):
        next(lines)


def test_telnets_timing_mark_is_answered_before_the_reply_to_the_next_line(alice: PairedClient) -> None:
    alice.send(b"\xff\xf4\xff\xfd\x06LIST\n")
    alice.end_input()
    for line in alice.conversation.lines():
        alice.conversation.queue_reply(line)
    alice.expect(b"\xff\xfb\x06LIST\n")


def test_output_is_gathered_until_all_lines_that_arrived_are_handled(alice: PairedClient, bob: PairedClient) -> None:
    alice.send(b"1\n2\n3\n")
    lines = alice.conversation.lines()
    others = (bob.connection,)
    for _ in range(3):
        number = next(lines)
        alice.conversation.queue_reply(f"to alice {number}")
        alice.conversation.queue(others, f"to bob {number}")
    bob.expect_nothing()
    alice.end_input()
    assert list(lines) == []
    alice.expect(b"to alice 1\nto alice 2\nto alice 3\n")
    bob.expect(b"to bob 1\nto bob 2\nto bob 3\n")


def test_each_recipient_gets_its_messages_in_the_order_in_which_they_were_sent(server: LocalServer) -> None:
    alice, bob, carol = (server.client() for _ in range(3))
    everybody = (alice.connection, bob.connection, carol.connection)
    talk = alice.conversation
    talk.queue(everybody, "1", except_me=True)
    talk.queue((bob.connection,), "2")
    talk.queue_reply("3")
    talk.queue(everybody, "4")
    talk.queue(everybody, "5", except_me=True)
    talk.queue(everybody, "6\n7", except_me=True)
    talk.queue_reply("8")
    talk.flush()
    talk.flush()
    alice.expect(b"3\n4\n8\n")
    bob.expect(b"1\n2\n4\n5\n6\n7\n")
    carol.expect(b"1\n4\n5\n6\n7\n")
    for client in (alice, bob, carol):
        client.expect_nothing()


def test_a_reply_says_that_the_messages_before_it_were_sent(
    alice: PairedClient, bob: PairedClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []

    def send(data: bytes, blocking: bool) -> bool:
        sent.append(data)
        return True

    for client in (alice, bob):
        monkeypatch.setattr(client.connection, "send", send)
    alice.conversation.queue_reply("earlier")  # so that alice is the first recipient of the batch
    alice.conversation.queue((bob.connection,), "hello")
    alice.conversation.queue_reply("later")
    alice.conversation.flush()
    assert sent == [b"hello\n", b"earlier\nlater\n"]


@pytest.mark.parametrize("filler", [(b"x" * 4000 + b"\n") * 3, b"\xff\xf1" * 2 * COMMANDS_PER_TURN])
def test_a_turn_ends_after_so_many(alice: PairedClient, bob: PairedClient, filler: bytes) -> None:
    alice.send(b"first\n" + filler + b"second\n")
    lines = alice.conversation.lines()
    next(lines)
    alice.conversation.queue((bob.connection,), "hello")
    while next(lines) != "second":
        pass
    bob.expect(b"hello\n")


def test_gathered_output_is_sent_before_it_fills_much_memory(alice: PairedClient, bob: PairedClient) -> None:
    line = "x" * 999
    for _ in range(GATHERED_CHARACTERS // 999 + 2):
        alice.conversation.queue((bob.connection,), line)
    bob.expect((line.encode() + b"\n") * (GATHERED_CHARACTERS // 1000))


def test_a_broadcast_to_200_recipients_is_kept_in_memory_once(server: LocalServer) -> None:
    alice = server.client()
    recipients = tuple(server.client().connection for _ in range(200))
    alice.conversation.queue(recipients, "x" * 50_000)
    tracemalloc.start()
    try:
        alice.conversation.flush()
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 1 << 20


def test_output_is_sent_after_each_turn_though_more_lines_have_arrived(alice: PairedClient) -> None:
    alice.send(b"x\n" * (2 * TURN_LINES + 1))
    lines = alice.conversation.lines()
    for number in range(TURN_LINES):
        next(lines)
        alice.conversation.queue_reply(str(number))
    alice.expect_nothing()
    next(lines)
    alice.expect("".join(f"{number}\n" for number in range(TURN_LINES)).encode())


def test_other_threads_run_between_turns(alice: PairedClient) -> None:
    gate, ran = threading.Lock(), threading.Event()
    alice.send(b"\n" * 60_000)  # arrives with one read, so that only the pauses let other threads run

    def run() -> None:
        with gate:
            ran.set()

    lines = alice.conversation.lines()
    next(lines)
    usual = sys.getswitchinterval()
    with gate:
        other = in_thread(run)
        sys.setswitchinterval(WAIT_SECONDS)
    try:
        assert any(ran.is_set() for _ in itertools.islice(lines, 60_000 - 1))
    finally:
        sys.setswitchinterval(usual)
        other.join()


def test_a_recipient_that_reads_does_not_wait_for_one_that_does_not(server: LocalServer) -> None:
    alice, stuck, reading = (server.client() for _ in range(3))
    while stuck.connection.send(b"x" * 10_000, blocking=False):
        pass
    alice.conversation.queue((stuck.connection, reading.connection), "x" * 60_000)
    flusher = in_thread(alice.conversation.flush)
    began = time.monotonic()
    reading.expect(b"x" * 60_000 + b"\n")
    assert flusher.is_alive() or time.monotonic() - began > PERIOD_SECONDS
    stuck.connection.drop()
    flusher.join()


def test_three_recipients_that_do_not_read_are_dropped_after_one_period_together(server: LocalServer) -> None:
    alice, *stuck = (server.client() for _ in range(4))
    for client in stuck:
        while client.connection.send(b"x" * 10_000, blocking=False):
            pass
    alice.conversation.queue([client.connection for client in stuck], "x" * 60_000)
    began = time.monotonic()
    alice.conversation.flush()
    assert PERIOD_SECONDS / 2 < time.monotonic() - began < 3 * PERIOD_SECONDS


def test_before_turn_is_called_once_before_the_lines_that_arrived_together_are_given(alice: PairedClient) -> None:
    events: list[str] = []
    alice.send(b"one\ntwo\n")
    lines = alice.conversation.lines(before_turn=lambda: events.append("called"))
    events += [next(lines), next(lines)]
    alice.send(b"three\nhalf")
    events.append(next(lines))
    assert events == ["called", "one", "two", "called", "three"]


def test_a_limit_that_no_line_restarts_ends_the_lines_though_they_arrive_in_time(alice: PairedClient) -> None:
    alice.conversation.set_time_limit(0.3, "Time is up", restarts=False)
    lines = alice.conversation.lines()
    with pytest.raises(TimeLimitPassed, match="Time is up"):
        for _ in range(100):
            alice.send(b"x\n")
            next(lines)
            time.sleep(0.01)


def test_a_limit_also_ends_a_client_whose_input_never_pauses(alice: PairedClient) -> None:
    alice.send(b"x" * 10_000)
    alice.connection.set_time_limit(QUIET_SECONDS, "Time is up")
    with pytest.raises(TimeLimitPassed, match="Time is up"):
        for _ in range(1000):
            assert alice.connection.receive(10) == b"x" * 10
            time.sleep(0.001)
