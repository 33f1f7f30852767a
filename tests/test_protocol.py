"""The framing, byte by byte, without a socket."""

import random

import pytest

from protocol import MAX_LINE_BYTES, LineBuffer, harmless

IAC, SB, SE, WILL, DO = b"\xff", b"\xfa", b"\xf0", b"\xfb", b"\xfd"
ECHO = b"\x01"


def feed_in_pieces(data: bytes, size: int) -> bytes:
    """Return what a buffer gives that gets the data in pieces of a size."""
    buffer = LineBuffer()
    return b"".join(buffer.feed(data[i : i + size]) for i in range(0, len(data), size))


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("received", "lines"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"half", b""),
        (b"\n\n", b"\n\n"),
        (b"telnet\r\nnetcat\n", b"telnet\nnetcat\n"),
        (b"a\rb\r\r\n", b"a\rb\r\n"),
        (IAC + WILL + ECHO + b"JOIN a\r\n", b"JOIN a\n"),
        (b"JO" + IAC + DO + b"\n" + b"IN a\n", b"JOIN a\n"),
        (b"x" + IAC + b"\xf4" + b"y\n", b"xy\n"),
        (b"x" + IAC + SB + b"\x18\x00xterm\n" + IAC + IAC + SE + b"more" + IAC + SE + b"y\n", b"xy\n"),
        (b"x" + IAC + IAC + b"\xf4" + b"y\n", b"x" + IAC + b"\xf4" + b"y\n"),
        (b"x" + IAC + b"y\n", b"x" + IAC + b"y\n"),
        (IAC + b"\n", IAC + b"\n"),
    ],
)
def test_lines_come_out_whole_whatever_the_pieces(received: bytes, lines: bytes, size: int) -> None:
    assert feed_in_pieces(received, size) == lines


def test_any_split_of_random_bytes_gives_the_same_lines() -> None:
    chance = random.Random(1)
    for _ in range(200):
        alphabet = b"ab\r\n" + IAC + SB + SE + WILL + DO
        data = bytes(chance.choice(alphabet) for _ in range(60)) + b"\n"
        whole = LineBuffer().feed(data)
        for size in (1, 2, 5):
            assert feed_in_pieces(data, size) == whole


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("size", [1, 1000, 10_000])
def test_a_line_may_have_4096_bytes_and_no_more(end: bytes, size: int) -> None:
    longest = b"x" * MAX_LINE_BYTES
    assert feed_in_pieces(longest + end, size) == longest + b"\n"
    buffer = LineBuffer()
    data = b"before\n" + longest + b"x" + end + b"after\n"
    given = b""
    for i in range(0, len(data), size):
        given += buffer.feed(data[i : i + size])
        if buffer.too_long:
            break
    assert buffer.too_long
    assert given == b"before\n"


def test_a_line_that_does_not_end_is_too_long_before_it_ends() -> None:
    buffer = LineBuffer()
    buffer.feed(b"x" * MAX_LINE_BYTES + b"\r")
    assert not buffer.too_long
    buffer.feed(b"x")
    assert buffer.too_long


def test_a_telnet_command_that_does_not_end_is_too_long() -> None:
    buffer = LineBuffer()
    buffer.feed(IAC + SB + b"\n" * MAX_LINE_BYTES)
    assert buffer.too_long


def test_it_is_known_whether_a_line_has_begun() -> None:
    buffer = LineBuffer()
    assert not buffer.in_line
    buffer.feed(b"whole\n")
    assert not buffer.in_line
    buffer.feed(b"half")
    assert buffer.in_line
    buffer.feed(b"\n" + IAC)
    assert buffer.in_line


@pytest.mark.parametrize(
    ("data", "text"),
    [
        ("Zoë, 東京 🚀\ttab\n".encode(), "Zoë, 東京 🚀\ttab\n"),
        (b"\x1b[31mred\x07\x00\x7f\r\n", "�[31mred����\n"),
        ("C1: \x85\x9b31m\n".encode(), "C1: ��31m\n"),
        (b"\xff\xfe\xc3\n\xa9\n", "���\n�\n"),
        (b"\xed\xa0\x80\n", "���\n"),
    ],
)
def test_text_is_harmless(data: bytes, text: str) -> None:
    assert harmless(data) == text
