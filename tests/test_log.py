"""Status lines on standard outputs that block, fail and recover, with short periods."""

import os
import re
import select
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from conftest import WAIT_SECONDS, at_once, in_thread

from net import log
from net.log import PENDING_BYTES, Log

STALL_SECONDS = 0.5
LOST = re.compile(rb"^(\d+) status lines were lost: they could not be written$", re.MULTILINE)

UseAsOutput = Callable[..., Log]
Piped = Callable[[], tuple[Log, int]]


@pytest.fixture
def log_to(monkeypatch: pytest.MonkeyPatch) -> Iterator[UseAsOutput]:
    """Provide a function that returns a log whose standard output is a given descriptor."""
    monkeypatch.setattr(log, "STALL_SECONDS", STALL_SECONDS)
    streams = []

    def make_log(fd: int, encoding: str = "utf-8") -> Log:
        streams.append(os.fdopen(fd, "w", encoding=encoding, closefd=False))
        monkeypatch.setattr(sys, "stdout", streams[-1])
        return Log()

    yield make_log
    monkeypatch.undo()
    for stream in streams:
        stream.close()


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    reader, writer = os.pipe()
    yield reader, writer
    os.close(reader)
    os.close(writer)


@pytest.fixture
def piped(log_to: UseAsOutput, pipe: tuple[int, int]) -> Piped:
    """Provide a function that returns a log that writes to a pipe, and the pipe's other end."""
    reader, writer = pipe
    return lambda: (log_to(writer), reader)


def write_lines(logged: Log, count: int) -> None:
    for _ in range(count):
        logged.write("x" * 999)


def read_until(fd: int, is_enough: Callable[[bytes], object]) -> bytes:
    data = b""
    while not is_enough(data):
        assert select.select([fd], [], [], WAIT_SECONDS)[0], "nothing was written"
        data += os.read(fd, 1 << 16)
    return data


def read(fd: int, size: int) -> bytes:
    return read_until(fd, lambda data: len(data) >= size)


def test_lines_of_many_threads_are_written_whole_and_each_threads_in_order(piped: Piped) -> None:
    logged, reader = piped()

    def write_lines(thread: int) -> None:
        for number in range(0, 1000, 2):
            logged.write(f"{thread} {number:04}\n{thread} {number + 1:04}")

    def read_lines(_: int) -> list[bytes]:
        return read(reader, 5000 * 7).splitlines()

    lines: list[bytes] = []
    at_once(6, lambda index: write_lines(index) if index < 5 else lines.extend(read_lines(index)))
    for thread in range(5):
        assert [line for line in lines if line.startswith(b"%d" % thread)] == [
            b"%d %04d" % (thread, number) for number in range(1000)
        ]


def test_flush_waits_until_every_line_is_written(piped: Piped) -> None:
    logged, reader = piped()
    logged.write("\n".join(["x"] * 1000))
    logged.flush(WAIT_SECONDS)
    os.set_blocking(reader, False)
    assert os.read(reader, 1 << 16) == b"x\n" * 1000


def test_flush_waits_no_longer_than_its_limit_for_an_output_that_has_stalled(piped: Piped) -> None:
    logged, reader = piped()
    logged.write("x" * 99_999)  # more than a pipe holds
    flusher = in_thread(logged.flush, 0.1)
    flusher.join(WAIT_SECONDS / 2)
    assert not flusher.is_alive()
    assert read(reader, 100_000)


def test_threads_block_until_the_output_counts_as_stalled_and_then_lines_are_dropped_and_counted(piped: Piped) -> None:
    logged, reader = piped()
    count = PENDING_BYTES // 1000 * 4
    at_once(4, lambda _: write_lines(logged, count // 4))
    data = read_until(reader, LOST.search)
    logged.write("again")
    data += read_until(reader, lambda more: more.endswith(b"again\n"))
    lost = sum(int(number) for number in LOST.findall(data))
    assert lost > count // 2
    assert data.count(b"x" * 999 + b"\n") + lost == count


def test_an_output_that_is_merely_slow_gets_every_line(piped: Piped, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log, "STALL_SECONDS", 2 * STALL_SECONDS)  # which reading takes altogether, but no part of it
    logged, reader = piped()
    count = 3 * PENDING_BYTES // 1000
    data = b""

    def read_slowly() -> None:
        nonlocal data
        pause = threading.Event()
        while len(data) < count * 1000 and not LOST.search(data[-1000:]):
            data += os.read(reader, 1 << 15)
            pause.wait(0.012)

    at_once(2, lambda index: write_lines(logged, count) if index else read_slowly())
    assert data == (b"x" * 999 + b"\n") * count


def test_a_nonblocking_output_gets_every_line(log_to: UseAsOutput, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    os.set_blocking(writer, False)
    logged = log_to(writer)
    for number in range(2000):
        logged.write(f"{number:099}")  # more than a pipe holds
    assert read(reader, 200_000) == b"".join(b"%099d\n" % number for number in range(2000))


def test_after_a_write_error_the_log_goes_on_and_counts_the_lost_lines(log_to: UseAsOutput, tmp_path: Path) -> None:
    fifo = tmp_path / "log"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    writer = os.open(fifo, os.O_WRONLY)
    logged = log_to(writer)
    logged.write("before")
    logged.flush(WAIT_SECONDS)
    assert os.read(reader, 100) == b"before\n"
    os.close(reader)
    logged.write("lost 1\nlost 2")
    logged.flush(WAIT_SECONDS)
    logged.write("lost 3")
    logged.flush(WAIT_SECONDS)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    os.set_blocking(reader, True)
    logged.write("after")
    data = read_until(reader, LOST.search)
    assert data == b"after\n3 status lines were lost: they could not be written\n"
    os.close(reader)
    os.close(writer)


def test_a_character_that_the_output_cannot_encode_is_an_escape(log_to: UseAsOutput, pipe: tuple[int, int]) -> None:
    reader, writer = pipe
    log_to(writer, "ascii").write("zoë: 🚀")
    assert read(reader, 19) == b"zo\\xeb: \\U0001f680\n"


def test_without_a_standard_output_lines_are_discarded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    logged = Log()
    logged.write("x")
    logged.flush(WAIT_SECONDS)
