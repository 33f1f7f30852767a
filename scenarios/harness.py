"""A harness that runs programs as processes, connects clients to them, and shows what each of them writes.

    chat_server     | Listening on 127.0.0.1:40123      what a program writes
    alice           > JOIN alice                        what the scenario types for it
    alice           | JOIN alice accepted

A scenario sends lines to participants and expects lines of them. The harness shows a line when the scenario expects it,
not when it arrives: a server writes a status line some milliseconds after its reply, but a scenario that expects the
status line first shows the cause before its effect. Every wait has a limit; when a line does not come in time, the
harness raises Unmet.
"""

import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from scenarios.report import BOLD, DIM, RED, Report

ROOT = Path(__file__).resolve().parent.parent
HOST = "127.0.0.1"
WAIT_SECONDS = 8.0
TICK_SECONDS = 0.1
STOP_SECONDS = 3.0
RECEIVE_BYTES = 1 << 16
NAME_WIDTH = 15
NOTHING = "nothing came"


class Unmet(Exception):
    """Something that a scenario needs did not happen.

    Attributes:
        expected: what was expected.
        happened: what happened.
    """

    def __init__(self, expected: str, happened: str) -> None:
        super().__init__(f"expected {expected}, but {happened}")
        self.expected = expected
        self.happened = happened


class Participant:
    """A program or a connection, to which a scenario sends lines and of which it expects lines.

    Args:
        report: shows the lines.
        name: the name to show before each line.
        live: whether to show a line as soon as it arrives.
    """

    def __init__(self, report: Report, name: str, live: bool) -> None:
        self.name = name
        self._report = report
        self._live = live
        self._colour = report.colour_of(name)
        self._changed = threading.Condition()  # guards all below
        self._lines: list[str] = []
        self._seen = 0  # how many of the lines the scenario has read
        self._unfinished = ""  # a line whose end has not come, such as a prompt
        self._echo = ""  # the last line typed at a prompt; a program may repeat it there
        self._ended = False
        self._reader = threading.Thread(target=self._read_for_ever, name=name, daemon=True)

    def send(self, text: str, shown: str = "") -> None:
        """Send a line; show another text in its place if there is one, because the line is secret."""
        self._report.pause()
        with self._changed:
            prompt = self._unfinished if self._at_prompt() else ""
            self._unfinished = self._unfinished.removeprefix(prompt)
            self._echo = text if prompt else ""
        self._show(">", prompt + self._report.painted(shown or text, BOLD))
        with suppress(OSError):  # the next expectation will report that the participant has ended
            self._send(text)

    def expect(self, text: str) -> str:
        """Wait for a line that contains a text; return the line.

        Raises:
            Unmet: no such line came.
        """
        return self.expect_lines(text)[-1]

    def expect_lines(self, text: str) -> list[str]:
        """Wait for a line that contains a text; return all lines up to it.

        Raises:
            Unmet: no such line came.
        """
        lines = self._next(text)
        if not lines or text not in lines[-1]:
            came = " / ".join(lines[-2:]) or NOTHING
            raise Unmet(f"{self.name} shows: {text}", came + (", and then the end" if self._ended else ""))
        return lines

    def expect_all(self, *texts: str) -> None:
        """Wait until each text has occurred in a line, in any order.

        Raises:
            Unmet: one of them did not occur.
        """
        missing = list(texts)
        while missing:
            lines = self._next("")
            if not lines:
                raise Unmet(f"{self.name} shows: {missing[0]}", NOTHING)
            missing = [text for text in missing if text not in lines[-1]]

    def expect_number(self, before: str) -> int:
        """Wait for a line that contains a text; return the number that follows the text.

        Raises:
            Unmet: no such line came.
        """
        line = self.expect(before)
        number = re.match(r"\d+", line.partition(before)[2])
        if not number:
            raise Unmet(f"{self.name} shows: {before} and a number", line)
        return int(number[0])

    def reply(self) -> str:
        """Return the next line that is not empty, or NOTHING if none comes."""
        return "".join(self._next("")) or NOTHING

    def shows(self, text: str) -> bool:
        """Return whether a line that contains a text comes within the time limit."""
        return text in (self._next(text) or [""])[-1]

    def ends(self) -> bool:
        """Return whether the output, or the connection, ends within the time limit; show what came before."""
        ended = self._wait_until(lambda: self._ended)
        self.show_rest()
        return ended

    def show_rest(self) -> None:
        """Show the lines that the scenario has not read."""
        with self._changed:
            while self._seen < len(self._lines):
                self._take_next()

    def _next(self, text: str) -> list[str]:
        """Wait for a line with a text, or for the end; return the lines up to there.

        An unfinished line that contains the text, such as a prompt, is returned too, but not yet counted as read.
        """
        lines: list[str] = []

        def look() -> bool:
            while self._seen < len(self._lines):
                lines.append(self._take_next())
                if text in lines[-1]:
                    return True
            if text and self._at_prompt() and text in self._unfinished:
                lines.append(self._unfinished)
                return True
            return self._ended

        self._wait_until(look)
        return lines

    def _take_next(self) -> str:
        line = self._lines[self._seen]
        self._seen += 1
        if not self._live:
            self._show("|", line)
        return line

    def _at_prompt(self) -> bool:
        return self._unfinished.endswith(" ")

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + WAIT_SECONDS
        with self._changed:
            while not condition():
                self._report.check()
                if time.monotonic() > end:
                    return False
                self._changed.wait(TICK_SECONDS)
        return True

    def _read_for_ever(self) -> None:
        data = b"?"
        while data:
            try:
                data = self._receive()
            except OSError:
                data = b""
            self._add(data.decode(errors="replace"))

    def _add(self, text: str) -> None:
        """Add a received text to the lines; an empty text is the end."""
        with self._changed:
            *lines, self._unfinished = (self._unfinished + text).replace("\r\n", "\n").split("\n")
            if not text:
                lines += [self._unfinished] if self._unfinished.strip() else []
                self._ended = True
            for line in lines:
                if line and line != self._echo:
                    self._lines.append(line)
                    if self._live:
                        self._show("|", line)
                self._echo = ""
            self._changed.notify_all()

    def _show(self, sign: str, text: str) -> None:
        self._report.show(self._report.painted(f"{self.name:<{NAME_WIDTH}} {sign}", self._colour) + f" {text}")

    def _send(self, text: str) -> None:
        raise NotImplementedError

    def _receive(self) -> bytes:
        raise NotImplementedError


