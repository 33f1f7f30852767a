"""Connecting to a server, over TLS if the command line asks for it: what every client does first."""

import argparse
import socket
import ssl

from net.command_line import reason, shown_address
from net.stream import WOULD_BLOCK as WOULD_BLOCK  # clients poll too

CONNECT_SECONDS = 10.0

# OpenSSL's verification results (X509_V_ERR_...), which Python passes on as numbers only.
_EXPIRED, _SELF_SIGNED, _SELF_SIGNED_IN_CHAIN, _NO_ISSUER, _WRONG_HOST, _WRONG_IP = 10, 18, 19, 20, 62, 64


class CannotConnect(Exception):
    """There is no connection; the text is a sentence for the user."""


def add_tls_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client takes for servers that speak TLS."""
    parser.add_argument("--tls", action="store_true", help="encrypt the connection; the server must speak TLS too")
    parser.add_argument(
        "--tls-ca",
        metavar="FILE",
        help="with --tls: trust the certificates in this PEM file instead of those that the system trusts",
    )


def connect(host: str, port: int, options: argparse.Namespace, seconds: float = CONNECT_SECONDS) -> socket.socket:
    """Return a connection to a server; under --tls it is encrypted, and the server's certificate has been verified.

    Args:
        host: the server's name or address.
        port: its port.
        options: holds tls and tls_ca, as add_tls_options() adds them.
        seconds: how long the connection and the handshake may each take.

    Raises:
        CannotConnect: the server cannot be reached, or is not the one that its certificate should prove.
    """
    where = shown_address(host, port)
    context = _client_context(options) if options.tls or options.tls_ca else None
    try:
        sock = socket.create_connection((host, port), seconds)
    except (OSError, UnicodeError) as error:  # UnicodeError: no host can have such a name
        raise CannotConnect(f"Cannot connect to {where}: {reason(error)}") from error
    try:
        if context:
            sock = context.wrap_socket(sock, server_hostname=host)
    except ssl.SSLCertVerificationError as error:
        raise CannotConnect(f"Cannot trust {where}: {_distrust(error, host)}") from error
    except OSError as error:
        raise CannotConnect(f"Cannot connect to {where} over TLS: {_tls_reason(error)}") from error
    sock.settimeout(None)
    return sock


def _client_context(options: argparse.Namespace) -> ssl.SSLContext:
    """Return a context that verifies the chain and the host name, from TLS 1.2 on."""
    try:
        context = ssl.create_default_context(cafile=options.tls_ca)
    except ssl.SSLError:
        raise CannotConnect(f"{options.tls_ca}: a file of PEM certificates is expected") from None
    except OSError as error:
        raise CannotConnect(f"{options.tls_ca}: {reason(error)}") from error
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _distrust(error: ssl.SSLCertVerificationError, host: str) -> str:
    """Return what is wrong with a certificate."""
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
        return "the server does not answer; perhaps it speaks no TLS"
    if isinstance(error, ssl.SSLError) and error.reason in ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE"):
        return "the server answers without TLS"
    if isinstance(error, (ssl.SSLEOFError, ConnectionError)):
        return "the server ended the connection during the handshake"
    return reason(error)
