"""Fan-out: what one client's requests cause at others, with one send for each of them."""

from collections.abc import Sequence

from net.connection import BACKLOG_BYTES, Connection

OUTBOX_BYTES = BACKLOG_BYTES // 4  # a batch that causes more is sent in parts


class Outbox:
    """What the requests of one batch cause, gathered so that each recipient gets it with one send."""

    def __init__(self) -> None:
        self._runs: list[tuple[Sequence[Connection], list[str]]] = []  # recipients, and lines for all of them
        self._size = 0

    def put(self, recipients: Sequence[Connection], lines: str) -> None:
        """Have lines, each with its newline, sent to each recipient, after those put before."""
        if not self._runs or self._runs[-1][0] is not recipients:
            self._runs.append((recipients, []))
        self._runs[-1][1].append(lines)
        self._size += len(lines)
        if self._size > OUTBOX_BYTES:
            self.send()

    def send(self) -> None:
        """Send all that was put: first to those who have room for it, so that nobody waits for another."""
        blocks: dict[Connection, list[bytes]] = {}
        for recipients, lines in self._runs:
            block = "".join(lines).encode()
            for recipient in recipients:
                blocks.setdefault(recipient, []).append(block)
        self._runs.clear()
        self._size = 0
        data = {recipient: b"".join(parts) for recipient, parts in blocks.items()}
        for recipient in [recipient for recipient in data if not recipient.send_if_room(data[recipient])]:
            recipient.send(data[recipient])
