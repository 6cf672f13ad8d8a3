"""Which network addresses pictures may be fetched from."""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable

from redserve.errors import InvalidArgument, PolicyViolation

Resolver = Callable[[str, int], Awaitable[list[str]]]
"""Host and port to numeric addresses."""

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")


async def system_resolver(host: str, port: int) -> list[str]:
    """Numeric addresses of a host, in the system's order.

    Raises:
        OSError: The name is not known.
    """
    loop = asyncio.get_running_loop()
    found = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def is_public(address: str) -> bool:
    """Whether a numeric address belongs to the public internet.

    Addresses that carry another one inside (IPv4-mapped, 6to4, Teredo, NAT64) count as what they
    carry: a gateway would deliver to it.
    """
    try:
        ip = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address):
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo[1] if ip.teredo else None)
        if inner is None and ip in _NAT64:
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
        if inner is not None:
            ip = inner
    return ip.is_global and not ip.is_multicast


async def checked_addresses(
    host: str, port: int, *, allow_private: bool, resolver: Resolver, field: str
) -> list[str]:
    """The addresses of a host, all of them allowed.

    The caller connects to one of these and never resolves again: a name that answers differently
    the second time (DNS rebinding) gains nothing.

    Raises:
        InvalidArgument: The name is not known.
        PolicyViolation: The name has an address that is not public.
    """
    try:
        addresses = await resolver(host, port)
    except (OSError, UnicodeError) as error:
        raise InvalidArgument(f"host {host!r} cannot be resolved: {error}", field=field) from error
    if not addresses:
        raise InvalidArgument(f"host {host!r} has no address", field=field)
    if not allow_private and not all(map(is_public, addresses)):
        raise PolicyViolation(
            f"host {host!r} has a private, loopback or link-local address; "
            "images are fetched from public addresses only",
            field=field,
        )
    return addresses
