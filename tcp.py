"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a thread) converse -> the program's handler

The listening thread does nothing but accept. A server stops in order: it accepts no more, every conversation ends as if
its client had ended its input, what is queued goes out; only what has not ended by then is cut off.
"""

import argparse
import logging
import resource
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress

from connection import Connection, DeadlinePassed
from protocol import LineTooLong
from status import LOG

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 120
ORDERLY_STOP_SECONDS = 1.0
CUT_OFF_SECONDS = 0.3
FLUSH_SECONDS = 0.3
ACCEPT_AGAIN_SECONDS = 0.1
QUEUE_LENGTH = socket.SOMAXCONN
SPARE_DESCRIPTORS = 64
STACK_BYTES = 1 << 19  # the usual 8 MiB each would cost 40 GB of address space for 5,000 connections

SWITCH_SECONDS = 0.05  # each thread that waits for the interpreter wakes so often; 5 ms would let 5,000 do only that
MOST = 1_000_000  # of anything that a command line asks for; in seconds, poll() takes no more than 24 days
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}

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
        self._listener = listen(host, port)
        self._listener.setblocking(False)
        self.port: int = self._listener.getsockname()[1]
        self._handler = handler
        self._places = places
        self._login_seconds = login_seconds
        self._stopping = threading.Event()
        self._ended = threading.Condition()  # guards accept and _connections; notified when one of them ends
        self._connections: set[Connection] = set()
        self._queue = readable(self._listener)  # for whoever has the lock
        self._acceptor = threading.Thread(target=self._accept_for_ever, name=f"accept {self.port}", daemon=True)

    def start(self) -> None:
        """Begin to accept.

        Raises:
            RuntimeError: there are no more threads; the server is closed.
        """
        try:
            self._acceptor.start()
        except RuntimeError:
            self._listener.close()
            raise

    def stop(self, farewell: bytes = b"") -> None:
        """Stop as stop_all() does; a farewell goes to every client before."""
        stop_all([self], farewell)

    def stop_accepting(self) -> None:
        """Have the accepting thread end."""
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes it

    def close_listener(self, deadline: float) -> None:
        """Close the listening socket once the accepting thread has ended, at the latest at a time.monotonic()."""
        self._acceptor.join(max(0.0, deadline - time.monotonic()))
        with self._ended:
            self._listener.close()

    def connections(self) -> list[Connection]:
        """Return the connections of all clients that have connected, also of those not accepted yet.

        A client that knows itself connected must not be left out because the threads of others are busy.
        """
        with self._ended:
            if not self._queue.poll(0):  # asks ten times faster than accept does
                return list(self._connections)
        with suppress(OSError):  # that is for the accepting thread to complain of
            self._accept_waiting()
        with self._ended:
            return list(self._connections)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until all connections have ended, at most so many seconds."""
        with self._ended:
            self._ended.wait_for(lambda: not self._connections, seconds)

    def _accept_for_ever(self) -> None:
        arrivals = readable(self._listener)
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
        """Accept all clients that wait for it now."""
        for _ in range(QUEUE_LENGTH):
            with self._ended:  # nobody who has the lock finds a client neither in the queue nor here
                try:
                    sock, address = self._listener.accept()
                except BlockingIOError:
                    return
                connection = self._new_connection(sock)
                self._connections.add(connection)
            self._begin(connection, address)

    def _new_connection(self, sock: socket.socket) -> Connection:
        sock.setblocking(True)
        return Connection(sock, time.monotonic() + self._login_seconds if self._login_seconds else None)

    def _begin(self, connection: Connection, address: tuple[str, int]) -> None:
        """Start a connection's thread, or refuse the connection."""
        connection.status(f"accepted from {address[0]}:{address[1]}")
        if not self._places.acquire(blocking=False):
            connection.refuse("Too many connections")
            self._forget(connection)
            return
        name = f"client {connection.fd}"
        try:
            threading.Thread(target=self._converse, args=(connection,), name=name, daemon=True).start()
        except RuntimeError:  # out of threads
            connection.refuse("Too many threads")
            self._forget(connection)
            self._places.release()

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
    """Stop servers together; takes at most 1.6 seconds.

    They accept no more, and every conversation ends when it has handled what it received. Connections whose backlog has
    not gone out after a second are cut off.
    """
    for server in servers:
        server.stop_accepting()
    deadline = time.monotonic() + CUT_OFF_SECONDS
    for server in servers:
        server.close_listener(deadline)
    for server in servers:
        for connection in server.connections():
            connection.stop(farewell)
    _wait_for_end(servers, ORDERLY_STOP_SECONDS)
    for server in servers:
        for connection in server.connections():
            connection.abort()
    _wait_for_end(servers, CUT_OFF_SECONDS)


def _wait_for_end(servers: Sequence[Server], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    for server in servers:
        server.wait_for_end(max(0.0, deadline - time.monotonic()))


def readable(sock: socket.socket) -> select.poll:
    """Return a poll object that tells whether a socket can be read; two threads cannot use it at once."""
    poller = select.poll()
    poller.register(sock, select.POLLIN)
    return poller


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Those it accepts inherit its options.

    Raises:
        OSError: it cannot listen there.
    """
    family, kind, number, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    listener = socket.socket(family, kind, number)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # do not wait for the last run's connections
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # find out about vanished hosts
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind(address)
        listener.listen(QUEUE_LENGTH)
    except OSError:
        listener.close()
        raise
    return listener


def run(
    host: str, port: int, handler: Handler, max_connections: int = MAX_CONNECTIONS, login_seconds: int = LOGIN_SECONDS
) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status of the program."""
    prepare(max_connections)
    try:
        server = Server(host, port, handler, threading.Semaphore(max_connections), login_seconds)
    except OSError as error:
        return fail(f"Cannot listen on {host}:{port}: {error.strerror}")
    LOG.write(f"Listening on {host}:{server.port}")
    server.start()
    wait_for_signal()
    server.stop()
    LOG.flush(FLUSH_SECONDS)
    return 0


def prepare(descriptors: int) -> None:
    """Ready the process for so many descriptors and as many threads, which SIGINT and SIGTERM do not reach.

    The signals wait for wait_for_signal(): no handler runs in the middle of something.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.stack_size(STACK_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM."""
    signal.sigwait(STOP_SIGNALS)


def fail(message: str) -> int:
    """Say in one line why the program cannot go on; return its exit status."""
    print(message, file=sys.stderr)
    return 1


def add_options(parser: argparse.ArgumentParser, host: str = "0.0.0.0") -> None:
    """Add the options that every server takes."""
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--max-connections",
        type=positive,
        default=MAX_CONNECTIONS,
        metavar="N",
        help="how many at once (default: %(default)s)",
    )
    parser.add_argument(
        "--login-seconds",
        type=positive,
        default=LOGIN_SECONDS,
        metavar="N",
        help="how long a connection may take to do its first useful thing (default: %(default)s)",
    )


def port_number(text: str) -> int:
    """Return a port given on a command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if text.isascii() and text.isdigit() and int(text) < 65536:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no port: a number from 0 to 65535 is expected")


def positive(text: str) -> int:
    """Return a number given on a command line, from 1 to a million.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if text.isascii() and text.isdigit() and 1 <= int(text) <= MOST:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number from 1 to {MOST}")
