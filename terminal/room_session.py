"""Talk in a chat room: send what the user types and show what arrives, both at the same time."""

import socket

from net.command_line import reason
from net.connect import WOULD_BLOCK, ConnectionLost
from protocol import MAX_LINE_BYTES, LineTooLong, harmless
from terminal.console import Console

LEAVE = "/leave"
LEAVE_SECONDS = 2.0  # how long the server may be silent after the user has left
RECEIVE_BYTES = 1 << 16
OUTGOING_BYTES = 1 << 16  # while this much data waits to be sent, no more lines of the user are read
NOT_A_COMMAND = f"Not sent. {LEAVE} or Ctrl-D leaves the room; a blank before / sends the line."


class RoomSession:
    """One user in one room; the prefix stands before each line that is sent."""

    def __init__(self, console: Console, room: socket.socket, prefix: str) -> None:
        self._console = console
        self._room = room
        self._prefix = prefix
        self._outgoing = b""  # sent without blocking, because two clients that block in send could deadlock
        self._incoming = b""  # a line whose end has not arrived
        self._leaving = False

    def run(self) -> bool:
        """Talk until the user leaves or the room ends; return whether the user left. ConnectionLost: neither."""
        self._room.setblocking(False)
        while True:
            self._take_lines()
            sends, seconds = bool(self._outgoing), LEAVE_SECONDS if self._leaving else None
            happened, readable, writable = self._console.wait(
                self._room, sends, seconds, keys=not (sends or self._leaving)
            )
            if not happened:
                return True
            if writable:
                self._send()
            if readable and not self._receive():
                return self._leaving

    def _take_lines(self) -> None:
        """Queue the lines that the user has typed, up to OUTGOING_BYTES or /leave."""
        while not self._leaving and len(self._outgoing) < OUTGOING_BYTES:
            try:
                line = self._console.next_line()
            except EOFError:
                line = LEAVE
            if line is None:
                return
            self._take_line(line)

    def _take_line(self, line: str) -> None:
        text = (self._prefix + line).encode()
        if line.rstrip() == LEAVE:
            self._leaving = True
            self._outgoing += f"{LEAVE}\n".encode()
        elif line.startswith("/"):
            self._console.refuse(NOT_A_COMMAND)
        elif len(text) > MAX_LINE_BYTES:
            self._console.refuse(f"Not sent. {LineTooLong()}")
        elif line.strip():
            self._outgoing += text + b"\n"

    def _send(self) -> None:
        try:
            self._outgoing = self._outgoing[self._room.send(self._outgoing) :]
        except WOULD_BLOCK:
            return
        except ConnectionError:  # the server has closed the room; its last lines may still have to be received
            self._outgoing = b""
        except OSError as error:
            raise ConnectionLost(reason(error)) from error

    def _receive(self) -> bool:
        """Show the lines that have arrived; return False at the end of the input."""
        try:
            data = self._room.recv(RECEIVE_BYTES)
        except WOULD_BLOCK:
            return True
        except OSError as error:
            if self._leaving:
                return False
            raise ConnectionLost(reason(error)) from error
        received = (self._incoming + data).replace(b"\r\n", b"\n")
        lines, newline, self._incoming = received.rpartition(b"\n")
        if not data or len(self._incoming) > RECEIVE_BYTES:  # longer than any line that a room relays
            lines, self._incoming = received, b""
        if lines or newline:
            self._console.show(harmless(lines))
        return bool(data)