class ScriptProcess(Participant):
    """A program of the project as a process; its standard error counts as standard output."""

    def __init__(self, report: Report, name: str, live: bool, script: str, *arguments: str) -> None:
        super().__init__(report, name, live)
        self._show("$", report.painted(shlex.join(["python3", script, *arguments]), DIM))
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(ROOT / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches only the demo, which then ends all programs
        )
        self._reader.start()

    def freeze(self) -> None:
        """Suspend the program, so that it does not answer."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill the program, as kill -9 does."""
        self._show("!", self._report.painted("kill -9", RED))
        self._process.kill()
        self._process.wait()

    def begin_end(self) -> None:
        """Ask the program to end."""
        self._process.terminate()

    def end(self, until: float) -> None:
        """Wait for the end of the program; kill it if it still runs when time.monotonic() reaches `until`."""
        try:
            self._process.wait(max(0.0, until - time.monotonic()))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join()
        for stream in (self._process.stdin, self._process.stdout):
            with suppress(OSError):
                stream.close()  # type: ignore[union-attr]

    def _send(self, text: str) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{text}\n".encode())
        self._process.stdin.flush()

    def _receive(self) -> bytes:
        assert self._process.stdout
        return os.read(self._process.stdout.fileno(), RECEIVE_BYTES)


class LineClient(Participant):
    """A connection that sends lines as telnet does; telnet itself need not be installed.

    Args:
        port: the port to connect to.

    Raises:
        Unmet: there is no connection.
    """

    def __init__(self, report: Report, name: str, live: bool, port: int) -> None:
        super().__init__(report, name, live)
        self._show("$", report.painted(f"(like telnet) localhost {port}", DIM))
        try:
            self._sock = socket.create_connection((HOST, port), WAIT_SECONDS)
        except OSError as error:
            raise Unmet(f"{name} is connected", error.strerror or str(error)) from None
        self._sock.settimeout(None)
        self._reader.start()

    def begin_end(self) -> None:
        """End the connection."""
        with suppress(OSError):
            self._sock.shutdown(socket.SHUT_RDWR)

    def end(self, _: float) -> None:
        """Close the connection."""
        self._reader.join()
        self._sock.close()

    def _send(self, text: str) -> None:
        self._sock.sendall(f"{text}\r\n".encode())

    def _receive(self) -> bytes:
        return self._sock.recv(RECEIVE_BYTES)


class Harness:
    """All participants; leaving the context ends them.

    Args:
        report: shows what they send and receive.
        live: whether to show each line as soon as it arrives.
    """

    def __init__(self, report: Report, live: bool = False) -> None:
        self._report = report
        self._live = live
        self._participants: list[ScriptProcess | LineClient] = []

    def __enter__(self) -> "Harness":
        """Enter the context."""
        return self

    def __exit__(self, *_: object) -> None:
        """Show the lines that are left, and end all participants; kill programs that do not end when asked to."""
        for participant in self._participants:
            participant.show_rest()
        for participant in reversed(self._participants):
            participant.begin_end()
        until = time.monotonic() + STOP_SECONDS
        for participant in self._participants:
            participant.end(until)

    def start(self, name: str, script: str, *arguments: str) -> ScriptProcess:
        """Start a program of the project."""
        self._report.check()
        program = ScriptProcess(self._report, name, self._live, script, *arguments)
        self._participants.append(program)
        return program

    def connect(self, name: str, port: int) -> LineClient:
        """Connect a client to a port.

        Raises:
            Unmet: there is no connection.
        """
        self._report.check()
        client = LineClient(self._report, name, self._live, port)
        self._participants.append(client)
        return client
