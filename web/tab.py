"""A browser's tab: a WebSocket on one side, a connection to a system on the other, and lines between them.

One thread serves both sides: it waits until either side has sent something, and passes that on. It does not read the
browser while the system accepts nothing, and blocks while the browser's backlog is full, which slows the sender down.
"""

import argparse
import os
import re
import select
import socket
import ssl
import time
from contextlib import suppress
from ipaddress import ip_address

from net.command_line import reason
from net.connect import WOULD_BLOCK, CannotConnect, connect
from net.connection import Connection, wait_for
from net.conversation import Conversation
from protocol import MAX_LINE_BYTES, RoomStatus, harmless
from web.websocket import CloseCode, Closing, FrameReader, Opcode, close_code, close_frame, frame

CONNECT_SECONDS = 5.0  # for the connection, for the TLS handshake, and for the lobby's reply
PING_SECONDS = 30.0  # a browser is pinged this often
GONE_SECONDS = 60.0  # a browser that has sent no whole message, ping or pong for this long is given up
LINGER_SECONDS = 0.5  # how long a system may take to end its side after the browser has ended
FROM_BROWSER_BYTES = 1 << 12  # per turn; small frames are slow to parse: this many bytes take milliseconds
FROM_SYSTEM_BYTES = 1 << 16  # per turn; more than a TLS record, the rest of which poll() would not report
PAUSE_SECONDS = 50e-6  # after a full turn, so that other threads run while a browser floods
MAX_REPLY_BYTES = 1 << 20

LOBBY_PATH = "/ws/chatrooms"
EOT = b"\x04"  # at the start of a line it ends the input, except in the lobby, where it is the action DELETE
ROOM_FOUND = re.compile(rb"\x00([0-9]{1,5}) [0-9]+\n")  # the lobby's reply: the room's port, and how many are in it


