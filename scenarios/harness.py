"""A harness that runs programs as processes, connects clients to them, and shows what each of them writes.

    chat_server     | Listening on 127.0.0.1:40123      what a program writes
    alice           > JOIN alice                        what the scenario types for it
    alice           | JOIN alice accepted

A scenario sends lines to participants and expects lines from them. The harness shows a line when the scenario expects
it, not when it arrives: a server writes a status line some milliseconds after its reply, but a scenario that expects
the status line first shows the cause before its effect. If nothing comes within WAIT_SECONDS, the harness raises Unmet.
"""

import select
import shlex
import socket
import subprocess
import sys
import time
from collections import deque
from contextlib import AbstractContextManager, suppress
from pathlib import Path

from scenarios.report import BOLD, DIM, RED, TICK_SECONDS, Outcome, Report

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
EVERYWHERE = ("0.0.0.0", "::")
WAIT_SECONDS = 8.0
STOP_SECONDS = 3.0
RECEIVE_BYTES = 1 << 16
MAX_LINES = 1000  # nobody reads those of servers that stay
NOTHING = "nothing came"
END = "disconnected"


class Unmet(Exception):
    """Something that a scenario needs did not happen; the arguments are what was expected, and what happened."""

    def __str__(self) -> str:
        return "expected {}, but {}".format(*self.args)


class Participant:
    """A client or a server, to which a scenario sends lines and from which it expects lines."""

    port = 0  # on which it listens, if it is a server

    def __init__(self, harness: "Harness", name: str, command: str, sock: socket.socket) -> None:
        self.name = name
        self.has_ended = False
        self._harness = harness
        self._report = harness.report
        self._log = (harness.directory / f"{name}.log").open("wb", buffering=0) if harness.has_logs else None
        self._sock = sock
        self._lines: deque[str] = deque(maxlen=MAX_LINES)  # which the scenario has not read
        self._unfinished = ""  # a line whose end has not arrived, such as a prompt
        self._echo = ""  # the last line typed at a prompt; a program may repeat it there
        if not self._log:
            self._show("$", self._report.painted(command, DIM))

    def send(self, text: str, shown: str = "") -> None:
        """Send a line; if it is secret, show another text in its place."""
        self._report.pause()
        self._harness.receive(0)
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
                happened = f"{latest}, and then the end" if self.has_ended else latest
                raise Unmet(f"{self.name} shows: {missing[0]}", happened)
            found = next((text for text in missing if text in line), None)
            if found:
                missing.remove(found)
            latest = line
        return latest

    def reply(self) -> str:
        """Return the next line; END or NOTHING if none comes."""
        line = self._next()
        if not line and self.has_ended:
            self._show("|", self._report.painted(f"({END})", DIM))
        return line or (END if self.has_ended else NOTHING)

    def read_rest(self, seconds: float = WAIT_SECONDS) -> None:
        """Read lines until the end, or until none comes within some seconds."""
        while self._next(seconds=seconds):
            pass

    def _next(self, prompt: str = "", seconds: float = WAIT_SECONDS) -> str:
        """Take the next line; if none comes in time, return an empty string.

        An unfinished line that contains the text of an expected prompt is returned, too, but not yet taken.
        """
        until = time.monotonic() + seconds
        while not self._lines and not self.has_ended and time.monotonic() < until:
            if prompt and prompt in self._unfinished and self._unfinished.endswith(" "):
                return self._unfinished
            self._harness.receive()
        line = self._lines.popleft() if self._lines else ""
        if line and not self._harness.stays:
            self._show("|", line)
        return line

    def fileno(self) -> int:
        """Return the descriptor for select.select()."""
        return self._sock.fileno()

    def receive(self) -> None:
        """Wait for input, and add it to the lines."""
        data = b""
        with suppress(OSError):
            data = self._sock.recv(RECEIVE_BYTES)
            if not data:
                self._sock.shutdown(socket.SHUT_WR)  # as telnet does
        self.has_ended = not data
        text = data.decode(errors="replace") or "\n"
        *lines, self._unfinished = (self._unfinished + text).replace("\r\n", "\n").split("\n")
        for line in lines:
            if line.strip() and line != self._echo:
                self._lines.append(line)
                if self._harness.stays:
                    self._show("|", line)
            self._echo = ""

    def end(self) -> None:
        """End the connection."""
        self._sock.close()
        if self._log:
            self._log.close()

    def _show(self, sign: str, text: str) -> None:
        if self._log:
            with suppress(OSError):  # the disk is full; users still need the servers
                self._log.write(f"{text}\n".encode())
        else:
            self._report.show_step(self.name, sign, text)


