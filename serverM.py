#!/usr/bin/env python3
"""The dormitory's main server: clients over TCP, lines; the three back ends over UDP, datagrams.

    LOGIN user password   MEMBER user | REFUSED Wrong username or password
    LOGIN user            GUEST user
    AVAILABILITY S233     AVAILABLE n | FULL | UNKNOWN_ROOM
    RESERVE S233          RESERVED id n-left | FULL | UNKNOWN_ROOM | DENIED Guests cannot reserve
    CANCEL id             CANCELLED room | UNKNOWN_RESERVATION
    MINE                  RESERVATIONS id=room id=room ...
    LIST                  ROOMS S233=6 S301=8 ...
    QUIT

Before LOGIN all is DENIED; what a back end does not answer within three seconds is TRY_LATER; anything else is INVALID.
The first letter of a room's code, or of a reservation's id, says which back end has it. front_desk.py answers
clients, caller.py asks back ends, directory.py knows where they are, members.py who may log in.
"""

import argparse
import getpass
import sys
import threading
from contextlib import closing
from pathlib import Path

from dormitory.backend_client import Caller
from dormitory.directory import TICK_SECONDS, Directory
from dormitory.members import Members, add_member
from dormitory.session import Conversation
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, add_data_dir, explain
from dormitory.udp import Dropped, TaggedSocket, bind
from net import process as program
from net import server as tcp
from net.connection import Connection
from net.log import LOG

TCP_PORT = 25000
UDP_PORT = 24000
MEMBER_FILE = "member.txt"
DESCRIPTORS_PER_CLIENT = 2  # its TCP connection and its UDP socket


def serve(arguments: argparse.Namespace) -> int:
    """Serve until SIGINT or SIGTERM; return the exit status of the program."""
    program.prepare(DESCRIPTORS_PER_CLIENT * arguments.max_connections, processor=0)
    try:
        members = Members(arguments.data_dir / MEMBER_FILE)
        key = load_key(arguments.data_dir)
    except (Malformed, OSError) as error:
        return program.fail(explain(error))
    try:
        sock = bind(arguments.host, arguments.udp_port)
    except OSError as error:
        return program.fail(f"Cannot listen on {arguments.host}:{arguments.udp_port} for back ends: {error.strerror}")
    dropped = Dropped()
    announcements = TaggedSocket(sock, key, dropped, TICK_SECONDS)
    directory = Directory(announcements, dropped)

    def converse(connection: Connection) -> None:
        with closing(Caller(directory, sock.family, key, dropped)) as caller:
            Conversation(connection, server.port, members, caller).run()

    places = threading.Semaphore(arguments.max_connections)
    try:
        server = tcp.Server(arguments.host, arguments.tcp_port, converse, places, arguments.login_seconds)
    except OSError as error:
        announcements.close()
        return program.fail(f"Cannot listen on {arguments.host}:{arguments.tcp_port}: {error.strerror}")
    LOG.write(
        f"Listening on {arguments.host}:{server.port}",
        f"Waiting for back ends over UDP on {arguments.host}:{announcements.port}",
    )
    directory.start()
    server.start()
    program.wait_for_signal()
    return program.end_process([server])


def ask_and_add_member(path: Path, name: str) -> int:
    """Ask for a new member's password and write the member's line; return the exit status of the program."""
    try:
        if sys.stdin.isatty():
            password = getpass.getpass(f"Password for {name}: ")
            if getpass.getpass("The same again: ") != password:
                return program.fail("The passwords differ; nothing was written")
        else:
            password = sys.stdin.readline().rstrip("\n")
        add_member(path, name, password)
    except (EOFError, KeyboardInterrupt):
        return program.fail("Nothing was written")
    except UnicodeDecodeError:
        return program.fail("Expected a password in UTF-8; nothing was written")
    except (Malformed, OSError) as error:
        return program.fail(explain(error))
    print(f"{name} is a member; a main server that runs learns it when it is restarted")
    return 0


def main() -> int:
    """Read the command line; serve, or add a member."""
    parser = argparse.ArgumentParser(description="The dormitory's main server.")
    program.add_options(parser, host="127.0.0.1")
    parser.add_argument(
        "--tcp-port", type=program.port_number, default=TCP_PORT, metavar="P", help="(default: %(default)s)"
    )
    parser.add_argument(
        "--udp-port", type=program.port_number, default=UDP_PORT, metavar="P", help="(default: %(default)s)"
    )
    parser.add_argument("--add-member", metavar="NAME", help=f"ask for a password, write {MEMBER_FILE}, and exit")
    add_data_dir(parser)
    arguments = parser.parse_args()
    if arguments.add_member is not None:
        return ask_and_add_member(arguments.data_dir / MEMBER_FILE, arguments.add_member)
    return serve(arguments)


if __name__ == "__main__":
    sys.exit(main())
