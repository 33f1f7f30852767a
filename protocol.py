r"""Convert between bytes and values, without a socket: the framing of all four systems, and the rooms' status bytes.

Every message on every TCP connection is one line of at most MAX_LINE_BYTES bytes. LF ends it, and so do CR LF, CR NUL
and CR, which terminals send for the Enter key. LineBuffer finds the lines; harmless() makes them safe to display.
"""

import re
from enum import IntEnum

MAX_LINE_BYTES = 4096

# RFC 854: IAC (byte 255) introduces a command. A command is one of
# - SB ... IAC SE, a subnegotiation, in which IAC IAC stands for a byte 255,
# - WILL, WONT, DO or DONT, and an option,
# - one byte from 236 to 249, which includes EOF, SUSP and ABORT of RFC 1184.
# IAC IAC is a byte 255 of data; IAC before any other byte stays. "unfinished" is a command whose end has not arrived.
IAC = 0xFF
_TELNET = re.compile(
    rb"\xff(?:\xff|[\xec-\xf9]|[\xfb-\xfe].|\xfa(?:[^\xff]|\xff[^\xf0])*\xff\xf0"
    rb"|(?P<unfinished>\xfa(?:[^\xff]|\xff[^\xf0])*\xff?\Z|[\xfb-\xfe]?\Z))",
    re.DOTALL,
)
_ANSWERS = {
    b"\xff\xf6": b"[Yes]\n",  # RFC 854: AYT, "are you there?", asks for a sign that can be seen
    b"\xff\xfd\x06": b"\xff\xfb\x06",  # RFC 860: after Ctrl-C, telnet discards output until DO TIMING-MARK is answered
}

# Numbers, because `number in data` is several times as fast as `bytes in data`.
_CR = 0x0D
_EOT = 0x04  # Ctrl-D
_BACKSPACE, _DELETE = 0x08, 0x7F  # the two bytes that a Backspace key may send

# Control characters except tab and newline, separators, and overrides of direction could forge a line on a terminal
# (Unicode Technical Report 36, 3.1). Of the characters that show nothing, those that writing needs stay: Khmer's zero
# width space, joiners, the marks of Hebrew and Arabic, soft hyphens, variation selectors, the tags of flags.
_FORGING = [*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), *range(0x2028, 0x202F), *range(0x2066, 0x206A)]
_BLANK = [0x2800, 0x3164, 0xFFA0]  # wide and empty: a Braille pattern and two Hangul fillers
_EMPTY = [
    *(0x034F, 0x115F, 0x1160, 0x17B4, 0x17B5, 0x180E, *range(0x2060, 0x2066), *range(0x206A, 0x2070), 0xFEFF),
    *(*range(0xFFF9, 0xFFFC), *range(0x1BCA0, 0x1BCA4), *range(0x1D173, 0x1D17B), *range(0xE0000, 0xE0020)),
]
_SHOWN: dict[int, str | None] = {code: chr(code) for code in range(0x80)}  # because a look-up that fails is slow
_SHOWN |= dict.fromkeys(_FORGING, "\N{REPLACEMENT CHARACTER}") | dict.fromkeys(_BLANK, " ") | dict.fromkeys(_EMPTY)


class LineTooLong(Exception):
    """A line has more than MAX_LINE_BYTES bytes; the text is the sentence that the server sends to the client."""


