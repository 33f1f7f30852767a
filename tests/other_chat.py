"""A chat server that keeps the rules in conformance/, or breaks one of them: `other_chat.py PORT [FAULT]`.

It is unlike chat_server.py: asyncio, other words, a greeting, and lines that end with CR LF. The tests of the checks
run it with each fault of FAULTS, and expect that exactly the rule beside it does not hold.
"""

import asyncio
import re
import sys
from collections.abc import AsyncIterator
from contextlib import suppress

MAX_USERS = 10
MAX_LINE_BYTES = 4096
MAX_BACKLOG_BYTES = 1 << 20
RACE_SECONDS = 0.05

FAULTS = {
    "welcomes-instead": "JOIN-ACCEPTED",
    "lists-only-others": "LIST-NAMES",
    "renames": "JOIN-AGAIN",
    "loses-messages": "MESG-DELIVERED",
    "hides-senders": "MESG-SENDER",
    "shows-messages-to-all": "MESG-PRIVATE",
    "ignores-unknown-recipients": "MESG-UNKNOWN",
    "broadcasts-to-one": "BCST-DELIVERED",
    "hides-broadcasters": "BCST-SENDER",
    "echoes": "BCST-NOT-ECHOED",
    "hangs-on-to-users": "QUIT-CLOSES",
    "hangs-on-to-strangers": "QUIT-UNREGISTERED",
    "reserves-names": "QUIT-NAME-FREE",
    "lists-for-strangers": "UNREG-LIST",
    "delivers-for-strangers": "UNREG-MESG",
    "broadcasts-for-strangers": "UNREG-BCST",
    "knows-strangers": "UNREG-OTHER",
    "broadcasts-to-strangers": "UNREG-DEAF",
    "rejects-vaguely": "UNKNOWN-REQUEST",
    "ignores-case-of-commands": "COMMAND-CASE",
    "has-no-limit": "FULL-REFUSED",
    "frees-no-place": "FULL-PLACE-FREE",
    "counts-strangers": "FULL-CONNECTED",
    "shares-names": "NAME-TAKEN",
    "completes-names": "NAME-WHOLE",
    "ignores-case-of-names": "NAME-CASE",
    "completes-commands": "COMMAND-WHOLE",
    "crashes-without-arguments": "INCOMPLETE",
    "wants-CR": "LINE-LF",
    "takes-packets-for-lines": "LINE-HALF",
    "merges-messages": "LINE-TWO",
    "has-a-small-buffer": "LINE-MANY",
    "truncates": "LINE-LONG",
    "crashes-on-long-lines": "LINE-ENDLESS",
    "waits-for-whole-lines": "HALF-LINE-SILENT",
    "keeps-the-closed": "DROP-CLOSE",
    "keeps-the-reset": "DROP-RESET",
    "sends-under-a-lock": "STUCK-READER",
    "waits-for-readers": "STUCK-SENDER",
    "counts-then-adds": "RACE-PLACES",
    "looks-then-adds": "RACE-NAME",
    "sends-in-pieces": "CONCURRENT",
    "refuses-monologues": "MESG-SELF",
    "tidies-blanks": "TEXT-AS-TYPED",
    "answers-nothing": "EMPTY-LINE",
    "minds-blanks": "BLANKS",
    "sorts": "LIST-ORDER",
    "accepts-any-name": "NAME-RULE",
    "goes-on-after-QUIT": "QUIT-REST",
    "drops-the-last-line": "END-OF-INPUT",
    "relays-control-characters": "CONTROL",
}


COMMANDS = ("JOIN", "LIST", "MESG", "BCST", "QUIT")
FOR_STRANGERS = {"lists-for-strangers": "LIST", "delivers-for-strangers": "MESG", "broadcasts-for-strangers": "BCST"}


