"""Connect a client to a server, over TLS if the command line asks for it, and read the server's lines."""

import argparse
import select
import socket
import ssl
import sys
import time
from contextlib import suppress
from functools import cache
from typing import NoReturn

from net.addresses import keep_alive
from net.command_line import reason, shown_address
from protocol import harmless

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 1.5  # after this, the client says that the server may be of another kind
CLOSE_SECONDS = 0.5  # how soon a server that refuses a client closes the connection after it has said why
RECEIVE_BYTES = 1 << 16
MAX_RECEIVED_LINE_BYTES = 1 << 24  # the longest reply is three inventories of 10,000 codes: half a megabyte
SHOWN_CHARACTERS = 200  # of a line that the server was not expected to send

# What recv() and send() raise on a non-blocking socket, plain or encrypted, that is not ready.
WOULD_BLOCK = (BlockingIOError, ssl.SSLWantReadError, ssl.SSLWantWriteError)

# OpenSSL's results (X509_V_ERR_...) for a certificate that is self-signed, whose authority's is, or of unknown origin.
UNKNOWN_ISSUER = (18, 19, 20)


class CannotConnect(Exception):
    """No connection to a server of the expected kind could be made; the text is a sentence for the user."""


class ConnectionLost(Exception):
    """The connection to a server has ended; the text is a sentence for the user."""


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client takes for servers that speak TLS."""
    parser.add_argument("--tls", action="store_true", help="encrypt the connection; the server must speak TLS too")
    trust = "use TLS, and trust the certificates in this PEM file instead of those that the system trusts"
    parser.add_argument("--tls-ca", metavar="FILE", help=trust)


def connect(
    host: str,
    port: int,
    options: argparse.Namespace,
    seconds: float = CONNECT_SECONDS,
    preface: bytes = b"",
    reports_cut: bool = False,
) -> socket.socket:
    """Connect to a server; with --tls or --tls-ca, encrypt the connection and verify the server's certificate.

    If a name has several addresses, each is tried. The connection and the handshake may take `seconds` each. A preface
    is sent before the handshake. With reports_cut, receiving the end of TLS without close_notify raises ssl.SSLError.
    """
    where = shown_address(host, port)
    context = client_context(options.tls_ca) if options.tls or options.tls_ca is not None else None
    try:
        sock = socket.create_connection((host, port), seconds)
    except (OSError, UnicodeError) as error:
        why = f"{host!r} is not a valid host name" if isinstance(error, UnicodeError) else reason(error)
        raise CannotConnect(f"Cannot connect to {where}: {why}") from error
    with suppress(OSError):  # the server has closed the connection already; what it has sent can be read
        keep_alive(sock)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if preface:
            sock.sendall(preface)
    try:
        if context:
            sock = context.wrap_socket(sock, server_hostname=host, suppress_ragged_eofs=not reports_cut)
    except ssl.SSLCertVerificationError as error:
        hint = "; --tls-ca FILE names a certificate to trust" if error.verify_code in UNKNOWN_ISSUER else ""
        raise CannotConnect(f"Cannot trust {where}: {error.verify_message}{hint}") from error
    except OSError as error:
        raise CannotConnect(f"Cannot connect to {where} over TLS: {_tls_reason(error)}") from error
    sock.settimeout(None)
    return sock


class ServerLines:
    """The lines that a server sends; select.select() can wait for them.

    A TLS server sends nothing to a client without TLS, or closes the connection: until the first line has arrived, both
    are reported with a hint at --tls. `kind` names the expected server; `seconds` limits the wait for a line.
    """

    def __init__(self, sock: socket.socket, kind: str, seconds: float | None = None) -> None:
        self._sock = sock
        self._kind = kind
        self._seconds = seconds
        self._hint = "" if isinstance(sock, ssl.SSLSocket) else "it speaks TLS (--tls)"
        self._received = b""
        self._is_first = True  # until the server's first line has arrived
        self._end = ""  # a sentence that says how the connection has ended
        sock.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor for select.select()."""
        return self._sock.fileno()

    def read_line(self) -> bytes:
        """Wait for the next line; return it without its end. ConnectionLost: none comes, or it is too long."""
        while b"\n" not in self._received:
            if self._end:
                raise ConnectionLost(self._end)
            if self._is_first and not select.select([self], [], [], SILENCE_SECONDS)[0]:
                tls = self._hint and f", or {self._hint}"
                print(f"The server has sent nothing yet. Perhaps it is not {self._kind}{tls}.", file=sys.stderr)
                self._is_first = False
            if not select.select([self], [], [], self._seconds)[0]:
                raise ConnectionLost("The server does not answer.")
            self.receive()
            if len(self._received) > MAX_RECEIVED_LINE_BYTES:
                raise ConnectionLost(f"The server sent a line of more than {MAX_RECEIVED_LINE_BYTES} bytes.")
        line, _, self._received = self._received.partition(b"\n")
        self._is_first = False
        return line.removesuffix(b"\r")

    def receive(self) -> bool:
        """Receive without blocking; return whether data, or the end of the connection, has arrived."""
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except WOULD_BLOCK:
            return False
        except OSError as error:
            self._end = f"The connection to the server is lost: {reason(error)}."
            return True
        self._received += data
        if not data:
            tls = f" before it sent a line; perhaps {self._hint}" if self._is_first and self._hint else ""
            self._end = f"The server closed the connection{tls}."
        return True

    def send(self, data: bytes) -> None:
        """Send data; ignore a failure, because read_line() returns the server's last lines or raises ConnectionLost."""
        self._sock.settimeout(self._seconds)
        with suppress(OSError):
            self._sock.sendall(data)
        self._sock.setblocking(False)

    def reject(self, line: bytes) -> NoReturn:
        """Raise ConnectionLost for a line that says why the server closes, or CannotConnect for a wrong server's line.

        The server is a wrong one if it is a web server, or if it does not close the connection.
        """
        text = harmless(line).lstrip("\N{REPLACEMENT CHARACTER}")[:SHOWN_CHARACTERS]
        end = time.monotonic() + CLOSE_SECONDS
        while not self._end and time.monotonic() < end:
            select.select([self], [], [], CLOSE_SECONDS)
            self.receive()
        if text.startswith(("HTTP/", "<")) or not self._end:
            raise CannotConnect(f"The server is not {self._kind}. It says: {text}")
        raise ConnectionLost(f"The server closed the connection: {text}")


