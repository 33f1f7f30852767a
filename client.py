#!/usr/bin/env python3
"""The dormitory's client: asks a person what to ask the main server, and says the answer in a sentence.

    user name, password (Enter alone: a guest), then again and again a room's code and availability or reservation;
    at the same prompt also list, mine, cancel ID, help and quit

When standard input is no terminal, the same answers are read from it, a line each, and nothing is asked; the password
too is a line. The exit status is 0 if all went well, 1 if the server was lost or the login was refused.
"""

import argparse
import getpass
import io
import os
import socket
import sys
from contextlib import closing, suppress
from pathlib import Path

from net.process import fail, port_number
from protocol import MAX_LINE_BYTES, harmless

with suppress(ImportError):  # not every Python is built with it
    import readline  # noqa: F401  gives input() line editing and a history

PORT = 25000
PATIENCE_SECONDS = 10.0  # the server answers within four, but passwords are checked one after the other

INTERRUPTED = 130  # as a shell says it of a program that Ctrl-C ended

PROMPT = "\nRoom code (or list, mine, cancel ID, help, quit): "
HELP = """\
S233           a room's code: asks whether you want its availability or a reservation
list           all rooms, and how many of each are left
mine           your reservations
cancel S17     cancel one of them
help           this text
quit           leave"""


class Lost(Exception):
    """The conversation with the server cannot go on; the text says why."""


class LoginRefused(Exception):
    """No login was accepted, and there are no more answers to try; the text says what the server said."""


class Server:
    """The connection to the main server.

    Raises:
        Lost: it cannot be reached.
    """

    def __init__(self, host: str, port: int) -> None:
        try:
            self._sock = socket.create_connection((host, port), PATIENCE_SECONDS)
        except (OSError, UnicodeError) as error:
            raise Lost(f"Cannot connect to {host}:{port}: {getattr(error, 'strerror', None) or error}") from error
        self._replies = self._sock.makefile("rb")

    def ask(self, request: str) -> tuple[str, str]:
        """Return the status word of the reply to a request, and the rest of it.

        Raises:
            Lost: there is none.
        """
        try:
            self._sock.sendall(request.encode(errors="replace") + b"\n")
            line = self._replies.readline(MAX_LINE_BYTES + 1)
        except TimeoutError:
            raise Lost("The main server does not answer.") from None
        except OSError as error:
            raise Lost(f"The connection to the main server is lost: {error.strerror}") from error
        if not line.endswith(b"\n"):
            raise Lost("The main server closed the connection.")
        word, _, rest = harmless(line).rstrip("\n").partition(" ")
        if not word.isupper():  # not an answer but a last word, such as that it took too long
            raise Lost(f"The main server closed the connection: {word} {rest}")
        return word, rest

    def close(self) -> None:
        """Close the connection."""
        self._replies.close()
        self._sock.close()


def ask_line(prompt: str) -> str:
    """Return the next answer without the space around it. Prompts are shown on a terminal only.

    Raises:
        EOFError: there is none.
    """
    return input(prompt if sys.stdin.isatty() else "").strip()


def ask_password() -> str:
    """Return the password that is typed and not shown; without a terminal, the next line."""
    if sys.stdin.isatty():
        return getpass.getpass("Password (Enter alone: as a guest): ")
    return input()


def log_in(server: Server, user: str | None, password: str | None) -> None:
    """Log in, asking for what is not given, again and again until the server accepts.

    Raises:
        LoginRefused: it did not accept what was given, or what was answered last.
        EOFError: the answers ended before there was a login.
    """
    refused = ""  # what the server said last
    while True:
        try:
            name = user or ask_line("User name: ")
            if len(name.split()) != 1:
                print("A user name is one word.")
                continue
            secret = ask_password() if password is None else password
        except UnicodeDecodeError:
            print("A password in UTF-8 is expected.")
            continue
        except EOFError:
            if refused:
                raise LoginRefused(refused) from None
            raise
        word, rest = server.ask(f"LOGIN {name} {secret}" if secret else f"LOGIN {name}")
        if word in ("MEMBER", "GUEST"):
            print(f"Welcome, {word.lower()} {rest}.")
            return
        if password is not None:
            raise LoginRefused(explain(word, rest))
        refused = explain(word, rest)
        print(refused)


