"""Heads of HTTP requests and whole responses (RFC 9110 and 9112): bytes to values and back, no socket.

Every response ends its connection, so no second request follows the first, and no body is ever read.
"""

import base64
import hashlib
import http.client
import io
import ipaddress
import re
from collections.abc import Mapping
from email.message import Message
from email.utils import formatdate
from http import HTTPStatus
from typing import NamedTuple

MAX_HEAD_BYTES = 16 << 10
MAX_REQUEST_LINE_BYTES = 4 << 10
DEFAULT_PORTS = {"http": 80, "https": 443}

HEAD_END = re.compile(rb"\r?\n\r?\n")
FOLDED_LINE = re.compile(rb"[\r\n][ \t]")  # RFC 9112, 5.2: a server refuses it; its newline would forge a status line
REQUEST_LINE = re.compile(r"(?P<method>[!#$%&'*+.^_`|~0-9A-Za-z-]+) (?P<target>[!-~]+) HTTP/(?P<version>1\.[01])")
ABSOLUTE_FORM = re.compile(r"https?://(?P<host>[^/]+)(?P<path>.*)", re.IGNORECASE)
AUTHORITY = re.compile(r"(?P<name>(?:[a-z0-9_-]+\.)*[a-z0-9_-]+\.?|\[[0-9a-f:.]+\])(?::(?P<port>[0-9]{0,5}))?")
KEY = re.compile(r"[A-Za-z0-9+/]{22}==")  # 16 bytes in base64
GUID = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"  # RFC 6455, section 1.3

# Allow scripts, styles and images from this server alone; forbid framing, type sniffing and caching.
PAGE_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}


class HttpError(Exception):
    """A request must be answered with an error status, a sentence, and the headers that this status needs."""

    def __init__(self, status: HTTPStatus, sentence: str, headers: Mapping[str, str] = {}) -> None:
        super().__init__(sentence)
        self.status = status
        self.headers = headers


class Request(NamedTuple):
    """The head of a request."""

    method: str
    host: str  # and port, from the target if that is a whole URL, otherwise from Host
    path: str
    version: str  # of HTTP: 1.0 or 1.1
    origin: str  # of the page that sends it; "" if no browser does
    headers: Message
    rest: bytes  # what has come after the head

    def __str__(self) -> str:
        return f"{self.method} {self.path}"[:100]  # for status lines

    def tokens(self, name: str) -> list[str]:
        """Return the elements of a header that is a list (RFC 9110, 5.6.1), in lower case."""
        return [token.strip().lower() for token in ",".join(self.headers.get_all(name, [])).split(",")]


def only_value(headers: Message, name: str) -> str:
    """Return a header's value, or "" if the header is missing; it may come only once."""
    values = headers.get_all(name, [])
    if len(values) > 1:
        raise HttpError(HTTPStatus.BAD_REQUEST, f"One {name} header is expected, but {len(values)} came")
    return str(values[0]).strip() if values else ""


def split_head(data: bytes) -> Request | None:
    """Split what a client has sent into the head of its request and the rest; return None if the head has no end."""
    end = HEAD_END.search(data)
    head = data[: end.end()] if end else data
    if head and not head[:1].isalpha():  # such as a TLS handshake, which never completes a head
        raise HttpError(HTTPStatus.BAD_REQUEST, f"A request such as GET / HTTP/1.1 is expected, not byte {head[0]}")
    if len(head.partition(b"\n")[0]) > MAX_REQUEST_LINE_BYTES:
        raise HttpError(HTTPStatus.REQUEST_URI_TOO_LONG, f"The request line is over {MAX_REQUEST_LINE_BYTES} bytes")
    if len(head) > MAX_HEAD_BYTES:
        raise HttpError(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, f"The head is over {MAX_HEAD_BYTES} bytes")
    return parse_head(head, data[len(head) :]) if end else None


def parse_head(head: bytes, rest: bytes) -> Request:
    """Parse a complete head."""
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
    host, path = only_value(headers, "Host"), match["target"].partition("?")[0]
    if not host:
        raise HttpError(HTTPStatus.BAD_REQUEST, "A Host header is expected")
    if absolute := ABSOLUTE_FORM.fullmatch(path):  # RFC 9112, 3.2.2: its host takes precedence over the header
        host, path = absolute["host"], absolute["path"] or "/"
    return Request(match["method"], host, path, match["version"], only_value(headers, "Origin"), headers, rest)


def split_authority(text: str) -> tuple[str, int | None] | None:
    """Split HOST or HOST:PORT (RFC 3986, 3.2), or return None.

    The host is returned as browsers write it: in lower case, without a final dot, an IPv6 address in its shortest form.
    """
    match = AUTHORITY.fullmatch(text.lower())
    if not match:
        return None
    name = match["name"].removesuffix(".")
    try:
        if name.startswith("["):
            name = f"[{ipaddress.IPv6Address(name[1:-1])}]"
        elif name.rpartition(".")[2].isdigit():
            ipaddress.IPv4Address(name)
    except ValueError:
        return None
    return name, int(match["port"]) if match["port"] else None


def normal_origin(text: str) -> str:
    """Return an origin with its port, such as https://chat.example.com:443; return "" if it is not a web origin."""
    scheme, _, authority = text.lower().partition("://")
    host = split_authority(authority)
    if scheme not in DEFAULT_PORTS or not host:
        return ""
    name, port = host
    return f"{scheme}://{name}:{port or DEFAULT_PORTS[scheme]}"


def accept_websocket(request: Request) -> bytes:
    """Return the response after which a WebSocket of version 13 begins (RFC 6455, section 4.2)."""
    asks = "websocket" in request.tokens("Upgrade") and "upgrade" in request.tokens("Connection")
    if not asks or request.version == "1.0" or only_value(request.headers, "Sec-WebSocket-Version") != "13":
        upgrade = {"Upgrade": "websocket", "Connection": "close, Upgrade", "Sec-WebSocket-Version": "13"}
        sentence = "A WebSocket of version 13 is expected here, over HTTP/1.1"
        raise HttpError(HTTPStatus.UPGRADE_REQUIRED, sentence, upgrade)
    key = only_value(request.headers, "Sec-WebSocket-Key")
    if not KEY.fullmatch(key):
        raise HttpError(HTTPStatus.BAD_REQUEST, "A Sec-WebSocket-Key of 16 bytes in base64 is expected")
    digest = hashlib.sha1((key + GUID).encode(), usedforsecurity=False).digest()
    accept = base64.b64encode(digest).decode()
    headers = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Accept": accept}
    return response_head(HTTPStatus.SWITCHING_PROTOCOLS, headers)


def response(request: Request | None, status: HTTPStatus, body: bytes, headers: Mapping[str, str]) -> bytes:
    """Return a response that ends the connection; these headers are added to the usual ones, or replace them."""
    usual = {"Date": formatdate(usegmt=True), "Connection": "close", **PAGE_HEADERS, "Content-Length": str(len(body))}
    head = response_head(status, {**usual, **headers})
    return head if request and request.method == "HEAD" else head + body


def response_head(status: HTTPStatus, headers: Mapping[str, str]) -> bytes:
    """Return the head of a response."""
    lines = [f"HTTP/1.1 {status.value} {status.phrase}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")
