"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a worker thread) handshake if TLS -> the program's handler -> close

A server stops in this order: it stops accepting; every conversation ends as if its client had ended its input; queued
output is sent; connections that have not ended after ORDERLY_STOP_SECONDS are cut off.
"""

import logging
import os
import select
import socket
import threading
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from net.command_line import reason, shown_address
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation
from net.log import LOG
from net.stream import HandshakeFailed
from net.tls import Certificate
from net.workers import WORKERS
from protocol import LineTooLong

ORDERLY_STOP_SECONDS = 1.0
CUT_OFF_SECONDS = 0.3
ACCEPT_AGAIN_SECONDS = 0.1
# Within two minutes instead of two hours, detect that a host has vanished. macOS calls TCP_KEEPIDLE TCP_KEEPALIVE.
KEEP_ALIVE = {"TCP_KEEPIDLE": 60, "TCP_KEEPALIVE": 60, "TCP_KEEPINTVL": 20, "TCP_KEEPCNT": 3}
SERVER_DESCRIPTORS = 3  # of a server without connections: its listening socket and both ends of a pipe

Handler = Callable[[Conversation], None]


class Places:
    """Admission control: limits the simultaneous connections, in total and from each address.

    Several servers may share one Places object.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._lock = threading.Lock()  # guards _taken
        self._taken: Counter[str] = Counter()  # by address

    def take(self, address: str) -> str:
        """Take a place for an address; return "", or the sentence that says why no place is free."""
        with self._lock:
            if self._taken.total() >= self._total:
                return "Too many connections"
            if self._taken[address] >= self._per_address:
                return "Too many connections from your address"
            self._taken[address] += 1
            return ""

    def release(self, address: str) -> None:
        """Release a place that was taken for an address."""
        with self._lock:
            self._taken[address] -= 1
            if not self._taken[address]:
                del self._taken[address]


