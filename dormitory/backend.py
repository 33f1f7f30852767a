"""A back end, which serverS, serverD and serverU run: it answers requests for the rooms of one kind over UDP.

    wait for datagrams -> carry out all that have arrived, in one transaction (group commit) -> send the replies

One thread does all of this. It sends a reply only after the change that the reply confirms is on disk, in the file that
a restart would open. wire.py describes the datagrams, reservations.py the database.
"""

import argparse
import logging
import socket
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from itertools import islice
from pathlib import Path

from dormitory.administration import add_administration_options, administer
from dormitory.inventory import read_inventory
from dormitory.reservations import MAX_CLOCK_DIFFERENCE_MS, FilesReplaced, Reservations, explain_database_error
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, WatchedFile, add_data_dir, explain
from dormitory.wire import (
    ANY_DATABASE,
    KINDS,
    MALFORMED,
    MAX_DATAGRAM_BYTES,
    MAX_TEXT_BYTES,
    RECEIVE_TICK,
    RESERVATION_ID,
    Action,
    BadDatagram,
    Datagram,
    now_ms,
    pack,
    shortened,
    unpack,
)
from net import process
from net.addresses import resolve_all
from net.command_line import fail, port_number, reason, shown_address
from net.log import LOG

FILE_CHECK_SECONDS = 0.5
BUSY_POLL_SECONDS = 200e-6  # after a reply: waking a sleeping thread costs more than answering a request
STOP_SECONDS = 1.0
PROBLEM_SECONDS = 60.0  # the least time between two status lines about the same problem
MAX_BATCH = 256  # requests that share a transaction
MAX_PAGE_ITEMS = MAX_TEXT_BYTES // len("S1=6")
RECEIVE_BUFFER_BYTES = 1 << 20

CHANGES = (Action.RESERVE, Action.CANCEL)

Address = tuple[str, int]  # an IPv6 address has two more numbers, which the program only passes on
Datagrams = list[tuple[Datagram, Address]]


