"""Run a server as a program: options, the descriptor limit, signals, the first line of output, and an orderly end."""

import argparse
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from net.command_line import add_number, positive_number, reason, shown_address
from net.log import LOG
from net.server import ORDERLY_STOP_SECONDS, Handler, Places, Server
from net.tls import BadCertificate, Certificate

MAX_CONNECTIONS = 2000
LOGIN_SECONDS = 600
FLUSH_SECONDS = 0.3
SPARE_DESCRIPTORS = 64
STACK_BYTES = 1 << 19  # the usual 8 MiB each would cost 40 GB of address space for 5,000 connections
# Each thread that waits for the GIL wakes at this interval. At the usual 5 ms, 5,000 threads would do nothing else.
SWITCH_SECONDS = 0.5
STOPPING_SWITCH_SECONDS = 0.0005  # the thread that stops the others must get its turn although hundreds are busy
PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def add_server_options(parser: argparse.ArgumentParser, host: str = "0.0.0.0") -> None:
    """Add the options that every TCP server takes."""
    parser.add_argument("--host", default=host, help="name or address to listen on (default: %(default)s)")
    add_number(parser, "--max-connections", MAX_CONNECTIONS, "how many clients may be connected at once")
    parser.add_argument(
        "--max-per-address",
        type=positive_number,
        metavar="N",
        help="how many clients from one address may be connected at once (default: half of --max-connections)",
    )
    add_number(parser, "--login-seconds", LOGIN_SECONDS, "how long a client may take to log in or to send a request")
    parser.add_argument(
        "--tls-certificate", type=Path, metavar="FILE", help="speak TLS, with the certificate in this PEM file"
    )
    parser.add_argument("--tls-key", type=Path, metavar="FILE", help="the certificate's private key, a PEM file")


def places(options: argparse.Namespace, extra: int = 0) -> Places:
    """Return the places for connections that the options allow, plus extra ones."""
    per_address = options.max_per_address or (options.max_connections + 1) // 2
    return Places(options.max_connections + extra, per_address + extra)


def _certificate(options: argparse.Namespace) -> Certificate | None:
    """Return the certificate that the options name, or None for a server that does not speak TLS.

    Raises:
        BadCertificate: the certificate cannot be used, or only one of the two options is given.
    """
    if not options.tls_certificate and not options.tls_key:
        return None
    if not (options.tls_certificate and options.tls_key):
        raise BadCertificate("--tls-certificate and --tls-key are expected together")
    return Certificate(options.tls_certificate, options.tls_key)


def serve(options: argparse.Namespace, handler: Handler) -> NoReturn:
    """Serve until SIGINT or SIGTERM, then exit."""
    prepare(options.max_connections, os.getpid())
    run(open_server(options, options.port, handler))


def open_server(options: argparse.Namespace, port: int, handler: Handler, extra_places: int = 0) -> Server:
    """Return a server that listens, and write the status line that says where.

    Args:
        options: the command line; the parser was given add_server_options().
        port: the port.
        handler: called with each conversation.
        extra_places: for connections beyond those that the options allow.

    Raises:
        SystemExit: the certificate cannot be used, or the server cannot listen; the interpreter prints why.
    """
    try:
        all_places = places(options, extra_places)
        server = Server(options.host, port, handler, all_places, options.login_seconds, _certificate(options))
    except BadCertificate as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(cannot_listen(options.host, port, error))
    LOG.write(f"Listening on {shown_address(options.host, server.port)}")
    return server


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return the line that says why a server cannot listen."""
    return f"Cannot listen on {shown_address(host, port)}: {reason(error)}"


def run(server: Server, others: Callable[[], Iterable[Server]] = tuple) -> NoReturn:
    """Serve until SIGINT or SIGTERM; then stop the server, and the others that exist by then, and exit with status 0.

    The kernel closes what is still open. A normal exit of the interpreter could take seconds while hundreds of threads
    are busy.
    """
    server.start()
    wait_for_stop(server.certificate)
    sys.setswitchinterval(STOPPING_SWITCH_SECONDS)
    servers = [server, *others()]
    for each in servers:
        each.begin_stop()
    end = time.monotonic() + ORDERLY_STOP_SECONDS
    for each in servers:
        each.wait_for_end(end - time.monotonic())
    LOG.flush(FLUSH_SECONDS)
    os._exit(0)


def prepare(descriptors: int, processor: int) -> None:
    """Set up the process: its processor, signals, the stack size of its threads, and the descriptor limit.

    SIGINT, SIGTERM and SIGHUP are blocked, so that no signal handler interrupts a thread; wait_for_stop() waits for
    them. Call this before any thread is started, because threads inherit these settings.

    Args:
        descriptors: how many descriptors the process may need.
        processor: the processor to which the process is pinned, counted backwards from the last one; any number is
            valid, such as the process id.
    """
    _stay_on(processor)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.stack_size(STACK_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = descriptors + SPARE_DESCRIPTORS
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with suppress(OSError, ValueError):  # some systems allow fewer than their hard limit
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _stay_on(processor: int) -> None:
    """Pin this thread, and the threads that it starts, to one processor, where the system supports that.

    With a GIL, only one thread runs at a time. Threads on several processors contend for the GIL at every system call,
    often in vain (David Beazley, Understanding the Python GIL, 2010).
    """
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if has_gil and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, {PROCESSORS[~processor % len(PROCESSORS)]})


def use_all_processors() -> None:
    """Let this thread run on any processor again; meant for long computations that release the GIL."""
    if hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, PROCESSORS)


def wait_for_stop(certificate: Certificate | None = None) -> None:
    """Wait for SIGINT or SIGTERM.

    SIGHUP makes a TLS server read its certificate again. It stops a server without TLS, unless nohup started the
    server: nohup makes a program ignore SIGHUP.
    """
    survives_hangup = certificate or signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    while signal.sigwait(SIGNALS) == signal.SIGHUP and survives_hangup:
        if certificate:
            _reload(certificate)


def _reload(certificate: Certificate) -> None:
    try:
        certificate.reload()
        LOG.write("The certificate was read again; new connections use it")
    except BadCertificate as error:
        LOG.write(f"The certificate was not replaced: {error}")
