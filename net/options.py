"""The options that every TCP server takes."""

import argparse
from pathlib import Path

from net.addresses import without_brackets
from net.command_line import add_number
from net.places import Places

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 600


def add_server_options(parser: argparse.ArgumentParser, host: str = "0.0.0.0") -> None:
    """Add the options that every TCP server takes, and `secret`, which finds passwords in lines, for --trace."""
    where = "name or address to listen on (default: %(default)s)"
    parser.add_argument("--host", default=host, type=without_brackets, help=where)
    add_number(parser, "--max-connections", MAX_CONNECTIONS, "how many clients may be connected at once")
    per_address = "how many of them from one address (default: half of --max-connections)"
    add_number(parser, "--max-per-address", None, per_address)
    add_number(parser, "--login-seconds", LOGIN_SECONDS, "how long a client may take to log in or to send a request")
    who = "connections from this address may begin with a PROXY line, version 1, which names the client; repeatable"
    parser.add_argument("--proxy-from", action="append", default=[], type=without_brackets, metavar="ADDRESS", help=who)
    parser.add_argument("--trace", action="store_true", help="show the bytes that are received and sent")
    parser.add_argument("--tls-certificate", type=Path, metavar="FILE", help="speak TLS; a certificate in a PEM file")
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, a PEM file")
    parser.set_defaults(secret=None)


def places(options: argparse.Namespace, extra: int = 0) -> Places:
    """Return the places for connections that the options allow, plus extra ones."""
    per_address = options.max_per_address or (options.max_connections + 1) // 2
    return Places(options.max_connections + extra, per_address + extra)
