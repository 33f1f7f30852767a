"""A connection whose client does not read, in the test's own process, with the rule's seconds made short."""

import os
import re
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import WAIT_SECONDS, wait_until

from net import connection
from net.connection import BACKLOG_BYTES, Connection
from net.outbox import Outbox

PERIOD_SECONDS = 0.25
LEAST_BYTES_PER_SECOND = 1 << 19
LINE = b"%08d" + b"." * 1000 + b"\n"
LINE_BYTES = len(LINE % 0)
KERNEL_BYTES = 1 << 20  # more than the kernel keeps for such a pair


@pytest.fixture
def never() -> Iterator[int]:
    """Give a descriptor that does not become readable."""
    reader, writer = os.pipe()
    yield reader
    os.close(reader)
    os.close(writer)


def pair(never: int) -> tuple[Connection, socket.socket]:
    """Return a connection, and the client's end of it."""
    server_end, client = socket.socketpair()
    client.settimeout(WAIT_SECONDS)
    return Connection(server_end, never), client


@pytest.fixture
def ends(never: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Connection, socket.socket]]:
    """Give a connection, and the client's end of it."""
    monkeypatch.setattr(connection, "PERIOD_SECONDS", PERIOD_SECONDS)
    monkeypatch.setattr(connection, "LEAST_BYTES_PER_SECOND", LEAST_BYTES_PER_SECOND)
    monkeypatch.setattr(connection, "RETRY_SECONDS", 0.05)
    served, client = pair(never)
    yield served, client
    client.close()
    served.abort()
    served.close()


def test_a_client_must_take_64_kib_a_second_over_five_seconds_while_one_mib_waits() -> None:
    assert connection.PERIOD_SECONDS == 5.0
    assert connection.LEAST_BYTES_PER_SECOND == 64 << 10
    assert connection.BACKLOG_BYTES == 1 << 20


def in_thread(work: object, *arguments: object) -> threading.Thread:
    """Run work in a thread."""
    assert callable(work)
    thread = threading.Thread(target=work, args=arguments)
    thread.start()
    return thread


def send_lines(served: Connection, first: int, count: int) -> None:
    """Send numbered lines."""
    for number in range(first, first + count):
        served.send(LINE % number)


def receive(client: socket.socket, size: int) -> bytes:
    """Receive so many bytes, or all until the end."""
    data = b""
    while len(data) < size and (more := client.recv(size - len(data))):
        data += more
    return data