class LineBuffer:
    """Turn received bytes, in pieces of any size, into whole lines, and remove telnet's commands.

    Once `ended` or `too_long` is true, the buffer returns no more lines.
    """

    def __init__(self) -> None:
        self.eot_ends_input = True  # Ctrl-D (byte 4) at the start of a line; otherwise it is data
        self.ended = False  # whether Ctrl-D has ended the input
        self.too_long = False  # whether a line of more than MAX_LINE_BYTES has arrived
        self.answer = b""  # what telnet's commands in the last feed() ask to be sent at once; usually empty
        self._line = b""  # a line whose end has not arrived
        self._telnet = b""  # a telnet command whose end has not arrived
        self._after_cr = False  # whether a CR has ended the last line, so that an LF or NUL that follows belongs to it

    def feed(self, data: bytes) -> bytes:
        """Add received bytes; return the lines that they complete, each with its newline."""
        self.answer = b""
        if self._telnet or IAC in data:
            data = self._remove_telnet(self._telnet + data)
        if self._after_cr or _CR in data:
            data = self._with_newlines(data)
        data = self._line + data
        if _EOT in data and self.eot_ends_input:
            data = self._up_to_eot(data)
        end = 0
        while (newline := data.rfind(b"\n", end, end + MAX_LINE_BYTES + 1)) >= 0:
            end = newline + 1
        self._line = data[end:]
        self.too_long = max(len(self._line), len(self._telnet)) > MAX_LINE_BYTES
        return _erased(data[:end])

    def end(self) -> bytes:
        """End the input; return an unfinished last line with a newline, or b"" if there is none."""
        last, self._line = self._line, b""
        return _erased(last + b"\n") if last and not self.too_long else b""

    def _with_newlines(self, data: bytes) -> bytes:
        """Return the data with a newline for each CR LF, CR NUL and CR; a CR does not wait for what may follow."""
        if self._after_cr and data.startswith((b"\n", b"\0")):
            data = data[1:]
            self._after_cr = False
        if data:
            self._after_cr = data.endswith(b"\r")
        return data.replace(b"\r\n", b"\n").replace(b"\r\0", b"\n").replace(b"\r", b"\n")

    def _up_to_eot(self, data: bytes) -> bytes:
        """Return the data before a Ctrl-D at the start of a line, if there is one."""
        before, eot, _ = (b"\n" + data).partition(b"\n\x04")
        if not eot:
            return data
        self.ended = True
        return (before + b"\n")[1:]

    def _remove_telnet(self, data: bytes) -> bytes:
        """Return the data without telnet commands; keep an unfinished command for the next feed."""
        self._telnet = b""

        def replacement(command: re.Match[bytes]) -> bytes:
            if command["unfinished"] is not None:
                self._telnet = command[0]
            answer = _ANSWERS.get(command[0], b"")
            if answer not in self.answer:  # each once, however often a client asks in one piece
                self.answer += answer
            return b"\xff" if command[0] == b"\xff\xff" else b""

        return _TELNET.sub(replacement, data)


def _erased(lines: bytes) -> bytes:
    """Apply the backspaces of a client that sends each key as the user presses it."""
    if _BACKSPACE not in lines and _DELETE not in lines:
        return lines
    kept: list[str] = []
    for character in lines.decode(errors="surrogateescape"):
        if character not in "\b\x7f":
            kept.append(character)
        elif kept and kept[-1] != "\n":
            kept.pop()
    return "".join(kept).encode(errors="surrogateescape")


def harmless(data: bytes) -> str:
    """Decode UTF-8; invalid bytes and characters that could forge a line on a terminal become U+FFFD."""
    return data.decode("utf-8", "replace").translate(_SHOWN)


class RoomStatus(IntEnum):
    """The first byte of a reply of the chat room server: the outcome of the request."""

    SUCCESS = 0
    ALREADY_EXISTS = 1
    DOES_NOT_EXIST = 2
    INVALID = 3
    UNKNOWN_FAILURE = 4


ROOM_NAME_RULE = "a room's name is 1 to 32 letters, digits, - or _"
_ROOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


def is_room_name(text: str) -> bool:
    """Return whether a text is a valid name for a room."""
    return _ROOM_NAME.fullmatch(text) is not None


def room_reply(status: RoomStatus, information: str, in_digits: bool) -> str:
    """Return a reply of the chat room server as it is sent, without its newline."""
    return f"{int(status) if in_digits else chr(status)}{information}"