class _TlsSocket(ssl.SSLSocket):
    """A client's end of TLS: close() sends close_notify (RFC 8446, 6.1), and does not wait for the server's."""

    def close(self) -> None:
        with suppress(OSError, ValueError):  # ssl.SSLWantReadError: the server's close_notify has not arrived
            self.setblocking(False)
            self.unwrap()
        super().close()


@cache  # it takes 27 ms to load the certificates, and the front end connects for each tab
def client_context(tls_ca: str | None) -> ssl.SSLContext:
    """Return a context that verifies the certificate chain and the host name; CannotConnect: the file is unusable."""
    try:
        context = ssl.create_default_context(cafile=tls_ca)
    except OSError as error:
        why = "a file of PEM certificates is expected" if isinstance(error, ssl.SSLError) else reason(error)
        raise CannotConnect(f"{tls_ca}: {why}") from error
    context.sslsocket_class = _TlsSocket
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that a write never has to wait for a read
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)  # Python 3.11.2 sets it; it hides a cut
    if tls_ca:
        # A certificate in the file is trusted by itself, also if an authority that is not in the file has issued it.
        # Since Python 3.13, ssl moreover demands extensions that certificates of private authorities often lack.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


def _tls_reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "the server does not answer; perhaps it does not speak TLS"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not speak TLS"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the server ended the connection during the handshake"
    return reason(error)
