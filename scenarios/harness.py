"""A harness that runs programs as processes, connects clients to them, and shows what each of them writes.

    chat_server     | Listening on 127.0.0.1:40123      what a program writes
    alice           > JOIN alice                        what the scenario types for it
    alice           | JOIN alice accepted

A scenario sends lines to participants and expects lines from them. The harness shows a line when the scenario expects
it, not when it arrives: a server writes a status line some milliseconds after its reply, but a scenario that expects
the status line first shows the cause before its effect. If nothing comes within WAIT_SECONDS, the harness raises Unmet.
"""

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
from typing import TextIO

from scenarios.report import BOLD, DIM, RED, TICK_SECONDS, Outcome, Report

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
WAIT_SECONDS = 8.0
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

    The command that has started it is shown first. If there is a log, its lines go there, and nothing is shown.
    """

    def __init__(self, report: Report, name: str, command: str, sock: socket.socket, log: TextIO | None = None) -> None:
        self.name = name
        self._report = report
        self._log = log
        self._colour = report.colour_of(name)
        self._sock = sock
        self._changed = threading.Condition()  # guards all below
        self._lines: deque[str] = deque()  # which the scenario has not read
        self._unfinished = ""  # a line whose end has not arrived, such as a prompt
        self._echo = ""  # the last line typed at a prompt; a program may repeat it there
        self._ended = False
        if not log:
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
        """Wait until each text has occurred in a line or prompt of its own, in any order; return the last one."""
        missing, latest = list(texts), NOTHING
        while missing:
            line = self._next(missing[0])
            if not line:
                raise Unmet(f"{self.name} shows: {missing[0]}", latest + (", and then the end" if self._ended else ""))
            found = next((text for text in missing if text in line), None)
            if found:
                missing.remove(found)
            latest = line
        return latest

    def reply(self) -> str:
        """Return the next line; END or NOTHING if none comes."""
        line = self._next()
        if not line and self._ended:
            self._show("|", self._report.painted(f"({END})", DIM))
        return line or (END if self._ended else NOTHING)

    def read_to_end(self) -> None:
        """Read lines until no more come."""
        while self._next():
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
        if self._log:
            self._log.close()

    def _next(self, prompt: str = "") -> str:
        """Take the next line; if none comes within WAIT_SECONDS, return an empty string.

        An unfinished line that contains the text of an expected prompt is returned, too, but not yet taken.
        """
        until = time.monotonic() + WAIT_SECONDS
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
        if not self._log and not self._report.live:
            self._show("|", line)
        return line

    def _read_for_ever(self) -> None:
        with suppress(OSError):
            while data := self._sock.recv(RECEIVE_BYTES):
                self._add(data.decode(errors="replace"))
            self._sock.shutdown(socket.SHUT_WR)  # as telnet does
        self._add("\n", ended=True)

    def _add(self, text: str, ended: bool = False) -> None:
        """Add a received text to the lines."""
        with self._changed:
            *lines, self._unfinished = (self._unfinished + text).replace("\r\n", "\n").split("\n")
            for line in lines:
                if line.strip() and line != self._echo:
                    self._lines.append(line)
                    if self._log:
                        print(line, file=self._log, flush=True)
                    elif self._report.live:
                        self._show("|", line)
                self._echo = ""
            self._ended = ended
            self._changed.notify_all()

    def _show(self, sign: str, text: str) -> None:
        self._report.show_step(self._report.painted(f"{self.name:<{NAME_WIDTH}} {sign}", self._colour) + f" {text}")


class ScriptProcess(Participant):
    """A program of the project as a process; its standard error counts as standard output."""

    port = 0  # on which it listens, if it is a server

    def __init__(self, report: Report, name: str, script: str, *arguments: str, log: TextIO | None = None) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(report, name, shlex.join(["python3", script, *arguments]), ours, log)
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
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(STOP_SECONDS)
        self._process.kill()  # has no effect on a program that has ended
        self._process.wait()
        super().end()


class Harness:
    """The participants of a scenario, their files in a directory, and its outcomes; leaving the context ends them.

    If it stays, users use the servers, which then have logs and, where these are free, their usual ports.
    """

    def __init__(self, report: Report, directory: Path, host: str = HOST, stays: bool = False) -> None:
        self.directory = directory
        self.servers: dict[str, ScriptProcess] = {}  # by name, such as chat_server
        self.invitations: list[str] = []  # what to paste into other terminals, and what to do then
        self.outcomes: list[Outcome] = []  # of check()
        self.addresses = addresses_of(host)  # by which users reach the servers
        self.local = HOST if host in EVERYWHERE else host  # where the programs here reach each other
        self.host = host
        # The front end, which runs only if the demo stays, names its clients to the systems.
        self.listening = ["--host", host, *(["--proxy-from", self.local] if stays else [])]
        self._stays = stays
        self._report = report
        self._participants: list[Participant] = []

    def __enter__(self) -> "Harness":
        return self

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """End all participants.

        First show the lines that nobody has read. Those of a server come after the dialogue that they explain, so they
        are shown only if something went wrong.
        """
        went_wrong = not all(outcome.met for outcome in self.outcomes)
        for participant in self._participants:
            if not error and (went_wrong or participant not in self.servers.values()):
                participant.show_rest()
        for participant in reversed(self._participants):
            participant.end()

    def port(self, usual: int) -> str:
        """Return a port for a server, as an argument: its usual one, if users are to use it and it is free, or 0."""
        hosts = {self.host, HOST}  # the dormitory's back ends always listen on HOST
        return str(usual) if self._stays and all(is_free(host, usual) for host in hosts) else "0"

    def start(self, name: str, script: str, *arguments: str, log: TextIO | None = None) -> ScriptProcess:
        """Start a program of the project."""
        program = ScriptProcess(self._report, name, script, *arguments, log=log)
        self._participants.append(program)
        return program

    def start_server(self, script: str, *arguments: str) -> ScriptProcess:
        """Start a server of the project, and wait until it listens."""
        name = script.removesuffix(".py")
        log = (self.directory / f"{name}.log").open("w") if self._stays and not self._report.live else None
        self.servers[name] = server = self.start(name, script, *arguments, log=log)
        listening = f"Server {name[-1]} listening" if name[-1] in "SDU" else "Listening"
        server.port = int(server.expect(f"{listening} on ").rpartition(":")[2])
        return server

    def invite(self, commands: list[str], hints: list[str]) -> None:
        """Add lines to paste into other terminals, and hints what to do then."""
        self.invitations += [*(f"    {line}" for line in commands), *(f"  {hint}" for hint in hints)]

    def connect(self, name: str, port: int) -> Participant:
        """Connect a client that needs no program of its own; telnet need not be installed."""
        sock = socket.create_connection((HOST, port), WAIT_SECONDS)
        sock.settimeout(None)
        client = Participant(self._report, name, f"(like telnet) localhost {port}", sock)
        self._participants.append(client)
        return client

    def check(self, situation: str, expected: str, happened: str) -> None:
        """Record what was expected in a situation, and what happened."""
        self.outcomes.append(Outcome(situation, expected, happened))


def is_free(host: str, port: int) -> bool:
    """Return whether no program uses a port, for TCP or UDP."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        with socket.create_server((host, port), family=family), socket.socket(family, socket.SOCK_DGRAM) as udp:
            udp.bind((host, port))
    except OSError:
        return False
    return True


def addresses_of(host: str) -> list[str]:
    """Return how users reach servers that listen on a host: by this machine's addresses, if on all of them."""
    if host == HOST:
        return ["localhost"]
    if host not in EVERYWHERE:
        return [host]
    addresses = []
    with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1", 9))  # sends nothing, but chooses the address that other hosts see
        addresses.append(udp.getsockname()[0])
    with suppress(OSError):  # this machine's name has no address
        addresses += socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in dict.fromkeys(addresses) if not address.startswith("127.")] or ["localhost"]
