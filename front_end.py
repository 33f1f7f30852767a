#!/usr/bin/env python3
r"""A front end for browsers: it serves the pages of web/pages/ and turns each WebSocket into a TCP connection.

    GET /   GET /NAME             the start page, another page or file
    GET /systems.json             which systems this front end was given: {"dormitory": true, "tickets": false, ...}
    GET /ws/dormitory  /ws/tickets  /ws/chat  /ws/chatrooms      a WebSocket to that system
    GET /ws/chatrooms/NAME        a WebSocket to the room NAME

A text message is a line without its newline, in both directions, so a browser tab is one more client of the system.
A page learns a room's port from the lobby, as any client does, but opens a WebSocket to a name: the front end asks the
lobby itself, and so never connects to a port that a page has chosen.
"""

import argparse
import json
import os
import sys
from http import HTTPStatus
from pathlib import Path
from typing import NoReturn

from net import process
from net.command_line import host_and_port, port_number, shown_address
from net.connect import CannotConnect, add_tls_options, client_context
from net.connection import Connection, TimeLimitPassed
from net.conversation import Conversation
from net.options import add_server_options, places
from net.places import NoPlace
from protocol import harmless, is_room_name
from web.http import HttpError, Request, accept_websocket, normal_origin, response, split_authority, split_head
from web.tab import Tab

PORT = 8000
SYSTEMS = ("dormitory", "tickets", "chat", "chatrooms")
DORMITORY = ("127.0.0.1", 25000)
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "[::1]")
HEAD_SECONDS = 10
REFUSED_CONNECTIONS = 64  # connections beyond --max-connections that can be answered with 503 at one time
PAGES = Path(os.path.realpath(__file__)).parent / "web" / "pages"
TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".svg": "image/svg+xml",
}


class FrontEnd:
    """Hold what all connections share. Only the places change once the server has started."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.port = 0  # on which it listens
        self._options = options
        given = {name: getattr(options, name) for name in SYSTEMS if getattr(options, name)}
        self._systems: dict[str, tuple[str, int]] = given or {"dormitory": DORMITORY}  # hosts and ports by name
        listed = json.dumps({name: name in self._systems for name in SYSTEMS})
        self._files = {**read_files(), "/systems.json": (TYPES[".json"], listed.encode())}
        self._places = places(options)

    def converse(self, client: Conversation) -> None:
        """Serve a browser's connection; the connection's own thread runs this."""
        request = None
        try:
            request = receive_request(client.connection)
            if request:
                self._answer(client, request)
        except HttpError as error:
            why = harmless(str(error).encode())
            client.log(f"{request or 'request'}: {error.status.value} {why}")
            headers = {"Content-Type": "text/plain; charset=utf-8", **error.headers}
            client.connection.send(response(request, error.status, f"{why}\n".encode(), headers))

    def _answer(self, client: Conversation, request: Request) -> None:
        try:
            self._places.take(client.connection.address)
        except NoPlace as error:
            raise HttpError(HTTPStatus.SERVICE_UNAVAILABLE, str(error)) from None
        try:
            self._check_host(request)
            if request.path.startswith("/ws/"):
                self._serve_websocket(client, request)
            else:
                self._send_file(client, request)
        finally:
            self._places.release(client.connection.address)

    def _check_host(self, request: Request) -> None:
        """Refuse a request for a name that is not this front end's; this stops DNS rebinding."""
        name, port = split_authority(request.host) or ("", None)
        default_port = 443 if self._options.tls_certificate else 80
        own_name, _ = split_authority(shown_address(self._options.host, self.port)) or ("localhost", None)
        is_own = name in (own_name, *LOOPBACK_NAMES) and (port or default_port) == self.port
        if not is_own and name not in self._options.allow_host:
            why = f"Host {request.host[:80]} is not a name of this front end; see --allow-host"
            raise HttpError(HTTPStatus.FORBIDDEN, why)

    def _serve_websocket(self, client: Conversation, request: Request) -> None:
        name, slash, room = request.path[len("/ws/") :].partition("/")
        if name not in self._systems or (slash and (name != "chatrooms" or not is_room_name(room))):
            raise HttpError(HTTPStatus.NOT_FOUND, "There is no such system here")
        if request.method != "GET":
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "GET is expected", {"Allow": "GET"})
        self._check_origin(request)
        switching = accept_websocket(request)
        client.log(f"{request}: {HTTPStatus.SWITCHING_PROTOCOLS.value}")
        client.flush()
        client.connection.send(switching)
        Tab(client, request.path, self._systems[name], self._options).run(room, request.rest)

    def _check_origin(self, request: Request) -> None:
        """Check that a page of this front end opens the WebSocket; only browsers send an Origin."""
        # Host does not tell the scheme, which a proxy may have changed.
        own = [normal_origin(f"{scheme}://{request.host}") for scheme in ("http", "https")]
        if request.origin and normal_origin(request.origin) not in (*own, *self._options.allow_origin):
            why = f"A page of {request.origin[:80]} may not open a WebSocket to {request.host}; see --allow-origin"
            raise HttpError(HTTPStatus.FORBIDDEN, why)

    def _send_file(self, client: Conversation, request: Request) -> None:
        if request.path not in self._files:
            raise HttpError(HTTPStatus.NOT_FOUND, "There is nothing at this address")
        if request.method not in ("GET", "HEAD"):
            raise HttpError(HTTPStatus.METHOD_NOT_ALLOWED, "GET or HEAD is expected", {"Allow": "GET, HEAD"})
        content_type, content = self._files[request.path]
        client.log(f"{request}: {HTTPStatus.OK.value}")
        client.connection.send(response(request, HTTPStatus.OK, content, {"Content-Type": content_type}))


