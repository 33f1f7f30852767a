"""Look up hosts, and tell which network an address belongs to."""

import ipaddress
import socket
from typing import Any


def resolve_all(host: str, port: int, kind: int) -> list[tuple[int, Any]]:
    """Return the family and the address of each address that a host has, the system's favourite first.

    The host is a name or an address; an IPv6 address may stand in brackets. The kind is a type of socket, such as
    socket.SOCK_STREAM.

    Raises:
        OSError: the host is unknown.
    """
    try:
        found = socket.getaddrinfo(host.removeprefix("[").removesuffix("]"), port, type=kind)
    except UnicodeError as error:  # not a valid host name, for example a..b
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a valid host name") from error
    return list(dict.fromkeys((int(family), address) for family, _, _, _, address in found))


def network_of(address: str) -> str:
    """Return an IPv4 address as it is, and the /64 prefix of an IPv6 address, all of which one customer is given."""
    parsed = ipaddress.ip_address(address)
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.IPv6Network((int(parsed), 64), strict=False))
