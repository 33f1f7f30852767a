#!/usr/bin/env python3
"""The dormitory's client: it asks the user for requests, sends them to the main server, and explains the replies.

It asks for a user name and a password, then repeats two questions: for a room's code, and whether the user wants its
availability or a reservation; HELP says what else the user may type. If standard input is not a terminal, the client
shows no questions and reads each answer, even the password, from a line of it.
"""

import argparse
import logging
import re
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from net.addresses import without_brackets
from net.command_line import port_number, reason
from net.connect import ServerLines, add_tls_options
from protocol import harmless
from terminal.console import Console, run_client

REPLY_SECONDS = 10.0  # the server replies within about five seconds
MAX_SHOWN_CHARACTERS = 200  # of a line, with --verbose
LOGIN_RETRIES = 2
RETRY_SECONDS = 2
HIDDEN_PASSWORD = "........"  # with --verbose
MAX_NAME_CHARACTERS = 32
MAX_PASSWORD_BYTES = 1000
INTERRUPTED = 130  # the exit status that a shell reports for a program that Ctrl-C ended

NAME_QUESTION = "User name: "
PASSWORD_QUESTION = "Password (Enter alone: as a guest): "
ROOM_QUESTION = "Room code (or list, mine, cancel ID, help, quit): "
ACTION_QUESTION = "Availability or reservation? "
WRONG_ROOM = "Please type a room's code, such as S233, or help."
WRONG_ACTION = "Please answer availability or reservation, or press Enter for another room."
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
quit             leave (or exit, bye, Ctrl-D)"""
QUIT_WORDS = ("quit", "exit", "bye")
COMMANDS = ("LIST", "MINE", "CANCEL")
ACTIONS = {"availability": "AVAILABILITY", "reservation": "RESERVE", "reserve": "RESERVE"}  # the request for each word
CODE = re.compile(r"[SDUsdu][0-9A-Za-z]{1,11}")
WORD = re.compile(r"[a-z]*")  # such as status: alone, it does not name a room, although a code may have no digit
ADVICE = {  # by request, after TRY_LATER
    "RESERVE": "Try later, but first type mine to see whether the room was reserved.",
    "CANCEL": "Try later, but first type mine to see whether the reservation was cancelled.",
}
# What the user reads, by the first word of the reply. {rest} is what follows it; {first} and {second} are its parts.
FULFILLED = {
    "MEMBER": "Welcome, member {rest}.",
    "GUEST": "Welcome, guest {rest}.",
    "AVAILABLE": "Room {room} is available: {first} left.",
    "RESERVED": "Room {room} is yours: reservation {first}. {second} left.",
    "CANCELLED": "Cancelled: room {first} is no longer yours.",
    "ROOMS": "Rooms, and how many are left:",
    "RESERVATIONS": "Your reservations:",
}
REFUSED = {
    "REFUSED": "Wrong user name or password.",
    "FULL": "Room {room} is not available: none left.",
    "UNKNOWN_ROOM": "There is no room {room}.",
    "UNKNOWN_RESERVATION": "You have no such reservation.",
    "DENIED": "Denied: {rest}.",
    "TRY_LATER": "{rest}. {advice}",
    "INVALID": "Not understood: {rest}.",
}


class Client:
    """The dialogue with the user, and the connection to the main server. A request and a reply are lines."""

    def __init__(self, options: argparse.Namespace, console: Console, sock: socket.socket) -> None:
        self._options = options
        self._console = console
        self._server = ServerLines(sock, "the dormitory's main server", REPLY_SECONDS)
        logging.info(f"The client is up and running; its TCP port is {sock.getsockname()[1]}")

    def run(self) -> NoReturn:
        """Log in, and carry out requests until EOFError ends the answers."""
        self._log_in(self._options.user, self._options.password)
        code = ""  # of the room about which the user is asked the second question
        while True:
            if self._console.interactive and not code:
                self._console.show("")
            words = self._ask(ACTION_QUESTION if code else ROOM_QUESTION, HELP).split()
            if code and len(words) == 1 and action_of(words[0]):
                words.append(code)
            room, action = parse_room_request(words)
            if words and words[0].upper() in COMMANDS:
                request = " ".join(words).upper()
                self._show_reply(request, *self._request(request))
            elif action:
                self._ask_about_room(action, room)
            elif words and not room:
                self._console.refuse(WRONG_ACTION if code else WRONG_ROOM)
                room = code
            code = "" if action else room

    def _log_in(self, user: str | None, password: str | None) -> None:
        """Ask for what is None until the server accepts it; exit if it refuses a given password, or is too busy."""
        word = ""
        while word not in FULFILLED:
            name = user or self._ask(NAME_QUESTION, LOGIN_HELP, fault_in_name).strip()
            secret = self._ask(PASSWORD_QUESTION, LOGIN_HELP, fault_in_password) if password is None else password
            word, rest = self._send_login(name, secret)
            if word == "TRY_LATER" or (word in REFUSED and password is not None):
                sys.exit(explain("LOGIN", word, rest))
            self._show_reply("LOGIN", word, rest)

    def _ask(self, question: str, help_text: str, fault_in: Callable[[str], str] = lambda _: "") -> str:
        """Ask until the answer breaks no rule; return it. A script sees no question. EOFError means quit."""
        while True:
            prompt = question if self._console.interactive else ""
            answer = self._console.read_line(prompt, self._server, secret=question == PASSWORD_QUESTION)
            if answer is None:
                self._server.reject(self._server.read_line())
            command = answer.strip().lower()
            fault = fault_in(answer)
            if command in QUIT_WORDS:
                raise EOFError
            if command == "help":
                self._console.show(help_text)
            elif fault:
                self._console.refuse(fault)
            else:
                return answer

    def _send_login(self, name: str, password: str) -> tuple[str, str]:
        request = f"LOGIN {name} {password}" if password else f"LOGIN {name}"
        shown = f"LOGIN {name} {HIDDEN_PASSWORD}" if password else request
        for _ in range(LOGIN_RETRIES):
            word, rest = self._request(request, shown)
            if word != "TRY_LATER":
                return word, rest
            self._console.show(f"{rest}. Trying again in {RETRY_SECONDS} seconds.")
            time.sleep(RETRY_SECONDS)
        return self._request(request, shown)

    def _request(self, request: str, shown: str = "") -> tuple[str, str]:
        """Send a request; return the first word of the reply, and the rest. --verbose shows `shown` for the request."""
        logging.info(f"-> {escaped(shown or request)}")
        self._server.send(request.encode(errors="replace") + b"\n")
        line = self._server.read_line()
        reply = harmless(line)
        logging.info(f"<- {escaped(reply)}")
        word, _, rest = reply.partition(" ")
        if word not in FULFILLED | REFUSED:
            self._server.reject(line)
        return word, rest

    def _ask_about_room(self, action: str, code: str) -> None:
        # Codes are case-sensitive, but the user may type one in lower case: both possible spellings are tried.
        for spelling in dict.fromkeys((code[0].upper() + code[1:], code.upper())):
            request = f"{action} {spelling}"
            word, rest = self._request(request)
            if word != "UNKNOWN_ROOM":
                break
            request = f"{action} {code}"  # in the message, the code is spelt as the user typed it
        self._show_reply(request, word, rest)

    def _show_reply(self, request: str, word: str, rest: str) -> None:
        """Show a reply as a sentence or a table; count it if the request was refused, also in part."""
        is_answer = word in FULFILLED and "=?" not in rest
        is_full = word == "FULL" and request.startswith("AVAILABILITY")
        show = self._console.show if is_answer or is_full else self._console.refuse
        show(explain(request, word, rest))


def escaped(line: str) -> str:
    """Return a line as the bytes that cross the network, with escapes for its newline and all that is not ASCII."""
    return repr(f"{line[:MAX_SHOWN_CHARACTERS]}\n".encode(errors="replace"))[2:-1]


def fault_in_name(name: str) -> str:
    """Return a sentence that says which rule for user names a text breaks; "" if none."""
    if len(name.split()) != 1:
        return "A user name is one word."
    if "," in name:
        return "A user name contains no comma."
    if len(name.strip()) > MAX_NAME_CHARACTERS:
        return f"A user name has at most {MAX_NAME_CHARACTERS} characters."
    return ""


def fault_in_password(password: str) -> str:
    """Return a sentence that says which rule for passwords a text breaks; "" if none."""
    if "\N{REPLACEMENT CHARACTER}" in password:
        return "A password in UTF-8 is expected."
    if len(password.encode()) > MAX_PASSWORD_BYTES:
        return f"A password has at most {MAX_PASSWORD_BYTES} bytes."
    return ""


def parse_room_request(words: list[str]) -> tuple[str, str]:
    """Return the room's code and the request in an answer such as S233, or S233 r; both are "" in any other answer."""
    codes = [word for word in words if CODE.fullmatch(word)]
    actions = [action_of(word) for word in words if not CODE.fullmatch(word)]
    is_word = len(words) == 1 and WORD.fullmatch(words[0])
    if len(codes) == 1 and not is_word and actions in ([], ["AVAILABILITY"], ["RESERVE"]):
        return codes[0], "".join(actions)
    return "", ""


