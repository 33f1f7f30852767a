"""A harness that runs programs as processes, connects clients to them, and shows what each of them writes.

    chat_server     | Listening on 127.0.0.1:40123      what a program writes
    alice           > JOIN alice                        what the scenario types for it
    alice           | JOIN alice accepted

A scenario sends lines to participants and expects lines from them. The harness shows a line when the scenario expects
it, not when it arrives: a server writes a status line some milliseconds after its reply, but a scenario that expects
the status line first shows the cause before its effect. Every wait has a limit; when a line does not come in time, the
harness raises Unmet.
"""

import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

from scenarios.report import BOLD, DIM, RED, Outcome, Report

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
WAIT_SECONDS = 8.0
TICK_SECONDS = 0.1
STOP_SECONDS = 3.0
RECEIVE_BYTES = 1 << 16
NAME_WIDTH = 15
NOTHING = "nothing came"
END = "disconnected"


class Unmet(Exception):
    """Something that a scenario needs did not happen; the arguments are what was expected, and what happened."""

    def __str__(self) -> str:
        return "expected {}, but {}".format(*self.args)


class Participant:
    """A client or a server, to which a scenario sends lines and from which it expects lines.

    Args:
        report: shows the lines.
        name: the name to show before each line.
        command: the command line to show first.
        sock: the connection to the participant.
    """

    def __init__(self, report: Report, name: str, command: str, sock: socket.socket) -> None:
        self.name = name
        self._report = report
        self._colour = report.colour_of(name)
        self._sock = sock
        self._changed = threading.Condition()  # guards all below
        self._lines: deque[str] = deque()  # which the scenario has not read
        self._unfinished = ""  # a line whose end has not arrived, such as a prompt
        self._echo = ""  # the last line typed at a prompt; a program may repeat it there
        self._ended = False
        self._show("$", report.painted(command, DIM))
        self._reader = threading.Thread(target=self._read_for_ever, name=name, daemon=True)
        self._reader.start()

    def send(self, text: str, shown: str = "") -> None:
        """Send a line; if it is secret, show another text in its place."""
        self._report.pause()
        with self._changed:
            prompt = self._unfinished if self._unfinished.endswith(" ") else ""
            if prompt:
                self._unfinished, self._echo = "", text
        self._show(">", prompt + self._report.painted(shown or text, BOLD))
        with suppress(OSError):  # the next expectation will report that the participant has ended
            self._sock.sendall(f"{text}\n".encode())

    def expect(self, *texts: str) -> str:
        """Wait until each text has occurred in a line or a prompt, in any order; return the last of these lines.

        Raises:
            Unmet: one of the texts did not occur in time.
        """
        until = time.monotonic() + WAIT_SECONDS
        missing, latest = list(texts), NOTHING
        while missing:
            line = self._next(until, missing[0])
            if not line:
                raise Unmet(f"{self.name} shows: {missing[0]}", latest + (", and then the end" if self._ended else ""))
            missing = [text for text in missing if text not in line]
            latest = line
        return latest

    def expect_number(self, before: str) -> int:
        """Wait for a line that contains a text; return the number that follows the text, or 0 if none does.

        Raises:
            Unmet: no such line came in time.
        """
        match = re.search(rf"{re.escape(before)}(\d+)", self.expect(before))
        return int(match[1]) if match else 0

    def reply(self) -> str:
        """Return the next line; END or NOTHING if none comes."""
        return self._next(time.monotonic() + WAIT_SECONDS) or (END if self._ended else NOTHING)

    def read_to_end(self) -> None:
        """Read lines until no more come."""
        while self.reply() not in (END, NOTHING):
            pass

    def show_rest(self) -> None:
        """Show the lines that the scenario has not read."""
        with self._changed:
            while self._lines:
                self._take()

    def end(self) -> None:
        """End the connection."""
        with suppress(OSError):  # it has ended already
            self._sock.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._sock.close()

    def _next(self, until: float, prompt: str = "") -> str:
        """Take the next line; if none comes before time.monotonic() reaches `until`, return an empty string.

        An unfinished line that contains the text of an expected prompt is returned, too, but not yet taken.
        """
        with self._changed:
            while time.monotonic() < until:
                self._report.check()
                if self._lines:
                    return self._take()
                if prompt and prompt in self._unfinished and self._unfinished.endswith(" "):
                    return self._unfinished
                if self._ended:
                    break
                self._changed.wait(TICK_SECONDS)
        return ""

    def _take(self) -> str:
        line = self._lines.popleft()
        if not self._report.live:
            self._show("|", line)
        return line

    def _read_for_ever(self) -> None:
        with suppress(OSError):
            while data := self._sock.recv(RECEIVE_BYTES):
                self._add(data.decode(errors="replace"))
        self._add("\n", ended=True)

    def _add(self, text: str, ended: bool = False) -> None:
        """Add a received text to the lines."""
        with self._changed:
            *lines, self._unfinished = (self._unfinished + text).replace("\r\n", "\n").split("\n")
            for line in lines:
                if line.strip() and line != self._echo:
                    self._lines.append(line)
                    if self._report.live:
                        self._show("|", line)
                self._echo = ""
            self._ended = ended
            self._changed.notify_all()

    def _show(self, sign: str, text: str) -> None:
        self._report.show(self._report.painted(f"{self.name:<{NAME_WIDTH}} {sign}", self._colour) + f" {text}")


