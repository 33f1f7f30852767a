#!/usr/bin/env python3
r"""A front end for browsers: it serves the pages of web/pages/ and turns each WebSocket into a TCP connection.

    GET /   GET /NAME             the start page, another page or file
    GET /systems.json             which systems this front end was given: {"dormitory": true, "tickets": false, ...}
    GET /ws/dormitory  /ws/tickets  /ws/chat  /ws/chatrooms      a WebSocket to that system
    GET /ws/chatrooms/NAME        a WebSocket to the room NAME: the front end asks the lobby for the room's port

A text message is a line without its newline, in both directions, so a browser tab is one more client of the system.
When one side ends, the front end ends the other, and the close code says why:

    1000                  the system ended the connection; all its lines were delivered
    1001                  the front end is stopping, or nothing came from the browser for 60 seconds, not even a pong
    1002 1003 1007 1009   the browser sent a wrong frame, a binary message, invalid UTF-8, over 4096 bytes
    1008                  a message contains a newline, or the lobby refused the room; trying again does not help
    1011                  the system sent a line of more than 1 MiB
    1014                  the system cannot be reached, accepts nothing or was lost; trying again later may help
"""

import os
import sys

if sys.version_info < (3, 10):
    sys.exit("Python 3.10 or later is needed, but this is Python " + sys.version.split()[0])
sys.path.insert(0, os.path.dirname(os.path.realpath(__file__)))  # PYTHONSAFEPATH leaves it out

import argparse
import json
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from net import process
from net.command_line import host_and_port, port_number, shown_address
from net.connect import add_tls_options
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation
from net.options import add_server_options, places
from protocol import harmless, is_room_name
from web.http import HttpError, Request, check_upgrade, response, split_head, switching_protocols
from web.tab import System, Tab

PORT = 8000
SYSTEMS = {  # by name, what --help says
    "dormitory": "where the main server of the dormitory listens",
    "tickets": "where the ticket server listens",
    "chat": "where the chat server listens",
    "chatrooms": "where the lobby of the chat rooms listens",
}
DORMITORY = ("127.0.0.1", 25000)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEAD_SECONDS = 10
REFUSED_CONNECTIONS = 64  # connections beyond --max-connections that can be answered with 503 at one time
PAGES = Path(os.path.realpath(__file__)).parent / "web" / "pages"
TEXT_TYPE = "text/plain; charset=utf-8"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
    ".png": "image/png",
    ".ico": "image/x-icon",
}


