"""What serverM and the back ends say to each other over UDP: values to bytes and back, without a socket.

    tag      16 bytes   keyed BLAKE2b (RFC 7693) of all that follows, under the key in dorm.key
    action    1 byte    see Action
    sender    8 bytes   random: which client connection of serverM, or which run of a back end
    number    8 bytes   counts what that sender sends; sender and number together are the request's id
    fields              AVAILABILITY  session, code             REPLY     the answer as text
                        RESERVE       session, code member      ANNOUNCE  letter, session, token, rooms as in LIST
                        CANCEL        session, id member        CONFIRM   token
                        MINE          session, member
                        LIST          session

A REPLY has the id of its request, and a CONFIRM that of the ANNOUNCE. Session and token are random words of 8 bytes
that make old datagrams void: calls.py and directory.py say how. The rest is text, with a space between two fields.
"""

import enum
import hashlib
import hmac
import re
import struct
from typing import NamedTuple

MAX_DATAGRAM_BYTES = 1400  # fits an Ethernet frame whole
MAX_TEXT_BYTES = 1300
TAG_BYTES = 16
WORD_BYTES = 8

PATIENCE_SECONDS = 3.0  # how long a request is repeated; then the client is told that there was no answer

KINDS = {"S": "single", "D": "double", "U": "suite"}
CODE = re.compile(r"[SDU][0-9A-Za-z]{1,11}")  # 50 reservations of such rooms, and three lists in a line, fit
RESERVATION_ID = re.compile(r"[SDU][1-9][0-9]{0,8}")

_HEAD = struct.Struct("!B8sQ")
_ANNOUNCEMENT = struct.Struct("!c8s8s")


class Action(enum.IntEnum):
    """What a datagram asks or tells."""

    AVAILABILITY = 1
    RESERVE = 2
    CANCEL = 3
    MINE = 4
    LIST = 5
    REPLY = 6
    ANNOUNCE = 7
    CONFIRM = 8


class BadDatagram(Exception):
    """A datagram is not taken; the text completes "Dropped 3 datagrams ..."."""


class Datagram(NamedTuple):
    """A datagram whose tag was right; whether there is such an action is not known yet."""

    action: int
    sender: bytes
    number: int
    fields: bytes


class Announcement(NamedTuple):
    """The fields of an ANNOUNCE."""

    letter: str
    session: bytes
    token: bytes
    rooms: str


def pack(key: bytes, action: int, sender: bytes, number: int, fields: bytes) -> bytes:
    """Return a datagram with its tag."""
    body = _HEAD.pack(action, sender, number) + fields
    return _tag(key, body) + body


def unpack(key: bytes, data: bytes) -> Datagram:
    """Return what a datagram says.

    Raises:
        BadDatagram: the tag is not right, or what it covers is nothing that is ever sent.
    """
    body = data[TAG_BYTES:]
    if not hmac.compare_digest(_tag(key, body), data[:TAG_BYTES]):
        raise BadDatagram("without a right tag")
    if len(body) < _HEAD.size:
        raise malformed()
    action, sender, number = _HEAD.unpack_from(body)
    return Datagram(action, sender, number, body[_HEAD.size :])


def _tag(key: bytes, body: bytes) -> bytes:
    return hashlib.blake2b(body, key=key, digest_size=TAG_BYTES).digest()


def malformed() -> BadDatagram:
    """Return the exception for a datagram with a right tag whose content is not."""
    return BadDatagram("with a right tag but malformed")


def pack_announcement(letter: str, session: bytes, token: bytes, rooms: str) -> bytes:
    """Return the fields of an ANNOUNCE."""
    return _ANNOUNCEMENT.pack(letter.encode(), session, token) + rooms.encode()


def unpack_announcement(fields: bytes) -> Announcement:
    """Return what the fields of an ANNOUNCE say.

    Raises:
        BadDatagram: they are malformed.
    """
    try:
        letter, session, token = _ANNOUNCEMENT.unpack_from(fields)
        announcement = Announcement(letter.decode(), session, token, fields[_ANNOUNCEMENT.size :].decode())
    except (struct.error, UnicodeDecodeError):
        raise malformed() from None
    if announcement.letter not in KINDS:
        raise malformed()
    return announcement


def rooms_text(left: dict[str, int]) -> str:
    """Return how many of each room are left, as LIST shows it."""
    return " ".join(f"{code}={number}" for code, number in left.items())
