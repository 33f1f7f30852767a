"""Receive the datagrams of a back end, have the requests in them carried out, and reply.

    wait for datagrams -> carry out all that have arrived, in one transaction (group commit) -> send the replies

One thread does all of this. It sends a reply only after the change that the reply confirms is on disk, in the files
that a restart would open.
"""

import logging
import select
import socket
import sqlite3
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, NamedTuple

from dormitory.request_handler import CHANGES, RequestHandler
from dormitory.reservations import MAX_CLOCK_DIFFERENCE_MS, Damaged
from dormitory.wire import MAX_DATAGRAM_BYTES, BadDatagram, Datagram, clock_time, now_ms, pack, shortened, unpack
from net.command_line import reason, shown_address
from net.log import LOG

TICK_SECONDS = 0.05  # the longest wait before the thread checks the files, or stops
FILE_CHECK_SECONDS = 0.5
CONTENT_CHECK_SECONDS = 20.0
PROBLEM_SECONDS = 60.0  # the least time between two status lines about the same problem
MAX_BATCH = 256  # requests that share a transaction
RECEIVE_BUFFER_BYTES = 1 << 20
ANCILLARY_BYTES = 128

# A reply must leave from the address that was asked: the main server accepts it from nowhere else. At a socket with all
# addresses of a host, the kernel reports the address with each datagram, and takes it back with the reply (ip(7); RFC
# 3542, 6.2).
IP_PKTINFO = getattr(socket, "IP_PKTINFO", 26 if sys.platform == "darwin" else 8)  # Python has had it since 3.12


class ReceivedRequest(NamedTuple):
    """A request, and what its reply needs: the address of the sender, and the address that was asked."""

    datagram: Datagram
    sender: Any
    asked: list[tuple[int, int, bytes]]