def action_of(word: str) -> str:
    """Return the request whose word in ACTIONS begins with this word; "" if there is none."""
    return next((action for name, action in ACTIONS.items() if name.startswith(word.lower())), "")


def explain(request: str, word: str, rest: str) -> str:
    """Return what the user reads about a reply. In a list, S=? means that Server S does not answer."""
    action, _, room = request.partition(" ")
    first, _, second = rest.partition(" ")
    advice = ADVICE.get(action, "Try later.")
    text = (FULFILLED | REFUSED)[word].format(rest=rest, first=first, second=second, room=room, advice=advice)
    if word not in ("ROOMS", "RESERVATIONS"):
        return text
    pairs = [pair.partition("=") for pair in rest.split()]
    rows = [f"  {code:<12}{value}" for code, _, value in pairs if value != "?"]
    silent = [f"Server {kind} does not answer." for kind, _, value in pairs if value == "?"]
    heading = [text] if rows else []
    return "\n".join([*heading, *rows, *silent]) if pairs else f"{text} none."


def read_password(file: str) -> str:
    """Return the password in the first line of a file; end the program if there is none."""
    try:
        with Path(file).open(encoding="utf-8-sig", errors="replace") as lines:
            password = lines.readline(MAX_PASSWORD_BYTES + 1).rstrip("\n")
    except OSError as error:
        sys.exit(reason(error))
    fault = fault_in_password(password) if password else "A password is expected."
    if fault:
        sys.exit(f"{file}:1: {fault}")
    return password