class Tab:
    """A WebSocket and the connection to its system; the thread of the browser's connection runs it."""

    def __init__(self, client: Conversation, path: str, system: tuple[str, int], options: argparse.Namespace) -> None:
        self._client = client
        self._browser = client.connection
        self._path = path
        self._host, self._port = system  # of the lobby, if it is the chat rooms
        self._options = options
        self._frames = FrameReader(MAX_LINE_BYTES)
        self._heard = self._pinged = time.monotonic()  # when the browser was last heard, and was last pinged
        self._system: socket.socket
        self._to_system = bytearray()  # while the system does not accept this, the browser is not read
        self._half_line = b""  # from the system
        self._lines_to_system = self._lines_to_browser = 0

    def run(self, room: str, rest: bytes) -> None:
        """Relay lines until one side ends; then end the other. The rest is what the browser sent after its request."""
        try:
            with self._connect(room) as self._system:
                try:
                    self._relay(rest)
                finally:
                    self._end_system()
        except Closing as closing:
            why = str(closing) or "by the browser"
            lines = f"{self._lines_to_system} lines to the system, {self._lines_to_browser} to the browser"
            self._client.log(f"{self._path} closed, {closing.code} {why}: {lines}")
            if closing.code != CloseCode.ABNORMAL:
                self._browser.send(close_frame(closing.code, str(closing)))

    def _connect(self, room: str) -> socket.socket:
        preface = proxy_line(self._browser) if self._options.send_proxy else b""
        try:
            port = self._find_room(room, preface) if room else self._port
            sock = connect(self._host, port, self._options, CONNECT_SECONDS, preface, reports_cut=True)
        except CannotConnect as error:
            raise Closing(CloseCode.BAD_GATEWAY, str(error)) from None
        sock.setblocking(False)
        return sock

    def _find_room(self, room: str, preface: bytes) -> int:
        """Ask the lobby for a room's port."""
        with connect(self._host, self._port, self._options, CONNECT_SECONDS, preface) as lobby:
            try:
                lobby.sendall(b"\x02" + room.encode() + b"\n")  # JOIN
                reply = receive_line(lobby)
            except OSError as error:
                raise CannotConnect(f"The lobby of the chat rooms does not answer: {reason(error)}") from None
        found = ROOM_FOUND.fullmatch(reply)
        if found and 0 < int(found[1]) < 1 << 16:
            return int(found[1])
        if not reply.endswith(b"\n"):
            raise CannotConnect("The lobby of the chat rooms did not answer with a line")
        if RoomStatus.SUCCESS < reply[0] <= max(RoomStatus):
            raise Closing(CloseCode.POLICY_VIOLATION, harmless(reply[1:].strip()))
        raise CannotConnect(harmless(reply.strip()))  # not a reply to JOIN but a sentence, such as Too many connections

    def _relay(self, rest: bytes) -> None:
        """Relay lines until one side ends, which raises Closing or OSError."""
        self._take(rest)
        while True:
            self._send_to_system()
            ready = self._wait()
            if self._browser.stop_fd in ready:
                raise Closing(CloseCode.GOING_AWAY, "The front end is stopping")
            if self._browser.fd in ready:
                self._receive_from_browser()
            if self._system.fileno() in ready:
                self._receive_from_system()

    def _wait(self) -> dict[int, int]:
        """Wait until there is something to do, and ping the browser meanwhile; return the events by descriptor."""
        now = time.monotonic()
        if now >= self._heard + GONE_SECONDS:
            if self._to_system:  # nothing was received from the browser meanwhile
                why = f"The system has not accepted the browser's messages for {GONE_SECONDS:.0f} seconds"
                raise Closing(CloseCode.BAD_GATEWAY, why)
            raise Closing(CloseCode.GOING_AWAY, f"Nothing came from the browser for {GONE_SECONDS:.0f} seconds")
        if now >= self._pinged + PING_SECONDS:
            self._browser.send(frame(Opcode.PING), blocking=False)
            self._pinged = now
        deadline = min(self._pinged + PING_SECONDS, self._heard + GONE_SECONDS)
        events = select.poll()
        events.register(self._browser.stop_fd, select.POLLIN)
        events.register(self._browser.fd, 0 if self._to_system else select.POLLIN)
        events.register(self._system, select.POLLIN | (select.POLLOUT if self._to_system else 0))
        return dict(events.poll((deadline - now) * 1000))

    def _receive_from_browser(self) -> None:
        data = self._browser.try_receive(FROM_BROWSER_BYTES)
        if data is None:
            return
        self._take(data)
        if not data or self._browser.has_received_end:
            raise Closing(CloseCode.ABNORMAL, "the browser ended the connection without a close frame")
        if len(data) >= FROM_BROWSER_BYTES:
            time.sleep(PAUSE_SECONDS)

    def _take(self, data: bytes) -> None:
        """Do what the messages and control frames that these bytes complete ask for."""
        for opcode, payload in self._frames.feed(data):
            self._heard = time.monotonic()
            if opcode is Opcode.CLOSE:
                raise Closing(close_code(payload))
            if opcode is Opcode.BINARY:
                raise Closing(CloseCode.UNSUPPORTED_DATA, "A text message is expected, but this one is binary")
            if opcode is Opcode.PING:  # RFC 6455, 5.5.3: a later pong may stand for one that finds the backlog full
                self._browser.send(frame(Opcode.PONG, payload), blocking=False)
            elif opcode is Opcode.TEXT:
                line = payload.removesuffix(b"\n").removesuffix(b"\r")
                if b"\n" in line or b"\r" in line:
                    why = "A message is expected to be one line, but holds a newline"
                    raise Closing(CloseCode.POLICY_VIOLATION, why)
                if line.startswith(EOT) and self._path != LOBBY_PATH:
                    why = "A message begins with U+0004, which would end the conversation"
                    raise Closing(CloseCode.POLICY_VIOLATION, why)
                self._to_system += line + b"\n"
                self._lines_to_system += 1

    def _send_to_system(self) -> None:
        try:
            if self._to_system:
                del self._to_system[: self._system.send(self._to_system)]
        except WOULD_BLOCK:
            pass
        except OSError:
            self._to_system.clear()  # the system has ended; the next read from it finds out why

    def _end_system(self) -> None:
        """Send what is left, and let the system end its side: unread input would cause a reset, and lose that."""
        end = time.monotonic() + LINGER_SECONDS
        while self._to_system and wait_for(self._system, select.POLLOUT, end):
            self._send_to_system()
        if isinstance(self._system, ssl.SSLSocket):
            with suppress(OSError, ValueError):  # ssl.SSLWantReadError: the system's close_notify has not arrived
                self._system.unwrap()
        with suppress(OSError):
            self._system.shutdown(socket.SHUT_WR)
            while wait_for(self._system, select.POLLIN, end) and self._system.recv(FROM_SYSTEM_BYTES):
                pass  # discard it, encrypted or not

    def _receive_from_system(self) -> None:
        try:
            data = self._system.recv(FROM_SYSTEM_BYTES)
        except WOULD_BLOCK:
            return
        except OSError as error:
            is_cut = isinstance(error, ssl.SSLError) and "EOF" in str(error)
            why = "it was cut without close_notify" if is_cut else reason(error)
            raise Closing(CloseCode.BAD_GATEWAY, f"The connection to the system was lost: {why}") from None
        if not data:
            self._send_to_browser(self._half_line)
            raise Closing(CloseCode.NORMAL, "The system ended the connection")
        lines, newline, self._half_line = (self._half_line + data).rpartition(b"\n")
        self._send_to_browser(lines + newline)
        if len(self._half_line) > MAX_REPLY_BYTES:
            raise Closing(CloseCode.INTERNAL_ERROR, f"The system sent a line of more than {MAX_REPLY_BYTES} bytes")

    def _send_to_browser(self, data: bytes) -> None:
        """Send lines as messages, in valid UTF-8: a browser would close a WebSocket that sends anything else."""
        lines = data.decode(errors="replace").encode().removesuffix(b"\n").split(b"\n") if data else []
        self._lines_to_browser += len(lines)
        began = time.monotonic()
        self._browser.send(b"".join([frame(Opcode.TEXT, line.removesuffix(b"\r")) for line in lines]))
        self._heard += time.monotonic() - began  # while it blocks, the browser cannot be heard


def receive_line(sock: socket.socket) -> bytes:
    """Return what comes up to a newline, the end of the input or CONNECT_SECONDS from now, whichever is first."""
    end = time.monotonic() + CONNECT_SECONDS
    sock.settimeout(CONNECT_SECONDS)  # for the rest of a TLS record
    line = b""
    while len(line) < MAX_LINE_BYTES and wait_for(sock, select.POLLIN, end) and (data := sock.recv(MAX_LINE_BYTES)):
        line += data
        if data.endswith(b"\n"):
            break
    return line


def proxy_line(browser: Connection) -> bytes:
    """Return the line that tells a system on whose behalf a connection is made (PROXY protocol, version 1)."""
    with socket.socket(fileno=os.dup(browser.fd)) as sock:
        own_address, own_port = sock.getsockname()[:2]
        port = sock.getpeername()[1]
    source, destination = (ip_address(text.partition("%")[0]) for text in (browser.address, own_address))
    if source.version != destination.version:
        return b"PROXY UNKNOWN\r\n"
    return f"PROXY TCP{source.version} {source} {destination} {port} {own_port}\r\n".encode()