class ScriptProcess(Participant):
    """A program of the project as a process; its standard error counts as standard output.

    Attributes:
        port: the port on which it listens, if it is a server.
    """

    port = 0

    def __init__(self, report: Report, name: str, script: str, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(report, name, shlex.join(["python3", script, *arguments]), ours)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-u", str(ROOT / script), *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the demo, which then ends all programs
            )

    def receive(self, client: Participant, line: str, logged: str = "") -> None:
        """Send a line from a client; wait until this server has logged it: its first word, or another text."""
        client.send(line)
        self.expect(logged or line.split()[0])

    def freeze(self) -> None:
        """Suspend the program, so that it does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill the program, as kill -9 does."""
        self._show("!", self._report.painted("kill -9", RED))
        self._process.kill()
        self._process.wait()

    def end(self) -> None:
        """End the program; kill it if it does not end in time when asked to."""
        self._process.terminate()
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        super().end()


class Harness:
    """The participants of a scenario; leaving the context ends them.

    Args:
        report: shows what they send and receive.
        directory: for their files.

    Attributes:
        directory: the directory.
        servers: the running servers, by name, such as chat_server.
        invitation: lines to paste into other terminals.
        outcomes: the results of check().
    """

    def __init__(self, report: Report, directory: Path) -> None:
        self.directory = directory
        self.servers: dict[str, ScriptProcess] = {}
        self.invitation: list[str] = []
        self.outcomes: list[Outcome] = []
        self._report = report
        self._participants: list[Participant] = []

    def __enter__(self) -> "Harness":
        """Enter the context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Show the lines that are left, and end all participants."""
        for participant in self._participants:
            participant.show_rest()
        for participant in reversed(self._participants):
            participant.end()

    def start(self, name: str, script: str, *arguments: str) -> ScriptProcess:
        """Start a program of the project."""
        program = ScriptProcess(self._report, name, script, *arguments)
        self._participants.append(program)
        return program

    def start_server(self, script: str, *arguments: str) -> ScriptProcess:
        """Start a server of the project, and wait until it listens.

        Raises:
            Unmet: it does not listen.
        """
        name = script.removesuffix(".py")
        self.servers[name] = server = self.start(name, script, *arguments)
        listening = f"Server {name[-1]} listening" if name[-1] in "SDU" else "Listening"
        server.port = server.expect_number(f"{listening} on {HOST}:")
        return server

    def connect(self, name: str, port: int) -> Participant:
        """Connect a client that needs no program of its own; telnet need not be installed.

        Raises:
            OSError: the client cannot connect.
        """
        sock = socket.create_connection((HOST, port), WAIT_SECONDS)
        sock.settimeout(None)
        client = Participant(self._report, name, f"(like telnet) localhost {port}", sock)
        self._participants.append(client)
        return client

    def check(self, situation: str, expected: str, happened: str) -> None:
        """Record what was expected in a situation, and what happened."""
        self.outcomes.append(Outcome(situation, expected, happened))