class FrontEnd:
    """Hold what all connections share. Only the places change once the server has started.

    Args:
        options: the command line.

    Attributes:
        port: the port on which it listens.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.port = 0
        self._options = options
        given = {name: getattr(options, name) for name in SYSTEMS if getattr(options, name)}
        self._systems: dict[str, tuple[str, int]] = given or {"dormitory": DORMITORY}  # hosts and ports by name
        listed = {name: name in self._systems for name in SYSTEMS}
        self._files = read_files()
        self._files["/systems.json"] = (TYPES[".json"], json.dumps(listed).encode())
        self._places = places(options)

    def converse(self, client: Conversation) -> None:
        """Serve a browser's connection; the connection's own thread runs this."""
        no_place = self._places.take(client.connection.address)
        if no_place:
            self._send_error(client, None, HttpError(HTTPStatus.SERVICE_UNAVAILABLE, no_place))
            return
        try:
            self._answer_request(client)
        finally:
            self._places.release(client.connection.address)

    def _answer_request(self, client: Conversation) -> None:
        request = None
        try:
            received = receive_request(client.connection)
            if received is None:
                return
            request, rest = received
            self._check_host(request)
            if not request.path.startswith("/ws/"):
                self._send_file(client, request)
                return
            system = self._find_system(request)
        except HttpError as error:
            self._send_error(client, request, error)
            return
        client.log(f"{shown(request)}: {HTTPStatus.SWITCHING_PROTOCOLS.value}")
        client.flush()
        client.connection.send(switching_protocols(request))
        Tab(client, request.path, rest).run(system)

    def _check_host(self, request: Request) -> None:
        """Check that Host is a name of this front end; this stops DNS rebinding.

        Raises:
            HttpError: the header is missing, or names another host.
        """
        host = request.header("Host").lower()
        if not host:
            raise HttpError(HTTPStatus.BAD_REQUEST, "A Host header is expected")
        default_port = 443 if self._options.tls_certificate else 80
        name, colon, port = host.rpartition(":")
        if not colon or not port.isdigit():
            name, port = host, str(default_port)
        own_names = {*LOOPBACK_NAMES, shown_address(self._options.host, 0).removesuffix(":0").lower()}
        if name not in self._options.allow_host and (name not in own_names or port != str(self.port)):
            raise HttpError(HTTPStatus.FORBIDDEN, f"Host {host[:80]} is not a name of this front end; see --allow-host")

    def _send_file(self, client: Conversation, request: Request) -> None:
        """Send a file of the fixed table.

        Raises:
            HttpError: the table has no such file, or the method is wrong.
        """
        if request.path not in self._files:
            raise HttpError(HTTPStatus.NOT_FOUND, "There is nothing at this address")
        if request.method not in ("GET", "HEAD"):
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD is expected", {"Allow": "GET, HEAD"})
        content_type, content = self._files[request.path]
        client.log(f"{shown(request)}: {HTTPStatus.OK.value}")
        client.connection.send(response(HTTPStatus.OK, content_type, content, head_only=request.method == "HEAD"))

    def _send_error(self, client: Conversation, request: Request | None, error: HttpError) -> None:
        """Answer with an error status."""
        sentence = harmless(str(error).encode())
        client.log(f"{shown(request)}: {error.status.value} {sentence}")
        text = f"{sentence}\n".encode()
        head_only = request is not None and request.method == "HEAD"
        client.connection.send(response(error.status, TEXT_TYPE, text, error.headers, head_only))

    def _find_system(self, request: Request) -> System:
        """Return the system to which a WebSocket leads.

        Raises:
            HttpError: there is no such system, or this is not a valid request for a WebSocket from one of our pages.
        """
        name, slash, room = request.path[len("/ws/") :].partition("/")
        if name not in self._systems or (slash and (name != "chatrooms" or not is_room_name(room))):
            raise HttpError(HTTPStatus.NOT_FOUND, "There is no such system here")
        if request.method != "GET":
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "GET is expected", {"Allow": "GET"})
        check_upgrade(request)
        origin, host = request.header("Origin").lower(), request.header("Host").lower()
        if origin and origin not in (f"http://{host}", f"https://{host}"):  # only browsers send an Origin
            raise HttpError(HTTPStatus.FORBIDDEN, f"A page of {origin[:80]} may not open a WebSocket to {host}")
        return System(*self._systems[name], room, self._options)


def shown(request: Request | None) -> str:
    """Return a request as status lines show it."""
    return f"{request.method} {request.path}"[:100] if request else "request"


def receive_request(connection: Connection) -> tuple[Request, bytes] | None:
    """Return the head of a browser's request and what came after it, or None if the browser left without a request.

    Raises:
        HttpError: the head is malformed or too long, or has not arrived in time.
        OSError: the connection is lost.
    """
    data = b""
    try:
        for received in iter(connection.receive, b""):
            data = (data + received).lstrip(b"\r\n")  # RFC 9112, 2.2: ignore empty lines before a request
            found = split_head(data)
            if found:
                return found
    except TimeLimitPassed as error:
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, str(error)) from None
    return None


def read_files() -> dict[str, tuple[str, bytes]]:
    """Return the type and the content of each file of web/pages/, by path; / is index.html."""
    paths = [path for path in PAGES.glob("*") if path.suffix in TYPES]
    files = {f"/{path.name}": (TYPES[path.suffix], path.read_bytes()) for path in paths}
    if "/index.html" in files:
        files["/"] = files["/index.html"]
    return files


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    options = command_line().parse_args()
    process.prepare(os.getpid())
    process.limit_connections(options, 2, 2 * REFUSED_CONNECTIONS)  # a tab has two sockets
    front_end = FrontEnd(options)
    server = process.open_server(options, options.port, front_end.converse, REFUSED_CONNECTIONS)
    front_end.port = server.port
    process.run(server)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="A front end for browsers: it serves pages, and connects them to the systems that it is given; "
        "without any, to the dormitory on 127.0.0.1:25000.",
        epilog="Example: python3 front_end.py 8000 --chat 127.0.0.1:5050",
    )
    parser.add_argument(
        "port",
        nargs="?",
        type=port_number,
        default=PORT,
        metavar="PORT",
        help="port to listen on; 0 means any free port (default: %(default)s)",
    )
    for name, meaning in SYSTEMS.items():
        parser.add_argument(f"--{name}", type=host_and_port, metavar="HOST:PORT", help=meaning)
    parser.add_argument(
        "--allow-host",
        action="append",
        default=[],
        type=str.lower,
        metavar="NAME",
        help="another name or address, such as 192.0.2.1, under which browsers reach the front end, on any port; "
        "without it, only requests for --host, localhost, 127.0.0.1 and [::1] are served",
    )
    add_server_options(parser, "127.0.0.1")
    parser.set_defaults(login_seconds=HEAD_SECONDS)
    add_tls_options(parser)
    return parser


if __name__ == "__main__":
    main()
