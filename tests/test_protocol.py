"""The framing, byte by byte, without a socket."""

import random

import pytest

from protocol import MAX_LINE_BYTES, LineBuffer, RoomStatus, harmless, room_reply

IAC, SB, SE, WILL, DO = b"\xff", b"\xfa", b"\xf0", b"\xfb", b"\xfd"
EOF, SUSP, ABORT, NOP, BRK, INTERRUPT, AYT = b"\xec", b"\xed", b"\xee", b"\xf1", b"\xf3", b"\xf4", b"\xf6"
ECHO, TIMING_MARK = b"\x01", b"\x06"
EOT = b"\x04"


def feed_in_pieces(data: bytes, size: int) -> bytes:
    """Feed data to a buffer in pieces of this size, then end its input; return the lines that the buffer returned."""
    buffer = LineBuffer()
    lines = b""
    for i in range(0, len(data), size):
        lines += buffer.feed(data[i : i + size])
        if buffer.ended:
            return lines
    return lines + buffer.end()


@pytest.mark.parametrize("size", [1, 2, 3, 7, 1000])
@pytest.mark.parametrize(
    ("received", "lines"),
    [
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"\n\n", b"\n\n"),
        (b"whole\nlast", b"whole\nlast\n"),
        (b"last\r", b"last\n"),
        (b"telnet\r\nnetcat\n", b"telnet\nnetcat\n"),
        (b"character\r\0mode\r\0", b"character\nmode\n"),
        (b"Enter\rsends CR\r\r\n", b"Enter\nsends CR\n\n"),
        (b"CR\r" + IAC + NOP + b"\nLF\n\n", b"CR\nLF\n\n"),
        (b"\nNUL\r\0\0\n", b"\nNUL\n\0\n"),
        (b"one\r" + EOT + b"two\n", b"one\n"),
        (IAC + WILL + ECHO + b"JOIN a\r\n", b"JOIN a\n"),
        (b"JO" + IAC + DO + b"\n" + b"IN a\n", b"JOIN a\n"),
        (b"x" + IAC + INTERRUPT + b"y\n", b"xy\n"),
        (IAC + SUSP + IAC + DO + TIMING_MARK + b"LIST\n", b"LIST\n"),
        (IAC + BRK + IAC + DO + TIMING_MARK + b"LIST\n", b"LIST\n"),
        (b"x" + IAC + EOF + b"y" + IAC + ABORT + b"z\n", b"xyz\n"),
        (b"x" + IAC + SB + b"\x18\x00xterm\n" + IAC + IAC + SE + b"more" + IAC + SE + b"y\n", b"xy\n"),
        (b"x" + IAC + IAC + INTERRUPT + b"y\n", b"x" + IAC + INTERRUPT + b"y\n"),
        (b"x" + IAC + b"y\n", b"x" + IAC + b"y\n"),
        (IAC + b"\n", IAC + b"\n"),
        (EOT + b"LIST\n", b""),
        (b"one\n" + EOT + b"two\n", b"one\n"),
        (b"one\r\n" + EOT, b"one\n"),
        (b"\n" + EOT + b"two\n", b"\n"),
        (b"half" + EOT + b"line\n", b"half" + EOT + b"line\n"),
        (b"JOIM\x7fN a\n", b"JOIN a\n"),
        (b"JOIM\bN a\n", b"JOIN a\n"),
        (b"one\n\b\b\x7ftwo\nab\b\b\bc\n", b"one\ntwo\nc\n"),
        ("zoë\x7fe\n".encode(), b"zoe\n"),
        (b"x\xc3\x7f\n", b"x\n"),
        (b"last\x7f", b"las\n"),
    ],
)
def test_lines_are_whole_whatever_the_pieces_they_arrive_in(received: bytes, lines: bytes, size: int) -> None:
    assert feed_in_pieces(received, size) == lines


def test_random_bytes_give_the_same_lines_however_they_are_split() -> None:
    chance = random.Random(1)
    alphabet = b"ab\r\n\0\x7f" + IAC + SB + SE + WILL + DO + EOT
    for _ in range(300):
        data = bytes(chance.choices(alphabet, k=60)) + b"\n"
        whole = feed_in_pieces(data, len(data))
        for size in (1, 2, 5):
            assert feed_in_pieces(data, size) == whole


def test_a_lone_cr_ends_its_line_at_once_and_an_lf_in_the_next_piece_adds_no_empty_line() -> None:
    buffer = LineBuffer()
    assert [buffer.feed(piece) for piece in (b"LIST\r", b"\n", b"LIST\r", b"LIST\r", b"\0\n")] == [
        *(b"LIST\n", b"", b"LIST\n", b"LIST\n", b"\n")
    ]


