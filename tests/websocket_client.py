"""Speak HTTP and WebSocket as a browser does, for tests, which can also send any wrong bytes."""

import re
import ssl
from typing import NamedTuple

import pytest
from conftest import Peer, Program

KEY = "dGhlIHNhbXBsZSBub25jZQ=="  # and what answers it: the example of RFC 6455, section 1.3
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
MASK = bytes.fromhex("37fa213d")  # of the examples in RFC 6455, section 5.7
TEXT, BINARY, CLOSE, PING, PONG = 0x81, 0x82, 0x88, 0x89, 0x8A  # first bytes of frames


def masked(first: int, payload: bytes = b"", mask: bytes = MASK) -> bytes:
    """Return a client's frame with a first byte and a payload."""
    size = len(payload)
    if size < 126:
        length = bytes([0x80 | size])
    elif size < 1 << 16:
        length = b"\xfe" + size.to_bytes(2, "big")
    else:
        length = b"\xff" + size.to_bytes(8, "big")
    return bytes([first]) + length + mask + bytes(byte ^ mask[i % 4] for i, byte in enumerate(payload))


def text(*messages: str) -> bytes:
    """Return text messages as a client sends them."""
    return b"".join(masked(TEXT, message.encode()) for message in messages)


def head(request_line: str, *headers: str) -> bytes:
    """Return the head of a request."""
    return "".join(f"{line}\r\n" for line in (request_line, *headers, "")).encode()


def upgrade(port: int, path: str, *headers: str) -> bytes:
    """Return the head of a request for a WebSocket."""
    needed = ("Upgrade: websocket", "Connection: keep-alive, Upgrade", "Sec-WebSocket-Version: 13")
    return head(f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", *needed, f"Sec-WebSocket-Key: {KEY}", *headers)


class Response(NamedTuple):
    """A response to a request."""

    status: int
    headers: dict[str, str]  # by name in lower case
    body: bytes


def parse_head(data: bytes) -> Response:
    """Return the head of a response."""
    line, *lines = data.decode().split("\r\n")
    match = re.fullmatch(r"HTTP/1\.1 (\d{3}) .+", line)
    assert match, f"expected a status line, got {line!r}"
    return Response(int(match[1]), {name.lower(): value for name, _, value in (x.partition(": ") for x in lines)}, b"")


def ask(port: int, request: bytes, tls: ssl.SSLContext | None = None) -> Response:
    """Send a request; return the response, which the end of the connection must follow."""
    peer = Peer(port)
    try:
        if tls:
            peer.sock = tls.wrap_socket(peer.sock, server_hostname="localhost")
        peer.send_bytes(request)
        while data := peer.sock.recv(1 << 16):
            peer.received += data
    finally:
        peer.close()
    start, _, body = peer.received.partition(b"\r\n\r\n")
    return parse_head(start)._replace(body=body)


def get(port: int, path: str, *headers: str, method: str = "GET") -> Response:
    """Return the response to a proper request."""
    return ask(port, head(f"{method} {path} HTTP/1.1", f"Host: localhost:{port}", *headers))


class WebSocket:
    """A browser's side of a WebSocket; every wait has the limit of a Peer.

    The headers are added to the request, and the rest is sent together with it; receive_buffer is the kernel's.
    """

    def __init__(
        self,
        server: Program,
        path: str,
        *headers: str,
        rest: bytes = b"",
        receive_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self.peer = server.connect(receive_buffer)
        self.send_bytes = self.peer.send_bytes  # sends frames as they are
        if tls:
            self.peer.sock = tls.wrap_socket(self.peer.sock, server_hostname="localhost")
        self.peer.send_bytes(upgrade(server.port, path, *headers) + rest)
        while b"\r\n\r\n" not in self.peer.received:
            self._receive()
        response, _, self.peer.received = self.peer.received.partition(b"\r\n\r\n")
        self.response = parse_head(response)
        assert self.response.status == 101, self.response

    def send(self, *messages: str) -> None:
        """Send text messages, together."""
        self.peer.send_bytes(text(*messages))

    def read_frame(self) -> tuple[int, bytes]:
        """Return the first byte and the payload of the next frame, which must not be masked."""
        first, size = self._read(2)
        if size > 125:
            size = int.from_bytes(self._read(2 if size == 126 else 8), "big")
        return first, self._read(size)

    def read_frame_after_pings(self) -> tuple[int, bytes]:
        """Return the next frame that is not a ping."""
        while (frame := self.read_frame())[0] == PING:
            pass
        return frame

    def read(self) -> str:
        """Return the next message."""
        first, payload = self.read_frame_after_pings()
        assert first == TEXT, f"expected a text message, got {first:#x} {payload!r}"
        return payload.decode()

    def expect(self, *messages: str) -> None:
        """Fail unless the next messages are these."""
        for message in messages:
            assert self.read() == message

    def expect_close(self, code: int, pattern: str = ".*") -> None:
        """Fail unless a close frame with a code and a reason comes next, and then the end; close the connection."""
        first, payload = self.read_frame_after_pings()
        assert first == CLOSE, f"expected a close frame, got {first:#x} {payload!r}"
        assert int.from_bytes(payload[:2], "big") == code, payload
        assert re.fullmatch(pattern, payload[2:].decode()), payload
        self.peer.expect_end()

    def close(self, code: int = 1000) -> None:
        """Close in order: send a close frame, wait for the one that answers it, and for the end."""
        self.send_bytes(masked(CLOSE, code.to_bytes(2, "big")))
        while (frame := self.read_frame())[0] != CLOSE:
            pass
        assert frame[1] == code.to_bytes(2, "big")
        self.peer.expect_end()

    def _read(self, size: int) -> bytes:
        while len(self.peer.received) < size:
            self._receive()
        data, self.peer.received = self.peer.received[:size], self.peer.received[size:]
        return data

    def _receive(self) -> None:
        try:
            data = self.peer.sock.recv(1 << 16)
        except TimeoutError:
            pytest.fail(f"expected more after {self.peer.received!r}")
        assert data, f"the connection ended; before it came {self.peer.received!r}"
        self.peer.received += data
