"""The back ends as the main server sees them: where each is, whether it answers, and which database it has.

A back end that stays silent is marked as down: requests for it are refused at once, while a thread probes it.
"""

import logging
import threading
import time
from collections.abc import Sequence
from contextlib import closing, suppress

from dormitory.udp_client import NoAnswer, OutOfDescriptors, UdpClient
from dormitory.wire import ANY_DATABASE, Action, Datagram, new_request, shortened
from net.addresses import FamilyAndAddress
from net.command_line import shown_address
from net.log import LOG

PAUSES_SECONDS = (0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7)  # between repetitions; 3 seconds in all
SHORT_PAUSES_SECONDS = PAUSES_SECONDS[:5]  # for a client who has already waited for another back end in vain
PROBE_PAUSES_SECONDS = (0.1, 0.3)  # a back end that is up again is found within two seconds
PROBE_AGAIN_SECONDS = 0.2


class Upstream:
    """One back end. Its host may have several addresses, as localhost has ::1 and 127.0.0.1; one of them is in use."""

    def __init__(self, letter: str, addresses: Sequence[FamilyAndAddress], key: bytes) -> None:
        self._letter = letter
        self._addresses = addresses
        self._key = key
        self._lock = threading.Lock()  # guards changes to the rest; reading one attribute needs no lock
        self._found_down = threading.Condition(self._lock)
        self._address = addresses[0]  # then the one that answered last
        self._is_down = False
        self._database = ANY_DATABASE  # then the id of the one that answered first
        self._refused: set[bytes] = set()  # other databases, which were reported

    def ask(self, client: UdpClient, action: Action, text: str, pauses: Sequence[float] = PAUSES_SECONDS) -> str:
        """Return the answer to a request: the texts of all its pages.

        Raises:
            NoAnswer: the back end is down, or does not answer within the sum of the pauses.
            OutOfDescriptors: the request was not sent.
        """
        try:
            if self._is_down:
                raise NoAnswer
            return self._ask_at(self._address, client, action, text, pauses)
        except NoAnswer:
            self._mark_down()
            raise NoAnswer(f"Server {self._letter} is not answering") from None

    def _ask_at(
        self, address: FamilyAndAddress, client: UdpClient, action: Action, text: str, pauses: Sequence[float]
    ) -> str:
        texts = []
        page = 0
        while True:
            request = new_request(action, text, self._database, page)
            reply = client.ask(address, request, pauses, self._accepts)
            texts.append(reply.text)
            page = reply.page
            if not page:
                return " ".join(filter(None, texts))

    def _accepts(self, reply: Datagram) -> bool:
        """Return whether the first reply came from the same database; if not, report the database once."""
        with self._lock:
            if self._database == ANY_DATABASE:
                self._database = reply.database
            if reply.database == self._database:
                return True
            if reply.database not in self._refused:
                self._refused.add(reply.database)
                LOG.write(
                    f"{self} now has database {reply.database.hex()} instead of {self._database.hex()}:"
                    " its answers are refused until the former one is back or serverM is restarted"
                )
            return False

    def _mark_down(self) -> None:
        with self._lock:
            if not self._is_down:
                LOG.write(f"{self} is not answering")
                self._is_down = True
                self._found_down.notify()

    def __str__(self) -> str:
        addresses = " or ".join(shown_address(*address[:2]) for _, address in self._addresses)
        return f"Server {self._letter} at {addresses}"

    def start_probe(self) -> None:
        """Start the thread that asks the back end for its rooms until it answers, and again whenever it was silent."""
        threading.Thread(target=self._probe_for_ever, name=f"probe {self._letter}", daemon=True).start()

    def _probe_for_ever(self) -> None:
        while True:
            try:
                self._probe()
                with self._lock:
                    self._found_down.wait_for(lambda: self._is_down)
            except OutOfDescriptors:
                pass  # nothing is known about the back end
            except Exception:
                logging.exception("probe %s", self._letter)
            time.sleep(PROBE_AGAIN_SECONDS)

    def _probe(self) -> None:
        """Ask each address for the rooms, until one answers."""
        for address in self._addresses:
            with closing(UdpClient(self._key)) as client, suppress(NoAnswer):
                rooms = self._ask_at(address, client, Action.LIST, self._letter, PROBE_PAUSES_SECONDS)
                with self._lock:
                    self._address = address
                    self._is_down = False
                LOG.write(f"Server {self._letter} has sent its room status: {shortened(rooms)}")
                return
        self._mark_down()
