"""What one client of the dormitory's main server asks for, and what it gets: serverM.py shows the requests.

The requests that came together are carried out one after the other; their replies go out together, or when they are
many, or before a back end that is silent is waited for. Rights come from the last LOGIN on the connection, and from
nothing else.
"""

import time
from collections.abc import Callable

from dormitory.backend_client import Caller, NoAnswer
from dormitory.members import NAME, Members
from dormitory.wire import CODE, KINDS, PATIENCE_SECONDS, RESERVATION_ID, Action
from net.connection import Connection
from net.log import LOG
from net.outbox import OUTBOX_BYTES
from protocol import harmless

MAX_FAILED_LOGINS = 5


class Denied(Exception):
    """This user may not do that; the text says why."""


class Invalid(Exception):
    """A request is not as it should be."""


class Conversation:
    """What one client asks for, and what it gets.

    Args:
        connection: the client's.
        port: the TCP port that it connected to, for the status lines.
        members: who may log in as a member.
        caller: what asks the back ends for it.
    """

    def __init__(self, connection: Connection, port: int, members: Members, caller: Caller) -> None:
        self._connection = connection
        self._port = port
        self._members = members
        self._caller = caller
        self._user = ""
        self._is_member = False
        self._failed_logins = 0
        self._ended = False
        self._replies: list[str] = []  # to be sent together
        self._story: list[str] = []  # status lines, to be written after that
        self._gathered = 0  # characters of both
        self._silent: set[str] = set()  # the back ends that did not answer one of the requests that came together
        self._prefix = f"Client ({connection.fd}): "

    def run(self) -> None:
        """Answer requests until the client leaves."""
        for lines in self._connection.batches():
            self._silent.clear()
            for request in harmless(lines).split("\n")[:-1]:
                self._handle(request)
                if self._ended:
                    break
                if self._gathered > OUTBOX_BYTES:
                    self._send_gathered()
            self._send_gathered()
            if self._ended:
                return

    def _handle(self, request: str) -> None:
        """Answer a request; the reply is sent with those of the requests that came with it."""
        word, _, rest = request.partition(" ")
        try:
            reply = self._reply_to(word, rest)
        except Denied as denied:
            reply = f"DENIED {denied}"
        except Invalid:
            reply = f"INVALID Expected {USAGES.get(word, ANY_USAGE)}"
        except NoAnswer as no_answer:
            reply = f"TRY_LATER {no_answer}"
        if reply:
            self._replies.append(f"{reply}\n")
            self._gathered += len(reply) + 1
            self._tell(f"result sent: {reply}")

    def _reply_to(self, word: str, rest: str) -> str:
        if word not in ("LOGIN", "QUIT") and not self._user:
            raise Denied("Log in first")
        if word not in HANDLERS:
            raise Invalid
        return HANDLERS[word](self, rest)

    def _send_gathered(self) -> None:
        """Send the replies that there are, and write their story."""
        if self._replies:
            self._connection.send("".join(self._replies).encode())
            self._replies.clear()
        if self._story:
            LOG.write(self._prefix + f"\n{self._prefix}".join(self._story))
            self._story.clear()
        self._gathered = 0

    def _tell(self, text: str) -> None:
        self._story.append(text)
        self._gathered += len(text)

    def _tell_request(self, request: str) -> None:
        self._tell(f"{request} from {self._user} over TCP with port {self._port}")

    def _log_in(self, rest: str) -> str:
        """Give a user his rights; nobody keeps those of before, also when it fails."""
        user, _, password = rest.partition(" ")
        if not NAME.fullmatch(user):
            raise Invalid
        self._user = ""
        self._tell(f"LOGIN {user} as {'member' if password else 'guest'} over TCP with port {self._port}")
        if password and not self._members.verify(user, password):
            self._failed_logins += 1
            self._ended = self._failed_logins == MAX_FAILED_LOGINS
            return "REFUSED Wrong username or password"
        self._user = user
        self._is_member = bool(password)
        self._connection.deadline = None
        return f"MEMBER {user}" if password else f"GUEST {user}"

    def _availability(self, rest: str) -> str:
        code = _only_field(rest)
        self._tell_request(f"AVAILABILITY {code}")
        return self._ask_about_room(Action.AVAILABILITY, code)

    def _reserve(self, rest: str) -> str:
        code = _only_field(rest)
        self._tell_request(f"RESERVE {code}")
        if not self._is_member:
            raise Denied("Guests cannot reserve")
        reply = self._ask_about_room(Action.RESERVE, code, self._user)
        if reply.startswith("RESERVED "):
            self._tell(f"room status of {code} updated: {reply.split()[2]}")
        return reply

    def _cancel(self, rest: str) -> str:
        reservation = _only_field(rest)
        self._tell_request(f"CANCEL {reservation}")
        if not self._is_member or not RESERVATION_ID.fullmatch(reservation):
            return "UNKNOWN_RESERVATION"
        return self._ask(reservation[0], Action.CANCEL, f"{reservation} {self._user}", _deadline())

    def _mine(self, rest: str) -> str:
        if rest.strip():
            raise Invalid
        self._tell_request("MINE")
        return f"RESERVATIONS {self._ask_all(Action.MINE, self._user) if self._is_member else ''}".rstrip()

    def _list(self, rest: str) -> str:
        if rest.strip():
            raise Invalid
        self._tell_request("LIST")
        return f"ROOMS {self._ask_all(Action.LIST)}".rstrip()

    def _quit(self, rest: str) -> str:
        self._tell("QUIT")
        self._ended = True
        return ""

    def _ask_about_room(self, action: Action, code: str, *more: str) -> str:
        if not CODE.fullmatch(code):
            return "UNKNOWN_ROOM"
        return self._ask(code[0], action, " ".join((code, *more)), _deadline())

    def _ask_all(self, action: Action, *fields: str) -> str:
        """Return what all three back ends answer, one after the other, but within one deadline."""
        deadline = _deadline()
        answers = [self._ask(letter, action, " ".join(fields), deadline) for letter in KINDS]
        return " ".join(filter(None, answers))

    def _ask(self, letter: str, action: Action, fields: str, deadline: float) -> str:
        if letter in self._silent:  # who sent a thousand requests at once does not wait for each
            raise NoAnswer(letter)
        self._tell(f"request sent to Server {letter}")
        try:
            answer = self._caller.ask(letter, action, fields, deadline, self._send_gathered)
        except NoAnswer:
            self._silent.add(letter)
            raise
        self._tell(f"response received from Server {letter} over UDP with port {self._caller.port}: {answer}")
        return answer


HANDLERS: dict[str, Callable[[Conversation, str], str]] = {
    "LOGIN": Conversation._log_in,
    "AVAILABILITY": Conversation._availability,
    "RESERVE": Conversation._reserve,
    "CANCEL": Conversation._cancel,
    "MINE": Conversation._mine,
    "LIST": Conversation._list,
    "QUIT": Conversation._quit,
}
USAGES = {
    "LOGIN": "LOGIN user [password]",
    "AVAILABILITY": "AVAILABILITY code",
    "RESERVE": "RESERVE code",
    "CANCEL": "CANCEL id",
    "MINE": "MINE",
    "LIST": "LIST",
}
ANY_USAGE = f"one of {', '.join(USAGES.values())}, QUIT"


def _only_field(rest: str) -> str:
    fields = rest.split()
    if len(fields) != 1:
        raise Invalid
    return fields[0]


def _deadline() -> float:
    return time.monotonic() + PATIENCE_SECONDS