class Visitor:
    """A client: a stranger until it has a name."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self.writer = writer
        self.name = ""

    def tell(self, line: str) -> None:
        """Send a line; drop a client that has taken too little of what came before."""
        if self.writer.transport.get_write_buffer_size() > MAX_BACKLOG_BYTES:
            self.writer.transport.abort()
        self.writer.write(line.encode("utf-8", "surrogateescape") + b"\r\n")

    async def tell_and_wait(self, line: str) -> None:
        """Send a line, and wait until the system has taken it."""
        self.writer.transport.set_write_buffer_limits(high=0)
        self.tell(line)
        with suppress(ConnectionError):
            await self.writer.drain()


class OtherChat:
    """The server, with a fault of FAULTS or none."""

    def __init__(self, fault: str = "") -> None:
        self._fault = fault
        self._visitors: list[Visitor] = []
        self._reserved: set[str] = set()
        self._joins = 0
        self._lock = asyncio.Lock()
        self._closed = asyncio.Event()

    async def listen(self, port: int) -> int:
        """Listen on a port, or any free one if it is 0; return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_LINE_BYTES)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    async def wait(self) -> None:
        """Wait until the server is closed."""
        await self._closed.wait()

    def close(self) -> None:
        """Stop, as after a crash."""
        self._server.close()
        for visitor in self._visitors:
            visitor.writer.transport.abort()
        self._closed.set()

    def _has(self, fault: str) -> bool:
        return self._fault == fault

    def _users(self) -> list[Visitor]:
        return [visitor for visitor in self._visitors if visitor.name]

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        visitor = Visitor(writer)
        self._visitors.append(visitor)
        visitor.tell("*** Welcome! Requests: JOIN, LIST, MESG, BCST, QUIT ***")
        stays = False
        try:
            async for line in self._lines(reader):
                if not await self._obey(visitor, line):
                    break
            else:
                stays = self._has("keeps-the-closed")
        except ConnectionError:
            stays = self._has("keeps-the-reset")
        finally:
            if not stays:
                self._visitors.remove(visitor)
            writer.close()

    async def _lines(self, reader: asyncio.StreamReader) -> AsyncIterator[str]:
        buffer, newline = b"", b"\r\n" if self._has("wants-CR") else b"\n"
        while data := await reader.read(1 << 16):
            if self._has("waits-for-whole-lines"):
                async with self._lock:
                    with suppress(asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                        data += b"" if newline in data else await reader.readuntil(newline)
            buffer += data[:MAX_LINE_BYTES] if self._has("has-a-small-buffer") else data
            if self._has("takes-packets-for-lines") and not buffer.endswith(newline):
                buffer += newline
            *lines, buffer = buffer.split(newline)
            if self._has("merges-messages") and all(line.startswith(b"MESG") for line in lines):
                lines = lines[:1]
            for line in lines:
                yield self._cleaned(line)
            if len(buffer) > MAX_LINE_BYTES:
                if self._has("crashes-on-long-lines"):
                    self.close()
                return
        if buffer and not self._has("drops-the-last-line"):
            yield self._cleaned(buffer)

    def _cleaned(self, line: bytes) -> str:
        line = line.removesuffix(b"\r")
        if self._has("relays-control-characters"):
            return line.decode("utf-8", "surrogateescape")
        text = re.sub(rb"\xff[\xfb-\xfe].", b"", line[:255] if self._has("truncates") else line)
        return re.sub(r"[\0-\x08\x0a-\x1f\x7f]", "", text.decode("utf-8", "replace"))

    def _parsed(self, line: str) -> tuple[str, str]:
        command, _, rest = (line if self._has("minds-blanks") else line.lstrip(" ")).partition(" ")
        if self._has("ignores-case-of-commands"):
            command = command.upper()
        if self._has("completes-commands") and command[:4] in COMMANDS:
            command = command[:4]
        return command, rest

    async def _obey(self, visitor: Visitor, line: str) -> bool:
        """Carry out a request; return whether the conversation goes on."""
        command, rest = self._parsed(line)
        if command == "QUIT":
            return self._quit(visitor)
        if command == "JOIN":
            return await self._join(visitor, rest.strip())
        if not visitor.name and command:
            is_known = command in COMMANDS or not self._has("knows-strangers")
            visitor.tell("Sorry, unregistered user!" if is_known else "Unknown message")
        if not visitor.name and FOR_STRANGERS.get(self._fault) != command:
            return True
        if command == "LIST":
            self._list(visitor)
        elif command == "MESG":
            await self._message(visitor, rest.lstrip(" "))
        elif command == "BCST":
            await self._broadcast(visitor, rest)
        elif command or self._has("answers-nothing"):
            visitor.tell("What?" if self._has("rejects-vaguely") else f"Unknown message: {command}")
        return True

    def _quit(self, visitor: Visitor) -> bool:
        if self._has("reserves-names"):
            self._reserved.add(visitor.name)
        if self._has("goes-on-after-QUIT"):
            asyncio.get_running_loop().call_later(RACE_SECONDS, visitor.writer.close)
            return True
        hangs_on = self._has("hangs-on-to-users" if visitor.name else "hangs-on-to-strangers")
        visitor.name = ""
        return hangs_on

    async def _join(self, visitor: Visitor, name: str) -> bool:
        is_valid = re.fullmatch("[A-Za-z0-9]{1,32}", name) or (name and self._has("accepts-any-name"))
        is_full, is_taken = self._is_full(), self._is_taken(name)
        if self._has("counts-then-adds"):
            await asyncio.sleep(RACE_SECONDS)
            is_taken = self._is_taken(name)
        if self._has("looks-then-adds"):
            await asyncio.sleep(RACE_SECONDS)
            is_full = self._is_full()
        if visitor.name and not self._has("renames"):
            visitor.tell("You have a name.")
        elif not is_valid:
            visitor.tell("What a name!")
        elif is_full:
            visitor.tell("Sorry, too many users!")
            return False
        elif is_taken:
            visitor.tell("Somebody has that name.")
        else:
            visitor.name = name
            self._joins += 1
            visitor.tell(f"Welcome, {name}, you are " + ("in" if self._has("welcomes-instead") else "accepted"))
        return True

    def _is_full(self) -> bool:
        count = len(self._users())
        if self._has("counts-strangers"):
            count = len(self._visitors) - 1
        if self._has("frees-no-place"):
            count = self._joins
        return count >= MAX_USERS and not self._has("has-no-limit")

    def _is_taken(self, name: str) -> bool:
        is_taken = name in self._reserved or self._find(name, self._has("ignores-case-of-names")) is not None
        return is_taken and not self._has("shares-names")

    def _find(self, name: str, ignores_case: bool = False, completes: bool = False) -> Visitor | None:
        for user in self._users():
            if user.name == name or (completes and user.name.startswith(name)):
                return user
            if ignores_case and user.name.lower() == name.lower():
                return user
        return None

    def _list(self, visitor: Visitor) -> None:
        names = [user.name for user in self._users() if user is not visitor or not self._has("lists-only-others")]
        visitor.tell("These are here:")
        for name in sorted(names) if self._has("sorts") else names:
            visitor.tell(f"- {name}")

    async def _message(self, visitor: Visitor, rest: str) -> None:
        name, _, text = rest.partition(" ")
        recipient = self._find(name, completes=self._has("completes-names"))
        if not text and self._has("crashes-without-arguments"):
            self.close()
        elif not text:
            visitor.tell("Unknown message: MESG wants a name and a text")
        elif recipient is None:
            visitor.tell("" if self._has("ignores-unknown-recipients") else f"Unknown recipient: {name}")
        elif not self._has("loses-messages") and not (recipient is visitor and self._has("refuses-monologues")):
            sender = "somebody" if self._has("hides-senders") else visitor.name
            recipients = self._users() if self._has("shows-messages-to-all") else [recipient]
            await self._deliver(f"{sender} whispers: ", text, recipients)

    async def _broadcast(self, visitor: Visitor, text: str) -> None:
        sender = "somebody" if self._has("hides-broadcasters") else visitor.name
        audience = self._visitors if self._has("broadcasts-to-strangers") else self._users()
        recipients = [other for other in audience if other is not visitor or self._has("echoes")]
        await self._deliver(f"{sender} says: ", text, recipients[:1] if self._has("broadcasts-to-one") else recipients)

    async def _deliver(self, start: str, text: str, recipients: list[Visitor]) -> None:
        line = start + (" ".join(text.split()) if self._has("tidies-blanks") else text)
        if self._has("sends-under-a-lock"):
            async with self._lock:
                for recipient in recipients:
                    await recipient.tell_and_wait(line)
        elif self._has("waits-for-readers"):
            for recipient in recipients:
                await recipient.tell_and_wait(line)
        else:
            for recipient in recipients:
                if self._has("sends-in-pieces"):
                    recipient.writer.write(line[: len(line) // 2].encode())
                    await asyncio.sleep(0.001)
                    recipient.tell(line[len(line) // 2 :])
                else:
                    recipient.tell(line)


async def main(port: str, fault: str = "") -> None:
    """Serve until Ctrl-C, or until a fault ends the server."""
    chat = OtherChat(fault)
    await chat.listen(int(port))
    await chat.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
