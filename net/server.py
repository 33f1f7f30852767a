"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a worker) converse -> the program's handler

The listening thread does nothing but accept. Where busy threads keep it from that, who must know all clients, such as a
room that counts its members, accepts first those who wait: Server.connections().

A server stops in order: it accepts no more, every conversation ends as if its client had ended its input, what is
queued goes out; only what has not ended by then is cut off.
"""

import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

from net.connection import Connection, DeadlinePassed
from net.log import LOG
from net.workers import WORKERS
from protocol import LineTooLong

ORDERLY_STOP_SECONDS = 1.0
CUT_OFF_SECONDS = 0.3
ACCEPT_AGAIN_SECONDS = 0.1
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}  # ... within two minutes, not two hours
SERVER_DESCRIPTORS = 3  # of a server without connections: the listening socket and a pipe


Handler = Callable[[Connection], None]


class Server:
    """A listening socket, the thread that accepts from it, and the connections it accepted.

    Args:
        host: the name or address to listen on.
        port: the port; 0 is any free one.
        handler: called with each connection, in the connection's own thread; it is closed when this returns.
        places: one for each connection; who finds none is told so and closed. Several servers may share them.
        login_seconds: the deadline that each connection begins with, for the handler to lift; None is no deadline.

    Attributes:
        port: the port that it listens on.

    Raises:
        OSError: it cannot listen there.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        places: threading.Semaphore,
        login_seconds: float | None = None,
    ) -> None:
        self._stop_fd, self._stop_writer = os.pipe()  # closing the writer wakes everybody who polls
        try:
            self._listener = listen(host, port)
        except OSError:
            os.close(self._stop_writer)
            os.close(self._stop_fd)
            raise
        self._listener.setblocking(False)  # several threads accept, and none of them may wait for another's client
        self._queue = select.poll()  # of those who have connected and are not accepted yet
        self._queue.register(self._listener, select.POLLIN)
        self.port: int = self._listener.getsockname()[1]
        self._handler = handler
        self._places = places
        self._login_seconds = login_seconds
        self._stopping = threading.Event()
        self._ended = threading.Condition()  # guards accepting and _connections; notified when one of them ends
        self._connections: set[Connection] = set()
        self._acceptor = threading.Thread(target=self._accept_for_ever, name=f"accept {self.port}", daemon=True)

    def start(self) -> None:
        """Begin to accept.

        Raises:
            RuntimeError: there are no more threads; the server is stopped.
        """
        try:
            self._acceptor.start()
        except RuntimeError:
            self.stop()
            raise

    def stop(self, farewell: bytes = b"") -> None:
        """Stop as stop_all() does."""
        stop_all([self], farewell)

    def begin_stop(self, farewell: bytes) -> None:
        """Wake the accepting thread and every conversation to end; a farewell is the last that a client gets."""
        self._stopping.set()
        if farewell:
            for connection in self._snapshot():
                connection.say_farewell(farewell)
        os.close(self._stop_writer)

    def close_listener(self, deadline: float) -> None:
        """Close the listening socket when the accepting thread has ended, at the latest at a time.monotonic()."""
        if self._acceptor.ident:
            self._acceptor.join(max(0.0, deadline - time.monotonic()))
        with self._ended:
            self._listener.close()

    def connections(self) -> list[Connection]:
        """Return the connections of all who have connected, also of those whom the busy accepting thread left waiting.

        A client that knows itself connected expects to be counted, and to be sent what others say from then on.
        """
        with self._ended:
            if not self._queue.poll(0):  # asks ten times faster than accept() does
                return list(self._connections)
        with suppress(OSError):  # the accepting thread meets the same, and says so
            self._accept_waiting()
        return self._snapshot()

    def cut_off(self) -> None:
        """Give up the connections that are left."""
        for connection in self._snapshot():
            connection.abort()

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until all connections have ended, at most so many seconds; return whether they have."""
        with self._ended:
            return self._ended.wait_for(lambda: not self._connections, seconds)

    def close(self) -> None:
        """Let go of what stopping needed; no connection is left."""
        os.close(self._stop_fd)

    def _snapshot(self) -> list[Connection]:
        with self._ended:
            return list(self._connections)

    def _accept_for_ever(self) -> None:
        arrivals = select.poll()
        arrivals.register(self._listener, select.POLLIN)
        arrivals.register(self._stop_fd, select.POLLIN)
        complained = False
        while not self._stopping.is_set():
            arrivals.poll()
            try:
                self._accept_waiting()
                complained = False
            except OSError as error:  # no descriptors or no memory: those who wait stay in the queue
                if not complained and not self._stopping.is_set():
                    LOG.write(f"Cannot accept for now: {error.strerror}")
                    complained = True
                self._stopping.wait(ACCEPT_AGAIN_SECONDS)

    def _accept_waiting(self) -> None:
        """Accept those who have connected by now."""
        for _ in range(socket.SOMAXCONN):  # there may come more all the time
            if self._stopping.is_set():
                return
            with self._ended:  # to whoever has the lock, a client is either in the queue or in _connections
                try:
                    sock, address = self._listener.accept()
                except BlockingIOError:
                    return
                connection = Connection(sock, self._stop_fd, self._deadline())
                self._connections.add(connection)
            self._begin(connection, address)

    def _deadline(self) -> float | None:
        return time.monotonic() + self._login_seconds if self._login_seconds else None

    def _begin(self, connection: Connection, address: tuple[str, int]) -> None:
        """Start a connection's thread, or refuse the connection."""
        connection.status(f"accepted from {address[0]}:{address[1]}")
        if not self._places.acquire(blocking=False):
            self._refuse(connection, "Too many connections")
            return
        try:
            WORKERS.run(partial(self._converse, connection))
        except RuntimeError:  # out of threads
            self._refuse(connection, "Too many threads")
            self._places.release()

    def _refuse(self, connection: Connection, reason: str) -> None:
        connection.refuse(reason)
        self._forget(connection)

    def _converse(self, connection: Connection) -> None:
        """Run the handler; whatever happens there costs this connection alone."""
        reason = ""
        try:
            connection.status("handler started")
            self._handler(connection)
        except (LineTooLong, DeadlinePassed) as error:
            reason = f": {error}"
            connection.send(f"{error}\n".encode())
        except OSError as error:
            reason = f": {error.strerror}"
        except Exception:
            reason = ": a bug in its handler"
            logging.exception("Client (%d)", connection.fd)
        finally:
            connection.close(reason)
            self._forget(connection)
            self._places.release()

    def _forget(self, connection: Connection) -> None:
        with self._ended:
            self._connections.remove(connection)
            self._ended.notify_all()


