"""A chat server that keeps the rules in conformance/, except the one that it is told to break.

    python3 tests/other_chat.py PORT [RULE]

It is unlike chat_server.py: asyncio, other words, a greeting, and lines that end with CR LF. For each rule it has a
fault, and the tests of the checks expect that this fault breaks no other rule.
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

COMMANDS = ("JOIN", "LIST", "MESG", "BCST", "QUIT")


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
    """The server; broken_rule is the id of a rule, or empty."""

    def __init__(self, broken_rule: str = "") -> None:
        self._broken_rule = broken_rule
        self._visitors: list[Visitor] = []
        self._reserved: set[str] = set()
        self._joins = 0
        self._lock = asyncio.Lock()
        self.closed = asyncio.Event()

    async def listen(self, port: int) -> int:
        """Listen on a port, or any free one if it is 0; return it."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", port, limit=MAX_LINE_BYTES)
        listening: int = self._server.sockets[0].getsockname()[1]
        return listening

    def close(self) -> None:
        """Stop, as after a crash."""
        self._server.close()
        for visitor in self._visitors:
            visitor.writer.transport.abort()
        self.closed.set()

    def _breaks(self, rule_id: str) -> bool:
        return self._broken_rule == rule_id

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
                stays = self._breaks("DROP-CLOSE")
        except ConnectionError:
            stays = self._breaks("DROP-RESET")
        finally:
            if not stays:
                self._visitors.remove(visitor)
            writer.close()

    async def _lines(self, reader: asyncio.StreamReader) -> AsyncIterator[str]:
        buffer, newline = b"", b"\r\n" if self._breaks("LINE-LF") else b"\n"
        while data := await reader.read(1 << 16):
            if self._breaks("HALF-LINE-SILENT"):
                async with self._lock:
                    with suppress(asyncio.LimitOverrunError, asyncio.IncompleteReadError):
                        data += b"" if newline in data else await reader.readuntil(newline)
            buffer += data[:MAX_LINE_BYTES] if self._breaks("LINE-MANY") else data
            if self._breaks("LINE-HALF") and not buffer.endswith(newline):
                buffer += newline
            *lines, buffer = buffer.split(newline)
            if self._breaks("LINE-TWO") and all(line.startswith(b"MESG") for line in lines):
                lines = lines[:1]
            for line in lines:
                yield self._cleaned(line)
            if len(buffer) > MAX_LINE_BYTES:
                if self._breaks("LINE-ENDLESS"):
                    self.close()
                return
        if buffer and not self._breaks("END-OF-INPUT"):
            yield self._cleaned(buffer)

    def _cleaned(self, line: bytes) -> str:
        line = line.removesuffix(b"\r")
        if self._breaks("CONTROL"):
            return line.decode("utf-8", "surrogateescape")
        text = re.sub(rb"\xff[\xfb-\xfe].", b"", line[:255] if self._breaks("LINE-LONG") else line)
        return re.sub(r"[\0-\x08\x0a-\x1f\x7f]", "", text.decode("utf-8", "replace"))

    def _parsed(self, line: str) -> tuple[str, str]:
        command, _, rest = (line if self._breaks("BLANKS") else line.lstrip(" ")).partition(" ")
        if self._breaks("COMMAND-CASE"):
            command = command.upper()
        if self._breaks("COMMAND-WHOLE") and command[:4] in COMMANDS:
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
            is_known = command in COMMANDS or not self._breaks("UNREG-OTHER")
            visitor.tell("Sorry, unregistered user!" if is_known else "Unknown message")
        if not visitor.name and not self._breaks(f"UNREG-{command}"):
            return True
        if command == "LIST":
            self._list(visitor)
        elif command == "MESG":
            await self._message(visitor, rest.lstrip(" "))
        elif command == "BCST":
            await self._broadcast(visitor, rest)
        elif command or self._breaks("EMPTY-LINE"):
            visitor.tell("What?" if self._breaks("UNKNOWN-REQUEST") else f"Unknown message: {command}")
        return True

    def _quit(self, visitor: Visitor) -> bool:
        if self._breaks("QUIT-NAME-FREE"):
            self._reserved.add(visitor.name)
        if self._breaks("QUIT-REST"):
            asyncio.get_running_loop().call_later(RACE_SECONDS, visitor.writer.close)
            return True
        hangs_on = self._breaks("QUIT-CLOSES" if visitor.name else "QUIT-UNREGISTERED")
        visitor.name = ""
        return hangs_on

    async def _join(self, visitor: Visitor, name: str) -> bool:
        is_valid = re.fullmatch("[A-Za-z0-9]{1,32}", name) or (name and self._breaks("NAME-RULE"))
        is_full, is_taken = self._is_full(), self._is_taken(name)
        if self._breaks("RACE-PLACES"):
            await asyncio.sleep(RACE_SECONDS)
            is_taken = self._is_taken(name)
        if self._breaks("RACE-NAME"):
            await asyncio.sleep(RACE_SECONDS)
            is_full = self._is_full()
        if visitor.name and not self._breaks("JOIN-AGAIN"):
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
            visitor.tell(f"Welcome, {name}, you are " + ("in" if self._breaks("JOIN-ACCEPTED") else "accepted"))
        return True

    def _is_full(self) -> bool:
        count = len(self._users())
        if self._breaks("FULL-CONNECTED"):
            count = len(self._visitors) - 1
        if self._breaks("FULL-PLACE-FREE"):
            count = self._joins
        return count >= MAX_USERS and not self._breaks("FULL-REFUSED")

    def _is_taken(self, name: str) -> bool:
        is_taken = name in self._reserved or self._find(name, self._breaks("NAME-CASE")) is not None
        return is_taken and not self._breaks("NAME-TAKEN")

    def _find(self, name: str, ignores_case: bool = False, completes: bool = False) -> Visitor | None:
        for user in self._users():
            if user.name == name or (completes and user.name.startswith(name)):
                return user
            if ignores_case and user.name.lower() == name.lower():
                return user
        return None

    def _list(self, visitor: Visitor) -> None:
        names = [user.name for user in self._users() if user is not visitor or not self._breaks("LIST-NAMES")]
        visitor.tell("These are here:")
        for name in sorted(names) if self._breaks("LIST-ORDER") else names:
            visitor.tell(f"- {name}")

    async def _message(self, visitor: Visitor, rest: str) -> None:
        name, _, text = rest.partition(" ")
        recipient = self._find(name, completes=self._breaks("NAME-WHOLE"))
        if not text and self._breaks("INCOMPLETE"):
            self.close()
        elif not text:
            visitor.tell("Unknown message: MESG wants a name and a text")
        elif recipient is None:
            visitor.tell("" if self._breaks("MESG-UNKNOWN") else f"Unknown recipient: {name}")
        elif not self._breaks("MESG-DELIVERED") and not (recipient is visitor and self._breaks("MESG-SELF")):
            sender = "somebody" if self._breaks("MESG-SENDER") else visitor.name
            recipients = self._users() if self._breaks("MESG-PRIVATE") else [recipient]
            await self._deliver(f"{sender} whispers: ", text, recipients)

    async def _broadcast(self, visitor: Visitor, text: str) -> None:
        sender = "somebody" if self._breaks("BCST-SENDER") else visitor.name
        audience = self._visitors if self._breaks("UNREG-DEAF") else self._users()
        recipients = [other for other in audience if other is not visitor or self._breaks("BCST-NOT-ECHOED")]
        await self._deliver(f"{sender} says: ", text, recipients[:1] if self._breaks("BCST-DELIVERED") else recipients)

    async def _deliver(self, start: str, text: str, recipients: list[Visitor]) -> None:
        line = start + (" ".join(text.split()) if self._breaks("TEXT-AS-TYPED") else text)
        if self._breaks("STUCK-READER"):
            async with self._lock:
                for recipient in recipients:
                    await recipient.tell_and_wait(line)
        elif self._breaks("STUCK-SENDER"):
            for recipient in recipients:
                await recipient.tell_and_wait(line)
        else:
            for recipient in recipients:
                if self._breaks("CONCURRENT"):
                    recipient.writer.write(line[: len(line) // 2].encode())
                    await asyncio.sleep(0.001)
                    recipient.tell(line[len(line) // 2 :])
                else:
                    recipient.tell(line)


async def main(port: str, broken_rule: str = "") -> None:
    """Serve until Ctrl-C, or until a fault ends the server."""
    chat = OtherChat(broken_rule)
    await chat.listen(int(port))
    await chat.closed.wait()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
