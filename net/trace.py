r"""Show what crosses the wire, for a lecture: with --trace, one status line for each recv and each send.

    14:03:07.120 client 7    (7) <- b'JOIN alice\r\n'

That is the time, the thread, the client's descriptor, the direction and the bytes, with escapes; (7, TLS) says that the
bytes crossed the wire encrypted.
"""

import re
import threading
from datetime import datetime

from net.log import LOG

THREAD_COLUMNS = 11


class Trace:
    """Shows what one client and the server send to each other."""

    def __init__(self, fd: int, is_tls: bool, secret: re.Pattern[bytes] | None = None) -> None:
        self._client = f"({fd}, TLS)" if is_tls else f"({fd})"
        self._secret = secret  # matches lines of the client; dots replace its group, which may hold a password
        self._line = b""  # the client's line whose end has not arrived

    def received(self, data: bytes) -> None:
        """Show bytes that were received; a password may have arrived in several pieces."""
        if not self._secret:
            self._show("<-", data)
            return
        text = bytearray(self._line + data)
        for match in self._secret.finditer(text):
            first, end = match.span(1)
            text[first:end] = b"." * (end - first)
        self._show("<-", bytes(text[len(self._line) :]))
        self._line = (self._line + data).replace(b"\r", b"\n").rpartition(b"\n")[2]

    def sent(self, data: bytes) -> None:
        """Show bytes that were sent."""
        self._show("->", data)

    def _show(self, direction: str, data: bytes) -> None:
        time = datetime.now().isoformat(timespec="milliseconds")[11:]
        thread = threading.current_thread().name
        LOG.write(f"{time} {thread:{THREAD_COLUMNS}} {self._client} {direction} {data!r}")
