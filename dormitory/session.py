"""Answer the requests of one client of the main server; serverM.py lists the requests and their replies."""

import time
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing

from dormitory.login_queue import TooManyLogins
from dormitory.members import Members, valid_name
from dormitory.upstream import PAUSES_SECONDS, SHORT_PAUSES_SECONDS, NoAnswer, OutOfDescriptors, UdpClient, Upstream
from dormitory.wire import CODE, KINDS, RESERVATION_ID, Action, shortened
from net.addresses import network_of
from net.conversation import Conversation

MAX_FAILED_LOGINS = 5
AFTER_TOO_MANY_LOGINS_SECONDS = 0.5  # the pause after TRY_LATER: hundreds of refused clients must not fill a processor

USAGES = {
    "LOGIN": "LOGIN user [password]",
    "AVAILABILITY": "AVAILABILITY code",
    "RESERVE": "RESERVE code",
    "CANCEL": "CANCEL id",
    "MINE": "MINE",
    "LIST": "LIST [S|D|U]",
}
ANY_USAGE = f"one of {', '.join(USAGES.values())}, QUIT"


class Session:
    """One client's session: the user who has logged in, and the requests."""

    def __init__(
        self, client: Conversation, members: Members, upstreams: Mapping[str, Upstream], key: bytes, idle_seconds: int
    ) -> None:
        self._client = client
        self._members = members
        self._upstreams = upstreams
        self._udp_client = UdpClient(key, client.flush)
        self._idle_seconds = idle_seconds  # how long a user who has logged in may go without a request
        self._user = ""
        self._is_member = False
        self._failed_logins = 0

    def run(self) -> None:
        """Answer requests until the client leaves or sends its fifth wrong login."""
        with closing(self._udp_client):
            for line in self._client.lines():
                if line.rstrip() == "QUIT":
                    self._client.log("QUIT")
                    return
                try:
                    self._reply(self._answer(line))
                except TooManyLogins:
                    self._reply("TRY_LATER Too many people are logging in")
                    self._client.flush()
                    time.sleep(AFTER_TOO_MANY_LOGINS_SECONDS)
                if self._failed_logins == MAX_FAILED_LOGINS:
                    self._reply("Too many wrong logins")
                    return

    def _reply(self, reply: str) -> None:
        self._client.queue_reply(reply)
        self._client.log(f"result sent: {shortened(reply)}")

    def _answer(self, line: str) -> str:
        """Carry out a request and return the reply; raise TooManyLogins if a password cannot be checked in time."""
        word, _, rest = line.partition(" ")
        self._log_request(word, rest)
        try:
            if word != "LOGIN" and not self._user:
                return "DENIED Log in first"
            return self._carry_out(word, rest)
        except NoAnswer as no_answer:
            return f"TRY_LATER {no_answer}"
        except OutOfDescriptors as error:
            self._client.log(f"no request sent: {error}")
            return "TRY_LATER Too many people are connected"

    def _carry_out(self, word: str, rest: str) -> str:
        match word, rest.split():
            case "LOGIN", _:
                return self._log_in(rest)
            case "RESERVE", [_] if not self._is_member:
                return "DENIED Guests cannot reserve"
            case (("AVAILABILITY" | "RESERVE"), [code]) if not CODE.fullmatch(code):
                return "UNKNOWN_ROOM"
            case "CANCEL", [reservation] if not (self._is_member and RESERVATION_ID.fullmatch(reservation)):
                return "UNKNOWN_RESERVATION"
            case "AVAILABILITY", [code]:
                return self._ask(code[0], Action.AVAILABILITY, code)
            case (("RESERVE" | "CANCEL"), [what]):
                return self._change(Action[word], what)
            case "MINE", []:
                letters = KINDS if self._is_member else ()
                return self._ask_each("RESERVATIONS", letters, Action.MINE, f" {self._user}")
            case "LIST", []:
                return self._ask_each("ROOMS", KINDS, Action.LIST)
            case "LIST", [letter] if letter in KINDS:
                return self._ask_each("ROOMS", letter, Action.LIST)
        return f"INVALID Expected {USAGES.get(word, ANY_USAGE)}"

    def _log_request(self, word: str, rest: str) -> None:
        """Write a status line about a request, without anything that may be a password."""
        if word == "LOGIN":
            user, _, password = rest.partition(" ")
            shown = valid_name(user) or "a malformed name"
            text = f"authentication request received: {shown} as a {'member' if password else 'guest'}"
        elif word in USAGES:
            text = f"request received: {word} {rest}".rstrip() + (f" from {self._user}" if self._user else "")
        else:
            text = "unknown request received"
        self._client.log(shortened(text))

    def _log_in(self, rest: str) -> str:
        """Log a user in; an earlier login on the connection ends, even if this one fails."""
        user, _, password = rest.partition(" ")
        user = valid_name(user)
        if not user:
            return f"INVALID Expected {USAGES['LOGIN']}"
        self._user = ""
        if password and not self._is_right(user, password):
            self._failed_logins += 1
            return "REFUSED Wrong username or password"
        self._user = user
        self._is_member = bool(password)
        self._client.set_time_limit(self._idle_seconds, f"Idle for {self._idle_seconds} seconds")
        return f"{'MEMBER' if password else 'GUEST'} {user}"

    def _is_right(self, user: str, password: str) -> bool:
        self._client.flush()  # the check may have to wait for the checks of other clients
        connection = self._client.connection
        if connection.is_gone():
            raise ConnectionResetError("Connection closed by the client")
        return self._members.check(user, password, network_of(connection.address), connection.has_ended_input)

    def _change(self, action: Action, what: str) -> str:
        reply = self._ask(what[0], action, f"{what} {self._user}")
        match reply.split():
            case ["RESERVED", _, left]:
                self._client.log(f"room status of {what} updated: {left}")
            case ["CANCELLED", room, left]:
                self._client.log(f"room status of {room} updated: {left}")
                return f"CANCELLED {room}"
        return reply

    def _ask_each(self, heading: str, letters: Iterable[str], action: Action, more: str = "") -> str:
        """Return a heading and the answers of several back ends; for a silent Server S, the answer is S=?."""
        parts = [heading]
        pauses: Sequence[float] = PAUSES_SECONDS
        for letter in letters:
            try:
                parts.append(self._ask(letter, action, letter + more, pauses))
            except NoAnswer:
                parts.append(f"{letter}=?")
                pauses = SHORT_PAUSES_SECONDS
        return " ".join(filter(None, parts))

    def _ask(self, letter: str, action: Action, text: str, pauses: Sequence[float] = PAUSES_SECONDS) -> str:
        """Return a back end's answer, or raise NoAnswer or OutOfDescriptors."""
        self._client.log(f"request sent to Server {letter} over UDP")
        answer = self._upstreams[letter].ask(self._udp_client, action, text, pauses)
        self._client.log(f"response received from Server {letter} over UDP: {shortened(answer) or 'nothing'}")
        return answer