def test_lines_of_many_senders_stay_whole_and_in_order(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    senders = [in_thread(send_lines, served, 10_000 * i, 1000) for i in range(5)]
    lines = receive(client, 5000 * LINE_BYTES).splitlines()
    for sender in senders:
        sender.join()
    numbers = [int(line[:8]) for line in lines if len(line) == LINE_BYTES - 1]
    assert len(numbers) == 5000
    for i in range(5):
        assert [n for n in numbers if n // 10_000 == i] == list(range(10_000 * i, 10_000 * i + 1000))


def test_a_block_that_the_kernel_takes_in_parts_stays_whole(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    blocks = [letter * 600_000 for letter in (b"a", b"b", b"c", b"d")]
    senders = [in_thread(served.send, block) for block in blocks]
    data = receive(client, 2_400_000)
    for sender in senders:
        sender.join()
    assert sorted(run[0] for run in re.findall(rb"((.)\2*)", data)) == blocks


def test_nobody_waits_before_the_backlog_is_full_nor_is_more_kept(ends: tuple[Connection, socket.socket]) -> None:
    served, _ = ends
    sent: list[int] = []

    def send() -> None:
        for number in range(10_000):
            served.send(LINE % number)
            sent.append(number)

    sender = in_thread(send)
    wait_until(lambda: len(sent) * LINE_BYTES > BACKLOG_BYTES - LINE_BYTES, "a backlog of 1 MiB without a wait")
    time.sleep(PERIOD_SECONDS / 2)
    assert len(sent) * LINE_BYTES < BACKLOG_BYTES + KERNEL_BYTES
    served.abort()
    sender.join()


def test_who_takes_nothing_is_dropped_after_the_period(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    began = time.monotonic()
    send_lines(served, 0, 5000)
    assert PERIOD_SECONDS <= time.monotonic() - began < PERIOD_SECONDS + WAIT_SECONDS / 2
    served.send(b"in vain\n")
    received = b"".join(iter(lambda: client.recv(1 << 16), b""))
    assert len(received) < 5000 * LINE_BYTES


def test_who_takes_too_little_is_dropped(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    dropped = threading.Event()

    def send() -> None:
        send_lines(served, 0, 5000)
        dropped.set()

    sender = in_thread(send)
    while not dropped.is_set():  # 400 KB a second at most
        client.recv(4000)
        time.sleep(0.01)
    sender.join()
    assert len(b"".join(iter(lambda: client.recv(1 << 16), b""))) < 5000 * LINE_BYTES


def test_who_is_merely_slow_gets_everything(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    count = (BACKLOG_BYTES + KERNEL_BYTES // 2) // LINE_BYTES
    sender = in_thread(send_lines, served, 0, count)
    data = b""
    while sender.is_alive():  # 1.2 MB a second at most: half a backlog takes longer than a period
        data += receive(client, 12_000)
        time.sleep(0.01)
    data += receive(client, count * LINE_BYTES - len(data))
    assert data == b"".join(LINE % number for number in range(count))


def test_who_stops_reading_while_nobody_waits_is_not_dropped(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    count = (BACKLOG_BYTES + KERNEL_BYTES) // LINE_BYTES
    sender = in_thread(send_lines, served, 0, count)
    wait_until(lambda: served._watched_since, "a full backlog")
    data = receive(client, (count * LINE_BYTES) - BACKLOG_BYTES // 4)
    sender.join()
    time.sleep(2 * PERIOD_SECONDS)
    assert data + receive(client, BACKLOG_BYTES // 4) == b"".join(LINE % number for number in range(count))


def test_post_does_not_wait_for_room(ends: tuple[Connection, socket.socket]) -> None:
    served, _ = ends
    sender = in_thread(send_lines, served, 0, 5000)
    wait_until(lambda: served._watched_since, "a full backlog")
    began = time.monotonic()
    served.post(b"a farewell\n")
    assert time.monotonic() - began < PERIOD_SECONDS
    sender.join()


def test_close_lets_the_backlog_go_out(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    send_lines(served, 0, 1000)
    closer = in_thread(served.close)
    assert receive(client, 2000 * LINE_BYTES) == b"".join(LINE % number for number in range(1000))
    client.close()
    closer.join()


def test_close_gives_up_on_who_does_not_take_it(ends: tuple[Connection, socket.socket]) -> None:
    served, _ = ends
    send_lines(served, 0, 1000)
    began = time.monotonic()
    served.close()
    assert PERIOD_SECONDS <= time.monotonic() - began < PERIOD_SECONDS + WAIT_SECONDS / 2


def test_close_does_not_wait_long_for_who_does_not_end_his_side(
    ends: tuple[Connection, socket.socket], monkeypatch: pytest.MonkeyPatch
) -> None:
    served, client = ends
    monkeypatch.setattr(connection, "LINGER_SECONDS", PERIOD_SECONDS)
    client.sendall(b"unread")
    began = time.monotonic()
    served.close()
    assert PERIOD_SECONDS <= time.monotonic() - began < PERIOD_SECONDS + WAIT_SECONDS / 2


def test_a_farewell_is_the_last_that_comes_though_the_backlog_is_full(ends: tuple[Connection, socket.socket]) -> None:
    served, client = ends
    sender = in_thread(send_lines, served, 0, 5000)
    wait_until(lambda: served._watched_since, "a full backlog")
    served.say_farewell(b"farewell\n")
    sender.join()  # sends are over
    closer = in_thread(served.close)
    assert receive(client, 5000 * LINE_BYTES).endswith(b".\nfarewell\n")
    client.close()
    closer.join()


def test_an_outbox_lets_nobody_wait_for_those_who_do_not_read(
    ends: tuple[Connection, socket.socket], never: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stuck, _ = ends
    reading, client = pair(never)
    monkeypatch.setattr(connection, "PERIOD_SECONDS", 8 * PERIOD_SECONDS)
    while stuck.send_if_room(LINE % 0):
        pass
    outbox = Outbox()
    outbox.put([stuck, reading], "x" * (BACKLOG_BYTES // 8) + "\n")
    sender = in_thread(outbox.send)
    began = time.monotonic()
    receive(client, BACKLOG_BYTES // 8 + 1)
    assert time.monotonic() - began < 4 * PERIOD_SECONDS
    assert sender.is_alive()
    stuck.abort()
    sender.join()
    client.close()
    reading.close()


class Recipient:
    """Stands for a connection; keeps each send."""

    def __init__(self) -> None:
        self.sends: list[bytes] = []

    def send_if_room(self, data: bytes) -> bool:
        """Keep the data."""
        self.sends.append(data)
        return True


def test_an_outbox_sends_once_to_each_in_the_order_of_putting() -> None:
    alice, bob = Recipient(), Recipient()
    both: list[Connection] = [alice, bob]  # type: ignore[list-item]
    outbox = Outbox()
    outbox.put(both, "1\n")
    outbox.put(both[:1], "2\n")
    outbox.put(both, "3\n4\n")
    assert not alice.sends
    outbox.send()
    outbox.send()
    assert alice.sends == [b"1\n2\n3\n4\n"]
    assert bob.sends == [b"1\n3\n4\n"]


def test_an_outbox_does_not_grow_without_bound() -> None:
    alice = Recipient()
    outbox = Outbox()
    for _ in range(1000):
        outbox.put([alice], "." * 999 + "\n")  # type: ignore[list-item]
    outbox.send()
    assert max(map(len, alice.sends)) < BACKLOG_BYTES / 2
    assert sum(map(len, alice.sends)) == 1_000_000
