"""A browser's tab: a WebSocket on one side, a connection to a system on the other, and lines between them.

Each tab has a thread, which receives from the browser and sends to the system. SystemReader, one thread for all tabs,
does the opposite: a line in a chat goes to many tabs at once, and a thread for each of them would wake up and contend
for the interpreter at every system call, which takes longer than the work.
"""

import argparse
import logging
import select
import selectors
import socket
import ssl
import threading
import time
from contextlib import suppress
from functools import partial

from net.command_line import reason
from net.connect import CannotConnect, connect
from net.conversation import Conversation
from net.stream import Stream, TlsStream
from net.workers import WORKERS
from protocol import MAX_LINE_BYTES, RoomAction, RoomStatus, harmless, room_request
from web.websocket import CloseCode, Closing, Event, FrameReader, Opcode, close_code, close_frame, frame

CONNECT_SECONDS = 5.0
PING_SECONDS = 30.0  # after which a silent browser is asked for a sign of life
GONE_SECONDS = 60.0  # after which a silent browser is given up
LINGER_SECONDS = 0.5  # how long a system may take to end its side after the browser has ended
FROM_BROWSER_BYTES = 1 << 14
FROM_SYSTEM_BYTES = 1 << 13
FEW_BYTES = 1 << 10
FRAMES_PER_TURN = 100
PAUSE_SECONDS = 0.001
MAX_REPLY_BYTES = 1 << 20
ENDED = select.POLLHUP | select.POLLERR

# Held while a tab that sent more than FEW_BYTES at once is served, with its pauses. One such tab runs at a time, and
# all such tabs together leave the interpreter to SystemReader and the other tabs for most of the time.
_BUSY_TAB = threading.Lock()


