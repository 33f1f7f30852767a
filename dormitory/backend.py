"""What serverS, serverD and serverU have in common: the rooms of one kind, asked for over UDP.

    wait for datagrams -> carry out all that are there, in one transaction -> it is on disk -> send the replies

One thread does that, and announces the back end to the main server in between. datagram.py shows the datagrams, desk.py
what is done for each, reservations.py the SQLite file. No request is carried out twice: calls.py.
"""

import argparse
import logging
import socket
import sqlite3
import threading
import time
from contextlib import closing
from pathlib import Path

from dormitory.announcer import Announcer
from dormitory.calls import Calls
from dormitory.inventory import read_inventory
from dormitory.requests import CHANGES, Desk
from dormitory.reservations import Reservations
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, add_data_dir, explain
from dormitory.udp import Address, Dropped, TaggedSocket, bind
from dormitory.wire import KINDS, WORD_BYTES, Action, BadDatagram, Datagram, rooms_text
from net import process as program
from net import server as tcp
from net.log import LOG

MAIN_PORT = 24000
TICK_SECONDS = 0.1  # how long it may wait for datagrams without looking at anything else
LOOK_SECONDS = 100e-6  # the next request may be near, and to wake who sleeps takes longer than to answer
STOP_SECONDS = 1.0


class BackEnd:
    """A back end: its socket, its reservations, and the thread that serves."""

    def __init__(
        self, letter: str, sock: socket.socket, main_address: Address, key: bytes, reservations: Reservations
    ) -> None:
        self._name = f"Server {letter}"
        self._dropped = Dropped()
        look_seconds = LOOK_SECONDS if len(program.PROCESSORS) > 1 else 0.0
        self._sock = TaggedSocket(sock, key, self._dropped, TICK_SECONDS, look_seconds)
        self._announcer = Announcer(letter, self._sock, main_address)
        self._reservations = reservations
        self._desk = Desk(letter, reservations)
        self._story = self._desk.story
        self._calls = Calls()
        self._look_up_at = 0.0  # when something else than datagrams is to be looked at
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve_for_ever, name=self._name, daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def stop(self) -> None:
        """Finish what is being carried out, and stop."""
        self._stopping.set()
        self._thread.join(STOP_SECONDS)

    def _serve_for_ever(self) -> None:
        while not self._stopping.is_set():
            try:
                if time.monotonic() >= self._look_up_at:
                    self._look_up()
                if datagrams := self._receive():
                    self._serve(datagrams)
            except sqlite3.Error as error:  # nothing was done or answered; the main server repeats its requests
                LOG.write(f"{self._name} cannot use its file of reservations: {error}")
            except Exception:
                logging.exception(self._name)

    def _look_up(self) -> None:
        """Do what is to be done now and then: a new session, an announcement, status lines."""
        now = time.monotonic()
        self._look_up_at = now + TICK_SECONDS
        if self._calls.session_ended():
            self._calls.renew_session()
            self._announcer.due_at = now
            self._reservations.forget_old_answers()
        if now >= self._announcer.due_at:
            self._announcer.announce(self._calls.session, rooms_text(self._reservations.left_of_all()))
            self._reservations.see_changes()
        self._dropped.report()

    def _receive(self) -> list[tuple[Datagram, Address]]:
        """Wait a tick for a datagram; with one that changes something, return all that wait."""
        received = self._sock.receive()
        datagrams = [received] if received else []
        if received and received[0].action in CHANGES:
            datagrams += self._sock.receive_waiting()
        if self._calls.receive():
            self._announcer.due_at = self._look_up_at = 0.0
        return datagrams

    def _serve(self, datagrams: list[tuple[Datagram, Address]]) -> None:
        """Carry requests out and reply; if they change something, in one transaction."""
        self._story.clear()
        carry_out = self._replies_from_disk if datagrams[0][0].action in CHANGES else self._replies
        replies = carry_out(datagrams)
        self._calls.settle()
        self._send(replies)
        if self._story:
            LOG.write(*self._story)

    def _replies_from_disk(self, datagrams: list[tuple[Datagram, Address]]) -> list[tuple[Datagram, Address, str]]:
        """Carry out what came, all or nothing of it; return the replies when it is on disk."""
        try:
            with self._reservations.transaction():
                return self._replies(datagrams)
        except BaseException:
            self._calls.undo()
            raise

    def _replies(self, datagrams: list[tuple[Datagram, Address]]) -> list[tuple[Datagram, Address, str]]:
        """Carry out what came; return the replies that are to be sent."""
        replies = []
        for datagram, address in datagrams:
            try:
                if datagram.action == Action.CONFIRM:
                    self._announcer.confirm(datagram)
                    self._look_up_at = 0.0
                else:
                    replies.append((datagram, address, self._reply_to(datagram, address)))
            except BadDatagram as bad:
                self._dropped.count(str(bad), address)
        return replies

    def _reply_to(self, datagram: Datagram, address: Address) -> str:
        """Return the reply to a request; carry it out, unless that was done before.

        Raises:
            BadDatagram: it is not to be answered.
        """
        session, text = datagram.fields[:WORD_BYTES], datagram.fields[WORD_BYTES:]
        reply = self._calls.reply_to(session, datagram.sender, datagram.number, address)
        if reply is None:
            reply = self._desk.carry_out(datagram, text)
            self._calls.remember(datagram.sender, datagram.number, address, reply)
        return reply

    def _send(self, replies: list[tuple[Datagram, Address, str]]) -> None:
        for datagram, address, reply in replies:
            try:
                self._sock.send(address, Action.REPLY, datagram.sender, datagram.number, reply.encode())
                self._story.append(f"{self._name} sent {reply or 'an empty list'} to the main server")
            except OSError as error:  # as good as lost: it is asked for again
                self._story.append(f"{self._name} cannot reply to {address[0]}:{address[1]}: {error.strerror}")


def main(letter: str, port: int) -> int:
    """Be the back end of a letter until SIGINT or SIGTERM; return the exit status of the program."""
    arguments = _parse_arguments(letter, port)
    others = max(1, len(program.PROCESSORS) - 1)  # than the main server's
    program.prepare(0, processor=1 + list(KINDS).index(letter) % others)
    inventory_file: Path = arguments.data_dir / f"{KINDS[letter]}.txt"
    try:
        inventory = read_inventory(inventory_file, letter)
        key = load_key(arguments.data_dir)
    except (Malformed, OSError) as error:
        return program.fail(explain(error))
    try:
        sock = bind(arguments.host, arguments.port)
    except OSError as error:
        return program.fail(f"Cannot listen on {arguments.host}:{arguments.port}: {error.strerror}")
    with sock:
        try:
            _, main_address = tcp.resolve(arguments.main_host, arguments.main_port, socket.SOCK_DGRAM, sock.family)
            reservations = Reservations(inventory_file.with_suffix(".db"), letter, inventory)
        except OSError as error:
            return program.fail(f"Cannot find the main server's host {arguments.main_host}: {error.strerror}")
        except Malformed as error:
            return program.fail(str(error))
        with closing(reservations):
            _serve(letter, BackEnd(letter, sock, main_address, key, reservations), sock)
    return 0


def _serve(letter: str, back_end: BackEnd, sock: socket.socket) -> None:
    host, port = sock.getsockname()[:2]
    LOG.write(f"Server {letter} listening on {host}:{port}")
    back_end.start()
    program.wait_for_signal()
    back_end.stop()
    LOG.flush(program.FLUSH_SECONDS)


def _parse_arguments(letter: str, port: int) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=f"The dormitory's Server {letter}: its {KINDS[letter]} rooms.")
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help="address to listen on (default: %(default)s)")
    parser.add_argument(
        "--port", type=program.port_number, default=port, metavar="P", help="UDP port (default: %(default)s)"
    )
    parser.add_argument(
        "--main-host", default="127.0.0.1", metavar="H", help="host of the main server (default: %(default)s)"
    )
    parser.add_argument(
        "--main-port",
        type=program.port_number,
        default=MAIN_PORT,
        metavar="P",
        help="its UDP port (default: %(default)s)",
    )
    add_data_dir(parser)
    return parser.parse_args()
