"""What TCP and UDP need of addresses: look up names, count networks, and detect hosts that have vanished."""

import errno
import ipaddress
import socket
from collections.abc import Callable
from contextlib import ExitStack
from functools import cache
from typing import Any

IPV6_NETWORK_BITS = 64  # a provider gives each customer at least a /64 (RFC 6177)

# Within two minutes instead of two hours, detect that a host has vanished. macOS calls TCP_KEEPIDLE TCP_KEEPALIVE.
KEEP_ALIVE = {
    "TCP_KEEPIDLE": 60,
    "TCP_KEEPALIVE": 60,
    "TCP_KEEPINTVL": 20,
    "TCP_KEEPCNT": 3,
    "TCP_USER_TIMEOUT": 120_000,  # milliseconds
}

NOT_HERE = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)  # a name may have an address that this host does not

FamilyAndAddress = tuple[int, Any]
OpenSocket = Callable[[int, Any], socket.socket]  # for a family and an address


def without_brackets(host: str) -> str:
    """Return a host without the brackets in which an IPv6 address may stand (RFC 3986, 3.2.2)."""
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


@cache  # chat rooms have the addresses of their lobby, and no look-up delays a request
def resolve_all(host: str, port: int, kind: int) -> list[FamilyAndAddress]:
    """Look up a host for sockets of a kind, such as socket.SOCK_STREAM; return the family and each of its addresses."""
    try:
        found = socket.getaddrinfo(without_brackets(host), port, type=kind)
    except UnicodeError as error:  # not a valid host name, for example a..b
        raise socket.gaierror(socket.EAI_NONAME, f"{host!r} is not a valid host name") from error
    return list(dict.fromkeys((family, address) for family, _, _, _, address in found))


def open_at_each_address(host: str, port: int, kind: int, open_socket: OpenSocket) -> list[socket.socket]:
    """Open a bound socket for each address that a host has here, all with the same port, or raise OSError."""
    sockets: list[socket.socket] = []
    with ExitStack() as opened:
        for family, address in resolve_all(host, 0, kind):
            try:
                sockets.append(opened.enter_context(open_socket(family, (address[0], port, *address[2:]))))
                port = sockets[0].getsockname()[1]
            except OSError as error:
                failure = error
                if error.errno not in NOT_HERE:
                    raise
        if not sockets:
            raise failure
        opened.pop_all()
    return sockets


def network_of(address: str) -> str:
    """Return the network that counts as one client: an IPv4 address, or the first 64 bits of an IPv6 address."""
    try:
        parsed = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:  # the ends of a socket pair have no address
        return address
    if isinstance(parsed, ipaddress.IPv4Address):
        return address
    if parsed.ipv4_mapped:
        return str(parsed.ipv4_mapped)
    return str(ipaddress.ip_network((parsed, IPV6_NETWORK_BITS), strict=False))


def keep_alive(sock: socket.socket) -> None:
    """Let the kernel find out within two minutes that the other host has vanished.

    While data waits for an acknowledgement, the kernel sends no probes; TCP_USER_TIMEOUT limits that wait (RFC 5482).
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in KEEP_ALIVE.items():
        if hasattr(socket, name):
            sock.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
