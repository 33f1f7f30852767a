#!/usr/bin/env python3
"""The dormitory's main server: it answers clients over TCP and asks the three back ends over UDP.

    LOGIN user password   MEMBER user | REFUSED Wrong username or password
    LOGIN user            GUEST user
    AVAILABILITY S233     AVAILABLE n | FULL | UNKNOWN_ROOM
    RESERVE S233          RESERVED id n-left | FULL | UNKNOWN_ROOM | DENIED Guests cannot reserve
    CANCEL id             CANCELLED room | UNKNOWN_RESERVATION
    MINE                  RESERVATIONS id=room id=room ...
    LIST, or LIST S       ROOMS S233=6 S301=8 ...
    QUIT

Before LOGIN, the reply to every request is DENIED. If a back end does not answer, the reply is TRY_LATER; the replies
to MINE and LIST then have S=? for that kind of room. The reply to any other line is INVALID. The first letter of a
room's code, or of a reservation's id, names the back end. dormitory/session.py answers clients, upstream.py asks back
ends, and members.py checks passwords.
"""

import argparse
import getpass
import re
import socket
import sys
from pathlib import Path
from typing import NoReturn

from dormitory.members import MIN_PASSWORD_CHARACTERS, Members, add_member
from dormitory.session import Session
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, add_data_dir
from dormitory.upstream import Upstream
from net import process
from net.addresses import resolve_all
from net.command_line import add_number, fail, fail_to_write, host_and_port, port_number, prepare_streams, reason
from net.conversation import Conversation
from net.log import LOG
from net.options import add_server_options

TCP_PORT = 25000
BACK_END_PORTS = {"S": 21000, "D": 22000, "U": 23000}
MEMBER_FILE = "member.txt"
IDLE_SECONDS = 900
# For --trace: all of a line that is not plainly a request without a password, such as LOGIN and a name.
PASSWORD = re.compile(
    rb"(?<![^\r\n])\0?(?:(?:AVAILABILITY|CANCEL|LIST|MINE|QUIT|RESERVE)(?![^ \r\n])[ -~]*"
    rb"|LOGIN +(?:[!-+\--~]{1,32}(?![^ \r\n]) *)?)?([^\r\n]*)"
)
DESCRIPTORS_PER_CLIENT = 1 + len(BACK_END_PORTS)  # its TCP connection, and a UDP socket for each back end


def serve(options: argparse.Namespace) -> NoReturn:
    """Serve until SIGINT or SIGTERM."""
    process.prepare(processor=0)
    process.limit_connections(options, DESCRIPTORS_PER_CLIENT)
    members = Members(options.data_dir / MEMBER_FILE)
    key = load_key(options.data_dir)
    upstreams = {letter: find_upstream(letter, options, key) for letter in BACK_END_PORTS}

    def converse(client: Conversation) -> None:
        client.set_time_limit(options.login_seconds, f"No LOGIN within {options.login_seconds} seconds", restarts=False)
        Session(client, members, upstreams, key, options.idle_seconds).run()

    server = process.open_server(options, options.tcp_port, converse)
    for warning in members.warnings():
        LOG.write(warning)
    for upstream in upstreams.values():
        upstream.start_probe()
    process.run(server)


def find_upstream(letter: str, options: argparse.Namespace, key: bytes) -> Upstream:
    """Return a back end with the addresses that its host has now."""
    host, port = getattr(options, f"server_{letter.lower()}")
    try:
        return Upstream(letter, resolve_all(host, port, socket.SOCK_DGRAM), key)
    except OSError as error:
        raise Malformed(f"Cannot find the host of Server {letter}, {host}: {reason(error)}") from error


def ask_and_add_member(path: Path, name: str) -> int:
    """Ask for a new password and write it to the file of members; return the exit status of the program."""
    prepare_streams()
    try:
        is_new = add_member(path, name, new_password(name))
    except (EOFError, KeyboardInterrupt):
        return fail("Nothing was written")
    except UnicodeDecodeError:
        return fail("Expected a password in UTF-8; nothing was written")
    try:
        print(f"{name} {'is now a member' if is_new else 'has a new password'}; a running main server needs no restart")
    except OSError as error:
        return fail_to_write(error)
    return 0


def new_password(name: str) -> str:
    """Ask for a new password twice, or read it from a pipe, which may contain it once or twice."""
    if sys.stdin.isatty():
        first = getpass.getpass(f"New password for {name}, at least {MIN_PASSWORD_CHARACTERS} characters: ")
        answers = [first, getpass.getpass("The same password again: ")]
    else:
        answers = sys.stdin.read().removeprefix("\ufeff").splitlines() or [""]
    if len(set(answers)) > 1:
        raise Malformed("The passwords differ; nothing was written")
    return answers[0]


def main() -> int:
    """Read the command line; serve, or add a member; return the exit status."""
    parser = argparse.ArgumentParser(
        description="The dormitory's main server: answers clients, and asks the three back ends.",
        epilog="Example: python3 serverM.py --server-s 192.0.2.2:21000",
    )
    add_server_options(parser, host="127.0.0.1")
    parser.set_defaults(secret=PASSWORD)
    where = "TCP port for clients; 0 means any (default: %(default)s)"
    parser.add_argument("--tcp-port", type=port_number, default=TCP_PORT, metavar="P", help=where)
    for letter, port in BACK_END_PORTS.items():
        option, place = f"--server-{letter.lower()}", f"127.0.0.1:{port}"
        where = f"where Server {letter} is (default: %(default)s)"
        parser.add_argument(option, type=host_and_port, default=place, metavar="HOST:PORT", help=where)
    add_number(parser, "--idle-seconds", IDLE_SECONDS, "how long a user who has logged in may go without a request")
    instead = f"instead of serving, ask for a password and write {MEMBER_FILE}; for a member, it is the new password"
    parser.add_argument("--add-member", metavar="NAME", help=instead)
    add_data_dir(parser)
    options = parser.parse_args()
    try:
        if options.add_member is not None:
            return ask_and_add_member(options.data_dir / MEMBER_FILE, options.add_member)
        serve(options)
    except (Malformed, OSError) as error:
        return fail(reason(error))


if __name__ == "__main__":
    sys.exit(main())
