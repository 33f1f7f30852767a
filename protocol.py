r"""Bytes to values and back, without a socket: the framing that all four systems share, and their codes.

Every message on every TCP connection is one line: bytes up to \n, at most MAX_LINE_BYTES of them; a \r before the \n is
dropped. LineBuffer is fed what was received and gives whole lines; harmless() makes text of them that may be shown.
"""

import re
from enum import IntEnum
from unicodedata import category

MAX_LINE_BYTES = 4096

# RFC 854: IAC introduces a command: SB ... IAC SE (a subnegotiation, in which IAC IAC is a byte 255), WILL, WONT, DO or
# DONT with an option, or one of two bytes; IAC IAC is a byte 255 of data. IAC before anything else is left as it is.
# What the data end in the middle of is "unfinished".
_IAC = b"\xff"
_TELNET = re.compile(
    rb"\xff(?:\xff|[\xf0-\xf9]|[\xfb-\xfe].|\xfa(?:[^\xff]|\xff[^\xf0])*\xff\xf0"
    rb"|(?P<unfinished>\xfa(?:[^\xff]|\xff[^\xf0])*\xff?\Z|[\xfb-\xfe]?\Z))",
    re.DOTALL,
)

# RFC 860: after Ctrl-C, telnet shows nothing more before this question is answered.
_DO_TIMING_MARK = b"\xff\xfd\x06"
_WILL_TIMING_MARK = b"\xff\xfb\x06"

# Unicode's control characters (category Cc) are all below 160. Here is what is shown for each character up to there:
# itself, or U+FFFD for a control character that is neither tab nor the newline that ends a line. translate() looks each
# character up by its number, and leaves those beyond the end as they are.
_SHOWN = "".join(
    character if character in "\t\n" or category(character) != "Cc" else "\N{REPLACEMENT CHARACTER}"
    for character in map(chr, range(160))
)


class LineTooLong(Exception):
    """A line has more than MAX_LINE_BYTES."""

    def __str__(self) -> str:
        return f"Line too long: at most {MAX_LINE_BYTES} bytes are expected"


class LineBuffer:
    """Turn what was received, in pieces of any size, into whole lines without telnet's negotiation.

    Attributes:
        too_long: whether a line of more than MAX_LINE_BYTES came; nothing that follows it is given.
        answer: what is to be sent to the client's telnet for what the last feed brought.
    """

    def __init__(self) -> None:
        self.too_long = False
        self.answer = b""
        self._line = b""  # a line whose end has not come
        self._telnet = b""  # a telnet command whose end has not come

    @property
    def in_line(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._line or self._telnet)

    def feed(self, data: bytes) -> bytes:
        """Take what was received; return the lines that it completes, each with its newline."""
        self.answer = b""
        if self._telnet or _IAC in data:
            data = self._remove_telnet(self._telnet + data)
        data = self._line + data
        if b"\r" in data:
            data = data.replace(b"\r\n", b"\n")
        end = 0
        while (newline := data.rfind(b"\n", end, end + MAX_LINE_BYTES + 1)) >= 0:
            end = newline + 1
        self._line = data[end:]
        self.too_long = len(self._line.removesuffix(b"\r")) > MAX_LINE_BYTES or len(self._telnet) > MAX_LINE_BYTES
        return data[:end]

    def _remove_telnet(self, data: bytes) -> bytes:
        """Return the data without telnet commands; keep an unfinished one for the next feed."""
        self._telnet = b""

        def replacement(command: re.Match[bytes]) -> bytes:
            if command["unfinished"] is not None:
                self._telnet = command[0]
            if command[0] == _DO_TIMING_MARK:
                self.answer = _WILL_TIMING_MARK
            return _IAC if command[0] == _IAC + _IAC else b""

        return _TELNET.sub(replacement, data)


def harmless(data: bytes) -> str:
    """Decode UTF-8; bytes that are none, and control characters but tab and newline, become U+FFFD."""
    return data.decode(errors="replace").translate(_SHOWN)


class RoomAction(IntEnum):
    """What a request to the chat room server asks for: its first byte."""

    CREATE = 1
    JOIN = 2
    LIST = 3
    DELETE = 4


class RoomStatus(IntEnum):
    """What became of a request to the chat room server: the first byte of the reply."""

    SUCCESS = 0
    ALREADY_EXISTS = 1
    DOES_NOT_EXIST = 2
    INVALID = 3
    UNKNOWN_FAILURE = 4


ROOM_NAME_RULE = "a room's name is 1 to 32 letters, digits, - or _"
_ROOM_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


def is_room_name(text: str) -> bool:
    """Return whether a room may have this name."""
    return _ROOM_NAME.fullmatch(text) is not None


def room_request(action: RoomAction, name: str) -> bytes:
    """Return a request to the chat room server as it is sent."""
    return bytes([action]) + name.encode() + b"\n"


def room_reply(status: RoomStatus, information: str) -> str:
    """Return a reply of the chat room server as it is sent, once encoded."""
    return f"{chr(status)}{information}\n"
