"""A stay in a chat room: what the user types goes out, what comes in is shown, both at once."""

import select
import socket
from contextlib import suppress

from protocol import MAX_LINE_BYTES, LineTooLong, harmless
from terminal.console import Console

LEAVE = "/leave"
LEAVE_SECONDS = 2.0
RECEIVE_BYTES = 1 << 16
OUTGOING_BYTES = 1 << 16  # no more lines are taken from the user while so much waits to be sent


class Stay:
    """A user in a room.

    Args:
        console: where he types and reads.
        room: the connection to the room.
        prefix: stands before each line that he sends.
    """

    def __init__(self, console: Console, room: socket.socket, prefix: str) -> None:
        self._console = console
        self._room = room
        self._prefix = prefix
        self._outgoing = b""  # never waited for alone: two who only send would wait for each other
        self._incoming = b""  # a line whose end has not come
        self._leaving = False

    def run(self) -> bool:
        """Talk until the user leaves or the room ends; return whether the user left."""
        self._room.setblocking(False)
        while True:
            self._take_lines()
            inputs: list[socket.socket | Console] = [self._room]
            if not self._leaving and not self._outgoing:
                inputs.append(self._console)
            outputs = [self._room] if self._outgoing else []
            readable, writable, _ = select.select(inputs, outputs, [], LEAVE_SECONDS if self._leaving else None)
            if self._console in readable:
                self._console.read()
            if writable:
                self._send()
            if self._room in readable and not self._receive():
                return self._leaving
            if not readable and not writable:  # the server does not let go
                return True

    def _take_lines(self) -> None:
        """Take what the user has typed; who leaves still gets what is on its way to him."""
        while not self._leaving and len(self._outgoing) < OUTGOING_BYTES:
            try:
                line = self._console.next_line()
            except EOFError:
                line = LEAVE
            if line is None:
                return
            if line.strip() == LEAVE:
                self._leaving = True
            else:
                self._say(line)
        if self._leaving and not self._outgoing:
            with suppress(OSError):  # the room has ended
                self._room.shutdown(socket.SHUT_WR)

    def _say(self, text: str) -> None:
        line = (self._prefix + text).encode()
        if len(line) > MAX_LINE_BYTES:
            self._console.show(f"Not sent. {LineTooLong()}\n")
        else:
            self._outgoing += line + b"\n"

    def _send(self) -> None:
        try:
            self._outgoing = self._outgoing[self._room.send(self._outgoing) :]
        except OSError:  # the room has ended; reading tells
            self._outgoing = b""

    def _receive(self) -> bool:
        """Show the lines that came; return whether more can come."""
        try:
            data = self._room.recv(RECEIVE_BYTES)
        except OSError:
            data = b""
        lines, newline, self._incoming = (self._incoming + data).replace(b"\r\n", b"\n").rpartition(b"\n")
        if not data:
            lines, self._incoming = self._incoming, b""
        if lines or newline:
            self._console.show(harmless(lines) + "\n")
        return bool(data)
