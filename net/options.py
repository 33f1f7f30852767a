"""The options that every TCP server takes, and what follows from them."""

import argparse
import re
import sys
from pathlib import Path

from net.addresses import without_brackets
from net.command_line import add_number, positive_number
from net.server import Places, Settings
from net.tls import BadCertificate, Certificate

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 600


def add_server_options(parser: argparse.ArgumentParser, host: str = "0.0.0.0") -> None:
    """Add the options that every TCP server takes."""
    parser.add_argument("--host", default=host, help="name or address to listen on (default: %(default)s)")
    add_number(parser, "--max-connections", MAX_CONNECTIONS, "how many clients may be connected at once")
    add_limit(
        parser,
        "--max-per-address",
        "how many clients from one address may be connected at once (default: half of --max-connections)",
    )
    add_number(parser, "--login-seconds", LOGIN_SECONDS, "how long a client may take to log in or to send a request")
    parser.add_argument(
        "--proxy-from",
        action="append",
        default=[],
        type=without_brackets,
        metavar="ADDRESS",
        help="a connection from this address may begin with a PROXY line, version 1, which names the client;"
        " may be given several times",
    )
    parser.add_argument("--trace", action="store_true", help="show the bytes that are received and sent")
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="speak TLS, with the certificate in this PEM file"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, a PEM file")


def add_limit(parser: argparse.ArgumentParser, option: str, meaning: str) -> None:
    """Add an option whose value is a number from 1 to a million; its default is None."""
    parser.add_argument(option, type=positive_number, metavar="N", help=meaning)


def settings(options: argparse.Namespace, extra_places: int = 0, secret: re.Pattern[bytes] | None = None) -> Settings:
    """Return a server's settings.

    Args:
        options: the command line; the parser was given add_server_options().
        extra_places: for connections beyond those that the options allow.
        secret: matches a line with a password, for --trace.

    Raises:
        SystemExit: the certificate cannot be used; the interpreter prints why.
    """
    try:
        certificate = _certificate(options)
    except BadCertificate as error:
        sys.exit(str(error))
    return Settings(
        options.host,
        places(options, extra_places),
        options.login_seconds,
        certificate,
        frozenset(options.proxy_from),
        options.trace,
        secret,
    )


def places(options: argparse.Namespace, extra: int = 0) -> Places:
    """Return the places for connections that the options allow, plus extra ones."""
    per_address = options.max_per_address or (options.max_connections + 1) // 2
    return Places(options.max_connections + extra, per_address + extra)


def _certificate(options: argparse.Namespace) -> Certificate | None:
    if not options.tls_certificate and not options.tls_key:
        return None
    if not (options.tls_certificate and options.tls_key):
        raise BadCertificate("--tls-certificate and --tls-key are expected together")
    return Certificate(options.tls_certificate, options.tls_key)
