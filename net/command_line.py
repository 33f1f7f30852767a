"""Command lines: the types of arguments, and how a program ends with one line that says why.

Clients import this module too, so it stands on nothing but argparse.
"""

import argparse
import os
import sys

MAX_NUMBER = 1_000_000  # of anything; as seconds it is what poll() can wait, 24 days
MAX_PORT = 65535


def port_number(text: str) -> int:
    """Return the port that a command line gives.

    Raises:
        argparse.ArgumentTypeError: the text is not a number from 0 to 65535.
    """
    if _is_number(text) and int(text) <= MAX_PORT:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not a valid port: a number from 0 to {MAX_PORT} is expected")


def positive_number(text: str) -> int:
    """Return the number that a command line gives.

    Raises:
        argparse.ArgumentTypeError: the text is not a number from 1 to a million.
    """
    if _is_number(text) and 1 <= int(text) <= MAX_NUMBER:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not valid: a number from 1 to {MAX_NUMBER} is expected")


def host_and_port(text: str) -> tuple[str, int]:
    """Return the host and the port that HOST:PORT gives; an IPv6 address may stand in brackets.

    Raises:
        argparse.ArgumentTypeError: the text is not of this form.
    """
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: HOST:PORT is expected")
    return host, port_number(port)


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER))


def add_number(parser: argparse.ArgumentParser, option: str, default: int, meaning: str) -> None:
    """Add an option whose value is a number from 1 to a million."""
    parser.add_argument(
        option, type=positive_number, default=default, metavar="N", help=f"{meaning} (default: %(default)s)"
    )


def shown_address(host: str, port: int) -> str:
    """Return HOST:PORT as users read it, with an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason(error: Exception) -> str:
    """Return what an error says to a user: the system's message if it has one."""
    return getattr(error, "strerror", None) or str(error)


def fail(message: str) -> int:
    """Say in one line on standard error why the program cannot go on; return its exit status, 1."""
    print(message, file=sys.stderr)
    return 1


def discard_output() -> None:
    """Send all further output nowhere, after a write to standard output has failed.

    Otherwise the interpreter would try once more when it exits, and report the error again.
    """
    if sys.stdout is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
