"""Pack and unpack the datagrams between serverM and the back ends, without a socket.

    tag         16 bytes   keyed BLAKE2b (RFC 7693) of all that follows, under the key in dorm.key
    action       1 byte    see Action
    request id  16 bytes   random; a repeated request and its reply carry the same
    time         8 bytes   when the request was first sent, in milliseconds since 1970
    database     8 bytes   the id of the back end's database; zeros in a request that does not know it yet
    page         4 bytes   0 in a request for the first page; a reply names the next page, or 0 after the last
    text                   AVAILABILITY  code              MINE   letter member
                           RESERVE       code member       LIST   letter
                           CANCEL        id member         REPLY  the answer

The text of a request begins with the letter of the back end. Only the replies to MINE and LIST have several pages.
"""

import enum
import hashlib
import hmac
import random
import re
import struct
import time
from datetime import datetime
from functools import cache
from typing import NamedTuple

MAX_DATAGRAM_BYTES = 1400  # fits an Ethernet frame; a longer one is received without its end, so its tag is wrong
MAX_TEXT_BYTES = 1300
MAX_SHOWN_CHARACTERS = 500  # of a text in a status line
TAG_BYTES = 16
REQUEST_ID_BYTES = 16
DATABASE_ID_BYTES = 8
LAST_TIME_MS = 1 << 47  # later ones than this, in the year 6429, are not displayed as they are
ANY_DATABASE = bytes(DATABASE_ID_BYTES)
MALFORMED = "that has a valid tag but is malformed"  # the problem of a BadDatagram

KINDS = {"S": "single", "D": "double", "U": "suite"}
CODE = re.compile(r"[SDU][0-9A-Za-z]{1,11}")
RESERVATION_ID = re.compile(r"[SDU][1-9][0-9]{0,8}")


class Action(enum.IntEnum):
    """What a datagram requests, or that it is a reply."""

    AVAILABILITY = 1
    RESERVE = 2
    CANCEL = 3
    MINE = 4
    LIST = 5
    REPLY = 6


_HEAD = struct.Struct(f"!B{REQUEST_ID_BYTES}sQ{DATABASE_ID_BYTES}sI")
_ACTIONS = {action.value: action for action in Action}  # a look-up is faster than Action(number)


class BadDatagram(Exception):
    """A datagram cannot be accepted; the problem and the details complete the sentence "dropped a datagram"."""

    def __init__(self, problem: str, details: str = "") -> None:
        super().__init__(problem + details)
        self.problem = problem


class Datagram(NamedTuple):
    """A request or a reply."""

    action: Action
    request_id: bytes
    time_ms: int
    database: bytes
    page: int
    text: str

    def __str__(self) -> str:
        page = f" page {self.page}" if self.page else ""
        return f"{self.action.name} {self.request_id.hex()} {clock_time(self.time_ms)}{page} {self.text!r}"


def now_ms() -> int:
    """Return the time in milliseconds since 1970."""
    return time.time_ns() // 1_000_000


def clock_time(time_ms: int) -> str:
    """Return a time for display, such as 14:05:06.789."""
    return datetime.fromtimestamp(min(time_ms, LAST_TIME_MS) / 1000).strftime("%H:%M:%S.%f")[:-3]


def new_request(action: Action, text: str, database: bytes | None = None, page: int = 0) -> Datagram:
    """Return a request with an id of its own and the present time; the database is None if it is not known yet."""
    request_id = random.randbytes(REQUEST_ID_BYTES)  # unique, but not secret: the tag proves the origin
    return Datagram(action, request_id, now_ms(), database or ANY_DATABASE, page, text)


def pack(key: bytes, datagram: Datagram) -> bytes:
    """Return a datagram's bytes, with its tag."""
    body = _HEAD.pack(*datagram[:-1]) + datagram.text.encode()
    return _tag(key, body) + body


def unpack(key: bytes, data: bytes) -> Datagram:
    """Return the datagram that these bytes hold; raise BadDatagram if the tag is wrong or the datagram malformed."""
    body = data[TAG_BYTES:]
    if not hmac.compare_digest(_tag(key, body), data[:TAG_BYTES]):
        raise BadDatagram("whose tag is wrong: is dorm.key the same on both hosts?")
    try:
        action, request_id, time_ms, database, page = _HEAD.unpack_from(body)
        return Datagram(_ACTIONS[action], request_id, time_ms, database, page, body[_HEAD.size :].decode())
    except (struct.error, LookupError, ValueError):  # too short, no such action, or not UTF-8
        raise BadDatagram(MALFORMED) from None


def _tag(key: bytes, body: bytes) -> bytes:
    tag = _begun_tag(key).copy()
    tag.update(body)
    return tag.digest()


@cache  # because taking in the key takes longer than taking in a short text
def _begun_tag(key: bytes) -> hashlib.blake2b:
    return hashlib.blake2b(key=key, digest_size=TAG_BYTES)


def shortened(text: str) -> str:
    """Return the beginning of a text, for a status line: a list of rooms may be long."""
    return text if len(text) <= MAX_SHOWN_CHARACTERS else f"{text[:MAX_SHOWN_CHARACTERS]}..."
