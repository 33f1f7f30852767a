"""The PROXY protocol, version 1: a trusted proxy names the client in the first line of a connection.

    PROXY TCP4 192.0.2.7 127.0.0.1 50123 5050

The protocol is that of HAProxy (proxy-protocol.txt, 2.1); nginx and others speak it too. Only connections from the
addresses that --proxy-from names may begin so. A connection from there that begins with anything else is an ordinary
one, so that users on the proxy's host can connect too.
"""

import ipaddress
from collections.abc import Callable

MAX_LINE_BYTES = 107
_BEGINNING = b"PROXY "


class BadProxyLine(OSError):
    """A connection begins with a PROXY line that is malformed; the text says what was expected."""


class ProxyLine:
    """Takes the PROXY line off the first bytes of a connection.

    Args:
        name_client: called with the client's address, if the line names one.
    """

    def __init__(self, name_client: Callable[[str], None]) -> None:
        self._name_client = name_client
        self._line = b""
        self._is_over = False

    def take_off(self, data: bytes) -> bytes:
        """Return received bytes without the line.

        Raises:
            BadProxyLine: the line is malformed.
        """
        if self._is_over:
            return data
        self._line += data
        line, newline, rest = self._line.partition(b"\n")
        begins = _BEGINNING.startswith(line[: len(_BEGINNING)]) and not (newline and len(line) < len(_BEGINNING))
        if begins and not newline and len(line) <= MAX_LINE_BYTES:
            return b""
        self._is_over = True
        if not begins:
            return self._line
        if address := source_address(line.removesuffix(b"\r")):
            self._name_client(address)
        return rest


def source_address(line: bytes) -> str:
    """Return the client's address in a PROXY line without its end; "" if the proxy does not know it.

    Raises:
        BadProxyLine: the line is malformed.
    """
    fields = line.decode("ascii", "replace").split(" ")
    if fields[1] == "UNKNOWN":
        return ""
    try:
        version = {"TCP4": 4, "TCP6": 6}[fields[1]]
        source, _ = (ipaddress.ip_address(field) for field in fields[2:4])
        if source.version == version and len(fields) == 6 and len(line) <= MAX_LINE_BYTES:
            return str(source)
    except (KeyError, ValueError):
        pass
    raise BadProxyLine(None, f"a PROXY line of version 1 is expected, but this one came: {line[:MAX_LINE_BYTES]!r}")
