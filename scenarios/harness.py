"""A stage for programs: each runs as a process, and each line on the screen says whose it is.

    chat_server     | Listening on 127.0.0.1:40123      what a program writes
    alice           > JOIN alice                        what is typed for it
    alice           | JOIN alice accepted

Who is on stage is an Actor: a Program, or a Telnet, which is a connection that speaks lines. A story has them type, and
waits for what they are to see. Every wait has a limit; what does not come is Unmet, and never a wait for ever.
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

from scenarios.report import BOLD, DIM, RED, Screen

ROOT = Path(__file__).resolve().parent.parent
WAIT_SECONDS = 8.0
TICK_SECONDS = 0.1
STOP_SECONDS = 3.0
RECEIVE_BYTES = 1 << 16
NAME_WIDTH = 15
NOTHING = "nothing came"


class Unmet(Exception):
    """Something that a story needs did not happen.

    Attributes:
        expected: what was to happen.
        happened: what did.
    """

    def __init__(self, expected: str, happened: str) -> None:
        super().__init__(f"expected {expected}, but {happened}")
        self.expected = expected
        self.happened = happened


class Actor:
    """Somebody on stage: types lines, and sees lines.

    Args:
        screen: shows it all.
        name: stands before each line.
    """

    def __init__(self, screen: Screen, name: str) -> None:
        self.name = name
        self._screen = screen
        self._colour = screen.colour_of(name)
        self._changed = threading.Condition()  # guards all below
        self._lines: list[str] = []
        self._seen = 0  # so many of the lines the story has looked at
        self._unfinished = ""  # a line whose end has not come: a prompt, perhaps
        self._echo = ""  # what was typed at a prompt, for a program that repeats it there
        self._ended = False
        self._reader = threading.Thread(target=self._read_for_ever, name=name, daemon=True)

    def types(self, text: str, shown: str = "") -> None:
        """Type a line; show something else in its place if it is a secret."""
        self._screen.pause()
        with self._changed:
            prompt = self._unfinished if self._at_prompt() else ""
            self._unfinished = self._unfinished.removeprefix(prompt)
            self._echo = text if prompt else ""
        self._show(">", prompt + self._screen.painted(shown or text, BOLD))
        with suppress(OSError):  # who is gone says so, or sees nothing
            self._send(text)

    def sees(self, text: str) -> str:
        """Wait for a line that contains a text; return the line.

        Raises:
            Unmet: none came.
        """
        return self.sees_all(text)[-1]

    def sees_all(self, text: str) -> list[str]:
        """Wait for a line that contains a text; return all lines up to it.

        Raises:
            Unmet: none came.
        """
        lines = self._next(text)
        if not lines or text not in lines[-1]:
            came = " / ".join(lines[-2:]) or NOTHING
            raise Unmet(f"{self.name} sees: {text}", came + (", and then the end" if self._ended else ""))
        return lines

    def sees_number(self, before: str) -> int:
        """Wait for a line that contains a text; return the number that follows it there.

        Raises:
            Unmet: none came.
        """
        line = self.sees(before)
        number = re.match(r"\d+", line.partition(before)[2])
        if not number:
            raise Unmet(f"{self.name} sees: {before} and a number", line)
        return int(number[0])

    def reply(self) -> str:
        """Return the next line that is not empty."""
        return "".join(self._next("")) or NOTHING

    def sees_end(self) -> bool:
        """Return whether the end of the output, or of the connection, comes."""
        return self._wait_until(lambda: self._ended)

    def _next(self, text: str) -> list[str]:
        """Wait for a line with a text, or for the end; return the lines up to there.

        A line that has no end yet, such as a prompt, is taken too, but stays where it is.
        """
        lines: list[str] = []

        def look() -> bool:
            while self._seen < len(self._lines):
                lines.append(self._lines[self._seen])
                self._seen += 1
                if text in lines[-1]:
                    return True
            if text and self._at_prompt() and text in self._unfinished:
                lines.append(self._unfinished)
                return True
            return self._ended

        self._wait_until(look)
        return lines

    def _at_prompt(self) -> bool:
        return self._unfinished.endswith(" ")

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + WAIT_SECONDS
        with self._changed:
            while not condition():
                self._screen.go_on()
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
            self._take(data.decode(errors="replace"))

    def _take(self, text: str) -> None:
        """Take what came; an empty text is the end."""
        with self._changed:
            *lines, self._unfinished = (self._unfinished + text).replace("\r\n", "\n").split("\n")
            if not text:
                lines += [self._unfinished] if self._unfinished.strip() else []
                self._ended = True
            for line in lines:
                if line and line != self._echo:
                    self._lines.append(line)
                    self._show("|", line)
                self._echo = ""
            self._changed.notify_all()

    def _show(self, sign: str, text: str) -> None:
        self._screen.show(self._screen.painted(f"{self.name:<{NAME_WIDTH}} {sign}", self._colour) + f" {text}")

    def _send(self, text: str) -> None:
        raise NotImplementedError

    def _receive(self) -> bytes:
        raise NotImplementedError


class Program(Actor):
    """A program of the project as a process; what it writes to standard error is shown as well."""

    def __init__(self, screen: Screen, name: str, script: str, *arguments: str) -> None:
        super().__init__(screen, name)
        self._show("$", screen.painted(shlex.join(["python3", script, *arguments]), DIM))
        self._process = subprocess.Popen(
            [sys.executable, "-u", str(ROOT / script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is the demo's alone, which then ends all
        )
        self._reader.start()

    def freeze(self) -> None:
        """Have it do nothing more, whatever comes."""
        self._process.send_signal(signal.SIGSTOP)

    def kill(self) -> None:
        """Kill it as kill -9 does."""
        self._show("!", self._screen.painted("kill -9", RED))
        self._process.kill()
        self._process.wait()

    def begin_end(self) -> None:
        """Ask it to end."""
        self._process.terminate()

    def end(self, until: float) -> None:
        """Wait for its end until a time.monotonic(), then kill it."""
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


class Telnet(Actor):
    """A connection on which lines are typed, as telnet does; telnet itself need not be there."""

    def __init__(self, screen: Screen, name: str, port: int) -> None:
        super().__init__(screen, name)
        self._show("$", screen.painted(f"(like telnet) localhost {port}", DIM))
        try:
            self._sock = socket.create_connection(("127.0.0.1", port), WAIT_SECONDS)
        except OSError as error:
            raise Unmet(f"{name} is connected", f"{error.strerror}") from None
        self._sock.settimeout(None)
        self._reader.start()

    def begin_end(self) -> None:
        """Leave."""
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


class Stage:
    """All who are on stage; when it is left, all that they are is ended."""

    def __init__(self, screen: Screen) -> None:
        self._screen = screen
        self._actors: list[Program | Telnet] = []

    def __enter__(self) -> "Stage":
        """Begin."""
        return self

    def __exit__(self, *_: object) -> None:
        """End all who are on stage; programs that are asked to end and do not are killed."""
        for actor in reversed(self._actors):
            actor.begin_end()
        until = time.monotonic() + STOP_SECONDS
        for actor in self._actors:
            actor.end(until)

    def program(self, name: str, script: str, *arguments: str) -> Program:
        """Start a program of the project."""
        self._screen.go_on()
        program = Program(self._screen, name, script, *arguments)
        self._actors.append(program)
        return program

    def telnet(self, name: str, port: int) -> Telnet:
        """Connect somebody to a port."""
        self._screen.go_on()
        telnet = Telnet(self._screen, name, port)
        self._actors.append(telnet)
        return telnet