def receive_request(connection: Connection) -> Request | None:
    """Return a browser's request, or None if the browser left without one."""
    data = b""
    try:
        for received in iter(connection.receive, b""):
            data = (data + received).lstrip(b"\r\n")  # RFC 9112, 2.2: ignore empty lines before a request
            request = split_head(data)
            if request:
                return request
    except TimeLimitPassed as error:
        raise HttpError(HTTPStatus.REQUEST_TIMEOUT, str(error)) from None
    return None


def read_files() -> dict[str, tuple[str, bytes]]:
    """Return the type and the content of each file of web/pages/, by path; / is index.html.

    page.html is the frame of all pages. A page's own file holds its lines of the head, an empty line, and its content.
    """
    paths = [path for path in PAGES.glob("*") if path.suffix in TYPES]
    files = {f"/{path.name}": (TYPES[path.suffix], path.read_bytes()) for path in paths}
    _, frame = files.pop("/page.html")
    for path, (content_type, page) in files.items():
        if path.endswith(".html"):
            head, _, content = page.partition(b"\n\n")
            files[path] = content_type, frame.replace(b"<!-- HEAD -->", head).replace(b"<!-- CONTENT -->", content)
    return {**files, "/": files["/index.html"]}


def main() -> NoReturn:
    """Parse the command line and serve until SIGINT or SIGTERM."""
    options = command_line().parse_args()
    try:
        if options.tls or options.tls_ca:
            client_context(options.tls_ca)
    except CannotConnect as error:
        sys.exit(str(error))
    process.prepare(os.getpid())
    process.limit_connections(options, 2, 2 * REFUSED_CONNECTIONS)  # a tab has two sockets
    front_end = FrontEnd(options)
    server = process.open_server(options, options.port, front_end.converse, REFUSED_CONNECTIONS)
    front_end.port = server.port
    process.run(server)


def host_name(text: str) -> str:
    """Convert an argument to a host as it stands in the header Host, without a port."""
    host = split_authority(text)
    if not host or ":" in text.rpartition("]")[2]:
        expected = "a name such as chat.example.com, or an address such as 192.0.2.1 or [2001:db8::1]"
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: {expected} is expected, without a port")
    return host[0]


def origin(text: str) -> str:
    """Convert an argument to an origin in its normal form."""
    if not normal_origin(text):
        expected = "an origin such as https://chat.example.com"
        raise argparse.ArgumentTypeError(f"{text!r} is not valid: {expected} is expected")
    return normal_origin(text)


def command_line() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        description="A front end for browsers: it serves pages, and connects them to the systems that it is given; "
        "without any, to the dormitory on 127.0.0.1:25000.",
        epilog="Example: python3 front_end.py 8000 --chat 127.0.0.1:5050",
    )
    meaning = "port to listen on; 0 means any free port (default: %(default)s)"
    parser.add_argument("port", nargs="?", type=port_number, default=PORT, metavar="PORT", help=meaning)
    for name in SYSTEMS:
        meaning = f"where the {name} server listens"
        parser.add_argument(f"--{name}", type=host_and_port, metavar="HOST:PORT", help=meaning)
    meaning = "a name or address, besides --host and localhost, under which browsers reach the front end, on any port"
    parser.add_argument("--allow-host", action="append", default=[], type=host_name, metavar="NAME", help=meaning)
    meaning = "an origin, such as https://chat.example.com, whose pages a proxy that changes Host sends here"
    parser.add_argument("--allow-origin", action="append", default=[], type=origin, metavar="ORIGIN", help=meaning)
    meaning = "tell the systems the browser's address (PROXY protocol, version 1); they need --proxy-from for this host"
    parser.add_argument("--send-proxy", action="store_true", help=meaning)
    add_server_options(parser, "127.0.0.1")
    parser.set_defaults(login_seconds=HEAD_SECONDS)
    add_tls_options(parser)
    return parser


if __name__ == "__main__":
    main()