class Server:
    """A listening socket, the thread that accepts from it, and the connections it accepted.

    Args:
        host: the name or address to listen on.
        port: the port; 0 means any free port.
        handler: called with each conversation, in the connection's own thread; when it returns, the connection closes.
        places: limits the connections; a client that finds no free place is told so and disconnected.
        login_seconds: the time limit for the TLS handshake and, unless the handler sets another, for the conversation.
        certificate: the server's certificate, if it speaks TLS.

    Attributes:
        port: the port that the server listens on.
        certificate: as given.

    Raises:
        OSError: the server cannot listen on this host and port.
    """

    def __init__(
        self,
        host: str,
        port: int,
        handler: Handler,
        places: Places,
        login_seconds: float,
        certificate: Certificate | None = None,
    ) -> None:
        self._stop_fd, self._stop_writer = os.pipe()  # closing the writer wakes every thread that polls _stop_fd
        try:
            self._listener = listen(host, port)
        except OSError:
            os.close(self._stop_writer)
            os.close(self._stop_fd)
            raise
        self._pending = select.poll()  # reports clients that have connected and are not yet accepted
        self._pending.register(self._listener, select.POLLIN)
        self.port: int = self._listener.getsockname()[1]
        self.certificate = certificate
        self._host = host
        self._handler = handler
        self._places = places
        self._login_seconds = login_seconds
        self._stopping = threading.Event()
        self._lock = threading.Lock()  # guards accepting and all below
        self._ended = threading.Condition(self._lock)  # notified when a connection or the accepting thread ends
        self._accepting = True
        self._connections: dict[Connection, None] = {}  # an ordered set: connections() promises the order of arrival
        self._snapshot: tuple[Connection, ...] | None = None  # of _connections, until they change
        self._acceptor = threading.Thread(target=self._accept_for_ever, name=f"accept {self.port}", daemon=True)

    def open_another(self, port: int, handler: Handler) -> "Server":
        """Return a server with the same host, limits and certificate, which shares this server's places.

        Raises:
            OSError: it cannot listen on this port.
        """
        return Server(self._host, port, handler, self._places, self._login_seconds, self.certificate)

    def start(self) -> None:
        """Start the accepting thread.

        Raises:
            RuntimeError: no thread can be started; the server is stopped.
        """
        try:
            self._acceptor.start()
        except RuntimeError:
            self._end_accepting()
            self.stop()
            raise

    def connections(self) -> tuple[Connection, ...]:
        """Return the connections in order of arrival: the same object until a connection begins or ends."""
        snapshot = self._snapshot
        if snapshot is None:
            with self._lock:
                snapshot = self._snapshot = tuple(self._connections)
        return snapshot

    def accept_pending(self) -> None:
        """Accept pending clients now, so that a snapshot includes every client whose connect() has returned.

        The kernel completes a connection before the accepting thread sees it. Its client expects to be counted, and to
        receive what others send from then on.
        """
        with self._lock:  # only one thread at a time may use a poll object
            pending = self._pending.poll(0)  # ten times as fast as an accept() that finds no client
        if pending:
            with suppress(OSError):  # the accepting thread gets the same error, and reports it
                for _ in range(socket.SOMAXCONN):  # bounded, because clients may keep connecting
                    if not self._accept_one():
                        break

    def stop(self, farewell: bytes = b"") -> None:
        """Stop gracefully; after ORDERLY_STOP_SECONDS, cut off the connections that have not ended.

        Args:
            farewell: sent to each client as its last message.
        """
        self.begin_stop(farewell)
        if not self.wait_for_end(ORDERLY_STOP_SECONDS):
            for connection in self.connections():
                connection.abort()
            if not self.wait_for_end(CUT_OFF_SECONDS):
                return  # a handler hangs; its thread and descriptors remain until the process ends
        os.close(self._stop_fd)

    def begin_stop(self, farewell: bytes = b"") -> None:
        """Make the accepting thread and every conversation end; send clients a farewell as their last message."""
        if farewell:
            self.accept_pending()
        with self._lock:  # from now on, no thread accepts a client: it would not get the farewell
            self._stopping.set()
        if farewell:
            for connection in self.connections():
                connection.finish(farewell)
        os.close(self._stop_writer)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until accepting and all connections have ended, at most this many seconds; return whether they have."""
        with self._lock:
            return self._ended.wait_for(lambda: not self._accepting and not self._connections, seconds)

    def _accept_for_ever(self) -> None:
        arrivals = select.poll()
        arrivals.register(self._listener, select.POLLIN)
        arrivals.register(self._stop_fd, select.POLLIN)
        complained = False
        while not self._stopping.is_set():
            arrivals.poll()
            try:
                self._accept_one()
                complained = False
            except OSError as error:  # out of descriptors or memory: pending clients stay in the kernel's queue
                if not complained and not self._stopping.is_set():
                    LOG.write(f"Cannot accept for now: {reason(error)}")
                    complained = True
                self._stopping.wait(ACCEPT_AGAIN_SECONDS)
        self._end_accepting()

    def _end_accepting(self) -> None:
        with self._lock:
            self._listener.close()
            self._accepting = False
            self._ended.notify_all()

    def _accept_one(self) -> bool:
        """Accept a client that has connected, if there is one; return whether there may be more."""
        with self._lock:  # a snapshot must include every client that has left the kernel's queue
            if self._stopping.is_set():
                return False
            try:
                sock, address = self._listener.accept()
            except BlockingIOError:
                return False
            connection = self._admit(sock, address)
        if connection:
            self._begin(connection)
        return True

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> Connection | None:
        """Return a new connection, or None if no place is free or the client has left."""
        try:
            tls = self.certificate.context if self.certificate else None
            connection = Connection(sock, self._stop_fd, address[0], tls)
        except OSError:  # the client has left already
            sock.close()
            return None
        connection.log(f"accepted from {shown_address(*address[:2])}")
        if refusal := self._places.take(connection.address):
            connection.refuse(refusal)
            return None
        connection.allow(self._login_seconds, f"No complete request within {self._login_seconds} seconds")
        self._connections[connection] = None
        self._snapshot = None
        return connection

    def _begin(self, connection: Connection) -> None:
        """Start a connection's thread."""
        try:
            WORKERS.run(lambda: self._converse(connection))
        except RuntimeError:  # out of threads
            self._forget(connection)
            connection.refuse("Too many threads")

    def _converse(self, connection: Connection) -> None:
        """Run the handler; an error in it ends this connection alone."""
        client = Conversation(connection)
        ending = ""
        try:
            connection.log("handler started")
            connection.shake_hands()
            self._handler(client)
        except (LineTooLong, TimeLimitPassed) as error:
            ending = f": {error}"
            client.reply(str(error))
        except HandshakeFailed as error:
            ending = f": {error}"
        except OSError as error:
            ending = f": {reason(error)}"
        except Exception:
            ending = ": a bug in its handler"
            logging.exception("Client (%d)", connection.fd)
        finally:
            client.flush()
            connection.close(ending)
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        with self._lock:
            del self._connections[connection]
            self._snapshot = None
            self._ended.notify_all()
        self._places.release(connection.address)


def listen(host: str, port: int) -> socket.socket:
    """Return a non-blocking listening socket. Accepted sockets inherit its options.

    Raises:
        OSError: the socket cannot listen on this host and port.
    """
    family, address = resolve(host, port, socket.SOCK_STREAM)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restarted server can bind the port at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # telnet sends some bytes as urgent data
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in KEEP_ALIVE.items():
            if hasattr(socket, name):
                listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)  # several threads accept; another one may have accepted the client that poll() reported
    return listener


def resolve(host: str, port: int, kind: int) -> tuple[int, Any]:
    """Look up a host and port; return the address family and the address.

    Args:
        host: a name or an address.
        port: the port.
        kind: the type of socket, such as socket.SOCK_STREAM.

    Raises:
        OSError: the host is unknown.
    """
    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=kind)[0]
    except UnicodeError as error:  # not a valid host name, for example a..b
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a valid host name") from error
    return family, address
