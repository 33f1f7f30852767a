"""The PROXY protocol, version 1: a trusted proxy names the client in the first line of a connection.

    PROXY TCP4 192.0.2.7 127.0.0.1 50123 5050

The protocol is that of HAProxy (proxy-protocol.txt, 2.1). Only a connection from an address that --proxy-from names may
begin so; if it begins with anything else, it is an ordinary one, so that users on the proxy's host can connect too.
"""

import ipaddress
import re
from collections.abc import Callable

MAX_PROXY_LINE_BYTES = 107
BEGINNING = b"PROXY "
LINE = re.compile(
    rb"PROXY (?:UNKNOWN[^\r\n]*|TCP4 ([0-9.]+) [0-9.]+ \d+ \d+|TCP6 ([0-9a-fA-F.:]+) [0-9a-fA-F.:]+ \d+ \d+)\r?"
)


class ProxyLine:
    """Takes the PROXY line off the first bytes of a connection; calls name_client with the address that it names."""

    def __init__(self, name_client: Callable[[str], None]) -> None:
        self._name_client = name_client
        self._begun = b""  # the first bytes, until they are known to be such a line or another
        self._is_over = False

    def take_off(self, data: bytes) -> bytes:
        """Return received bytes without the line; raise OSError if the line is malformed."""
        if self._is_over:
            return data
        self._begun += data
        line, newline, rest = self._begun.partition(b"\n")
        begins = (line + newline).startswith(BEGINNING) or (not newline and BEGINNING.startswith(line))
        if begins and not newline and len(line) <= MAX_PROXY_LINE_BYTES:
            return b""
        self._is_over = True
        if not begins:
            return self._begun
        match = LINE.fullmatch(line)
        try:
            if not match or len(line) > MAX_PROXY_LINE_BYTES:
                raise ValueError
            if address := (match[1] or match[2] or b"").decode():
                self._name_client(str(ipaddress.ip_address(address)))
        except ValueError:
            shown = line[:MAX_PROXY_LINE_BYTES]
            raise OSError(None, f"a PROXY line of version 1 is expected, but this one came: {shown!r}") from None
        return rest