class UdpServer:
    """The sockets of a back end, and the loop that serves them; only one thread uses them, so there is no lock."""

    def __init__(self, handler: RequestHandler, sockets: Sequence[socket.socket], key: bytes, is_traced: bool) -> None:
        self._handler = handler
        self._name = handler.name
        self._sockets = {sock.fileno(): sock for sock in sockets}
        self._poll = select.poll()
        for fd in self._sockets:
            self._poll.register(fd, select.POLLIN)
        self._key = key
        self._is_traced = is_traced
        self._file_check_due = 0.0
        self._content_check_due = time.monotonic() + CONTENT_CHECK_SECONDS
        self._problem_due: dict[str, float] = {}  # when the next status line about a problem may be written

    def serve(self, stopping: threading.Event) -> None:
        """Serve until an event is set; this thread alone may use the handler meanwhile."""
        while not stopping.is_set():
            try:
                received = [(fd, self._receive(self._sockets[fd])) for fd, _ in self._poll.poll(TICK_SECONDS * 1000)]
                self._check_files()
                for fd, requests in received:
                    self._answer(self._sockets[fd], requests)
            except Exception as error:  # the thread has sent no reply: the main server asks again
                self._file_check_due = 0.0  # check at once: the counts may include changes that were rolled back
                if isinstance(error, (sqlite3.Error, Damaged)):
                    self._report(str(error), f"cannot answer: {error}")
                else:
                    logging.exception(self._name)

    def _check_files(self) -> None:
        """Notice edits and damage; a check that fails is repeated at once, so a damaged database answers nothing."""
        now = time.monotonic()
        reservations = self._handler.reservations
        if now >= self._file_check_due:
            self._handler.inventory.refresh()
            reservations.refresh()
            reservations.check_files()
            self._file_check_due = now + FILE_CHECK_SECONDS
        if now >= self._content_check_due:
            reservations.check_contents()
            self._content_check_due = now + CONTENT_CHECK_SECONDS

    def _receive(self, sock: socket.socket) -> list[ReceivedRequest]:
        """Return all changes that have arrived at a socket, up to a read, or that read alone."""
        requests: list[ReceivedRequest] = []
        while len(requests) < MAX_BATCH and (request := self._receive_one(sock)):
            requests.append(request)
            if request.datagram.action not in CHANGES:
                break
        return requests

    def _receive_one(self, sock: socket.socket) -> ReceivedRequest | None:
        try:
            data, ancillary, _, sender = sock.recvmsg(MAX_DATAGRAM_BYTES, ANCILLARY_BYTES, socket.MSG_DONTWAIT)
        except OSError:  # no datagram has arrived, or the kernel reports a reply that could not be delivered
            return None
        received: Datagram | bytes = data
        try:
            received = request = unpack(self._key, data)
            self._check(request)
        except BadDatagram as bad:
            self._report_dropped(bad, sender)
            return None
        finally:
            self._trace(sender, "<-", received)
        return ReceivedRequest(request, sender, [_source(*information) for information in ancillary])

    def _check(self, request: Datagram) -> None:
        if not request.text.startswith(self._handler.letter):
            raise BadDatagram("that is meant for another server", f", Server {request.text[:1]}")
        late_ms = now_ms() - request.time_ms
        if abs(late_ms) > MAX_CLOCK_DIFFERENCE_MS:
            direction = "behind" if late_ms > 0 else "ahead of"
            difference = f": {abs(late_ms) // 1000} seconds {direction} the clock of this host"
            limit = f"; at most {MAX_CLOCK_DIFFERENCE_MS // 1000} are accepted"
            raise BadDatagram("whose time is wrong", difference + limit)

    def _answer(self, sock: socket.socket, requests: list[ReceivedRequest]) -> None:
        status_lines = self._handler.status_lines
        status_lines.clear()
        replies: list[tuple[ReceivedRequest, Datagram]] = []
        is_change = requests and requests[0].datagram.action in CHANGES
        with self._handler.reservations.transaction() if is_change else nullcontext():
            for request in requests:
                try:
                    replies.append((request, self._handler.reply_to(request.datagram)))
                except BadDatagram as bad:
                    self._report_dropped(bad, request.sender)
        for request, reply in replies:
            self._send(sock, request, reply)
        if status_lines:
            LOG.write("\n".join(status_lines))

    def _send(self, sock: socket.socket, request: ReceivedRequest, reply: Datagram) -> None:
        try:
            sock.sendmsg([pack(self._key, reply)], request.asked, 0, request.sender)
        except OSError as error:  # as if the reply were lost: the main server asks again
            self._report("send", f"cannot reply to {shown_address(*request.sender[:2])}: {reason(error)}")
            return
        self._trace(request.sender, "->", reply)
        self._handler.status_lines.append(f"{self._name} sent {shortened(reply.text) or 'nothing'} to the main server")

    def _report_dropped(self, bad: BadDatagram, sender: Any) -> None:
        self._report(bad.problem, f"dropped a datagram from {shown_address(*sender[:2])} {bad}")

    def _report(self, problem: str, sentence: str) -> None:
        """Write a status line about a problem, unless there was one less than a minute ago."""
        now = time.monotonic()
        if now >= self._problem_due.get(problem, 0.0):
            self._problem_due[problem] = now + PROBLEM_SECONDS
            LOG.write(f"{self._name} {sentence}")

    def _trace(self, other: Any, direction: str, datagram: Datagram | bytes) -> None:
        if self._is_traced:
            LOG.write(f"{clock_time(now_ms())} {self._name} {shown_address(*other[:2])} {direction} {datagram!s}")


def _source(level: int, kind: int, information: bytes) -> tuple[int, int, bytes]:
    """Return what makes the kernel send a reply from the address that a datagram was sent to, by any interface."""
    any_interface = bytes(4)
    if level == socket.IPPROTO_IP:  # struct in_pktinfo: interface, local address, address in the header
        return level, kind, any_interface + 2 * information[8:12]
    return level, kind, information[:16] + any_interface  # struct in6_pktinfo: address, interface


def open_socket(family: int, address: Any) -> socket.socket:
    """Return a UDP socket for requests that are sent to an address of this machine."""
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        if address[0] == "0.0.0.0":
            sock.setsockopt(socket.IPPROTO_IP, IP_PKTINFO, 1)
        if address[0] == "::":
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_RECVPKTINFO, 1)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock
