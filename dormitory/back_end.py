"""The program that serverS, serverD and serverU run: a back end, which answers requests for the rooms of one kind."""

import argparse
import socket
import sqlite3
import threading
from contextlib import closing
from pathlib import Path

from dormitory.administration import administer
from dormitory.inventory import read_inventory
from dormitory.request_handler import RequestHandler
from dormitory.reservations import Damaged, Reservations
from dormitory.shared_key import load_key
from dormitory.textfiles import Malformed, WatchedFile, add_data_dir
from dormitory.udp_server import UdpServer, open_socket
from dormitory.wire import KINDS
from net import process
from net.addresses import open_at_each_address
from net.command_line import fail, port_number, positive_number, reason, shown_address
from net.log import LOG


def main(letter: str, port: int) -> int:
    """Run the back end of a letter, or administer its reservations; return the exit status of the program."""
    options = _parse_options(letter, port)
    database: Path = options.data_dir / f"{KINDS[letter]}.db"
    try:
        if options.report or options.cancel is not None:
            return administer(letter, database, options)
        return _serve(letter, database, options)
    except (Damaged, Malformed, OSError) as error:
        return fail(reason(error))
    except sqlite3.Error as error:
        # A database that is locked, or on a full disk, holds reservations: nobody should move that away.
        is_other_file = any(words in str(error) for words in ("not a database", "no such"))
        advice = "; move the file away, and the next start makes a new one" if is_other_file else ""
        return fail(f"{database}: {error}{advice}")


def _serve(letter: str, database: Path, options: argparse.Namespace) -> int:
    processors = max(1, len(process.PROCESSORS) - 1)  # the last one is for the main server
    process.prepare(processor=1 + list(KINDS).index(letter) % processors)
    inventory = WatchedFile(database.with_suffix(".txt"), lambda path: read_inventory(path, letter))
    key = load_key(options.data_dir)
    with closing(Reservations(database)) as reservations:
        try:
            sockets = open_at_each_address(options.host, options.port, socket.SOCK_DGRAM, open_socket)
        except OSError as error:
            return fail(process.cannot_listen(options.host, options.port, error))
        addresses = " and ".join(shown_address(*sock.getsockname()[:2]) for sock in sockets)
        LOG.write(f"Server {letter} listening on {addresses}")
        handler = RequestHandler(letter, inventory, reservations, options.max_per_member)
        server = UdpServer(handler, sockets, key, options.trace)
        stopping = threading.Event()
        thread = threading.Thread(target=server.serve, args=[stopping], name=handler.name, daemon=True)
        thread.start()
        process.wait_for_stop()
        stopping.set()
        thread.join(process.ORDERLY_STOP_SECONDS)  # to finish the transaction that is under way
        for sock in sockets:
            sock.close()
        LOG.flush(process.FLUSH_SECONDS)
    return 0


def _parse_options(letter: str, port: int) -> argparse.Namespace:
    kind = KINDS[letter]
    parser = argparse.ArgumentParser(
        description=f"The dormitory's Server {letter}: answers the main server's questions about the {kind} rooms.",
        epilog=f"Example: python3 server{letter}.py --report --csv > {kind}.csv",
    )
    default = "(default: %(default)s)"
    parser.add_argument("--host", default="127.0.0.1", metavar="H", help=f"name or address to listen on {default}")
    parser.add_argument("--port", type=port_number, default=port, metavar="P", help=f"UDP port; 0 means any {default}")
    limit = "how many rooms a member may reserve (default: no limit)"
    parser.add_argument("--max-per-member", type=positive_number, metavar="N", help=limit)
    parser.add_argument("--trace", action="store_true", help="show each datagram that is received or sent")
    add_data_dir(parser)
    group = parser.add_argument_group("instead of serving, whether a server is running or not")
    either = group.add_mutually_exclusive_group()
    either.add_argument("--report", action="store_true", help="print all reservations and their members")
    either.add_argument("--cancel", metavar="ID", help=f"cancel any member's reservation, such as {letter}17")
    group.add_argument("--csv", action="store_true", help="print the report as CSV in UTF-8, for spreadsheets")
    options = parser.parse_args()
    if options.csv and not options.report:
        parser.error("--csv is only possible with --report")
    return options