class ScriptProcess(Participant):
    """A program of the project as a process; its standard error counts as standard output."""

    def __init__(self, harness: "Harness", name: str, script: str, *arguments: str) -> None:
        ours, theirs = socket.socketpair()
        super().__init__(harness, name, shlex.join(["python3", script, *arguments]), ours)
        with theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-u", str(ROOT / script), *arguments],
                stdin=theirs.fileno(),
                stdout=theirs.fileno(),
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches only the demo, which then ends all programs
            )

    def receive_from(self, client: Participant, line: str, logged: str = "") -> None:
        """Send a line from a client; wait until this server has logged it: its first word, or another text."""
        client.send(line)
        self.expect(logged or line.split()[0])

    def answer_to(self, client: Participant, line: str, logged: str = "") -> str:
        """Receive a line from a client; return the reply that the client then gets."""
        self.receive_from(client, line, logged)
        return client.reply()

    def kill(self) -> None:
        """Kill the program, as kill -9 does."""
        self._show("!", self._report.painted("kill -9", RED))
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """End the program; kill it if it does not end in time when asked to."""
        self.process.terminate()
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(STOP_SECONDS)
        self.process.kill()  # has no effect on a program that has ended
        self.process.wait()
        while not self.has_ended:
            self.receive()
        super().end()


class Harness(AbstractContextManager["Harness"]):
    """The participants of a scenario, their files in a directory, and its outcomes; leaving the context ends them.

    With a host, the servers stay for users, on that host and, where these are free, on their usual ports; what they
    write is shown at once, or goes to logs.
    """

    def __init__(self, report: Report, directory: Path, host: str = "", has_logs: bool = False) -> None:
        self.report = report
        self.directory = directory
        self.host = host or HOST
        self.stays = bool(host)
        self.has_logs = has_logs
        self.servers: dict[str, ScriptProcess] = {}  # by name, such as chat_server
        self.invitations: list[str] = []  # what to paste into other terminals, and what to do then
        self.outcomes: list[Outcome] = []  # of check()
        self.addresses = addresses_of(self.host)  # by which users reach the servers
        self.local = HOST if host in EVERYWHERE else self.host  # where the programs here reach each other
        # The front end, which runs only if the servers stay, names its clients to the systems.
        self.listening = ["--host", self.host, *(["--proxy-from", self.local] if host else [])]
        self._participants: list[Participant] = []

    def __exit__(self, error: type[BaseException] | None, *_: object) -> None:
        """Show the lines that the scenario has not read, and end all participants."""
        went_wrong = not all(outcome.met for outcome in self.outcomes)
        try:
            for participant in self._participants:
                # A server's lines would come after the dialogue that they explain.
                if not error and (went_wrong or not participant.port):
                    participant.read_rest(0)
        finally:
            for participant in reversed(self._participants):
                participant.end()

    def port(self, usual: int) -> str:
        """Return a port for a server, as an argument: its usual one, if users are to use it and it is free, or 0."""
        if not self.stays:
            return "0"
        with suppress(OSError):  # another program has it, for TCP or UDP
            for host in {self.host, HOST}:  # the dormitory's back ends always listen on HOST
                family = socket.AF_INET6 if ":" in host else socket.AF_INET
                socket.create_server((host, usual), family=family).close()
                with socket.socket(family, socket.SOCK_DGRAM) as udp:
                    udp.bind((host, usual))
            return str(usual)
        return "0"

    def start(self, name: str, script: str, *arguments: str) -> ScriptProcess:
        """Start a program of the project."""
        program = ScriptProcess(self, name, script, *arguments)
        self._participants.append(program)
        return program

    def start_server(self, script: str, *arguments: str) -> ScriptProcess:
        """Start a server of the project, and wait until it listens."""
        name = script.removesuffix(".py")
        self.servers[name] = server = self.start(name, script, *arguments)
        listening = f"Server {name[-1]} listening" if name[-1] in "SDU" else "Listening"
        server.port = int(server.expect(f"{listening} on ").rpartition(":")[2])
        return server

    def connect(self, name: str, port: int) -> Participant:
        """Connect a client that needs no program of its own; telnet need not be installed."""
        sock = socket.create_connection((HOST, port), WAIT_SECONDS)
        client = Participant(self, name, f"(like telnet) localhost {port}", sock)
        self._participants.append(client)
        return client

    def receive(self, seconds: float = TICK_SECONDS) -> None:
        """Receive what participants have written; wait for it if necessary. Stopped: the demo has been asked to end."""
        self.report.check()
        connected = [participant for participant in self._participants if not participant.has_ended]
        for participant in select.select(connected, [], [], seconds)[0]:
            participant.receive()

    def invite(self, commands: list[str], hints: list[str]) -> None:
        """Add lines to paste into other terminals, and hints what to do then."""
        self.invitations += [*(f"    {line}" for line in commands), *(f"  {hint}" for hint in hints)]

    def check(self, situation: str, expected: str, happened: str) -> None:
        """Record what was expected in a situation, and what happened."""
        self.outcomes.append(Outcome(situation, expected, happened))


def addresses_of(host: str) -> list[str]:
    """Return how users reach servers that listen on a host: by this machine's addresses, if on all of them."""
    if host not in EVERYWHERE:
        return ["localhost" if host == HOST else host]
    addresses = []
    with suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as udp:
        udp.connect(("192.0.2.1", 9))  # sends nothing, but chooses the address that other hosts see
        addresses.append(udp.getsockname()[0])
    with suppress(OSError):  # this machine's name has no address
        addresses += socket.gethostbyname_ex(socket.gethostname())[2]
    return [address for address in dict.fromkeys(addresses) if not address.startswith("127.")] or ["localhost"]
