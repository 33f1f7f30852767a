#!/usr/bin/env python3
"""The dormitory's client: it asks the user for requests, sends them to the main server, and explains the replies.

It asks for a user name and a password (Enter alone: guest). Then it repeats two questions: for a room's code, and
whether the user wants its availability or a reservation. The user may answer both at once (`S233 r`, `reserve S233`),
or type list, list S, mine, cancel ID, help or quit, in upper or lower case. Every question accepts help and quit.

If standard input is not a terminal, the client shows no questions and reads each answer, even the password, from a line
of it. The exit status is 0 after quit or at the end of the answers, 1 if the login was refused or the server was lost.
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import getpass
import logging
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NoReturn

from net.command_line import fail, fail_to_write, port_number, prepare_streams
from net.connect import CannotConnect, ConnectionLost, ServerLines, add_tls_options, connect
from protocol import harmless

with suppress(ImportError):  # not every Python is built with it
    import readline  # noqa: F401  gives input() line editing and a history

PORT = 25000
REPLY_SECONDS = 10.0  # the server replies within about five seconds
MAX_SHOWN_CHARACTERS = 200  # of a reply, with --verbose
MAX_REFUSED_LOGINS = 5  # then the server closes the connection
LOGIN_RETRIES = 2
RETRY_SECONDS = 2

INTERRUPTED = 130  # the exit status that a shell reports for a program that Ctrl-C ended

PROMPT = "\nRoom code (or list, mine, cancel ID, help, quit): "
LOGIN_HELP = """\
Log in with your user name and your password, which is not shown. Enter alone as the password logs you in as a guest:
guests may ask for rooms, but not reserve them. quit leaves."""
HELP = """\
S233             a room's code: asks whether you want its availability or a reservation
S233 a, S233 r   its availability, or a reservation, without a question (reserve S233 works, too)
list, list S     all rooms, or those of one kind, and how many of each are left
mine             your reservations
cancel S17       cancel one of them
help             this text
quit             leave"""
ACTIONS = {"availability": "AVAILABILITY", "reservation": "RESERVE", "reserve": "RESERVE"}  # the request for each word
TITLES = {"ROOMS": "Rooms, and how many are left:", "RESERVATIONS": "Your reservations:"}
ADVICE = {  # by request, after TRY_LATER
    "RESERVE": "Try later, but first type mine to see whether the room was reserved.",
    "CANCEL": "Try later, but first type mine to see whether the reservation was cancelled.",
}


class Failed(Exception):
    """The login was refused, or the main server closed the connection; the text is for the user."""


class Quit(EOFError):
    """The user has typed quit, which counts as the end of the answers."""


class MainServer:
    """The connection to the main server."""

    def __init__(self, sock: socket.socket) -> None:
        self._lines = ServerLines(sock, REPLY_SECONDS)
        self._port = sock.getsockname()[1]

    def ask(self, request: str) -> tuple[str, str]:
        """Send a request; return the status word of the reply, and the rest of the reply.

        Raises:
            ConnectionLost: no reply came.
            Failed: the server closed the connection.
        """
        command, _, rest = request.partition(" ")
        is_login = command == "LOGIN"
        self._lines.send(request.encode(errors="replace") + b"\n")
        logging.info(f"Authentication request of {rest.split()[0]} sent" if is_login else f"Request sent: {request}")
        line = self.read_line()
        word, _, rest = line.partition(" ")
        if not word.isupper():  # the connection has ended, perhaps after a sentence that says why
            raise Failed(closed(line))
        received = "Result of the authentication" if is_login else "Response"
        logging.info(f"{received} received over TCP with port {self._port}: {line[:MAX_SHOWN_CHARACTERS]}")
        return word, rest

    def read_line(self) -> str:
        """Return the next line from the server; "" at the end of the connection.

        Raises:
            ConnectionLost: the connection is lost.
        """
        return harmless(self._lines.read_line() or b"")


def closed(sentence: str) -> str:
    """Return the message that the server closed the connection, with the sentence that it sent last, if any."""
    return f"The main server closed the connection{': ' + sentence if sentence else '.'}"


def ask(question: str, help_text: str, read: Callable[[str], str] = input) -> str:
    """Return the answer to a question, which is shown only on a terminal.

    Args:
        question: the question.
        help_text: the text to show when the answer is help, before the question is repeated.
        read: shows the question on a terminal and reads the answer.

    Raises:
        Quit: the answer is quit.
        EOFError: the answers have ended.
    """
    while True:
        answer = read(question) if sys.stdin.isatty() else input()
        command = answer.strip().lower()
        if command == "quit":
            raise Quit
        if command != "help":
            return answer
        print(help_text)


def log_in(server: MainServer, user: str | None, password: str | None) -> None:
    """Log in; ask for a name or a password that is None, and ask again until the server accepts the login.

    Raises:
        Failed: the server refused the given password, or the last of those that were typed.
        EOFError: the answers ended before the first attempt.
    """
    refusals = 0
    sentence = ""  # about the last attempt
    while refusals < MAX_REFUSED_LOGINS:
        try:
            name = user or ask_user_name()
            secret = ask_password() if password is None else password
        except EOFError:
            if sentence:
                raise Failed(sentence) from None
            raise
        word, rest = send_login(server, name, secret)
        if word in ("MEMBER", "GUEST"):
            print(f"Welcome, {word.lower()} {rest}.")
            return
        sentence = explain(word, rest)
        if password is not None or word == "TRY_LATER":
            raise Failed(sentence)
        print(sentence)
        refusals += word == "REFUSED"
    raise Failed(f"The fifth login was refused. {closed(server.read_line())}")


def ask_user_name() -> str:
    """Ask for the user name, which must be one word."""
    while True:
        words = ask("User name: ", LOGIN_HELP).split()
        if len(words) == 1:
            return words[0]
        print("A user name is one word.")


def ask_password() -> str:
    """Ask for the password; a terminal does not show it."""
    while True:
        try:
            return ask("Password (Enter alone: as a guest): ", LOGIN_HELP, getpass.getpass)
        except UnicodeDecodeError:
            print("A password in UTF-8 is expected.")


def send_login(server: MainServer, name: str, password: str) -> tuple[str, str]:
    """Return the reply to a login; while the server is too busy, try again, up to LOGIN_RETRIES times."""
    request = f"LOGIN {name} {password}" if password else f"LOGIN {name}"
    for _ in range(LOGIN_RETRIES):
        word, rest = server.ask(request)
        if word != "TRY_LATER":
            return word, rest
        print(f"{rest}. Trying again in {RETRY_SECONDS} seconds.")
        time.sleep(RETRY_SECONDS)
    return server.ask(request)


def converse(server: MainServer) -> NoReturn:
    """Carry out one request after another.

    Raises:
        Quit: the user has typed quit.
        EOFError: the answers have ended.
    """
    while True:
        words = ask(PROMPT, HELP).split()
        if words:
            print(carry_out(server, words))


def carry_out(server: MainServer, words: list[str]) -> str:
    """Carry out the request that the user typed; return the text for the user."""
    command = words[0].upper()
    if command in ("LIST", "MINE", "CANCEL"):
        return explain(*server.ask(" ".join(words).upper()), request=command)
    actions = [action_of(word) for word in words if action_of(word)]
    codes = [word for word in words if not action_of(word)]
    if len(codes) != 1 or len(actions) > 1:
        return "Please type a room's code, such as S233, or help."
    return ask_about_room(server, actions[0] if actions else ask_action(), codes[0])


def action_of(word: str) -> str:
    """Return the request whose word in ACTIONS begins with this word; "" if there is none."""
    for name, action in ACTIONS.items():
        if word and name.startswith(word.lower()):
            return action
    return ""


def ask_action() -> str:
    """Ask whether the user wants availability or a reservation; return AVAILABILITY or RESERVE."""
    while True:
        action = action_of(ask("Availability or reservation? ", HELP).strip())
        if action:
            return action
        print("Please answer availability or reservation.")


def ask_about_room(server: MainServer, action: str, code: str) -> str:
    """Send a request for a room; return the text for the user.

    Codes are case-sensitive, but the user may type one in lower case: both possible spellings are tried.
    """
    for spelling in dict.fromkeys((code[0].upper() + code[1:], code.upper())):
        word, rest = server.ask(f"{action} {spelling}")
        if word != "UNKNOWN_ROOM":
            return explain(word, rest, action, spelling)
    return f"There is no room {code}."


def explain(word: str, rest: str, request: str = "", room: str = "") -> str:
    """Explain a reply in sentences or as a table.

    Args:
        word: the reply's status word.
        rest: the rest of the reply.
        request: the first word of the request.
        room: the room that the request was about.
    """
    if word in TITLES:
        return table(TITLES[word], rest)
    field, _, more = rest.partition(" ")
    sentences = {
        "REFUSED": "Wrong user name or password.",
        "AVAILABLE": f"Room {room} is available: {field} left.",
        "FULL": f"Room {room} is not available: none left.",
        "RESERVED": f"Room {room} is yours: reservation {field}. {more} left.",
        "CANCELLED": f"Cancelled: room {field} is no longer yours.",
        "UNKNOWN_RESERVATION": "You have no such reservation.",
        "DENIED": f"Denied: {rest}.",
        "TRY_LATER": f"{rest}. {ADVICE.get(request, 'Try later.')}",
        "INVALID": f"Not understood: {rest}.",
    }
    return sentences.get(word, f"{word} {rest}")


def table(title: str, pairs: str) -> str:
    """Return pairs such as S233=6 as a table; S=? means that Server S does not answer."""
    fields = [pair.partition("=") for pair in pairs.split()]
    rows = [f"  {first:<12}{second}" for first, _, second in fields if second != "?"]
    silent = [f"Server {first} does not answer." for first, _, second in fields if second == "?"]
    if not fields:
        return f"{title} none."
    return "\n".join(([title, *rows] if rows else []) + silent)


def run(options: argparse.Namespace) -> int:
    """Log in and carry out requests until the answers end; return the exit status of the program."""
    password = None
    if options.password_file:
        try:
            password = options.password_file.read_text(encoding="utf-8", errors="replace").partition("\n")[0]
        except OSError as error:
            return fail(f"{error.filename}: {error.strerror}")
        if not password:
            return fail(f"{options.password_file}:1: expected a password")
    logging.info("The client is up and running")
    try:
        with connect(options.host, options.port, options) as sock:
            server = MainServer(sock)
            log_in(server, options.user, password)
            converse(server)
    except (CannotConnect, Failed) as error:
        return fail(str(error))
    except ConnectionLost as lost:
        return fail(f"The connection to the main server is lost: {lost}.")
    except Quit:
        return 0
    except (EOFError, KeyboardInterrupt) as end:
        if sys.stdin.isatty():
            print()
        return 0 if isinstance(end, EOFError) else INTERRUPTED


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description="Ask the dormitory for rooms, and reserve them.",
        epilog="Example: python3 client.py --host 192.0.2.1 --user alice",
    )
    parser.add_argument(
        "--host", default="127.0.0.1", metavar="H", help="the main server's name or address (default: %(default)s)"
    )
    parser.add_argument(
        "--port", type=port_number, default=PORT, metavar="P", help="the main server's TCP port (default: %(default)s)"
    )
    parser.add_argument("--user", metavar="U", help="the user name to log in with (default: asks)")
    parser.add_argument(
        "--password-file", type=Path, metavar="F", help="a file whose first line is the password (default: asks)"
    )
    parser.add_argument("--verbose", action="store_true", help="report each step, sent or received, on standard error")
    add_tls_options(parser)
    options = parser.parse_args()
    if options.user is not None and len(options.user.split()) != 1:
        parser.error(f"argument --user: {options.user!r} is not one word")
    return options


def main() -> int:
    """Run the client; return its exit status."""
    options = parse_options()
    prepare_streams()
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    try:
        return run(options)
    except OSError as error:
        return fail_to_write(error)


if __name__ == "__main__":
    sys.exit(main())
