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
from contextlib import suppress
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

    def __init__(self, console: Console, sock: socket.socket) -> None:
        self._console = console
        self._server = ServerLines(sock, "the dormitory's main server", REPLY_SECONDS)
        logging.info(f"The client is up and running; its TCP port is {sock.getsockname()[1]}")

    def log_in(self, user: str | None, password: str | None) -> None:
        """Log in; ask for a name or a password that is None, and ask again until the server accepts the login.

        End the program if the server refuses the given password, or is too busy.
        """
        accepted = False
        while not accepted:
            name = user or self._ask_for_login(NAME_QUESTION, fault_in_name).strip()
            secret = self._ask_for_login(PASSWORD_QUESTION, fault_in_password) if password is None else password
            reply = self._send_login(name, secret)
            accepted = first_word(reply) in FULFILLED
            if not accepted and (password is not None or first_word(reply) == "TRY_LATER"):
                sys.exit(explain("LOGIN", reply))
            self._show_reply("LOGIN", reply)

    def converse(self) -> NoReturn:
        """Carry out one request after another, until EOFError ends the answers."""
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
                self._show_reply(request, self._request(request))
                code = ""
            elif room and action:
                self._ask_about_room(action, room)
                code = ""
            elif room or not words:
                code = room
            elif code:
                self._console.refuse("Please answer availability or reservation, or press Enter for another room.")
            else:
                self._console.refuse("Please type a room's code, such as S233, or help.")

    def _ask(self, question: str, help_text: str) -> str:
        """Return the answer to a question, which is shown only on a terminal; EOFError means quit."""
        while True:
            prompt = question if self._console.interactive else ""
            answer = self._console.read_line(prompt, self._server, secret=question == PASSWORD_QUESTION)
            if answer is None:
                self._server.reject(self._server.read_line())
            command = answer.strip().lower()
            if command in QUIT_WORDS:
                raise EOFError
            if command != "help":
                return answer
            self._console.show(help_text)

    def _ask_for_login(self, question: str, fault_in: Callable[[str], str]) -> str:
        """Ask for a user name or a password until the answer breaks no rule; return it."""
        while True:
            answer = self._ask(question, LOGIN_HELP)
            fault = fault_in(answer)
            if not fault:
                return answer
            self._console.refuse(fault)

    def _send_login(self, name: str, password: str) -> str:
        """Return the reply to a login; while the server is too busy, try again, up to LOGIN_RETRIES times."""
        request = f"LOGIN {name} {password}" if password else f"LOGIN {name}"
        shown = f"LOGIN {name} {HIDDEN_PASSWORD}" if password else request
        reply = self._request(request, shown)
        for _ in range(LOGIN_RETRIES):
            if first_word(reply) != "TRY_LATER":
                break
            self._console.show(f"{reply.partition(' ')[2]}. Trying again in {RETRY_SECONDS} seconds.")
            time.sleep(RETRY_SECONDS)
            reply = self._request(request, shown)
        return reply

    def _request(self, request: str, shown: str = "") -> str:
        """Send a request and return the reply. --verbose shows both as bytes, or `shown` instead of the request."""
        logging.info(f"-> {escaped(shown or request)}")
        self._server.send(request.encode(errors="replace") + b"\n")
        line = self._server.read_line()
        reply = harmless(line)
        logging.info(f"<- {escaped(reply)}")
        if first_word(reply) not in FULFILLED | REFUSED:
            self._server.reject(line)
        return reply

    def _ask_about_room(self, action: str, code: str) -> None:
        """Send a request for a room, and show the reply.

        Codes are case-sensitive, but the user may type one in lower case: both possible spellings are tried.
        """
        for spelling in dict.fromkeys((code[0].upper() + code[1:], code.upper())):
            request = f"{action} {spelling}"
            reply = self._request(request)
            if first_word(reply) != "UNKNOWN_ROOM":
                break
            request = f"{action} {code}"  # in the message, the code is spelt as the user typed it
        self._show_reply(request, reply)

    def _show_reply(self, request: str, reply: str) -> None:
        """Show a reply as a sentence or a table; count it if the request was refused, also in part."""
        is_answer = first_word(reply) in FULFILLED and "=?" not in reply
        if is_answer or (request.startswith("AVAILABILITY") and first_word(reply) == "FULL"):
            self._console.show(explain(request, reply))
        else:
            self._console.refuse(explain(request, reply))


def first_word(line: str) -> str:
    """Return the first word of a request or a reply, which says what it is."""
    return line.partition(" ")[0]


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


def explain(request: str, reply: str) -> str:
    """Return what the user reads about the reply to a request."""
    word, _, rest = reply.partition(" ")
    first, _, second = rest.partition(" ")
    action, _, room = request.partition(" ")
    text = (FULFILLED | REFUSED)[word]
    if word in ("ROOMS", "RESERVATIONS"):
        return table(text, rest)
    return text.format(rest=rest, first=first, second=second, room=room, advice=ADVICE.get(action, "Try later."))


def table(title: str, pairs: str) -> str:
    """Return pairs such as S233=6 as a table; S=? means that Server S does not answer."""
    fields = [pair.partition("=") for pair in pairs.split()]
    rows = [f"  {first:<12}{second}" for first, _, second in fields if second != "?"]
    silent = [f"Server {first} does not answer." for first, _, second in fields if second == "?"]
    if not fields:
        return f"{title} none."
    return "\n".join(([title, *rows] if rows else []) + silent)


def read_password(file: Path) -> str:
    """Return the password in the first line of a file; end the program if there is none."""
    try:
        with file.open(encoding="utf-8-sig", errors="replace") as lines:
            password = lines.readline(MAX_PASSWORD_BYTES + 1).rstrip("\n")
    except OSError as error:
        sys.exit(f"{file}: {reason(error)}")
    fault = fault_in_password(password) if password else "A password is expected."
    if fault:
        sys.exit(f"{file}:1: {fault}")
    return password


def main() -> int:
    """Log in and carry out requests until the answers end; return the exit status of the program."""
    options = parse_options()
    logging.basicConfig(format="%(message)s", level=logging.INFO if options.verbose else logging.WARNING)
    password = read_password(options.password_file) if options.password_file else None

    def talk(console: Console, sock: socket.socket) -> None:
        client = Client(console, sock)
        with suppress(EOFError):
            client.log_in(options.user, password)
            client.converse()

    return run_client(options, talk, INTERRUPTED)


def parse_options() -> argparse.Namespace:
    """Parse the command line."""
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
    parser.add_argument("--password-file", type=Path, metavar="F", help=password_help)
    parser.add_argument("--verbose", action="store_true", help="report what is sent and received on standard error")
    add_tls_options(parser)
    options = parser.parse_args()
    fault = "" if options.user is None else fault_in_name(options.user)
    if fault:
        parser.error(f"argument --user: {options.user!r} is not valid. {fault}")
    return options


if __name__ == "__main__":
    sys.exit(main())
