"""The server under test: a program that is started for each check, or one that is running already."""

import itertools
import os
import pty
import shlex
import signal
import socket
import subprocess
import threading
import time
import tty
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

HOST = "127.0.0.1"
FIRST_PORT, PORTS = 15_000, 17_000  # below those that the system gives to clients, which might take the server's port
PORTS_PER_PROCESS = 300  # so that a run seldom takes a port that another has just left, which some servers cannot bind
CONNECT_PAUSE_SECONDS = 0.01
STOP_SECONDS = 0.3  # between SIGINT and SIGKILL
READ_BYTES = 1 << 16
READ_PAUSE_SECONDS = 0.005  # so that a server that writes without end does not keep the processor busy
KEPT_LINES = 15  # of the server's output
KEPT_CHARACTERS = 300  # of each line


class Target:
    """A server that is running already: this program neither starts nor stops it."""

    def __init__(self, host: str, port: int) -> None:
        self.host = host
        self.port = port

    def connect(self, make_socket: Callable[[], socket.socket]) -> socket.socket:
        """Make a socket and connect it.

        Raises:
            OSError: the server accepts no connection.
        """
        sock = make_socket()
        try:
            sock.connect((self.host, self.port))
        except OSError:
            sock.close()
            raise
        return sock

    def death(self, seconds: float = 0.0) -> str:
        """Wait for the server's end; return how it ended, or an empty string if it runs on or that is unknown."""
        return ""

    def output(self) -> str:
        """Return the last lines that the server has written."""
        return ""

    def stop(self) -> None:
        """Stop the server, if this program has started it."""


class StartedTarget(Target):
    """A server that this program starts and stops.

    Args:
        command: its command line, in which {port} stands for the port.
        ready_seconds: how long it may take until it listens.
        directory: where to run it; None for the current directory.

    Raises:
        OSError: the program cannot be started.
    """

    def __init__(self, command: str, ready_seconds: float, directory: Path | None = None) -> None:
        self._reservation = reserve_port()
        super().__init__(HOST, self._reservation.getsockname()[1])
        words = [word.replace("{port}", str(self.port)) for word in shlex.split(command)]
        if directory:  # words that name files must still name them
            words = [str(Path(word).resolve()) if Path(word).exists() else word for word in words]
        self._ready_by = time.monotonic() + ready_seconds
        self._has_listened = False
        self._lines: deque[bytes] = deque(maxlen=KEPT_LINES)
        self._terminal, servers_end = pty.openpty()  # into a pipe, a C program writes nothing before it has 4096 bytes
        tty.setraw(servers_end)
        try:
            self._process = subprocess.Popen(
                words,
                stdin=subprocess.DEVNULL,
                stdout=servers_end,
                stderr=servers_end,
                cwd=directory,
                start_new_session=True,  # a process group, so that the server's children are stopped with it
            )
        except OSError:
            os.close(self._terminal)
            self._reservation.close()
            raise
        finally:
            os.close(servers_end)
        self._watchdog = start_watchdog(self._process.pid)
        self._reader = threading.Thread(target=self._read_output, daemon=True)
        self._reader.start()

    def connect(self, make_socket: Callable[[], socket.socket]) -> socket.socket:
        """Make a socket and connect it; at first, try again until the server listens.

        No connection is made only to see whether the server listens, because many servers count each connection as a
        user.
        """
        while True:
            try:
                sock = super().connect(make_socket)
            except ConnectionRefusedError:
                if self._has_listened or time.monotonic() > self._ready_by or self.death():
                    raise
                time.sleep(CONNECT_PAUSE_SECONDS)
            else:
                self._has_listened = True
                return sock

    def death(self, seconds: float = 0.0) -> str:
        """Wait for the server's end; return how it ended, or an empty string if it runs on."""
        try:
            status = self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            return ""
        if status < 0:
            return f"was killed by {signal.Signals(-status).name}"
        return f"ended with exit status {status}"

    def output(self) -> str:
        """Return the last lines that the server has written."""
        return b"".join(self._lines).decode(errors="replace")

    def stop(self) -> None:
        """Stop the server and its children as Ctrl-C does; kill what then still runs."""
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(self._process.pid, signal.SIGINT)
            self._process.wait(STOP_SECONDS)
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._watchdog.communicate(b"stopped\n")
        self._reader.join(STOP_SECONDS)
        self._reservation.close()

    def _read_output(self) -> None:
        with suppress(OSError):  # EIO: the server has ended
            while data := os.read(self._terminal, READ_BYTES):
                self._lines.extend(line[:KEPT_CHARACTERS] for line in data.splitlines(keepends=True)[-KEPT_LINES:])
                time.sleep(READ_PAUSE_SECONDS)
        os.close(self._terminal)


def start_watchdog(group: int) -> subprocess.Popen[bytes]:
    """Start a process that kills a process group when this program ends, even by SIGKILL, without stopping it first."""
    script = f"read -r line || kill -s KILL -- -{group} 2>/dev/null"  # read fails at the end of input
    return subprocess.Popen(["/bin/sh", "-c", script], stdin=subprocess.PIPE, start_new_session=True)


def reserve_port() -> socket.socket:
    """Return a UDP socket on a port on which no TCP server listens: no other run chooses the port while it is open."""
    while True:
        port = FIRST_PORT + (PORTS_PER_PROCESS * os.getpid() + next(_counter)) % PORTS
        reservation = socket.socket(type=socket.SOCK_DGRAM)
        try:
            reservation.bind((HOST, port))
            with socket.create_server((HOST, port)):
                return reservation
        except OSError:
            reservation.close()


_counter = itertools.count()