def stop_all(servers: Sequence[Server], farewell: bytes = b"") -> None:
    """Stop servers together, and cut off the connections whose backlog has not gone out after a second."""
    if not stop_orderly(servers, farewell):
        for server in servers:
            server.cut_off()
        if not _wait_for_end(servers, CUT_OFF_SECONDS):
            return  # a handler hangs, and the rest is for the end of the process
    for server in servers:
        server.close()


def stop_orderly(servers: Sequence[Server], farewell: bytes = b"") -> bool:
    """Accept no more and let every conversation end; return whether all did so within a second."""
    for server in servers:
        server.begin_stop(farewell)
    deadline = time.monotonic() + CUT_OFF_SECONDS
    for server in servers:
        server.close_listener(deadline)
    return _wait_for_end(servers, ORDERLY_STOP_SECONDS)


def _wait_for_end(servers: Sequence[Server], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    return all(server.wait_for_end(max(0.0, deadline - time.monotonic())) for server in servers)


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Those it accepts inherit its options.

    Raises:
        OSError: it cannot listen there.
    """
    family, address = resolve(host, port, socket.SOCK_STREAM)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # do not wait for the last run's connections
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # telnet may mark a byte as urgent
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # find out about vanished hosts ...
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    return listener


def resolve(host: str, port: int, kind: int, family: int = 0) -> tuple[int, Any]:
    """Return the family and the address of a host's port for a kind of socket, of that family if it is given.

    Raises:
        OSError: the host is unknown.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, family, kind)[0]
    except UnicodeError as error:  # a name that cannot be one, such as a..b
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is no name of a host") from error
    return family, address
