"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a thread) handshake if TLS -> the program's handler -> close

A server stops in this order: it stops accepting; every conversation ends as if its client had ended its input; queued
output is sent; connections that have not ended in time are cut off.
"""

import argparse
import logging
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from net.addresses import bind_all, keep_alive
from net.command_line import reason, shown_address
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation, HttpSpoken
from net.log import LOG
from net.places import NoPlace, Places
from net.proxy import ProxyLine
from net.tls import Certificate, TlsLayer
from net.trace import Trace
from protocol import LineTooLong

ACCEPT_AGAIN_SECONDS = 0.1
CUT_OFF_SECONDS = 0.3
END_CHECK_SECONDS = 0.005  # polling, because thousands of threads that end would queue for the lock of a condition
SEND_BUFFER_BYTES = 48 << 10  # the kernel doubles it; otherwise it may keep megabytes for a client that does not read
SERVER_DESCRIPTORS = 3  # of a server without connections: its listening socket and both ends of a pipe

Handler = Callable[[Conversation], None]


class Server:
    """Listening sockets, the thread that accepts from them, and the connections it accepted.

    Args:
        options: the command line, with the options of add_server_options().
        port: the port; 0 means any free port.
        handler: called with each conversation, in the connection's own thread; when it returns, the connection closes.
        places: limits the connections.
        certificate: the server's certificate, if it speaks TLS.

    Attributes:
        port: the port that the server listens on.

    Raises:
        OSError: the server cannot listen on this host and port.
    """

    def __init__(
        self,
        options: argparse.Namespace,
        port: int,
        handler: Handler,
        places: Places,
        certificate: Certificate | None = None,
    ) -> None:
        self._options = options
        self._handler = handler
        self._places = places
        self.certificate = certificate
        self._stop_fd, self._stop_writer = os.pipe()  # closing the writer wakes every thread that polls _stop_fd
        try:
            self._listeners = listen(options.host, port)
        except OSError:
            os.close(self._stop_writer)
            os.close(self._stop_fd)
            raise
        self.port: int = self._listeners[0].getsockname()[1]
        self._pending = poll_for(self._listeners)  # reports clients that have connected and are not yet accepted
        arrivals = poll_for([self._stop_fd, *self._listeners])
        self._acceptor = threading.Thread(
            target=self._accept_for_ever, args=(arrivals,), name=f"accept {self.port}", daemon=True
        )
        self._accept_lock = threading.RLock()  # guards accepting and _stopping
        self._stopping = threading.Event()
        # Both change by single operations of a dict, which need no lock: thousands of threads that end together would
        # queue for it.
        self._connections: dict[Connection, None] = {}  # whose handler has not returned, in order of arrival
        self._threads: dict[threading.Thread, Connection] = {}

    def open_another(self, port: int, handler: Handler) -> "Server":
        """Return a server with the same options and certificate, which shares this server's places."""
        return Server(self._options, port, handler, self._places, self.certificate)

    def start(self) -> None:
        """Start the accepting thread; if that raises RuntimeError, nothing is left open."""
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
        while self._threads or self._acceptor.is_alive():
            if time.monotonic() >= end:
                return False
            time.sleep(END_CHECK_SECONDS)
        return True

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
            ready = dict(self._pending.poll(0))  # ten times as fast as an accept() that finds no client
            for listener in self._listeners:
                if listener.fileno() in ready:
                    with suppress(BlockingIOError):  # the client has left
                        self._admit(*listener.accept())
            return bool(ready)

    def _admit(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Start the thread of a new connection, unless no place is free."""
        connection = self._connection(sock, address[0])
        connection.log(f"accepted from {shown_address(*address[:2])}")
        try:
            self._places.take(connection.address, is_proxy=connection.proxy_line is not None)
        except NoPlace as error:
            connection.refuse(str(error))
            return
        seconds = self._options.login_seconds
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
        options = self._options
        tls = TlsLayer(self.certificate.context) if self.certificate else None
        trace = Trace(sock.fileno(), tls is not None, options.secret) if options.trace else None
        connection = Connection(sock, self._stop_fd, address, tls, trace)
        if address in options.proxy_from:
            connection.proxy_line = ProxyLine(lambda client: self._take_name(connection, client))
        return connection

    def _take_name(self, connection: Connection, address: str) -> None:
        """Give the place of a proxy's connection to the client that the proxy has named, or raise NoPlace."""
        connection.log(f"is {address}, says the proxy at {connection.address}")
        self._places.move(connection.address, address)
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
            del self._connections[connection]
            client.flush()
            connection.close(ending)
            self._forget(threading.current_thread())

    def _forget(self, thread: threading.Thread) -> None:
        connection = self._threads.pop(thread)
        self._places.release(connection.address)

    def _close_listeners(self) -> None:
        for listener in self._listeners:
            listener.close()


def poll_for(sources: Sequence[socket.socket | int]) -> select.poll:
    """Return a poll object that reports when one of these is readable."""
    poll = select.poll()  # select.select() accepts no descriptor over 1023
    for source in sources:
        poll.register(source, select.POLLIN)
    return poll


def listen(host: str, port: int) -> list[socket.socket]:
    """Return a non-blocking listening socket for each address that a host has here, all with the same port."""
    return bind_all(host, port, socket.SOCK_STREAM, _listener)


def _listener(family: int, address: tuple[str | int, ...]) -> socket.socket:
    """Return a listening socket. Accepted sockets inherit its options."""
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
    listener.setblocking(False)  # several threads accept; another one may have accepted the client that poll() reported
    return listener