def test_half_a_line_is_kept_until_the_rest_arrives() -> None:
    buffer = LineBuffer()
    assert buffer.feed(b"JOIN al") == b""
    assert buffer.feed(b"ice\nLI") == b"JOIN alice\n"
    assert buffer.end() == b"LI\n"
    assert buffer.end() == b""


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 1000, 10_000])
def test_a_line_of_4096_bytes_is_accepted_and_one_of_4097_is_too_long(end: bytes, size: int) -> None:
    longest = b"x" * MAX_LINE_BYTES
    assert feed_in_pieces(longest + end, size) == longest + b"\n"
    buffer = LineBuffer()
    data = b"before\n" + longest + b"x" + end + b"after\n"
    lines = b""
    for i in range(0, len(data), size):
        lines += buffer.feed(data[i : i + size])
        if buffer.too_long:
            break
    assert buffer.too_long
    assert lines + buffer.end() == b"before\n"


def test_a_line_without_an_end_is_too_long_at_its_4097th_byte() -> None:
    buffer = LineBuffer()
    buffer.feed(b"x" * MAX_LINE_BYTES)
    assert not buffer.too_long
    buffer.feed(b"x")
    assert buffer.too_long


def test_a_telnet_command_without_an_end_is_too_long_after_4096_bytes() -> None:
    buffer = LineBuffer()
    buffer.feed(IAC + SB + b"\n" * MAX_LINE_BYTES)
    assert buffer.too_long


def test_telnets_timing_mark_after_ctrl_c_is_answered_once() -> None:
    buffer = LineBuffer()
    assert (buffer.feed(IAC + INTERRUPT + IAC + DO), buffer.answer) == (b"", b"")
    assert (buffer.feed(TIMING_MARK + b"LIST\n"), buffer.answer) == (b"LIST\n", IAC + WILL + TIMING_MARK)
    assert (buffer.feed(b"LIST\n"), buffer.answer) == (b"LIST\n", b"")


def test_telnets_are_you_there_is_answered_at_once_even_within_a_line() -> None:
    buffer = LineBuffer()
    assert (buffer.feed(b"LI" + IAC + AYT), buffer.answer) == (b"", b"[Yes]\n")
    assert (buffer.feed(b"ST\n"), buffer.answer) == (b"LIST\n", b"")
    buffer.feed((IAC + AYT) * 1000 + IAC + DO + TIMING_MARK)
    assert buffer.answer == b"[Yes]\n" + IAC + WILL + TIMING_MARK


@pytest.mark.parametrize(
    ("data", "text"),
    [
        (b"\x1b[31mred\x07\x00\x7f\r\n", "�[31mred����\n"),
        ("C1: \x80\x85\x9b31m\x9f\xa0\n".encode(), "C1: ���31m�\xa0\n"),
        (b"\xff\xfe\xc3\n\xa9\n", "���\n�\n"),
        (b"\xed\xa0\x80\n", "���\n"),
        ("line\u2028paragraph\u2029".encode(), "line�paragraph�"),
        ("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069".encode(), "���������"),
    ],
)
def test_what_could_forge_a_line_becomes_replacement_characters(data: bytes, text: str) -> None:
    assert harmless(data) == text


@pytest.mark.parametrize(
    "text",
    [
        "Zoë, 東京 🚀\ttab\n",
        "Khmer: សួស្តី\u200bពិភពលោក",
        "Persian and emoji: می\u200cکنم 👩\u200d🚀 ❤\ufe0f",
        "Hebrew and Arabic: שלום!\u200f, C\u200e, \u061c123",
        "a soft hyphen: Donau\u00addampf\u00adschiff",
        "Scotland's flag: 🏴\U000e0067\U000e0062\U000e0073\U000e0063\U000e0074\U000e007f",
    ],
)
def test_what_writing_needs_is_kept(text: str) -> None:
    assert harmless(text.encode()) == text


EMPTY = "\u034f\u115f\u1160\u17b4\u17b5\u180e\u2060\u2064\u206f\ufeff\ufff9\U0001d173\U000e0001"
BLANK = "\u2800\u3164\uffa0"


@pytest.mark.parametrize(("character", "shown"), [*((c, "") for c in EMPTY), *((c, " ") for c in BLANK)])
def test_a_character_that_shows_nothing_becomes_a_space_if_it_is_wide_or_is_dropped(character: str, shown: str) -> None:
    assert harmless(f"a{character}b".encode()) == f"a{shown}b"


def test_a_reply_of_the_rooms_is_a_byte_and_text() -> None:
    assert room_reply(RoomStatus.INVALID, "why", in_digits=False) == "\3why"
    assert room_reply(RoomStatus.INVALID, "why", in_digits=True) == "3why"
