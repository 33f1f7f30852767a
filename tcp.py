"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a thread) converse -> the program's handler

The listening thread does nothing but accept. A server stops in order: it accepts no more, every conversation ends as if
its client had ended its input, what is queued goes out; only what has not ended by then is cut off.
"""

import argparse
import logging
import resource
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

from connection import Connection, DeadlinePassed
from protocol import LineTooLong
from status import LOG

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 120
ORDERLY_STOP_SECONDS = 1.0
CUT_OFF_SECONDS = 0.3
FLUSH_SECONDS = 0.3
ACCEPT_AGAIN_SECONDS = 0.1
SPARE_DESCRIPTORS = 64
STACK_BYTES = 1 << 19  # the usual 8 MiB each would cost 40 GB of address space for 5,000 connections

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
        self.port: int = self._listener.getsockname()[1]
        self._handler = handler
        self._places = places
        self._login_seconds = login_seconds
        self._stopping = threading.Event()
        self._ended = threading.Condition()  # guards _connections; notified when one of them ends
        self._connections: set[Connection] = set()
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
        """Accept no more, and close the listening socket."""
        self._stopping.set()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes accept
        self._acceptor.join(CUT_OFF_SECONDS)
        self._listener.close()

    def connections(self) -> list[Connection]:
        """Return the connections that there are now."""
        with self._ended:
            return list(self._connections)

    def wait_for_end(self, seconds: float) -> None:
        """Wait until all connections have ended, at most so many seconds."""
        with self._ended:
            self._ended.wait_for(lambda: not self._connections, seconds)

    def _accept_for_ever(self) -> None:
        complained = False
        while not self._stopping.is_set():
            try:
                sock, address = self._listener.accept()
            except OSError as error:  # no descriptors or no memory: those who wait stay in the queue
                if not complained and not self._stopping.is_set():
                    LOG.write(f"Cannot accept for now: {error.strerror}")
                    complained = True
                self._stopping.wait(ACCEPT_AGAIN_SECONDS)
            else:
                complained = False
                self._begin(sock, address)

    def _begin(self, sock: socket.socket, address: tuple[str, int]) -> None:
        """Start a connection's thread, or refuse the connection."""
        deadline = time.monotonic() + self._login_seconds if self._login_seconds else None
        connection = Connection(sock, deadline)
        connection.status(f"accepted from {address[0]}:{address[1]}")
        if not self._places.acquire(blocking=False):
            connection.refuse("Too many connections")
            return
        with self._ended:
            self._connections.add(connection)
        name = f"client {connection.fd}"
        try:
            threading.Thread(target=self._converse, args=(connection,), name=name, daemon=True).start()
        except RuntimeError:  # out of threads
            connection.refuse("Too many threads")
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

    def _forget(self, connection: Connection) -> None:
        with self._ended:
            self._connections.discard(connection)
            self._ended.notify_all()
        self._places.release()


def stop_all(servers: Sequence[Server], farewell: bytes = b"") -> None:
    """Stop servers together; takes at most 1.6 seconds.

    They accept no more, and every conversation ends when it has handled what it received. Connections whose backlog has
    not gone out after a second are cut off.
    """
    for server in servers:
        server.stop_accepting()
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


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens. Those it accepts inherit its options.

    Raises:
        OSError: it cannot listen there.
    """
    family, address = resolve(host, port, socket.SOCK_STREAM)
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # do not wait for the last run's connections
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)  # find out about vanished hosts
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
    """Ready the process for so many descriptors and for threads that SIGINT and SIGTERM do not reach.

    The signals wait for wait_for_signal(): no handler runs in the middle of something.
    """
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.stack_size(STACK_BYTES)
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
    """Return a number of one or more given on a command line.

    Raises:
        argparse.ArgumentTypeError: it is none.
    """
    if text.isascii() and text.isdigit() and int(text) > 0:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is no number of 1 or more")