class BackEnd:
    """The rooms of one kind, and the thread that answers requests for them.

    No other thread uses the attributes, so there is no lock.
    """

    def __init__(
        self,
        letter: str,
        sock: socket.socket,
        key: bytes,
        inventory: WatchedFile[dict[str, int]],
        reservations: Reservations,
    ) -> None:
        self._letter = letter
        self._name = f"Server {letter}"
        self._sock = sock
        self._key = key
        self._inventory = inventory
        self._reservations = reservations
        self._file_check_due = 0.0
        self._busy_poll_end = 0.0
        self._problem_due: dict[str, float] = {}  # when the next status line about a problem may be written
        self._status_lines: list[str] = []  # about the requests that are being carried out
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve_for_ever, name=self._name, daemon=True)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, RECEIVE_TICK)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """Finish the transaction that is under way, and stop."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _serve_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                requests = self._receive()
                self._check_files()
                if requests:
                    self._serve(requests)
            except Exception as error:  # the thread has sent no reply: the main server asks again
                self._file_check_due = 0.0  # check at once: the counts may include changes that were rolled back
                if isinstance(error, (sqlite3.Error, FilesReplaced)):
                    self._report(str(error), f"cannot answer: {error}")
                else:
                    logging.exception(self._name)

    def _check_files(self) -> None:
        """Every FILE_CHECK_SECONDS, take account of what other programs have done to the files.

        Raises:
            FilesReplaced: the database is not the one that a restart would open.
        """
        if time.monotonic() >= self._file_check_due:
            self._inventory.refresh()
            self._reservations.refresh()
            self._reservations.check_files()
            self._file_check_due = time.monotonic() + FILE_CHECK_SECONDS

    def _receive(self) -> Datagrams:
        """Wait briefly for a request; return it and, if it is a change, all others that have arrived."""
        first = self._busy_poll() or self._receive_one()
        if first is None:
            return []
        requests = [first]
        while first[0].action in CHANGES and len(requests) < MAX_BATCH:
            another = self._receive_one(socket.MSG_DONTWAIT)
            if another is None:
                break
            requests.append(another)
        return requests

    def _busy_poll(self) -> tuple[Datagram, Address] | None:
        while time.monotonic() < self._busy_poll_end:
            if request := self._receive_one(socket.MSG_DONTWAIT):
                return request
        return None

    def _receive_one(self, flags: int = 0) -> tuple[Datagram, Address] | None:
        """Return the next request, or None if no datagram has arrived or the datagram is not accepted."""
        try:
            data, address = self._sock.recvfrom(MAX_DATAGRAM_BYTES + 1, flags)
        except OSError:  # no datagram has arrived, or the kernel reports a reply that could not be delivered
            return None
        try:
            return self._accept(data), address
        except BadDatagram as bad:
            self._report_dropped(bad, address)
            return None

    def _accept(self, data: bytes) -> Datagram:
        """Return the request in a datagram.

        Raises:
            BadDatagram: it is forged, stale or malformed, or meant for another server.
        """
        request = unpack(self._key, data)
        late_ms = now_ms() - request.time_ms
        if abs(late_ms) > MAX_CLOCK_DIFFERENCE_MS:
            raise BadDatagram(
                "whose time is wrong",
                f": {abs(late_ms) // 1000} seconds {'behind' if late_ms > 0 else 'ahead of'} the clock of this host;"
                f" at most {MAX_CLOCK_DIFFERENCE_MS // 1000} are accepted",
            )
        if not request.text.startswith(self._letter):
            raise BadDatagram("that is meant for another server", f", Server {request.text[:1]}")
        return request

    def _report_dropped(self, bad: BadDatagram, address: Address) -> None:
        self._report(bad.problem, f"dropped a datagram from {shown_address(*address[:2])} {bad}")

    def _report(self, problem: str, sentence: str) -> None:
        """Write a status line about a problem, unless there was one less than a minute ago."""
        now = time.monotonic()
        if now >= self._problem_due.get(problem, 0.0):
            self._problem_due[problem] = now + PROBLEM_SECONDS
            LOG.write(f"{self._name} {sentence}")

    def _serve(self, requests: Datagrams) -> None:
        """Carry out requests and reply to them; if the first is a change, they share one transaction."""
        self._status_lines.clear()
        first, _ = requests[0]
        if first.action in CHANGES:
            with self._reservations.transaction():
                replies = self._replies_to(requests)
            self._reservations.check_files()
        else:
            replies = self._replies_to(requests)
        for reply, address in replies:
            self._send(reply, address)
        self._busy_poll_end = time.monotonic() + BUSY_POLL_SECONDS
        if self._status_lines:
            LOG.write("\n".join(self._status_lines))

    def _replies_to(self, requests: Datagrams) -> Datagrams:
        """Carry out requests; return the replies, each with the address to which it goes."""
        replies = []
        database = self._reservations.database
        for request, address in requests:
            try:
                text, page = self._carry_out(request) if request.database in (ANY_DATABASE, database) else ("", 0)
            except BadDatagram as bad:
                self._report_dropped(bad, address)
                continue
            reply = Datagram(Action.REPLY, request.request_id, request.time_ms, database, page, text)
            replies.append((reply, address))
        return replies

    def _send(self, reply: Datagram, address: Address) -> None:
        try:
            self._sock.sendto(pack(self._key, reply), address)
        except OSError as error:  # as if the reply were lost: the main server asks again
            self._report("send", f"cannot reply to {shown_address(*address[:2])}: {reason(error)}")
        else:
            self._status_lines.append(f"{self._name} sent {shortened(reply.text) or 'nothing'} to the main server")

    def _carry_out(self, request: Datagram) -> tuple[str, int]:
        """Carry out a request; return the reply's text and the page to ask for next.

        Raises:
            BadDatagram: the main server never sends such a request.
        """
        try:
            self._status_lines.append(f"{self._name} received {Action(request.action).name} {request.text}")
        except ValueError:
            raise BadDatagram(MALFORMED) from None
        match request.action, request.text.split(" "):
            case Action.AVAILABILITY, [room]:
                return self._availability(room), 0
            case Action.RESERVE, [room, member]:
                return self._once(request, lambda: self._reserve(room, member)), 0
            case Action.CANCEL, [reservation, member]:
                return self._once(request, lambda: self._cancel(reservation, member)), 0
            case Action.MINE, [_, member]:
                return self._mine(member, request.page)
            case Action.LIST, [_]:
                return self._list(request.page)
        raise BadDatagram(MALFORMED)

    def _once(self, request: Datagram, change: Callable[[], str]) -> str:
        """Carry out a change and record the reply; if the request has come before, return the recorded reply."""
        reply = self._reservations.recorded_reply(request.time_ms, request.request_id)
        if reply is None:
            reply = change()
            self._reservations.record_reply(request.time_ms, request.request_id, reply)
        return reply

    def _availability(self, room: str) -> str:
        if room not in self._inventory.content:
            return "UNKNOWN_ROOM"
        left = self._left(room)
        return f"AVAILABLE {left}" if left else "FULL"

    def _reserve(self, room: str, member: str) -> str:
        answer = self._availability(room)
        if not answer.startswith("AVAILABLE"):
            return answer
        number = self._reservations.reserve(room, member)
        return f"RESERVED {self._letter}{number} {self._report_left(room)}"

    def _cancel(self, reservation: str, member: str) -> str:
        number = int(reservation[1:]) if RESERVATION_ID.fullmatch(reservation) else 0
        found = self._reservations.find(number)
        if found is None or found[1] != member:
            return "UNKNOWN_RESERVATION"
        room = found[0]
        self._reservations.cancel(number, room)
        return f"CANCELLED {room} {self._report_left(room)}"

    def _mine(self, member: str, page: int) -> tuple[str, int]:
        """Return as many of a member's reservations as fit in a datagram, from the first number greater than `page`."""
        rows = self._reservations.of_member(member, page, MAX_PAGE_ITEMS)
        return fill_page((number, f"{self._letter}{number}={room}") for number, room in rows)

    def _list(self, page: int) -> tuple[str, int]:
        """Return as many codes as fit in a datagram, each with the rooms that are left; skip the first `page` codes.

        An edit of the inventory between two pages may repeat or omit codes in that one answer.
        """
        codes = islice(self._inventory.content, page, page + MAX_PAGE_ITEMS)
        return fill_page((number, f"{code}={self._left(code)}") for number, code in enumerate(codes, page + 1))

    def _left(self, room: str) -> int:
        """Return how many rooms of a code are left; 0 if an edit of the inventory left fewer than are reserved."""
        return max(0, self._inventory.content.get(room, 0) - self._reservations.taken[room])

    def _report_left(self, room: str) -> int:
        left = self._left(room)
        self._status_lines.append(f"{self._name} has {left} of room {room} left")
        return left


