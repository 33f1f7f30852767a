"""Heads of HTTP requests and whole responses (RFC 9110 and 9112): bytes to values and back, no socket.

Every response ends its connection, so no second request follows the first, and no body is ever read.
"""

import base64
import http.client
import io
import re
from collections.abc import Mapping
from email.message import Message
from http import HTTPStatus
from typing import NamedTuple

from web.websocket import accept_key

MAX_HEAD_BYTES = 16 << 10
MAX_REQUEST_LINE_BYTES = 4 << 10
KEY_BYTES = 16

HEAD_END = re.compile(rb"\r?\n\r?\n")
FOLDED_LINE = re.compile(rb"[\r\n][ \t]")  # RFC 9112, 5.2: a server refuses it; its newline would forge a status line
REQUEST_LINE = re.compile(r"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>[!-~]+) HTTP/1\.[01]")

# Allow scripts, styles and images from this server alone; forbid framing, type sniffing and caching.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class HttpError(Exception):
    """A request must be answered with an error status.

    Args:
        status: the status.
        sentence: what was wrong.
        headers: headers that the response needs because of its status.
    """

    def __init__(self, status: HTTPStatus, sentence: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Request(NamedTuple):
    """The head of a request.

    Attributes:
        method: such as GET.
        path: the target up to a question mark.
        headers: the headers, whose names are not case-sensitive.
    """

    method: str
    path: str
    headers: Message

    def header(self, name: str) -> str:
        """Return a header's value, or "" if the header is missing.

        Raises:
            HttpError: the header came more than once.
        """
        values = self.headers.get_all(name, [])
        if len(values) > 1:
            raise HttpError(HTTPStatus.BAD_REQUEST, f"One {name} header is expected, but {len(values)} came")
        return str(values[0]).strip() if values else ""


def split_head(data: bytes) -> tuple[Request, bytes] | None:
    """Split what a client has sent into the head of its request and the bytes that follow the head.

    Returns:
        Both, or None if the head is not complete.

    Raises:
        HttpError: the head is malformed or too long, which may be known before it is complete.
    """
    end = HEAD_END.search(data)
    head = data[: end.end()] if end else data
    if head and not head[:1].isalpha():  # such as a TLS handshake, which never completes a head
        raise HttpError(HTTPStatus.BAD_REQUEST, f"A request such as GET / HTTP/1.1 is expected, not byte {head[0]}")
    if len(head.partition(b"\n")[0]) > MAX_REQUEST_LINE_BYTES:
        raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG, f"The request line is over {MAX_REQUEST_LINE_BYTES} bytes")
    if len(head) > MAX_HEAD_BYTES:
        raise HttpError(
            HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head of the request is over {MAX_HEAD_BYTES} bytes"
        )
    return (parse_head(head), data[len(head) :]) if end else None


def parse_head(head: bytes) -> Request:
    """Parse a complete head.

    Raises:
        HttpError: it is malformed.
    """
    line, _, fields = head.partition(b"\n")
    match = REQUEST_LINE.fullmatch(line.decode("latin-1").removesuffix("\r"))
    if not match:
        raise HttpError(HTTPStatus.BAD_REQUEST, "A request line such as GET / HTTP/1.1 is expected")
    try:
        headers = http.client.parse_headers(io.BytesIO(fields))
    except http.client.HTTPException as error:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"Too many headers: {error}") from None
    if headers.defects or FOLDED_LINE.search(head):
        raise HttpError(HTTPStatus.BAD_REQUEST, "A header is malformed: lines such as Host: localhost are expected")
    return Request(match["method"], match["target"].partition("?")[0], headers)


def check_upgrade(request: Request) -> None:
    """Check that a request asks for a WebSocket (RFC 6455, section 4.2.1).

    Raises:
        HttpError: the request does not, or asks for another version than 13.
    """
    tokens = {token.strip().lower() for token in ",".join(request.headers.get_all("Connection", [])).split(",")}
    if request.header("Upgrade").lower() != "websocket" or "upgrade" not in tokens:
        raise HttpError(HTTPStatus.UPGRADE_REQUIRED, "A WebSocket is expected here", {"Upgrade": "websocket"})
    if request.header("Sec-WebSocket-Version") != "13":
        headers = {"Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        raise HttpError(HTTPStatus.UPGRADE_REQUIRED, "Version 13 of WebSocket is expected", headers)
    try:
        key = base64.b64decode(request.header("Sec-WebSocket-Key"), validate=True)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"A Sec-WebSocket-Key of {KEY_BYTES} bytes in base64 is expected")


def switching_protocols(request: Request) -> bytes:
    """Return the response after which a WebSocket begins."""
    return response_head(
        HTTPStatus.SWITCHING_PROTOCOLS,
        {
            "Upgrade": "websocket",
            "Connection": "Upgrade",
            "Sec-WebSocket-Accept": accept_key(request.header("Sec-WebSocket-Key")),
        },
    )


def response(
    status: HTTPStatus, kind: str, body: bytes, headers: Mapping[str, str] = {}, head_only: bool = False
) -> bytes:
    """Return a response that ends the connection.

    Args:
        status: the status.
        kind: the type of the body, such as text/html; charset=utf-8.
        body: the body.
        headers: more headers.
        head_only: leave the body out, as for HEAD.
    """
    about_body = {"Content-Type": kind, "Content-Length": str(len(body)), "Connection": "close"}
    return response_head(status, {**about_body, **PAGE_HEADERS, **headers}) + (b"" if head_only else body)


def response_head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    """Return the head of a response."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "".join(f"{line}\r\n" for line in [*lines, ""]).encode("latin-1")