class System:
    """A system to which a WebSocket leads.

    Args:
        host: its host.
        port: its port; with a room, the port of the lobby.
        room: the name of a chat room, or "".
        options: the command line, for TLS.
    """

    def __init__(self, host: str, port: int, room: str, options: argparse.Namespace) -> None:
        self._host = host
        self._port = port
        self._room = room
        self._options = options

    def connect(self) -> Stream:
        """Return a new connection to it.

        Raises:
            Closing: the system cannot be reached, or has no such room.
        """
        try:
            port = self._room_port() if self._room else self._port
            sock = connect(self._host, port, self._options, CONNECT_SECONDS)
        except CannotConnect as error:
            raise Closing(CloseCode.BAD_GATEWAY, str(error)) from None
        with suppress(OSError):  # the system has left already
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return TlsStream(sock) if isinstance(sock, ssl.SSLSocket) else Stream(sock)

    def _room_port(self) -> int:
        """Ask the lobby for the room's port.

        Raises:
            CannotConnect: the lobby does not answer.
            Closing: there is no such room.
        """
        with connect(self._host, self._port, self._options, CONNECT_SECONDS) as lobby:
            lobby.settimeout(CONNECT_SECONDS)
            try:
                lobby.sendall(room_request(RoomAction.JOIN, self._room))
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
        path: what its WebSocket asked for.
        rest: what the browser sent after the head of its request.
        reader: receives from the system.
    """

    def __init__(self, client: Conversation, path: str, rest: bytes, reader: "SystemReader") -> None:
        self._client = client
        self._browser = client.connection
        self._path = path
        self._rest = rest
        self._reader = reader
        self._frames = FrameReader(MAX_LINE_BYTES)
        self._to_system = bytearray()  # while the system does not take this, nothing is received from the browser
        self._lines_to_system = 0
        self._poll = select.poll()
        self._heard = self._pinged = time.monotonic()  # when something came from the browser, when it was asked for

        self._system: Stream
        self._lock = threading.Lock()  # guards all below, which the reader's thread uses, and closing the system
        self._half_line = b""  # of the system's
        self._lines_to_browser = 0
        self._browser_ended = False  # what the system still sends is discarded
        self._closing: Closing | None = None  # why nothing is received from the system any more
        self._system_ended = threading.Event()

    def run(self, system: System) -> None:
        """Relay lines until one side ends; then end the other.

        Raises:
            OSError: the connection to the browser is lost.
        """
        try:
            self._system = system.connect()
            self._reader.add(self._system.fileno(), self)
            try:
                self._relay()
            finally:
                self._end_system()
        except Closing as closing:
            self._log_end(closing)
            if closing.code != CloseCode.ABNORMAL:
                self._browser.post(close_frame(closing.code, str(closing)))

    def _log_end(self, closing: Closing) -> None:
        why = str(closing) or "by the browser"
        lines = f"{self._lines_to_system} lines to the system, {self._lines_to_browser} to the browser"
        self._client.log(f"{self._path} closed, {closing.code} {why}: {lines}")

    def _relay(self) -> None:
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
        """Block until there is something to do; return the events by descriptor.

        Raises:
            Closing: the browser has vanished.
        """
        now = time.monotonic()
        if now >= self._heard + GONE_SECONDS:
            raise Closing(CloseCode.GOING_AWAY, f"Nothing came from the browser for {GONE_SECONDS:.0f} seconds")
        if now >= self._pinged + PING_SECONDS:
            self._browser.post(frame(Opcode.PING))
            self._pinged = now
        deadline = min(self._pinged + PING_SECONDS, self._heard + GONE_SECONDS)
        return dict(self._poll.poll((deadline - now) * 1000))

    def _receive_from_browser(self) -> None:
        data = self._browser.try_receive(FROM_BROWSER_BYTES)
        if data is None:
            return
        if not data:
            raise Closing(CloseCode.ABNORMAL, "the browser ended the connection without a close frame")
        self._heard = time.monotonic()
        self._take(data)

    def _take(self, data: bytes) -> None:
        """Handle what came from the browser; pause now and then if that is many frames."""
        if len(data) <= FEW_BYTES:
            self._handle_frames(data)
        else:
            with _BUSY_TAB:
                self._handle_frames(data)

    def _handle_frames(self, data: bytes) -> None:
        for number, event in enumerate(self._frames.feed(data), 1):
            self._handle(event)
            if number % FRAMES_PER_TURN == 0:
                time.sleep(PAUSE_SECONDS)

    def _handle(self, event: Event) -> None:
        """Do what a message or a control frame asks for."""
        if event.opcode is Opcode.CLOSE:
            raise Closing(close_code(event.payload))
        if event.opcode is Opcode.BINARY:
            raise Closing(CloseCode.UNSUPPORTED_DATA, "A text message is expected, but this one is binary")
        if event.opcode is Opcode.PING:
            self._browser.send(frame(Opcode.PONG, event.payload))
        elif event.opcode is Opcode.TEXT:
            if b"\n" in event.payload:
                raise Closing(CloseCode.POLICY_VIOLATION, "A message is expected to be one line, but holds a newline")
            self._to_system += event.payload + b"\n"
            self._lines_to_system += 1

    def _send_to_system(self) -> None:
        """Send what the system takes; poll the browser only if that was all."""
        if not self._to_system:
            return
        self._write_to_system()
        self._poll.modify(self._browser.fd, 0 if self._to_system else select.POLLIN)
        self._poll.modify(self._system.fileno(), select.POLLOUT if self._to_system else 0)

    def _write_to_system(self) -> None:
        try:
            del self._to_system[: self._system.write(self._to_system)]
        except OSError:
            self._to_system.clear()  # the system has ended; the reader finds out why

    def _end_system(self) -> None:
        """Send what is left, end our side, and give the system a moment to end its own.

        Closing while its lines are unread would send a reset, which may destroy the last lines on their way.
        """
        end = time.monotonic() + LINGER_SECONDS
        writable = select.poll()
        writable.register(self._system.fileno(), select.POLLOUT)
        while self._to_system and time.monotonic() < end:
            writable.poll((end - time.monotonic()) * 1000)
            self._write_to_system()
        with self._lock:
            self._browser_ended = True
        self._system.end_output()
        self._system_ended.wait(max(0.0, end - time.monotonic()))
        with self._lock:
            self._end_reading(Closing(CloseCode.ABNORMAL))
            self._system.close()

    def abort(self) -> None:
        """Give the tab up: its thread finds that the browser is gone."""
        self._browser.abort()
        self._system_ended.set()

    def receive_from_system(self) -> None:
        """Receive what has come from the system, and send it on; the reader's thread calls this."""
        with self._lock:
            if self._closing:
                return
            try:
                self._deliver()
            except Closing as closing:
                self._end_reading(closing)
                if closing.code == CloseCode.INTERNAL_ERROR:
                    self._system.reset()
                else:
                    self._system.end_output()  # as the system has ended too, the tab's thread is woken

    def _end_reading(self, closing: Closing) -> None:
        if not self._closing:
            self._closing = closing
            self._reader.remove(self._system.fileno())
            self._system_ended.set()

    def _deliver(self) -> None:
        """Receive from the system, and send each of its lines to the browser as a message.

        Raises:
            Closing: the system has ended the connection.
        """
        if len(self._half_line) > MAX_REPLY_BYTES:
            raise Closing(CloseCode.INTERNAL_ERROR, f"The system sent a line of more than {MAX_REPLY_BYTES} bytes")
        try:
            data = self._system.read(FROM_SYSTEM_BYTES)
        except OSError as error:
            raise Closing(CloseCode.BAD_GATEWAY, f"The connection to the system was lost: {reason(error)}") from None
        if data and not self._browser_ended:
            lines, newline, self._half_line = (self._half_line + data).rpartition(b"\n")
            if newline:
                self._send_to_browser(lines + newline)
        elif data == b"":
            if self._half_line:
                self._browser.post(self._messages(self._half_line))
            raise Closing(CloseCode.NORMAL, "The system ended the connection")

    def _send_to_browser(self, lines: bytes) -> None:
        """Send lines; if the browser's backlog is full, receive no more from the system before it has drained."""
        messages = self._messages(lines)
        if not self._browser.try_send(messages):
            self._reader.remove(self._system.fileno())
            WORKERS.run(partial(self._send_slowly, messages))

    def _messages(self, data: bytes) -> bytes:
        """Return lines as messages, in valid UTF-8: a browser would close a WebSocket that sends anything else."""
        data = data.decode(errors="replace").encode().replace(b"\r\n", b"\n")
        lines = data.removesuffix(b"\n").split(b"\n")
        self._lines_to_browser += len(lines)
        return b"".join([frame(Opcode.TEXT, line) for line in lines])

    def _send_slowly(self, messages: bytes) -> None:
        """Send to a browser whose backlog is full, in a thread that may block; then receive from the system again."""
        self._browser.send(messages)
        with self._lock:
            if not self._closing:
                self._reader.add(self._system.fileno(), self)


class SystemReader:
    """The thread that receives from the systems of all tabs."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()

    def start(self) -> None:
        """Begin to receive."""
        threading.Thread(target=self._receive_for_ever, name="systems", daemon=True).start()

    def add(self, fd: int, tab: Tab) -> None:
        """Receive for a tab when its system's descriptor is readable."""
        self._selector.register(fd, selectors.EVENT_READ, tab)

    def remove(self, fd: int) -> None:
        """Stop receiving for a tab."""
        with suppress(KeyError):
            self._selector.unregister(fd)

    def _receive_for_ever(self) -> None:
        while True:
            for key, _ in self._selector.select():
                tab: Tab = key.data
                try:
                    tab.receive_from_system()
                except Exception:  # a bug, or no thread for a slow browser: it costs this tab alone
                    logging.exception("A tab's system")
                    self.remove(key.fd)
                    tab.abort()
