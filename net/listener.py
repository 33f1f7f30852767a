"""The listening sockets of a TCP server."""

import select
import socket
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

from net.addresses import keep_alive, open_at_each_address

SEND_BUFFER_BYTES = 48 << 10  # the kernel doubles it; otherwise it may keep megabytes for a client that does not read


class Listener:
    """A listening socket for each address that a host has here, all with the same port; 0 means any free port."""

    def __init__(self, host: str, port: int, stop_fd: int) -> None:
        self._sockets = open_at_each_address(host, port, socket.SOCK_STREAM, _listening_socket)
        self.port: int = self._sockets[0].getsockname()[1]
        self._pending, self._pending_or_stop = select.poll(), select.poll()
        self._pending_or_stop.register(stop_fd, select.POLLIN)
        for listener in self._sockets:
            self._pending.register(listener, select.POLLIN)
            self._pending_or_stop.register(listener, select.POLLIN)

    def wait(self) -> None:
        """Wait until a client has connected, or the server stops."""
        self._pending_or_stop.poll()

    def accept(self) -> Iterator[tuple[socket.socket, Any]]:
        """Accept a client at each socket where one has connected; yield its socket and its address."""
        ready = dict(self._pending.poll(0))  # ten times as fast as an accept() that finds no client
        for listener in self._sockets:
            if listener.fileno() in ready:
                with suppress(BlockingIOError):  # the client has left
                    yield listener.accept()

    def close(self) -> None:
        """Stop listening."""
        for listener in self._sockets:
            listener.close()


def _listening_socket(family: int, address: Any) -> socket.socket:
    """Return a non-blocking listening socket. Accepted sockets inherit its options."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restarted server can bind the port at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # telnet sends some bytes as urgent data
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        keep_alive(listener)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)  # poll() may report a client that leaves before it is accepted
    return listener