def converse(server: Server) -> None:
    """Carry out one request after the other.

    Raises:
        EOFError: there are no more.
    """
    while (request := ask_line(PROMPT)) != "quit":
        if request:
            print(answer(server, request))


def answer(server: Server, request: str) -> str:
    """Return what is to be said to a request."""
    command, _, argument = request.partition(" ")
    if command == "help":
        return HELP
    if command == "list":
        return show(*server.ask("LIST"), title="Rooms, and how many are left:")
    if command == "mine":
        return show(*server.ask("MINE"), title="Your reservations:")
    if command == "cancel":
        return explain(*server.ask(f"CANCEL {argument}"))
    word = "AVAILABILITY" if wants_availability() else "RESERVE"
    return explain(*server.ask(f"{word} {request}"), room=request)


def wants_availability() -> bool:
    """Return whether availability is asked for, not a reservation; the first letter is enough of an answer."""
    while True:
        choice = ask_line("Availability or reservation? ").lower()
        if choice and "availability".startswith(choice):
            return True
        if choice and "reservation".startswith(choice):
            return False
        print("Please answer availability or reservation.")


def show(word: str, rest: str, title: str) -> str:
    """Return the pairs of a reply, such as S233=6, each on a line of its own."""
    if word not in ("ROOMS", "RESERVATIONS"):
        return explain(word, rest)
    pairs = (pair.partition("=") for pair in rest.split())
    return "\n".join([title, *(f"  {first:<12}{second}" for first, _, second in pairs)]) if rest else f"{title} none."


def explain(word: str, rest: str, room: str = "") -> str:
    """Return the sentence that a reply means."""
    field, _, more = rest.partition(" ")
    sentences = {
        "REFUSED": "Wrong user name or password.",
        "AVAILABLE": f"Room {room} is available: {field} left.",
        "FULL": f"Room {room} is not available: none left.",
        "UNKNOWN_ROOM": f"There is no room {room}.",
        "RESERVED": f"Room {room} is yours: reservation {field}. {more} left.",
        "CANCELLED": f"Cancelled: room {field} is no longer yours.",
        "UNKNOWN_RESERVATION": "You have no such reservation.",
        "DENIED": f"Denied: {rest}.",
        "TRY_LATER": f"{rest}. Try later; if it was a change, see first whether it was made: mine.",
        "INVALID": f"Not understood: {rest}.",
    }
    return sentences.get(word, f"{word} {rest}")


def run(arguments: argparse.Namespace) -> int:
    """Talk to the server until the answers end; return the exit status of the program."""
    password = None
    if arguments.password_file:
        try:
            password = arguments.password_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        except OSError as error:
            return fail(f"{error.filename}: {error.strerror}")
        if not password:
            return fail(f"{arguments.password_file}:1: expected a password")
    try:
        with closing(Server(arguments.host, arguments.port)) as server:
            log_in(server, arguments.user, password)
            converse(server)
    except (Lost, LoginRefused) as error:
        return fail(str(error))
    except (EOFError, KeyboardInterrupt) as end:
        if sys.stdin.isatty():
            print()
        return 0 if isinstance(end, EOFError) else INTERRUPTED
    return 0


def main() -> int:
    """Read the command line and run; a reader of the output that goes away ends it too."""
    parser = argparse.ArgumentParser(description="Ask the dormitory for rooms.")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="(default: %(default)s)")
    parser.add_argument("--port", type=port_number, default=PORT, metavar="P", help="(default: %(default)s)")
    parser.add_argument("--user", metavar="U", help="who logs in (default: asks)")
    parser.add_argument(
        "--password-file", type=Path, metavar="F", help="its first line is the password (default: asks)"
    )
    arguments = parser.parse_args()
    if arguments.user is not None and len(arguments.user.split()) != 1:
        parser.error(f"argument --user: {arguments.user!r} is not one word")
    sys.stdin = sys.stdin or io.StringIO()  # None if it was closed before the program began
    sys.stdout = sys.stdout or io.StringIO()
    for stream in (sys.stdin, sys.stdout):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        status = run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    return status


if __name__ == "__main__":
    sys.exit(main())
