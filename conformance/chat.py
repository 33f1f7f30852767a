"""The vocabulary of the checks: users that join, talk and leave, and what they should receive."""

import itertools
import random
import re
import string
import time
from typing import Any

from .dialogue import ChatClient, Dialogue, Limits, quoted
from .rules import fail, not_checked
from .target import Target

MAX_USERS = 10
SILENT_JOIN_SECONDS = 0.6  # a server that may not answer JOIN is taken to have carried it out after this long
LIST_SECONDS = 1.0
LIST_PAUSE_SECONDS = 0.1
DEATH_SECONDS = 0.2  # between the end of a server's connections and that of its process

_numbers = itertools.count(1001)


def unique_text() -> str:
    """Return a text that no other message of this run contains."""
    return f"text{next(_numbers)}q"


class Chat:
    """The users of one check.

    Args:
        target: the server.
        limits: how long the check may wait.
        exact: whether whole replies are compared; otherwise, their essential phrase, or the effect of a request.
        answers_join: whether the server is known to answer JOIN as expected.
    """

    def __init__(self, target: Target, limits: Limits, exact: bool, answers_join: bool) -> None:
        self.exact = exact
        self.limits = limits
        self.dialogue = Dialogue()
        self.target = target
        self._join_seconds = limits.answer_seconds if answers_join else SILENT_JOIN_SECONDS
        self._clients: list[ChatClient] = []
        self._tag = "".join(random.choices(string.ascii_lowercase, k=3))  # a server may remember earlier users

    def name(self, who: str) -> str:
        """Return a name that users of earlier checks did not have."""
        return who + self._tag

    # Coming and going

    def connect(self, who: str, name: str = "", **options: Any) -> ChatClient:
        """Return a client that has connected."""
        client = ChatClient(self.target, who, name or self.name(who), self.dialogue, self.limits, **options)
        self._clients.append(client)
        return client

    def join(self, who: str, name: str = "", **options: Any) -> ChatClient:
        """Return a user: a client that has joined."""
        client = self.connect(who, name, **options)
        if refusal := self._refusal(client):
            not_checked(refusal)
        return client

    def join_all(self, *whos: str) -> list[ChatClient]:
        """Return users."""
        return [self.join(who) for who in whos]

    def expect_join(self, who: str, name: str = "") -> ChatClient:
        """Return a client that has joined; that it can is part of the rule."""
        client = self.connect(who, name)
        self.expect_acceptance(client)
        return client

    def expect_acceptance(self, client: ChatClient) -> None:
        """Let a client join; that it can is part of the rule."""
        if refusal := self._refusal(client):
            fail(refusal)

    def _refusal(self, client: ChatClient) -> str:
        """Let a client join; return a sentence if the server has clearly refused it."""
        client.say(f"JOIN {client.name}")
        if self.exact:
            client.expect_line(f"JOIN {client.name} accepted")
            return ""
        text = client.read_until(r"(?i:accepted|too many users)[^\n]*\n?", self._join_seconds)
        if client.ended or re.search("(?i)too many users", text):
            return f"{client.who} cannot join: {quoted(text)} {client.ended}".rstrip()
        return ""

    def leave(self) -> None:
        """Let all clients leave."""
        for client in self._clients:
            client.close()

    def death(self) -> str:
        """Return how the server has ended, or an empty string."""
        return self.target.death(DEATH_SECONDS if any(client.ended for client in self._clients) else 0.0)

    # Replies

    def expect_answer(self, client: ChatClient, line: str, phrase: str, whole: str) -> None:
        """Let a client say a line, and expect a reply."""
        client.say(line)
        self.expect_reply(client, phrase, whole)

    def expect_reply(self, client: ChatClient, phrase: str, whole: str) -> None:
        """Expect the whole reply if exactness is wanted, otherwise its essential phrase in any case."""
        if self.exact:
            client.expect_line(whole)
        else:
            client.expect(rf"(?i){phrase}[^\n]*\n?", f"a line with '{phrase}'")

    def expect_unregistered(self, client: ChatClient) -> None:
        """Expect the reply to a client that has not joined."""
        self.expect_reply(client, "unregistered user", "Unregistered User. Use JOIN <username> to register.")

    def expect_unknown(self, client: ChatClient, line: str) -> None:
        """Let a user say a line that is not a request, and expect the reply."""
        self.expect_answer(client, line, "unknown message", "Unknown Message. Use JOIN, LIST, MESG, BCST or QUIT.")

    # Messages

    def expect_message(
        self, client: ChatClient, sender: ChatClient, text: str, to_all: bool = False, seconds: float | None = None
    ) -> None:
        """Expect a message; that it shows its sender is the matter of other rules, unless exactness is wanted."""
        if self.exact and seconds is None:
            client.expect_line(f"FROM {sender.name}{' (all)' if to_all else ''}: {text}")
        else:
            client.expect(rf"{re.escape(text)}[^\n]*\n?", f"'{text}' from {sender.name}", seconds)

    def expect_delivery(self, sender: ChatClient, client: ChatClient) -> None:
        """Let a user send a message to another one, and expect it there."""
        text = unique_text()
        sender.say(f"MESG {client.name} {text}")
        self.expect_message(client, sender, text)

    def expect_no_message(self, client: ChatClient, text: str, speaker: ChatClient) -> None:
        """Fail if a text has reached a user; a message that another user sends now would arrive after it."""
        fence = unique_text()
        speaker.say(f"MESG {client.name} {fence}")
        received = client.read_until(rf"{fence}[^\n]*\n?")
        if text in received:
            fail(f"{client.who} should not receive '{text}', but received {quoted(received)}")

    def expect_service(self) -> None:
        """Fail unless two new users can talk."""
        one, two = self.expect_join("one"), self.expect_join("two")
        self.expect_delivery(one, two)

    # LIST

    def expect_list(self, client: ChatClient, users: list[ChatClient], absent: str = "") -> None:
        """Expect LIST to show some users, in this order if exactness is wanted, and not a certain name."""
        names = [user.name for user in users]
        if self.exact:
            client.say("LIST")
            for line in (f"Registered users ({len(names)}):", *names):
                client.expect_line(line)
            return
        deadline = self.limits.deadline()
        while fault := self._list_fault(client, names, absent):  # one who has just left may be shown for a moment
            if time.monotonic() > deadline or client.ended:
                fail(fault)
            time.sleep(LIST_PAUSE_SECONDS)

    def _list_fault(self, client: ChatClient, names: list[str], absent: str) -> str:
        text = self.list_text(client, names)
        for name in names:
            if not contains(text, name):
                return f"LIST should show {name}, but shows {quoted(text)}"
        if absent and contains(text, absent):
            return f"LIST should not show {absent}, but shows {quoted(text)}"
        return ""

    def list_text(self, client: ChatClient, names: list[str]) -> str:
        """Return the reply to LIST, which is complete when all names have come, and then nothing for a moment."""
        client.discard()
        client.say("LIST")
        all_names = "".join(rf"(?=[\s\S]*\b{name}\b)" for name in names)
        return client.read_until(rf"\A{all_names}[\s\S]", LIST_SECONDS) + client.read_rest()


def contains(text: str, name: str) -> bool:
    """Return whether a text contains a name as a word."""
    return re.search(rf"\b{name}\b", text) is not None
