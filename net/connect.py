"""Connect a client to a server, over TLS if the command line asks for it, and read the server's lines."""

import argparse
import select
import socket
import ssl
import sys
from contextlib import suppress
from functools import cache

from net.command_line import reason, shown_address
from net.stream import WOULD_BLOCK

CONNECT_SECONDS = 10.0
SILENCE_SECONDS = 6.0  # after this, the client suggests --tls; a login may take 5 seconds
RECEIVE_BYTES = 1 << 16
MAX_LINE_BYTES = 1 << 24  # the longest reply is three inventories of 10,000 codes: half a megabyte

# OpenSSL's verification results (X509_V_ERR_...); Python has no names for them.
_EXPIRED, _SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _WRONG_HOST, _WRONG_IP = 10, 18, 19, 20, 62, 64


class CannotConnect(Exception):
    """No connection could be made; the text is a sentence for the user."""


class ConnectionLost(Exception):
    """The connection to a server has ended; the text says why."""


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client takes for servers that speak TLS."""
    parser.add_argument("--tls", action="store_true", help="encrypt the connection; the server must speak TLS too")
    parser.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="use TLS, and trust the certificates in this PEM file instead of those that the system trusts",
    )


def connect(
    host: str, port: int, options: argparse.Namespace, seconds: float = CONNECT_SECONDS, preface: bytes = b""
) -> socket.socket:
    """Connect to a server; with --tls or --tls-ca, encrypt the connection and verify the server's certificate.

    Args:
        host: the server's name or address.
        port: the server's port.
        options: holds tls and tls_ca, which add_tls_options() defines.
        seconds: how long the connection and the handshake may each take.
        preface: sent first, before the TLS handshake.

    Returns:
        a blocking socket without a timeout.

    Raises:
        CannotConnect: the server cannot be reached, or its certificate cannot be trusted.
    """
    where = shown_address(host, port)
    context = client_context(options.tls_ca) if options.tls or options.tls_ca is not None else None
    try:
        sock = socket.create_connection((host, port), seconds)
    except UnicodeError as error:
        raise CannotConnect(f"Cannot connect to {where}: {host!r} is not a valid host name") from error
    except OSError as error:
        raise CannotConnect(f"Cannot connect to {where}: {reason(error)}") from error
    with suppress(OSError):  # the server has closed the connection already; what it has sent can be read
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if preface:
            sock.sendall(preface)
    try:
        if context:
            sock = context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise CannotConnect(f"Cannot trust {where}: {_distrust(error, host)}") from error
    except OSError as error:
        raise CannotConnect(f"Cannot connect to {where} over TLS: {_tls_reason(error)}") from error
    sock.settimeout(None)
    return sock


class ServerLines:
    """The lines that a server sends; select.select() can wait for them.

    A TLS server sends nothing to a client without TLS, or closes the connection. So until the first line has arrived,
    silence and a closed connection are reported with a hint at --tls.

    Args:
        sock: the connection to the server.
        seconds: how long the server may be silent when a line is expected; None means no limit.
    """

    def __init__(self, sock: socket.socket, seconds: float | None = None) -> None:
        self._sock = sock
        self._seconds = seconds
        self._received = b""
        self._ended = False
        self._may_need_tls = not isinstance(sock, ssl.SSLSocket)  # until the server's first line has arrived
        sock.setblocking(False)

    def fileno(self) -> int:
        """Return the descriptor for select.select()."""
        return self._sock.fileno()

    def read_line(self) -> bytes | None:
        """Wait for the next line; return it without its end, or None if the connection ends first.

        Raises:
            ConnectionLost: the connection has failed, or the server was silent for too long or sent too long a line.
        """
        while b"\n" not in self._received and not self._ended:
            self._wait()
            self.receive()
            if len(self._received) > MAX_LINE_BYTES:
                raise ConnectionLost(f"the server sent a line of more than {MAX_LINE_BYTES} bytes")
        line, newline, self._received = self._received.partition(b"\n")
        if self._may_need_tls and not newline:
            raise ConnectionLost("the server closed it before it sent a line; perhaps it speaks TLS (--tls)")
        self._may_need_tls = False
        return line.removesuffix(b"\r") if newline else None

    def _wait(self) -> None:
        if self._may_need_tls and not select.select([self], [], [], SILENCE_SECONDS)[0]:
            self._may_need_tls = False
            print("The server has sent nothing yet. If it speaks TLS, use --tls.", file=sys.stderr)
        if not select.select([self], [], [], self._seconds)[0]:
            raise ConnectionLost("the server does not answer")

    def receive(self) -> bool:
        """Receive without blocking; return whether data, or the end of the connection, has arrived.

        Raises:
            ConnectionLost: the connection has failed.
        """
        try:
            data = self._sock.recv(RECEIVE_BYTES)
        except WOULD_BLOCK:
            return False
        except OSError as error:
            raise ConnectionLost(reason(error)) from error
        self._received += data
        self._ended = not data
        return True

    def send(self, data: bytes) -> None:
        """Send data; ignore a failure, because read_line() returns the server's last lines or raises ConnectionLost."""
        self._sock.settimeout(self._seconds)
        with suppress(OSError):
            self._sock.sendall(data)
        self._sock.setblocking(False)


@cache  # it takes 27 ms to load the certificates, and the front end connects for each tab
def client_context(tls_ca: str | None) -> ssl.SSLContext:
    """Return a context that verifies the certificate chain and the host name, and requires TLS 1.2 or later.

    Args:
        tls_ca: the file given with --tls-ca, or None for the certificates that the system trusts.

    Raises:
        CannotConnect: the file cannot be used.
    """
    try:
        context = ssl.create_default_context(cafile=tls_ca)
    except ssl.SSLError:
        raise CannotConnect(f"{tls_ca}: a file of PEM certificates is expected") from None
    except OSError as error:
        raise CannotConnect(f"{tls_ca}: {reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION  # so that a write never has to wait for a read
    return context


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Return why a certificate cannot be trusted."""
    if error.verify_code == _EXPIRED:
        return "its certificate has expired"
    if error.verify_code in (_SELF_SIGNED, _SELF_SIGNED_IN_CHAIN):
        return "its certificate is self-signed; --tls-ca FILE names a certificate to trust"
    if error.verify_code == _NO_ISSUER:
        return "its certificate was issued by an unknown authority; --tls-ca FILE names one to trust"
    if error.verify_code in (_WRONG_HOST, _WRONG_IP):
        return f"its certificate is for another host, not for {host}"
    return f"its certificate is refused: {error.verify_message}"


def _tls_reason(error: OSError) -> str:
    """Return why a handshake failed."""
    if isinstance(error, TimeoutError):
        return "the server does not answer; perhaps it does not speak TLS"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server does not speak TLS"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the server ended the connection during the handshake"
    return reason(error)
