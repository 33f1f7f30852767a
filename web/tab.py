"""A browser's tab: a WebSocket on one side, a connection to a system on the other, and lines between them.

Each tab has two threads. The thread of the browser's connection receives messages from the browser and sends them to
the system as lines; it also ends the tab. The second thread receives lines from the system and sends them to the
browser as messages.
"""

import argparse
import logging
import select
import socket
import ssl
import threading
import time
from contextlib import suppress
from typing import NamedTuple

from net.command_line import reason
from net.connect import CannotConnect, connect
from net.conversation import Conversation
from net.stream import WOULD_BLOCK, Stream, TlsStream
from net.workers import WORKERS
from protocol import MAX_LINE_BYTES, RoomAction, RoomStatus, harmless, room_request
from web.websocket import CloseCode, Closing, FrameReader, Opcode, close_code, close_frame, frame

CONNECT_SECONDS = 5.0
PING_SECONDS = 30.0  # a browser that has been silent for this long is pinged
GONE_SECONDS = 60.0  # and after this long its tab is closed
LINGER_SECONDS = 0.5  # how long a system may take to end its side after the browser has ended
FROM_BROWSER_BYTES = 1 << 12  # per turn; small frames are slow to parse: this many bytes take milliseconds
FROM_SYSTEM_BYTES = 1 << 16
PAUSE_SECONDS = 50e-6  # after a full turn, so that other threads run while a browser floods
MAX_REPLY_BYTES = 1 << 20
ENDED = select.POLLHUP | select.POLLERR


class System(NamedTuple):
    """A system to which a WebSocket leads.

    Attributes:
        host: its host.
        port: its port; with a room, the port of the lobby.
        room: the name of a chat room, or "".
        options: the command line, for TLS.
    """

    host: str
    port: int
    room: str
    options: argparse.Namespace

    def connect(self) -> Stream:
        """Connect to the system.

        Raises:
            Closing: the system cannot be reached, or has no such room.
        """
        try:
            port = self._room_port() if self.room else self.port
            sock = connect(self.host, port, self.options, CONNECT_SECONDS)
        except CannotConnect as error:
            raise Closing(CloseCode.BAD_GATEWAY, str(error)) from None
        with suppress(OSError):  # the system has closed the connection already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else Stream(sock)

    def _room_port(self) -> int:
        """Ask the lobby for the room's port.

        Raises:
            CannotConnect: the lobby does not answer.
            Closing: there is no such room.
        """
        with connect(self.host, self.port, self.options, CONNECT_SECONDS) as lobby:
            lobby.settimeout(CONNECT_SECONDS)
            try:
                lobby.sendall(room_request(RoomAction.JOIN, self.room))
                with lobby.makefile("rb") as replies:
                    reply = replies.readline(MAX_LINE_BYTES)
            except OSError as error:
                raise CannotConnect(f"The lobby of the chat rooms does not answer: {reason(error)}") from None
        if not reply.endswith(b"\n"):
            raise CannotConnect("The lobby of the chat rooms did not answer with a line")
        port = reply[1:].partition(b" ")[0]
        if reply[0] != RoomStatus.SUCCESS or not port.isdigit():
            raise Closing(CloseCode.POLICY_VIOLATION, harmless(reply[1:-1]))
        return int(port)


