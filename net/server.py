"""A TCP server: one thread that accepts, and a thread for each connection.

    listen -> accept for ever -> (a thread) handshake if TLS -> the program's handler -> close

A server stops in this order: it stops accepting; every conversation ends as if its client had ended its input; queued
output is sent; connections that have not ended in time are cut off.
"""

import argparse
import logging
import os
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from net.command_line import reason, shown_address
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation, HttpSpoken
from net.listener import Listener
from net.log import LOG
from net.places import NoPlace, Places
from net.proxy import ProxyLine
from net.tls import Certificate, TlsLayer
from net.trace import Trace
from protocol import LineTooLong

ACCEPT_AGAIN_SECONDS = 0.1
CUT_OFF_SECONDS = 0.3
END_CHECK_SECONDS = 0.005  # polling, because thousands of threads that end would queue for the lock of a condition
SERVER_DESCRIPTORS = 3  # of a server without connections: its listening socket and both ends of a pipe

Handler = Callable[[Conversation], None]


class Server:
    """Accepts connections, runs the handler for each in a thread of its own, and closes them."""

    def __init__(
        self, options: argparse.Namespace, port: int, handler: Handler, places: Places, certificate: Certificate | None
    ) -> None:
        self._options = options
        self._handler = handler
        self._places = places
        self.certificate = certificate
        self._stop_fd, self._stop_writer = os.pipe()  # closing the writer wakes every thread that polls _stop_fd
        try:
            self._listener = Listener(options.host, port, self._stop_fd)
        except OSError:
            os.close(self._stop_writer)
            os.close(self._stop_fd)
            raise
        self.port = self._listener.port  # the real one, if port 0 asked for any
        self._acceptor = threading.Thread(target=self._accept_for_ever, name=f"accept {self.port}", daemon=True)
        self._accept_lock = threading.RLock()  # guards accepting and _stopping
        self._stopping = threading.Event()
        # Single operations of a dict or set need no lock, for which thousands of threads that end together would queue.
        self._connections: dict[Connection, None] = {}  # whose handler has not returned, in order of arrival
        self.unclosed: set[Connection] = set()  # whose thread has not ended

    def open_another(self, port: int, handler: Handler) -> "Server":
        """Return a server with the same options and certificate, which shares this server's places."""
        return Server(self._options, port, handler, self._places, self.certificate)

    def start(self) -> None:
        """Start the accepting thread; if that raises RuntimeError, nothing is left open."""
        try:
            self._acceptor.start()
        except RuntimeError:
            self.begin_stop()
            self.finish_stop(0.0)
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
                if not self._accept():
                    break

    def begin_stop(self, farewell: bytes = b"") -> None:
        """Make the accepting thread and every conversation end; send clients a farewell as their last message."""
        with self._accept_lock:  # from now on, no thread accepts a client: it would not get the farewell
            if farewell:
                self.accept_pending()
            self._stopping.set()
            self._listener.close()
        if farewell:
            for connection in self.connections():
                connection.end(farewell)
        os.close(self._stop_writer)

    def wait_for_end(self, seconds: float) -> bool:
        """Wait until all threads have ended, at most this many seconds; return whether they have."""
        end = time.monotonic() + seconds
        while self.unclosed or self._acceptor.is_alive():
            if time.monotonic() >= end:
                return False
            time.sleep(END_CHECK_SECONDS)
        return True

    def finish_stop(self, seconds: float) -> None:
        """Wait for the end as wait_for_end() does; then cut off the connections that have not ended."""
        if not self.wait_for_end(seconds):
            for connection in list(self.unclosed):
                connection.drop()
            if not self.wait_for_end(CUT_OFF_SECONDS):
                return  # a handler hangs; its thread and descriptors remain until the process ends
        os.close(self._stop_fd)

    def _accept_for_ever(self) -> None:
        complained = False
        while not self._stopping.is_set():
            self._listener.wait()
            try:
                self._accept()
                complained = False
            except OSError as error:  # out of descriptors or memory: pending clients stay in the kernel's queue
                if not complained and not self._stopping.is_set():
                    LOG.write(f"Cannot accept for now: {reason(error)}")
                    complained = True
                self._stopping.wait(ACCEPT_AGAIN_SECONDS)

    def _accept(self) -> bool:
        """Accept a client at each listening socket where one has connected; return whether there was one."""
        found = False
        with self._accept_lock:  # a snapshot must include every client that has left the kernel's queue
            if not self._stopping.is_set():
                for sock, address in self._listener.accept():
                    found = True
                    self._admit(sock, address)
        return found

    def _admit(self, sock: socket.socket, address: tuple[Any, ...]) -> None:
        connection = self._connection(sock, address[0])
        connection.log_at_once(f"accepted from {shown_address(*address[:2])}")
        try:
            self._places.take(connection.address, is_proxy=connection.proxy_line is not None)
        except NoPlace as error:
            _refuse(connection, str(error))
            return
        seconds = self._options.login_seconds
        connection.set_time_limit(seconds, f"No complete request within {seconds} seconds")
        self._connections[connection] = None
        self.unclosed.add(connection)
        thread = threading.Thread(target=self._converse, args=[connection], name=f"client {connection.fd}", daemon=True)
        try:
            thread.start()
        except RuntimeError:  # out of threads
            del self._connections[connection]
            self._forget(connection)
            _refuse(connection, "Too many threads")

    def _connection(self, sock: socket.socket, address: str) -> Connection:
        connection = Connection(sock, self._stop_fd, address)
        if self.certificate:
            connection.tls = TlsLayer(self.certificate.context)
        if self._options.trace:
            connection.trace = Trace(connection.fd, self.certificate is not None, self._options.secret)
        if address in self._options.proxy_from:
            connection.proxy_line = ProxyLine(lambda client: self._take_name(connection, client))
        return connection

    def _take_name(self, connection: Connection, address: str) -> None:
        """Give the place of a proxy's connection to the client that the proxy has named, or raise NoPlace."""
        connection.log_at_once(f"is {address}, says the proxy at {connection.address}")
        self._places.move(connection.address, address)
        connection.address = address

    def _converse(self, connection: Connection) -> None:
        """Run the handler; an error in it ends this connection alone."""
        client = Conversation(connection)
        status = "disconnected"
        try:
            connection.log_at_once("handler started")
            connection.shake_hands()
            self._handler(client)
        except (LineTooLong, TimeLimitPassed, HttpSpoken, NoPlace) as error:
            status = f"disconnected: {error}"
            client.queue_reply(str(error))
        except OSError as error:
            status = f"disconnected: {reason(error)}"
        except Exception:
            status = "disconnected: a bug in its handler"
            logging.exception("Client (%d)", connection.fd)
        finally:
            del self._connections[connection]
            client.flush()
            connection.close(status)
            self._forget(connection)

    def _forget(self, connection: Connection) -> None:
        self.unclosed.remove(connection)
        self._places.release(connection.address)


def _refuse(connection: Connection, text: str) -> None:
    """Tell a client why it is refused, unless TLS must shake hands first, and close without waiting for it."""
    connection.end(f"{text}\n".encode())
    connection.close(f"refused: {text}", linger_seconds=0.0)
