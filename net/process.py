"""Run a server as a program: the process, its first line of output, signals, and an orderly end."""

import argparse
import ctypes
import os
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import NoReturn

from net.command_line import reason, shown_address
from net.log import LOG
from net.options import places
from net.server import Handler, Server
from net.tls import BadCertificate, Certificate

ORDERLY_STOP_SECONDS = 1.0
FLUSH_SECONDS = 0.3
SPARE_DESCRIPTORS = 64
STACK_BYTES = 1 << 19  # the usual 8 MiB each would cost 40 GB of address space for 5,000 connections
# Each thread that waits for the GIL wakes at this interval. At the usual 5 ms, thousands that end together would do
# nothing else. No thread keeps the GIL for long: each gives it up at its system calls, and after each turn.
SWITCH_SECONDS = 2.0
STOPPING_SWITCH_SECONDS_PER_CLIENT = 200e-6  # so that the main thread gets its turn among busy clients at a stop
PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS = 78, 1  # linux/prctl.h
FUTEX_SLOTS = 4096
PROCESSORS = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else range(os.cpu_count() or 1)
SIGNALS = {signal.SIGINT, signal.SIGTERM, signal.SIGHUP}


def serve(options: argparse.Namespace, handler: Handler) -> NoReturn:
    """Serve until SIGINT or SIGTERM, then exit."""
    prepare(os.getpid())
    limit_connections(options)
    run(open_server(options, options.port, handler))


def prepare(processor: int) -> None:
    """Set up the process before any thread is started, because threads inherit its settings.

    SIGINT, SIGTERM and SIGHUP are blocked, so that no signal handler interrupts a thread; wait_for_stop() waits for
    them. The processor is counted backwards from the last one; any number is valid, such as the process id.
    """
    # With a GIL, only one thread runs at a time. Threads on several processors contend for the GIL at every system
    # call, often in vain (David Beazley, Understanding the Python GIL, 2010).
    has_gil = getattr(sys, "_is_gil_enabled", lambda: True)()
    if has_gil and hasattr(os, "sched_setaffinity"):
        with suppress(OSError):
            os.sched_setaffinity(0, {PROCESSORS[-1 - processor % len(PROCESSORS)]})
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    threading.stack_size(STACK_BYTES)
    sys.setswitchinterval(SWITCH_SECONDS)
    # Since Linux 6.16, each process has a small hash table for threads that wait for locks. If the GIL's lock shares a
    # slot with thousands of threads that wait for the GIL, the kernel searches them all at each switch.
    with suppress(AttributeError):  # other systems have no prctl(); an older Linux refuses the option
        ctypes.CDLL(None).prctl(PR_FUTEX_HASH, PR_FUTEX_HASH_SET_SLOTS, FUTEX_SLOTS, 0)


def limit_connections(options: argparse.Namespace, descriptors_per_client: int = 1, other_descriptors: int = 0) -> None:
    """Raise the descriptor limit to what --max-connections needs, or lower --max-connections to what it allows."""
    options.wanted_connections = options.max_connections
    others = SPARE_DESCRIPTORS + other_descriptors
    wanted = others + descriptors_per_client * options.max_connections
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return
    with suppress(OSError, ValueError):  # some systems allow fewer than their hard limit
        new = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (new, hard))
        soft = new
    possible = max(soft - others, soft // 2) // descriptors_per_client
    options.max_connections = min(options.max_connections, max(1, possible))


def open_server(options: argparse.Namespace, port: int, handler: Handler, extra_places: int = 0) -> Server:
    """Return a server that listens, and write the status line that says where; or exit, and say why."""
    if bool(options.tls_certificate) != bool(options.tls_key):
        sys.exit("--tls-certificate and --tls-key are expected together")
    try:
        certificate = Certificate(options.tls_certificate, options.tls_key) if options.tls_key else None
        server = Server(options, port, handler, places(options, extra_places), certificate)
    except BadCertificate as error:
        sys.exit(str(error))
    except OSError as error:
        sys.exit(cannot_listen(options.host, port, error))
    LOG.write(f"Listening on {shown_address(options.host, server.port)}")
    most, wanted = options.max_connections, options.wanted_connections
    if most < wanted:
        LOG.write(f"Warning: the limit on open files allows {most} connections, not {wanted}; raise it with ulimit -n")
    if certificate and certificate.warning:
        LOG.write(certificate.warning)
    return server


def cannot_listen(host: str, port: int, error: OSError) -> str:
    """Return the line that says why a server cannot listen."""
    return f"Cannot listen on {shown_address(host, port)}: {reason(error)}"


def run(server: Server, others: Callable[[], Iterable[Server]] = tuple) -> NoReturn:
    """Serve until SIGINT or SIGTERM; then stop the server, and the others that exist by then, and exit with status 0.

    Connections that have not ended after ORDERLY_STOP_SECONDS are cut off by the kernel, which closes what is still
    open. A normal exit of the interpreter could take seconds while hundreds of threads are busy.
    """
    server.start()
    wait_for_stop(server.certificate)
    servers = [server, *others()]
    clients = sum(len(each.unclosed) for each in servers)
    sys.setswitchinterval(STOPPING_SWITCH_SECONDS_PER_CLIENT * max(1, clients))
    end = time.monotonic() + ORDERLY_STOP_SECONDS
    for each in servers:
        each.begin_stop()
    for each in servers:
        each.wait_for_end(end - time.monotonic())
    LOG.flush(FLUSH_SECONDS)
    os._exit(0)


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
        if not certificate:
            continue
        try:
            certificate.reload()
            LOG.write("The certificate was read again; new connections use it")
        except BadCertificate as error:
            LOG.write(f"The certificate was not replaced: {error}")
        if certificate.warning:
            LOG.write(certificate.warning)