class Tab:
    """A WebSocket and the connection to its system.

    Args:
        client: the browser.
        path: the path that its WebSocket asked for, such as /ws/chat.
        rest: what the browser sent after the head of its request.
    """

    def __init__(self, client: Conversation, path: str, rest: bytes) -> None:
        self._client = client
        self._browser = client.connection
        self._path = path
        self._rest = rest
        self._frames = FrameReader(MAX_LINE_BYTES)
        self._to_system = bytearray()  # while the system does not accept this, nothing is received from the browser
        self._lines_to_system = 0
        self._poll = select.poll()
        self._heard = self._pinged = time.monotonic()  # when the browser last sent something, and was last pinged
        self._system: Stream

        # Only the second thread writes these; the first reads them once _system_ended is set.
        self._lines_to_browser = 0
        self._closing: Closing | None = None  # why the system's side has ended
        self._system_ended = threading.Event()  # set when the second thread is done
        # Only the first thread writes this, when the browser's side has ended: from then on, the second thread discards
        # what the system sends, and it ends at this time at the latest.
        self._discard_until: float | None = None

    def run(self, system: System) -> None:
        """Relay lines until one side ends; then end the other.

        Raises:
            OSError: the connection to the browser is lost.
        """
        try:
            self._system = system.connect()
            try:
                self._start_second_thread()
                self._relay_to_system()
            finally:
                self._end_system()
        except Closing as closing:
            why = str(closing) or "by the browser"
            lines = f"{self._lines_to_system} lines to the system, {self._lines_to_browser} to the browser"
            self._client.log(f"{self._path} closed, {closing.code} {why}: {lines}")
            if closing.code != CloseCode.ABNORMAL:
                self._browser.send_at_once(close_frame(closing.code, str(closing)))

    # From the browser to the system, and the end: the first thread

    def _start_second_thread(self) -> None:
        try:
            WORKERS.run(self._relay_to_browser)
        except RuntimeError:
            self._system_ended.set()
            raise Closing(CloseCode.BAD_GATEWAY, "The front end has too many threads") from None

    def _relay_to_system(self) -> None:
        """Relay the browser's messages until one side ends.

        Raises:
            Closing: always, in the end.
            OSError: the connection to the browser is lost.
        """
        self._poll.register(self._browser.fd, select.POLLIN)
        self._poll.register(self._browser.stop_fd, select.POLLIN)
        self._poll.register(self._system.fileno(), 0)
        self._take(self._rest)
        while True:
            self._send_to_system()
            ready = self._wait()
            if self._browser.stop_fd in ready:
                raise Closing(CloseCode.GOING_AWAY, "The front end is stopping")
            if self._browser.fd in ready:
                self._receive_from_browser()
            if ready.get(self._system.fileno(), 0) & ENDED:
                self._system_ended.wait()  # for its last lines
                raise self._closing or Closing(CloseCode.ABNORMAL, "the browser is gone")

    def _wait(self) -> dict[int, int]:
        """Wait for an event, and ping a silent browser meanwhile; return the events by descriptor.

        Raises:
            Closing: the browser has vanished, or the system does not read.
        """
        now = time.monotonic()
        if now >= self._heard + GONE_SECONDS:
            if self._to_system:  # nothing was received from the browser meanwhile
                why = f"The system has not accepted the browser's messages for {GONE_SECONDS:.0f} seconds"
                raise Closing(CloseCode.BAD_GATEWAY, why)
            raise Closing(CloseCode.GOING_AWAY, f"Nothing came from the browser for {GONE_SECONDS:.0f} seconds")
        if now >= self._pinged + PING_SECONDS:
            self._browser.send_at_once(frame(Opcode.PING))
            self._pinged = now
        deadline = min(self._pinged + PING_SECONDS, self._heard + GONE_SECONDS)
        return dict(self._poll.poll((deadline - now) * 1000))

    def _receive_from_browser(self) -> None:
        data = self._browser.try_receive(FROM_BROWSER_BYTES)
        if data is None:
            return
        self._heard = time.monotonic()
        self._take(data)
        if not data or self._browser.has_received_end:
            raise Closing(CloseCode.ABNORMAL, "the browser ended the connection without a close frame")
        if len(data) >= FROM_BROWSER_BYTES:
            time.sleep(PAUSE_SECONDS)

    def _take(self, data: bytes) -> None:
        """Do what the messages and control frames that these bytes complete ask for."""
        for opcode, payload in self._frames.feed(data):
            if opcode is Opcode.CLOSE:
                raise Closing(close_code(payload))
            if opcode is Opcode.BINARY:
                raise Closing(CloseCode.UNSUPPORTED_DATA, "A text message is expected, but this one is binary")
            if opcode is Opcode.PING:
                self._browser.send(frame(Opcode.PONG, payload))
            elif opcode is Opcode.TEXT:
                if b"\n" in payload:
                    why = "A message is expected to be one line, but holds a newline"
                    raise Closing(CloseCode.POLICY_VIOLATION, why)
                self._to_system += payload + b"\n"
                self._lines_to_system += 1

    def _send_to_system(self) -> None:
        """Send what the system accepts now; poll the browser for more only if that was everything."""
        if not self._to_system:
            return
        self._write_to_system()
        self._poll.modify(self._browser.fd, 0 if self._to_system else select.POLLIN)
        self._poll.modify(self._system.fileno(), select.POLLOUT if self._to_system else 0)

    def _write_to_system(self) -> None:
        try:
            del self._to_system[: self._system.write(self._to_system)]
        except WOULD_BLOCK:
            pass
        except OSError:
            self._to_system.clear()  # the system has ended; the second thread finds out why

    def _end_system(self) -> None:
        """Send what is left, end our side, and give the system LINGER_SECONDS to end its own; then close.

        Closing a socket that has unread input would send a reset, which may destroy our last lines on their way.
        """
        end = time.monotonic() + LINGER_SECONDS
        writable = select.poll()
        writable.register(self._system.fileno(), select.POLLOUT)
        while self._to_system and time.monotonic() < end:
            writable.poll((end - time.monotonic()) * 1000)
            self._write_to_system()
        self._discard_until = end
        self._system.end_output()
        if not self._system_ended.wait(max(0.0, end - time.monotonic())):
            self._system.end_input()
            self._system_ended.wait()
        self._system.close()

    # From the system to the browser: the second thread

    def _relay_to_browser(self) -> None:
        """Relay lines until the system ends or the first thread gives it up; then wake the first thread."""
        try:
            self._relay_lines()
        except Closing as closing:
            self._closing = closing
        except OSError as error:
            why = f"The connection to the system was lost: {reason(error)}"
            self._closing = Closing(CloseCode.BAD_GATEWAY, why)
        except Exception:
            logging.exception("A tab's system")
            self._browser.drop()
        finally:
            self._system.end_output()
            self._system.end_input()  # with both ends shut, poll() reports POLLHUP
            self._system_ended.set()

    def _relay_lines(self) -> None:
        """Send each of the system's lines to the browser as a message.

        Raises:
            Closing: always, in the end.
            OSError: the connection to the system is lost.
        """
        readable = select.poll()
        readable.register(self._system.fileno(), select.POLLIN)
        half_line = b""
        while True:
            if not self._system.input_ended:
                readable.poll()
            if self._discard_until and time.monotonic() >= self._discard_until:
                raise Closing(CloseCode.ABNORMAL)
            try:
                data = self._system.read(FROM_SYSTEM_BYTES)
            except WOULD_BLOCK:
                continue
            if not data:
                if half_line:
                    self._send_to_browser(half_line)
                raise Closing(CloseCode.NORMAL, "The system ended the connection")
            lines, newline, half_line = (half_line + data).rpartition(b"\n")
            if newline:
                self._send_to_browser(lines)
            if len(half_line) > MAX_REPLY_BYTES:
                raise Closing(CloseCode.INTERNAL_ERROR, f"The system sent a line of more than {MAX_REPLY_BYTES} bytes")

    def _send_to_browser(self, data: bytes) -> None:
        """Send lines as messages, in valid UTF-8: a browser would close a WebSocket that sends anything else."""
        if self._discard_until:
            return
        lines = data.decode(errors="replace").encode().split(b"\n")
        self._lines_to_browser += len(lines)
        self._browser.send(b"".join([frame(Opcode.TEXT, line.removesuffix(b"\r")) for line in lines]))
