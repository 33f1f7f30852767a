"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a thread) handshake if TLS -> the program's handler -> close

A server stops in this order: it stops accepting; every conversation ends as if its client had ended its input; queued
output is sent; connections that have not ended in time are cut off.
"""

import errno
import logging
import os
import re
import select
import socket
import threading
import time
from collections import Counter, deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from net.addresses import keep_alive, network_of, resolve_all
from net.command_line import reason, shown_address
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation, HttpSpoken
from net.log import LOG
from net.proxy import ProxyLine
from net.tls import Certificate, TlsLayer
from net.trace import Trace
from protocol import LineTooLong

ACCEPT_AGAIN_SECONDS = 0.1
SEND_BUFFER_BYTES = 1 << 16  # the kernel doubles it; otherwise it may keep megabytes for a client that does not read
CUT_OFF_SECONDS = 0.3
NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may have an address that this host does not
SERVER_DESCRIPTORS = 3  # of a server without connections: its listening socket and both ends of a pipe

Handler = Callable[[Conversation], None]


class NoPlace(Exception):
    """A client finds no free place; the text says why."""


class Places:
    """Admission control: limits the simultaneous connections, in total and from each address.

    Several servers may share one Places object. All IPv6 addresses of a /64 count as one address.
    """

    def __init__(self, total: int, per_address: int) -> None:
        self._total = total
        self._per_address = per_address
        self._lock = threading.Lock()  # guards _taken
        self._taken: Counter[str] = Counter()  # by network_of(address)
        self._released: deque[str] = deque()  # threads that end only append to it, so they need not wait for the lock

    def take(self, address: str, is_proxy: bool = False) -> None:
        """Take a place for an address; only the total limits a proxy.

        Raises:
            NoPlace: no place is free.
        """
        with self._lock:
            self._count_released()
            if self._taken.total() >= self._total:
                raise NoPlace("Too many connections")
            self._take(address, is_proxy)

    def move(self, old: str, new: str) -> None:
        """Move a place to another address, which a proxy has named; if that address may not have it, raise NoPlace."""
        with self._lock:
            self._count_released()
            self._take(new)
            self._released.append(network_of(old))

    def release(self, address: str) -> None:
        """Release a place that was taken for an address."""
        self._released.append(network_of(address))

    def _take(self, address: str, is_proxy: bool = False) -> None:
        network = network_of(address)
        if self._taken[network] >= self._per_address and not is_proxy:
            raise NoPlace("Too many connections from your address")
        self._taken[network] += 1

    def _count_released(self) -> None:
        while self._released:
            network = self._released.popleft()
            self._taken[network] -= 1
            if not self._taken[network]:
                del self._taken[network]


@dataclass(frozen=True)
class Settings:
    """What a server shares with the servers that open_another() returns.

    Attributes:
        host: the name or address to listen on.
        places: limits the connections.
        login_seconds: the time limit for the TLS handshake and, unless the handler sets another, for the conversation.
        certificate: the server's certificate, if it speaks TLS.
        proxies: the addresses of proxies that name the client in a PROXY line.
        traced: whether the wire is shown.
        secret: matches a line with a password, for Trace.
    """

    host: str
    places: Places
    login_seconds: float
    certificate: Certificate | None = None
    proxies: frozenset[str] = frozenset()
    traced: bool = False
    secret: re.Pattern[bytes] | None = None


class Server:
    """Listening sockets, the thread that accepts from them, and the connections it accepted.

    Args:
        settings: the host, the limits and so on.
        port: the port; 0 means any free port.
        handler: called with each conversation, in the connection's own thread; when it returns, the connection closes.

    Attributes:
        settings: as given.
        port: the port that the server listens on.

    Raises:
        OSError: the server cannot listen on this host and port.
    """

    def __init__(self, settings: Settings, port: int, handler: Handler) -> None:
        self.settings = settings
        self._handler = handler
        self._listeners = listen(settings.host, port)
        self.port: int = self._listeners[0].getsockname()[1]
        try:
            self._stop_fd, self._stop_writer = os.pipe()  # closing the writer wakes every thread that polls _stop_fd
        except OSError:
            self._close_listeners()
            raise
        self._pending = select.poll()  # reports clients that have connected and are not yet accepted
        for listener in self._listeners:
            self._pending.register(listener, select.POLLIN)
        self._accept_lock = threading.RLock()  # guards accepting and _stopping
        self._stopping = threading.Event()
        # Each changes by single operations of a dict, which need no lock: threads that end together would queue for it.
        self._connections: dict[Connection, None] = {}  # whose handler has not returned, in order of arrival
        self._threads: dict[threading.Thread, Connection] = {}
        arrivals = select.poll()
        arrivals.register(self._stop_fd, select.POLLIN)
        for listener in self._listeners:
            arrivals.register(listener, select.POLLIN)
        name = f"accept {self.port}"
        self._acceptor = threading.Thread(target=self._accept_for_ever, args=(arrivals,), name=name, daemon=True)

    def open_another(self, port: int, handler: Handler) -> "Server":
        """Return a server with the same settings, which shares this server's places; raise OSError as Server does."""
        return Server(self.settings, port, handler)

    def start(self) -> None:
        """Start the accepting thread.

        Raises:
            RuntimeError: no thread can be started; the server is stopped.
        """
        try:
            self._acceptor.start()
        except RuntimeError:
            self._close_listeners()
            os.close(self._stop_writer)
            os.close(self._stop_fd)
            raise

    def connections(self) -> list[Connection]:
        """Return the connections in order of arrival, except those that have ended and are being closed."""
        return list(self._connections)

    def accept_pending(self) -> None:
        """Accept pending clients now, so that a snapshot includes every client whose connect() has returned.

        The kernel completes a connection before the accepting thread sees it. Its client expects to be counted, and to
        receive what others send from then on.
        """
        with suppress(OSError):  # the accepting thread gets the same error, and reports it
            for _ in range(socket.SOMAXCONN):  # bounded, because clients may keep connecting
                if not self._accept_one():
                    break

    def begin_stop(self, farewell: bytes = b"") -> None:
        """Make the accepting thread and every conversation end; send clients a farewell as their last message."""
        with self._accept_lock:  # from now on, no thread accepts a client: it would not get the farewell
            if farewell:
                self.accept_pending()
            self._stopping.set()
            self._close_listeners()
        if farewell:
            for connection in self.connections():
                connection.end(farewell)
        os.close(self._stop_writer)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until all threads have ended, at most this many seconds; return whether they have."""
        end = time.monotonic() + seconds
        for thread in [self._acceptor, *list(self._threads)]:
            thread.join(max(0.0, end - time.monotonic()))
        return not self._threads and not self._acceptor.is_alive()

    def finish_stop(self, seconds: float) -> None:
        """Wait for the end as wait_for_end() does; then cut off the connections that have not ended."""
        if not self.wait_for_end(seconds):
            for connection in list(self._threads.values()):
                connection.drop()
            if not self.wait_for_end(CUT_OFF_SECONDS):
                return  # a handler hangs; its thread and descriptors remain until the process ends
        os.close(self._stop_fd)

    def _accept_for_ever(self, arrivals: select.poll) -> None:
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

    def _accept_one(self) -> bool:
        """Accept a client that has connected, if there is one; return whether there may be more."""
        with self._accept_lock:  # a snapshot must include every client that has left the kernel's queue
            if self._stopping.is_set():
                return False
            ready = self._pending.poll(0)  # ten times as fast as an accept() that finds no client
            for listener in self._listeners:
                if listener.fileno() in dict(ready):
                    with suppress(BlockingIOError):  # the client has left
                        self._admit(*listener.accept())
            return bool(ready)

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Start the thread of a new connection, unless no place is free."""
        connection = self._connection(sock, address[0])
        connection.log(f"accepted from {shown_address(*address[:2])}")
        try:
            self.settings.places.take(address[0], is_proxy=address[0] in self.settings.proxies)
        except NoPlace as error:
            connection.refuse(str(error))
            return
        seconds = self.settings.login_seconds
        connection.set_time_limit(seconds, f"No complete request within {seconds} seconds")
        name = f"client {connection.fd}"
        thread = threading.Thread(target=self._converse, args=(connection,), name=name, daemon=True)
        self._connections[connection] = None
        self._threads[thread] = connection
        try:
            thread.start()
        except RuntimeError:  # out of threads
            del self._connections[connection]
            self._forget(thread)
            connection.refuse("Too many threads")

    def _connection(self, sock: socket.socket, address: str) -> Connection:
        settings = self.settings
        tls = TlsLayer(settings.certificate.context) if settings.certificate else None
        trace = Trace(sock.fileno(), tls is not None, settings.secret) if settings.traced else None
        connection = Connection(sock, self._stop_fd, address, tls, trace)
        if address in settings.proxies:
            connection.proxy_line = ProxyLine(lambda client: self._take_name(connection, client))
        return connection

    def _take_name(self, connection: Connection, address: str) -> None:
        """Give the place of a proxy's connection to the client that the proxy has named.

        Raises:
            NoPlace: the client may have no more places.
        """
        connection.log(f"is {address}, says the proxy at {connection.address}")
        self.settings.places.move(connection.address, address)
        connection.address = address

    def _converse(self, connection: Connection) -> None:
        """Run the handler; an error in it ends this connection alone."""
        client = Conversation(connection)
        ending = ""
        try:
            connection.log("handler started")
            connection.shake_hands()
            self._handler(client)
        except (LineTooLong, TimeLimitPassed, HttpSpoken, NoPlace) as error:
            ending = f": {error}"
            client.reply(str(error))
        except OSError as error:
            ending = f": {reason(error)}"
        except Exception:
            ending = ": a bug in its handler"
            logging.exception("Client (%d)", connection.fd)
        finally:
            self._connections.pop(connection)
            client.flush()
            connection.close(ending)
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        connection = self._threads.pop(thread)
        self.settings.places.release(connection.address)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a non-blocking listening socket for each address that a host has here, all with the same port.

    Raises:
        OSError: the sockets cannot listen on this host and port.
    """
    listeners: list[socket.socket] = []
    failure: OSError | None = None
    for family, address in resolve_all(host, port, socket.SOCK_STREAM):
        if listeners:
            address = (address[0], listeners[0].getsockname()[1], *address[2:])
        try:
            listeners.append(_listener(family, address))
        except OSError as error:
            failure = error
            if error.errno not in NOT_HERE:
                break
    if failure and (not listeners or failure.errno not in NOT_HERE):
        for listener in listeners:
            listener.close()
        raise failure
    return listeners


def _listener(family: int, address: tuple[str | int, ...]) -> socket.socket:
    """Return a listening socket. Accepted sockets inherit its options."""
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # a restarted server can bind the port at once
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_OOBINLINE, 1)  # telnet sends some bytes as urgent data
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        keep_alive(listener)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(socket.SOMAXCONN)
    except OSError:
        listener.close()
        raise
    listener.setblocking(False)  # several threads accept; another one may have accepted the client that poll() reported
    return listener