def main() -> int:
    """Run the client; return its exit status."""
    parser = argparse.ArgumentParser(
        description="Ask the dormitory for rooms, and reserve them. The exit status is 1 if the login was refused, the "
        "connection was lost or, in a script, a request was refused.",
        epilog="Example: python3 client.py --host 192.0.2.1 --user alice",
    )
    host_help = "the main server's name or address (default: %(default)s)"
    port_help = "the main server's TCP port (default: %(default)s)"
    parser.add_argument("--host", type=without_brackets, default="127.0.0.1", metavar="H", help=host_help)
    parser.add_argument("--port", type=port_number, default=25000, metavar="P", help=port_help)
    parser.add_argument("--user", metavar="U", help="the user name to log in with (default: asks)")
    password_help = "its first line is the password (default: asks)"
    parser.add_argument("--password-file", type=read_password, dest="password", metavar="F", help=password_help)
    parser.add_argument("--verbose", action="store_true", help="report what is sent and received on standard error")
    add_tls_options(parser)
    options = parser.parse_args()
    if options.user is not None and fault_in_name(options.user):
        parser.error(f"argument --user: {options.user!r} is not valid. {fault_in_name(options.user)}")
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    return run_client(options, lambda _, console, sock: Client(options, console, sock).run(), INTERRUPTED)


if __name__ == "__main__":
    sys.exit(main())
