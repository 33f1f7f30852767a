"""Parse command lines, and report in one line why a program ends.

Clients import this module too, so it imports nothing from the server stack.
"""

import argparse
import io
import os
import sys

MAX_NUMBER = 1_000_000  # the largest value of an option; if it means seconds (11 days), poll() can still wait that long
MAX_PORT = 65535


def port_number(text: str) -> int:
    """Convert an argument to a port, or raise argparse.ArgumentTypeError, as a parser expects."""
    return _number(text, range(MAX_PORT + 1), "a valid port")


def positive_number(text: str) -> int:
    """Convert an argument to a number from 1 to a million."""
    return _number(text, range(1, MAX_NUMBER + 1), "valid")


def _number(text: str, allowed: range, what: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= len(str(MAX_NUMBER)) and int(text) in allowed:
        return int(text)
    raise argparse.ArgumentTypeError(f"{text!r} is not {what}: a number from {allowed[0]} to {allowed[-1]} is expected")


def host_and_port(text: str) -> tuple[str, int]:
    """Convert HOST:PORT to the host and the port; an IPv6 address may stand in brackets."""
    host, _, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not host:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: HOST:PORT is expected")
    return host, port_number(port)


def add_number(parser: argparse.ArgumentParser, option: str, default: int | None, meaning: str) -> None:
    """Add an option whose value is a number from 1 to a million; if there is no default, its meaning says so."""
    if default is not None:
        meaning += " (default: %(default)s)"
    parser.add_argument(option, type=positive_number, default=default, metavar="N", help=meaning)


def shown_address(host: str, port: int) -> str:
    """Return HOST:PORT for display, with an IPv6 address in brackets (RFC 3986, 3.2.2)."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def reason(error: Exception) -> str:
    """Return an error's message for a user: the system's message if the error has one, after the name of its file."""
    message = getattr(error, "strerror", None) or str(error)
    file = getattr(error, "filename", None)
    return f"{file}: {message}" if file else message


def fail(message: str, status: int = 1) -> int:
    """Print one line on standard error that says why the program ends; return its exit status."""
    print(message, file=sys.stderr)
    return status


def prepare_streams(errors: str = "replace") -> None:
    """Make standard input and output usable even if they were closed before the start; line-buffer the output."""
    sys.stdin = sys.stdin or os.fdopen(os.open(os.devnull, os.O_RDONLY), closefd=False)
    sys.stdout = sys.stdout or os.fdopen(os.open(os.devnull, os.O_WRONLY), "w", closefd=False)
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors=errors, line_buffering=True)


def fail_to_write(error: OSError, status: int = 1) -> int:
    """Report that standard output cannot be written, and return the status; if its reader closed the pipe, return 1."""
    if sys.stdout is not None:  # otherwise the interpreter would try again when it exits, and report the error again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    if isinstance(error, BrokenPipeError):
        return 1
    return fail(f"The output cannot be written: {reason(error)}", status)
