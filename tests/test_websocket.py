"""WebSocket frames: RFC 6455's own examples, split anywhere, and each way in which a frame can be wrong."""

import random

import pytest
from websocket_client import MASK, masked

from web.websocket import Closing, FrameReader, Opcode, close_code, close_frame, frame

MAX_BYTES = 4096
HELLO = bytes.fromhex("818537fa213d7f9f4d5158")  # the masked text message of RFC 6455, section 5.7
PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG = 1002, 1007, 1009
UNSENDABLE_CODES = (0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)


def read(*pieces: bytes, max_message_bytes: int = MAX_BYTES) -> list[tuple[int, bytes]]:
    """Return the events in what a client sent in pieces."""
    reader = FrameReader(max_message_bytes)
    return [event for piece in pieces for event in reader.feed(piece)]


@pytest.mark.parametrize(
    ("data", "opcode", "payload"),
    [
        (HELLO, Opcode.TEXT, b"Hello"),
        (b"\x8a" + HELLO[1:], Opcode.PONG, b"Hello"),
        (masked(0x01, b"Hel") + masked(0x80, b"lo"), Opcode.TEXT, b"Hello"),
        (masked(0x01, b"\xe2\x98") + masked(0x80, b"\x95"), Opcode.TEXT, "☕".encode()),
        (masked(0x01) + masked(0x00) * 1000 + masked(0x80), Opcode.TEXT, b""),
        (masked(0x81, b"Hello", mask=bytes(4)), Opcode.TEXT, b"Hello"),
    ],
    ids=["the RFC's", "the RFC's pong", "the RFC's fragments", "a cut character", "empty fragments", "a mask of zeros"],
)
def test_masked_message_is_read(data: bytes, opcode: Opcode, payload: bytes) -> None:
    assert read(data) == [(opcode, payload)]


def test_unmasked_frames_of_the_rfc_are_written() -> None:
    assert frame(Opcode.TEXT, b"Hello") == b"\x81\x05Hello"
    assert frame(Opcode.PING, b"Hello") == b"\x89\x05Hello"
    assert frame(Opcode.BINARY, bytes(256)) == b"\x82\x7e\x01\x00" + bytes(256)
    assert frame(Opcode.BINARY, bytes(65536)) == b"\x82\x7f\0\0\0\0\0\x01\0\0" + bytes(65536)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 128, 255, 256, 4096, 65535, 65536, 65537])
def test_lengths_of_every_form_are_read_and_written(size: int) -> None:
    payload = (b"0123456789abcdef" * (size // 16 + 1))[:size]
    assert read(masked(0x81, payload), max_message_bytes=1 << 17) == [(Opcode.TEXT, payload)]
    header = frame(Opcode.TEXT, payload).removesuffix(payload)
    assert len(header) == 2 if size < 126 else 4 if size < 65536 else 10


def test_dialogue_split_anywhere_gives_the_same_events() -> None:
    data = masked(0x81, "Zoë ☕".encode()) + masked(0x01, b"one ") + masked(0x89, b"ping in between")
    data += masked(0x00, b"two ") + masked(0x80, b"three") + masked(0x82, b"\xff\x00") + masked(0x81, b"x" * 300)
    data += masked(0x8A) + masked(0x88, b"\x03\xe8bye")
    expected = [
        (Opcode.TEXT, "Zoë ☕".encode()),
        (Opcode.PING, b"ping in between"),
        (Opcode.TEXT, b"one two three"),
        (Opcode.BINARY, b"\xff\x00"),
        (Opcode.TEXT, b"x" * 300),
        (Opcode.PONG, b""),
        (Opcode.CLOSE, b"\x03\xe8bye"),
    ]
    assert read(*(bytes([byte]) for byte in data)) == expected
    for cut in range(len(data)):
        assert read(data[:cut], data[cut:]) == expected


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (bytes.fromhex("810548656c6c6f"), PROTOCOL_ERROR),
        *[(masked(0x81 | reserved, b"x"), PROTOCOL_ERROR) for reserved in (0x40, 0x20, 0x10)],
        *[(masked(0x80 | opcode), PROTOCOL_ERROR) for opcode in (3, 4, 5, 6, 7, 11, 12, 13, 14, 15)],
        (masked(0x80, b"x"), PROTOCOL_ERROR),
        (masked(0x00, b"x"), PROTOCOL_ERROR),
        (masked(0x01, b"x") + masked(0x81, b"y"), PROTOCOL_ERROR),
        (masked(0x01, b"x") + masked(0x82, b"y"), PROTOCOL_ERROR),
        (masked(0x09, b"x"), PROTOCOL_ERROR),
        (masked(0x08), PROTOCOL_ERROR),
        (masked(0x89, b"x" * 126), PROTOCOL_ERROR),
        (b"\x81\xfe\x00\x7d" + MASK, PROTOCOL_ERROR),
        (b"\x81\xff\x00\x00\x00\x00\x00\x00\xff\xff" + MASK, PROTOCOL_ERROR),
        (b"\x81\xff\x80\x00\x00\x00\x00\x00\x00\x00" + MASK, PROTOCOL_ERROR),
        (masked(0x88, b"\x03"), PROTOCOL_ERROR),
        *[(masked(0x88, number.to_bytes(2, "big")), PROTOCOL_ERROR) for number in UNSENDABLE_CODES],
        (masked(0x88, b"\x03\xe8\xff"), INVALID_TEXT),
        *[(masked(0x81, text), INVALID_TEXT) for text in (b"\xff", b"\xed\xa0\x80", b"\xc0\xaf", b"\xf4\x90\x80\x80")],
        (masked(0x01, b"\xe2\x98") + masked(0x80), INVALID_TEXT),
        (masked(0x81, b"x" * 4097), TOO_BIG),
        (masked(0x82, b"x" * 4097), TOO_BIG),
        (masked(0x01, b"x" * 4096) + masked(0x80, b"x"), TOO_BIG),
        (b"\x81\xff\x7f\xff\xff\xff\xff\xff\xff\xff" + MASK, TOO_BIG),
    ],
    ids=lambda value: value.hex()[:40] if isinstance(value, bytes) else str(value),
)
def test_wrong_frame_closes_with_its_code_after_the_frames_before_it(data: bytes, code: int) -> None:
    events = []
    with pytest.raises(Closing) as closing:
        for event in FrameReader(MAX_BYTES).feed(HELLO + data):
            events.append(event)
    assert (closing.value.code, events) == (code, [(Opcode.TEXT, b"Hello")])
    assert len(str(closing.value).encode()) <= 123
    with pytest.raises(Closing) as closing:
        read(*(bytes([byte]) for byte in data))
    assert closing.value.code == code


def test_close_with_each_code_that_may_be_sent_or_none_is_read_and_nothing_after_it() -> None:
    for number in (1000, 1001, 1003, 1007, 1011, 1014, 3000, 4999):
        ((opcode, payload),) = read(masked(0x88, number.to_bytes(2, "big")))
        assert (opcode, close_code(payload)) == (Opcode.CLOSE, number)
    assert read(masked(0x88) + HELLO + b"\xff\xff") == [(Opcode.CLOSE, b"")]
    assert close_code(b"") == 1005
    assert close_frame(1005) == b"\x88\x00"


def test_close_reason_is_cut_between_characters() -> None:
    sent = close_frame(1014, "☕" * 42)  # 126 bytes, of which 123 may be sent: 41 characters
    assert sent == b"\x88\x7d\x03\xf6" + ("☕" * 41).encode()
    assert close_frame(1000, "x" + "☕" * 42)[4:].decode() == "x" + "☕" * 40


def test_random_bytes_give_events_or_a_reason_to_close() -> None:
    generator = random.Random(6455)
    for _ in range(3000):
        data = bytearray(masked(generator.choice([0x81, 0x01, 0x80, 0x88, 0x89, 0x8A]), generator.randbytes(5)) * 3)
        for _ in range(generator.randrange(4)):
            data[generator.randrange(len(data))] = generator.randrange(256)
        reader = FrameReader(MAX_BYTES)
        try:
            assert all(isinstance(opcode, Opcode) for opcode, _ in reader.feed(bytes(data)))
        except Closing as closing:
            assert closing.code in (PROTOCOL_ERROR, INVALID_TEXT, TOO_BIG)
