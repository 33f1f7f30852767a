"""WebSocket frames as a server reads and writes them (RFC 6455): bytes in, events out, no socket.

A frame is two bytes, a longer length if needed, a mask of four bytes (from a client only) and the payload:

    FIN RSV1-3 opcode(4) | MASK length(7) | length(16 or 64), if length(7) is 126 or 127 | mask(32) | payload

A message is one frame, or a first frame and continuations of which the last has FIN set; control frames (close, ping,
pong) may come between these. No extension is offered, so the reserved bits must be zero.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum

MAX_CONTROL_BYTES = 125
FIN = 0x80
RESERVED = 0x70  # RSV1-3
MASK = 0x80


class Opcode(IntEnum):
    """What a frame carries."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a WebSocket is closed (RFC 6455, section 7.4.1, and IANA's registry)."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL_ERROR = 1002
    UNSUPPORTED_DATA = 1003
    NO_STATUS = 1005  # never on the wire: a close frame without a code
    ABNORMAL = 1006  # never on the wire: the connection ended without a close frame
    INVALID_TEXT = 1007
    POLICY_VIOLATION = 1008
    TOO_BIG = 1009
    INTERNAL_ERROR = 1011
    BAD_GATEWAY = 1014


OPCODES = frozenset(Opcode)
SENDABLE_CODES = frozenset([*range(1000, 1004), *range(1007, 1015), *range(3000, 5000)])


class Closing(Exception):
    """The WebSocket must be closed, with a code and a sentence that says why."""

    def __init__(self, code: int, reason: str = "") -> None:
        super().__init__(reason)
        self.code = code


class FrameReader:
    """Turn the bytes that a client sent, in pieces of any size, into events."""

    def __init__(self, max_message_bytes: int) -> None:
        self._max_message_bytes = max_message_bytes  # over all frames of a message
        self._buffer = bytearray()  # a frame that is not complete yet
        self._opcode: Opcode | None = None  # of a message that is not complete yet
        self._message = bytearray()
        self._closed = False

    def feed(self, data: bytes) -> Iterator[tuple[Opcode, bytes]]:
        """Yield the events that received bytes complete, up to a close frame. Closing: the next frame is wrong.

        An event is a whole message (in valid UTF-8, if it is TEXT) or a control frame: its opcode, and its payload.
        """
        self._buffer += data
        while not self._closed and (frame := self._next_frame()):
            fin, opcode, payload = frame
            if opcode >= Opcode.CLOSE:
                self._closed = opcode is Opcode.CLOSE
                yield opcode, check_close(payload) if self._closed else payload
                continue
            opcode = self._opcode or opcode
            self._opcode = None if fin else opcode
            self._message += payload
            if fin:
                message, self._message = bytes(self._message), bytearray()
                yield opcode, check_text(message) if opcode is Opcode.TEXT else message

    def _next_frame(self) -> tuple[bool, Opcode, bytes] | None:
        """Take a whole frame, if there is one, out of the buffer; check its header before its payload arrives."""
        if len(self._buffer) < 2:
            return None
        first, second = self._buffer[:2]
        if first & RESERVED:
            raise Closing(CloseCode.PROTOCOL_ERROR, "A reserved bit is set, but no extension was agreed on")
        if first & ~FIN not in OPCODES:
            raise Closing(CloseCode.PROTOCOL_ERROR, f"Unknown opcode {first & ~FIN}")
        if not second & MASK:
            raise Closing(CloseCode.PROTOCOL_ERROR, "A client's frame is not masked")
        fin, opcode, length = bool(first & FIN), Opcode(first & ~FIN), second & ~MASK
        start = 2 + {126: 2, 127: 8}.get(length, 0) + 4  # of the payload, after the mask
        if len(self._buffer) < start:
            return None
        if length >= 126:
            shortest = 126 if length == 126 else 1 << 16
            length = int.from_bytes(self._buffer[2 : start - 4], "big")
            if length < shortest or length >= 1 << 63:
                raise Closing(CloseCode.PROTOCOL_ERROR, "A length is not written in the shortest form")
        self._check_header(fin, opcode, length)
        end = start + length
        if len(self._buffer) < end:
            return None
        payload = apply_mask(self._buffer[start - 4 : start], self._buffer[start:end])
        del self._buffer[:end]
        return fin, opcode, payload

    def _check_header(self, fin: bool, opcode: Opcode, length: int) -> None:
        """Check that a frame may follow those before it, and that it is not too long."""
        if opcode >= Opcode.CLOSE:
            if not fin:
                raise Closing(CloseCode.PROTOCOL_ERROR, "A control frame is fragmented")
            if length > MAX_CONTROL_BYTES:
                raise Closing(CloseCode.PROTOCOL_ERROR, f"A control frame is over {MAX_CONTROL_BYTES} bytes")
            return
        if opcode is Opcode.CONTINUATION and self._opcode is None:
            raise Closing(CloseCode.PROTOCOL_ERROR, "A continuation comes without a message to continue")
        if opcode is not Opcode.CONTINUATION and self._opcode is not None:
            raise Closing(CloseCode.PROTOCOL_ERROR, "A message begins before the one before it has ended")
        if len(self._message) + length > self._max_message_bytes:
            raise Closing(CloseCode.TOO_BIG, f"A message is over {self._max_message_bytes} bytes")


def check_text(payload: bytes) -> bytes:
    """Return the payload of a text message; check that it is UTF-8."""
    try:
        payload.decode()
    except UnicodeDecodeError as error:
        raise Closing(CloseCode.INVALID_TEXT, f"Byte {error.start} of a text is not valid UTF-8") from None
    return payload


def check_close(payload: bytes) -> bytes:
    """Return the payload of a close frame; check that it is empty, or a valid code and a reason in UTF-8."""
    if len(payload) == 1:
        raise Closing(CloseCode.PROTOCOL_ERROR, "A close frame holds half a close code")
    if payload and close_code(payload) not in SENDABLE_CODES:
        raise Closing(CloseCode.PROTOCOL_ERROR, f"Close code {close_code(payload)} may not be sent")
    check_text(payload[2:])
    return payload


def close_code(payload: bytes) -> int:
    """Return the code in the payload of a close frame, or NO_STATUS."""
    return int.from_bytes(payload[:2], "big") if payload else CloseCode.NO_STATUS


def apply_mask(mask: bytes | bytearray, payload: bytes | bytearray) -> bytes:
    """Mask or unmask a payload: return its exclusive or with a mask of four bytes, repeated."""
    size = len(payload)
    key = (bytes(mask) * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, "big") ^ int.from_bytes(key, "big")).to_bytes(size, "big")


def frame(opcode: Opcode, payload: bytes = b"") -> bytes:
    """Return a whole message as one unmasked frame, as a server sends it."""
    size = len(payload)
    if size < 126:
        return bytes((FIN | opcode, size)) + payload
    if size < 1 << 16:
        return struct.pack("!BBH", FIN | opcode, 126, size) + payload
    return struct.pack("!BBQ", FIN | opcode, 127, size) + payload


def close_frame(code: int, reason: str = "") -> bytes:
    """Return a close frame; its reason is cut to what a control frame may hold of it."""
    if code == CloseCode.NO_STATUS:
        return frame(Opcode.CLOSE)
    text = reason.encode()[: MAX_CONTROL_BYTES - 2].decode(errors="ignore").encode()
    return frame(Opcode.CLOSE, struct.pack("!H", code) + text)