def fill_page(items: Iterable[tuple[int, str]]) -> tuple[str, int]:
    """Return the texts that fit in a datagram, and the next page: the number of the last one, or 0 if all fit."""
    texts: list[str] = []
    size = last = 0
    for number, text in items:
        size += len(text) + 1
        if size > MAX_TEXT_BYTES:
            return " ".join(texts), last
        texts.append(text)
        last = number
    return " ".join(texts), 0


def main(letter: str, port: int) -> int:
    """Run the back end of a letter, or administer its reservations; return the exit status of the program."""
    options = _parse_options(letter, port)
    database: Path = options.data_dir / f"{KINDS[letter]}.db"
    try:
        if options.report or options.cancel is not None:
            return administer(letter, database, options)
        return _serve(letter, database, options)
    except (Malformed, OSError) as error:
        return fail(explain(error))
    except sqlite3.Error as error:
        return fail(explain_database_error(database, error))


def _serve(letter: str, database: Path, options: argparse.Namespace) -> int:
    processors = max(1, len(process.PROCESSORS) - 1)  # the last one is for the main server
    process.prepare(processor=1 + list(KINDS).index(letter) % processors)
    inventory = WatchedFile(database.with_suffix(".txt"), lambda path: read_inventory(path, letter))
    key = load_key(options.data_dir)
    try:
        sock = bind(options.host, options.port)
    except OSError as error:
        return fail(process.cannot_listen(options.host, options.port, error))
    with sock, closing(Reservations(database)) as reservations:
        LOG.write(f"Server {letter} listening on {shown_address(*sock.getsockname()[:2])}")
        back_end = BackEnd(letter, sock, key, inventory, reservations)
        back_end.start()
        process.wait_for_stop()
        back_end.stop()
        LOG.flush(process.FLUSH_SECONDS)
    return 0


def bind(host: str, port: int) -> socket.socket:
    """Return a UDP socket on an address.

    Raises:
        OSError: the address cannot be used.
    """
    family, address = resolve_all(host, port, socket.SOCK_DGRAM)[0]
    sock = socket.socket(family, socket.SOCK_DGRAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        sock.bind(address)
    except OSError:
        sock.close()
        raise
    return sock


def _parse_options(letter: str, port: int) -> argparse.Namespace:
    kind = KINDS[letter]
    parser = argparse.ArgumentParser(
        description=f"The dormitory's Server {letter}: answers the main server's questions about the {kind} rooms.",
        epilog=f"Example: python3 server{letter}.py --report --csv > {kind}.csv",
    )
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port",
        type=port_number,
        default=port,
        metavar="P",
        help="UDP port; 0 means any free port (default: %(default)s)",
    )
    add_data_dir(parser)
    add_administration_options(parser, letter)
    options = parser.parse_args()
    if options.csv and not options.report:
        parser.error("--csv is only possible with --report")
    return options
