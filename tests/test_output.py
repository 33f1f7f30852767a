"""Output to a client that reads slowly or not at all, in the tests' own process and with short periods."""

import os
import socket
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from conftest import WAIT_SECONDS, in_thread, new_threads, wait_until

from net.connection import Connection
from net.log import LOG
from net.output import BACKLOG_BYTES, EXCESS_BYTES, Patience

PERIOD_SECONDS = 0.25
RETRY_SECONDS = 0.05
IMPATIENT = Patience(PERIOD_SECONDS, least_bytes_per_second=1 << 19, retry_seconds=RETRY_SECONDS)
PATIENT = IMPATIENT._replace(period_seconds=10 * WAIT_SECONDS)
LINE = b"%08d" + b"." * 1000 + b"\n"
LINE_BYTES = len(LINE % 0)
KERNEL_BYTES = 1 << 20  # more than the kernel buffers for a pair of sockets


@pytest.fixture(scope="module", autouse=True)
def log_thread() -> None:
    """Start the log's thread, which never ends, before a test counts threads."""
    LOG.write("The tests of output begin")


@pytest.fixture
def never() -> Iterator[int]:
    """Provide a stop descriptor that never becomes readable."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


Serve = Callable[[Patience], tuple[Connection, socket.socket]]


@pytest.fixture
def serve(never: int) -> Iterator[Serve]:
    """Provide a function that returns a connection, and the client's end of it."""
    before = threading.enumerate()
    pairs: list[tuple[Connection, socket.socket]] = []

    def connect(patience: Patience) -> tuple[Connection, socket.socket]:
        server_end, client = socket.socketpair()
        client.settimeout(WAIT_SECONDS)
        pairs.append((Connection(server_end, never), client))
        pairs[-1][0].patience = patience
        return pairs[-1]

    yield connect
    for connected, client in pairs:
        client.close()
        connected.drop()
        connected.close()
    wait_until(lambda: not new_threads(before), "the end of all threads")


Ends = tuple[Connection, socket.socket]


@pytest.fixture
def served(serve: Serve) -> Ends:
    """Provide a connection whose patience is short, and the client's end of it."""
    return serve(IMPATIENT)


@pytest.fixture
def patient(serve: Serve) -> Ends:
    """Provide a connection whose patience does not end during a test, and the client's end of it."""
    return serve(PATIENT)


def send_lines(connected: Connection, first: int, count: int) -> None:
    for number in range(first, first + count):
        connected.send(LINE % number)


def lines(count: int) -> bytes:
    return b"".join(LINE % number for number in range(count))


def fill(connected: Connection) -> int:
    """Send numbered lines until the kernel's buffer and the backlog are full; return how many were sent."""
    count = 0
    refused_since = time.monotonic()
    while time.monotonic() < refused_since + 4 * RETRY_SECONDS:
        if connected.send(LINE % count, blocking=False):
            count += 1
            refused_since = time.monotonic()
        else:
            time.sleep(RETRY_SECONDS / 5)
    return count


def receive(client: socket.socket, size: int) -> bytes:
    data = bytearray()
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return bytes(data)


def receive_all(client: socket.socket) -> bytes:
    data = bytearray()
    with suppress(ConnectionError):
        while more := client.recv(1 << 16):
            data += more
    return bytes(data)


def test_the_limits_are_64_kib_a_second_over_five_seconds_and_a_backlog_of_one_mib() -> None:
    assert Patience()[:2] == (5.0, 64 << 10)
    assert Patience().stall_seconds == 30.0
    assert BACKLOG_BYTES == 1 << 20


def test_lines_of_five_senders_arrive_whole_and_each_senders_in_order(served: Ends) -> None:
    connected, client = served
    senders = [in_thread(send_lines, connected, 10_000 * i, 1000) for i in range(5)]
    received = receive(client, 5000 * LINE_BYTES).splitlines()
    for sender in senders:
        sender.join()
    numbers = [int(line[:8]) for line in received if len(line) == LINE_BYTES - 1]
    assert len(numbers) == 5000
    for i in range(5):
        assert [n for n in numbers if n // 10_000 == i] == list(range(10_000 * i, 10_000 * i + 1000))


def test_a_block_longer_than_a_backlog_arrives_whole(served: Ends) -> None:
    connected, client = served
    send_lines(connected, 0, 100)
    sender = in_thread(connected.send, b"x" * 3 * BACKLOG_BYTES)
    assert receive(client, 100 * LINE_BYTES) == lines(100)
    assert receive(client, 3 * BACKLOG_BYTES) == b"x" * 3 * BACKLOG_BYTES
    sender.join()


def test_a_sender_blocks_when_the_backlog_holds_one_mib_and_not_before(patient: Ends) -> None:
    connected, _ = patient
    sent: list[int] = []

    def send() -> None:
        for number in range(10_000):
            connected.send(LINE % number)
            sent.append(number)

    sender = in_thread(send)
    wait_until(lambda: len(sent) * LINE_BYTES > BACKLOG_BYTES - LINE_BYTES, "1 MiB sent without blocking")
    time.sleep(4 * RETRY_SECONDS)
    assert len(sent) * LINE_BYTES < BACKLOG_BYTES + EXCESS_BYTES + KERNEL_BYTES
    connected.drop()  # wakes the sender
    sender.join()


def test_a_blocked_sender_goes_on_when_its_data_fits_before_half_the_backlog_has_drained(patient: Ends) -> None:
    connected, client = patient
    count = fill(connected)
    sender = in_thread(connected.send, LINE % count)
    data = receive(client, count * LINE_BYTES - BACKLOG_BYTES * 7 // 8)
    sender.join(WAIT_SECONDS / 2)
    assert not sender.is_alive()
    assert data + receive(client, (count + 1) * LINE_BYTES - len(data)) == lines(count + 1)


def test_a_short_message_does_not_wait_behind_the_blocks_of_a_sender_that_floods(patient: Ends) -> None:
    connected, _ = patient
    block = b"x" * 50_000
    while connected.send(block, blocking=False):
        pass
    flooder = in_thread(connected.send, block)
    while connected.send(b"x" * 5000, blocking=False):  # longer than a line
        pass
    for _ in range(2):
        assert connected.send(b"x" * 4096, blocking=False)
    assert flooder.is_alive()
    connected.drop()
    flooder.join()


def test_send_without_blocking_sends_all_or_nothing(patient: Ends) -> None:
    connected, client = patient
    count = fill(connected)
    assert not connected.send(b"x" * LINE_BYTES, blocking=False)
    assert receive(client, count * LINE_BYTES) == lines(count)
    assert connected.send(b"after\n", blocking=False)
    assert receive(client, 6) == b"after\n"


def test_what_is_sent_at_once_does_not_block_though_the_backlog_is_full(patient: Ends) -> None:
    connected, client = patient
    count = fill(connected)
    sender = in_thread(connected.send, LINE % (count + 1))
    connected.send_at_once(LINE % count)
    assert sender.is_alive()
    assert receive(client, (count + 2) * LINE_BYTES) == lines(count + 2)
    sender.join()


def test_a_message_to_many_clients_that_do_not_read_is_kept_in_memory_once(serve: Serve) -> None:
    recipients = [serve(PATIENT)[0] for _ in range(20)]
    block = b"x" * (BACKLOG_BYTES - 1)
    tracemalloc.start()
    try:
        for recipient in recipients:
            recipient.send(block)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < BACKLOG_BYTES


def test_the_second_thread_lives_only_while_there_is_a_backlog(served: Ends) -> None:
    connected, client = served
    before = threading.enumerate()
    connected.send(LINE % 0)
    assert not new_threads(before)
    count = 1 + KERNEL_BYTES // LINE_BYTES
    send_lines(connected, 1, count)
    assert len(new_threads(before)) == 1
    receive(client, (count + 1) * LINE_BYTES)
    wait_until(lambda: not new_threads(before), "the second thread's end")


def test_a_client_whose_backlog_thread_cannot_start_is_cut_off(served: Ends, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    connected, client = served
    with monkeypatch.context() as context:
        context.setattr(threading.Thread, "start", refuse)
        send_lines(connected, 0, KERNEL_BYTES // LINE_BYTES)  # less than would block
    assert lines(2000).startswith(receive_all(client))


# Clients that are dropped, and clients that are not


def test_a_client_whose_backlog_has_drained_once_is_dropped_one_period_after_it_stops_reading(serve: Serve) -> None:
    connected, client = serve(IMPATIENT._replace(period_seconds=4 * PERIOD_SECONDS))
    fill(connected)
    receive(client, BACKLOG_BYTES)
    wait_until(lambda: connected.send(LINE % 0, blocking=False), "room in the backlog")
    fill(connected)
    began = time.monotonic()
    connected.send(LINE % 0)
    assert time.monotonic() - began < 7 * PERIOD_SECONDS  # 4 until the client is dropped


@pytest.mark.parametrize("eighths", [3, 6], ids=["more than half is left", "less than half is left"])
def test_a_client_that_stops_reading_in_the_second_period_is_dropped_at_its_end(serve: Serve, eighths: int) -> None:
    connected, client = serve(IMPATIENT._replace(period_seconds=4 * PERIOD_SECONDS, least_bytes_per_second=1 << 18))
    began = time.monotonic()
    fill(connected)
    sender = in_thread(connected.send, b"x" * BACKLOG_BYTES)  # fits only when all is read
    receive(client, BACKLOG_BYTES * eighths // 8)  # enough for the first period
    sender.join(WAIT_SECONDS / 2)
    assert not sender.is_alive()
    assert eighths > 4 or time.monotonic() - began > 6 * PERIOD_SECONDS


def test_a_client_that_accepts_too_little_is_dropped(served: Ends) -> None:
    connected, client = served
    sender = in_thread(send_lines, connected, 0, 5000)
    received = 0
    while sender.is_alive():  # 200 KB a second at most; half of 512 KiB are required
        received += len(client.recv(2000))
        time.sleep(0.01)
    assert received + len(receive_all(client)) < 3000 * LINE_BYTES


def test_a_client_that_is_merely_slow_gets_everything_though_the_kernel_takes_it_in_bursts(serve: Serve) -> None:
    connected, client = serve(Patience(0.75, least_bytes_per_second=1 << 18, retry_seconds=RETRY_SECONDS))
    count = (BACKLOG_BYTES + KERNEL_BYTES) // LINE_BYTES
    sender = in_thread(send_lines, connected, 0, count)
    data = bytearray()
    began = time.monotonic()
    while sender.is_alive():  # in bursts of 150 KB, 300 KB a second; 256 KiB a second are required
        size = int(300_000 * (time.monotonic() - began)) // 150_000 * 150_000
        data += receive(client, size - len(data))
        time.sleep(0.01)
    assert data + receive(client, count * LINE_BYTES - len(data)) == lines(count)


def test_a_client_whose_backlog_does_not_move_is_dropped_though_no_sender_blocks(serve: Serve) -> None:
    connected, client = serve(IMPATIENT._replace(stall_seconds=PERIOD_SECONDS))
    send_lines(connected, 0, KERNEL_BYTES // LINE_BYTES)  # less than would block
    wait_until(lambda: connected.is_dropped, "a client that is dropped")
    assert len(receive_all(client)) < KERNEL_BYTES // LINE_BYTES * LINE_BYTES


def test_sends_to_a_client_that_has_gone_do_nothing(served: Ends) -> None:
    connected, client = served
    client.close()
    send_lines(connected, 0, 5000)
    assert connected.send(b"x" * 2 * BACKLOG_BYTES, blocking=False)


def test_close_sends_the_backlog(served: Ends) -> None:
    connected, client = served
    send_lines(connected, 0, 1000)
    closer = in_thread(connected.close)
    assert receive_all(client) == lines(1000)
    client.close()
    closer.join()


def test_close_gives_up_on_a_client_that_does_not_read_the_backlog(served: Ends) -> None:
    connected, client = served
    send_lines(connected, 0, 1000)
    began = time.monotonic()
    connected.close()
    assert PERIOD_SECONDS <= time.monotonic() - began < PERIOD_SECONDS + WAIT_SECONDS / 2
    assert len(receive_all(client)) < 1000 * LINE_BYTES


def test_close_waits_only_briefly_for_a_client_that_does_not_end_its_side(served: Ends) -> None:
    connected, client = served
    client.sendall(b"unread")
    began = time.monotonic()
    connected.close(linger_seconds=PERIOD_SECONDS)
    assert PERIOD_SECONDS <= time.monotonic() - began < PERIOD_SECONDS + WAIT_SECONDS / 2


def test_a_farewell_is_the_last_message_that_arrives_even_if_the_backlog_is_full(patient: Ends) -> None:
    connected, client = patient
    count = fill(connected)
    sender = in_thread(connected.send, LINE % count)
    connected.end(b"farewell\n")
    sender.join(WAIT_SECONDS / 2)
    assert not sender.is_alive()  # end() discards its data, so it need not wait
    connected.send(b"discarded\n")
    closer = in_thread(connected.close)
    assert receive_all(client) == lines(count) + b"farewell\n"
    client.close()
    closer.join()


def test_close_without_lingering_still_sends_the_farewell_and_no_reset_though_input_is_unread(served: Ends) -> None:
    connected, client = served
    client.sendall(b"unread")
    connected.end(b"Too many connections\n")
    connected.close(linger_seconds=0.0)
    assert client.recv(100) == b"Too many connections\n"
    assert client.recv(100) == b""


def test_drop_discards_the_backlog_and_ends_the_owners_wait_for_input(served: Ends) -> None:
    connected, client = served
    received: list[bytes] = []

    def receive_input() -> None:
        with suppress(OSError):
            received.append(connected.receive())

    owner = in_thread(receive_input)
    fill(connected)
    connected.drop()
    owner.join(WAIT_SECONDS)
    assert not owner.is_alive()
    assert received in ([], [b""])
    assert len(receive_all(client)) < BACKLOG_BYTES


def test_has_ended_input_is_true_before_the_last_input_is_read(served: Ends) -> None:
    connected, client = served
    assert not connected.has_ended_input()
    client.sendall(b"unread")
    client.shutdown(socket.SHUT_WR)
    assert connected.has_ended_input()
    assert connected.receive() == b"unread"
    assert not connected.has_received_end
    assert connected.receive() == b""
    assert connected.has_received_end
