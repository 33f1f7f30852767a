r"""Convert between bytes and values, without a socket: the framing that all four systems share, and their codes.

Every message on every TCP connection is one line: bytes up to \n, at most MAX_LINE_BYTES of them; a \r before the \n is
dropped. LineBuffer turns received bytes into whole lines; harmless() turns lines into text that is safe to display.
"""

import re
from enum import IntEnum

MAX_LINE_BYTES = 4096

# RFC 854: IAC (byte 255) introduces a command. A command is one of
# - SB ... IAC SE, a subnegotiation, in which IAC IAC stands for a byte 255,
# - WILL, WONT, DO or DONT, and an option,
# - one byte from 236 to 249, which includes EOF, SUSP and ABORT of RFC 1184.
# IAC IAC stands for a byte 255 of data. An IAC before any other byte is left as it is. The group "unfinished" matches a
# command whose end has not arrived.
_IAC = 0xFF
_TELNET = re.compile(
    rb"\xff(?:\xff|[\xec-\xf9]|[\xfb-\xfe].|\xfa(?:[^\xff]|\xff[^\xf0])*\xff\xf0"
    rb"|(?P<unfinished>\xfa(?:[^\xff]|\xff[^\xf0])*\xff?\Z|[\xfb-\xfe]?\Z))",
    re.DOTALL,
)

# RFC 860: after Ctrl-C, telnet discards output until the server has answered this request.
_DO_TIMING_MARK = b"\xff\xfd\x06"
_WILL_TIMING_MARK = b"\xff\xfb\x06"

# Numbers, not bytes objects: `number in data` is several times as fast as `bytes in data`.
_CR = 0x0D
_EOT = 0x04  # Ctrl-D
_BACKSPACE, _DELETE = 0x08, 0x7F  # the two bytes that a Backspace key may send

# Characters that could forge or hide text on a terminal: control characters except tab and newline, and invisible
# characters such as bidirectional overrides (Unicode Technical Report 36, 3.1). The joiners U+200C and U+200D are not
# among them, because Persian and emoji need them.
_HARMFUL = [
    *(*range(0x09), *range(0x0B, 0x20), *range(0x7F, 0xA0), 0xAD, 0x061C, 0x180E, 0x200B, 0x200E, 0x200F),
    *(*range(0x2028, 0x202F), *range(0x2060, 0x2070), 0xFEFF, *range(0xFFF9, 0xFFFC), *range(0xE0000, 0xE0080)),
]
# str.translate() looks up each character; ASCII is in the table because a look-up that fails takes longer.
_SHOWN = {code: chr(code) for code in range(0x80)} | dict.fromkeys(_HARMFUL, "\N{REPLACEMENT CHARACTER}")


class LineTooLong(Exception):
    """A line has more than MAX_LINE_BYTES bytes."""

    def __str__(self) -> str:
        return f"Line too long: at most {MAX_LINE_BYTES} bytes are expected"


class LineBuffer:
    """Turn received bytes, in pieces of any size, into whole lines, and remove telnet's commands.

    Attributes:
        eot_ends_input: whether Ctrl-D (byte 4) at the start of a line ends the input; otherwise it is data.
        ended: whether Ctrl-D has ended the input; the buffer returns no line after it.
        too_long: whether a line of more than MAX_LINE_BYTES has arrived; the buffer returns no line after it.
        answer: the telnet command to send to the client in answer to the bytes of the last feed(); usually empty.
    """

    def __init__(self) -> None:
        self.eot_ends_input = True
        self.ended = False
        self.too_long = False
        self.answer = b""
        self._line = b""  # a line whose end has not arrived
        self._telnet = b""  # a telnet command whose end has not arrived

    def feed(self, data: bytes) -> bytes:
        """Add received bytes; return the lines that they complete, each with its newline."""
        self.answer = b""
        if self._telnet or _IAC in data:
            data = self._remove_telnet(self._telnet + data)
        data = self._line + data
        if _CR in data:  # RFC 854: a line ends with CR LF, and CR NUL stands for CR alone, here the Enter key
            data = data.replace(b"\r\n", b"\n").replace(b"\r\0", b"\n")
        if _EOT in data and self.eot_ends_input:
            data = self._up_to_eot(data)
        end = 0
        while (newline := data.rfind(b"\n", end, end + MAX_LINE_BYTES + 1)) >= 0:
            end = newline + 1
        self._line = data[end:]
        if self._line or self._telnet:
            self.too_long = max(len(self._line.removesuffix(b"\r")), len(self._telnet)) > MAX_LINE_BYTES
        return _erased(data[:end])

    def end(self) -> bytes:
        """End the input; return an unfinished last line with a newline, or b"" if there is none."""
        self.answer = b""
        last, self._line = self._line.removesuffix(b"\r"), b""
        return _erased(last + b"\n") if last and not self.too_long else b""

    def _up_to_eot(self, data: bytes) -> bytes:
        """Return the data before a Ctrl-D at the start of a line, if there is one."""
        before, eot, _ = (b"\n" + data).partition(b"\n\x04")
        self.ended = bool(eot)
        return before[1:] + b"\n" * (self.ended and len(before) > 0)

    def _remove_telnet(self, data: bytes) -> bytes:
        """Return the data without telnet commands; keep an unfinished command for the next feed."""
        self._telnet = b""

        def replacement(command: re.Match[bytes]) -> bytes:
            if command["unfinished"] is not None:
                self._telnet = command[0]
            if command[0] == _DO_TIMING_MARK:
                self.answer = _WILL_TIMING_MARK
            return b"\xff" if command[0] == b"\xff\xff" else b""

        return _TELNET.sub(replacement, data)


def _erased(lines: bytes) -> bytes:
    """Apply the backspaces of a client that sends each key as the user presses it."""
    if _BACKSPACE in lines or _DELETE in lines:
        return b"".join(map(_line_erased, lines.splitlines(keepends=True)))
    return lines


def _line_erased(line: bytes) -> bytes:
    kept: list[str] = []
    for character in line.decode(errors="surrogateescape"):
        if character in "\b\x7f":
            del kept[-1:]
        else:
            kept.append(character)
    return "".join(kept).encode(errors="surrogateescape")


def harmless(data: bytes) -> str:
    """Decode UTF-8; replace invalid bytes, and characters that could forge a line on a terminal, with U+FFFD."""
    return data.decode("utf-8", "replace").translate(_SHOWN)


class RoomAction(IntEnum):
    """The first byte of a request to the chat room server: the action that it asks for."""

    CREATE = 1
    JOIN = 2
    LIST = 3
    DELETE = 4


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


def room_request(action: RoomAction, name: str) -> bytes:
    """Return a request to the chat room server as it is sent."""
    return bytes([action]) + name.encode() + b"\n"


def room_reply(status: RoomStatus, information: str, in_digits: bool) -> str:
    """Return a reply of the chat room server as it is sent, without its newline.

    Args:
        status: the outcome of the request.
        information: the text after the status.
        in_digits: whether the request began with a digit; the reply then begins with a digit too.
    """
    return f"{int(status) if in_digits else chr(status)}{information}"
