"""What every server is as a program: its options, what the process is allowed, signals, its first line and its end."""

import argparse
import os
import resource
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NoReturn

from net.log import LOG
from net.server import Handler, Server, stop_orderly

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 120
FLUSH_SECONDS = 0.3
SPARE_DESCRIPTORS = 64
STACK_BYTES = 1 << 19  # the usual 8 MiB each would cost 40 GB of address space for 5,000 connections
SWITCH_SECONDS = 0.5  # each thread that waits for the interpreter wakes so often; at 5 ms, 5,000 would do only that
STOPPING_SWITCH_SECONDS = 0.005  # the thread that stops the others must get its turn
MOST = 1_000_000  # of anything that a command line asks for; in seconds, poll() takes no more than 24 days
PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}


def run(
    host: str, port: int, handler: Handler, max_connections: int = MAX_CONNECTIONS, login_seconds: int = LOGIN_SECONDS
) -> int:
    """Serve until SIGINT or SIGTERM, and exit; return the exit status of the program if it cannot begin."""
    prepare(max_connections, os.getpid())
    try:
        server = Server(host, port, handler, threading.Semaphore(max_connections), login_seconds)
    except OSError as error:
        return fail(f"Cannot listen on {host}:{port}: {error.strerror}")
    LOG.write(f"Listening on {host}:{server.port}")
    server.start()
    wait_for_signal()
    return end_process([server])


def prepare(descriptors: int, processor: int) -> None:
    """Ready the process for so many descriptors and as many threads, which SIGINT and SIGTERM do not reach.

    The signals wait for wait_for_signal(): no handler runs in the middle of something. To be called before any thread
    is started: threads inherit all this.

    Args:
        descriptors: how many it may need.
        processor: on which processor it stays, counted round from the last one; any number will do.
    """
    _stay_on(processor)
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    threading.stack_size(STACK_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems allow less than they say
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _stay_on(processor: int) -> None:
    """Keep this thread, and those that it starts, on one processor, where the system lets a program choose.

    The interpreter runs one thread at a time. Spread over processors, its threads interrupt each other at every system
    call to hand that right over, often in vain (David Beazley, Understanding the Python GIL, 2010).
    """
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, {PROCESSORS[~processor % len(PROCESSORS)]})


def wait_for_signal() -> None:
    """Wait for SIGINT or SIGTERM."""
    signal.sigwait(STOP_SIGNALS)


def end_process(servers: Sequence[Server]) -> NoReturn:
    """Stop servers, write the last status lines, and exit with status 0; the kernel cuts off what has not ended.

    The interpreter would wait for hundreds of busy threads, each in its turn, to end by itself.
    """
    sys.setswitchinterval(STOPPING_SWITCH_SECONDS)
    stop_orderly(servers)
    LOG.flush(FLUSH_SECONDS)
    os._exit(0)


def fail(message: str) -> int:
    """Say in one line why the program cannot go on; return its exit status."""
    print(message, file=sys.stderr)
    return 1


def add_options(parser: argparse.ArgumentParser, host: str = "0.0.0.0") -> None:
    """Add the options that every server takes."""
    parser.add_argument("--host", default=host, help="address to listen on (default: %(default)s)")
    add_number(parser, "--max-connections", MAX_CONNECTIONS, "how many at once")
    add_number(parser, "--login-seconds", LOGIN_SECONDS, "how long a connection may take to do its first useful thing")


def add_number(parser: argparse.ArgumentParser, option: str, default: int, meaning: str) -> None:
    """Add an option whose value is a number from 1 to a million."""
    parser.add_argument(option, type=positive, default=default, metavar="N", help=f"{meaning} (default: %(default)s)")


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
