"""Ports: what the manifest asks for is checked before anything starts, the rest is found."""

from __future__ import annotations

import errno
import random
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError, Unavailable
from redserve.spec.ucx import PortRange

if TYPE_CHECKING:
    from collections.abc import Iterator

LOOPBACK: Final = "127.0.0.1"
_ANY: Final = {"0.0.0.0": LOOPBACK, "::": "::1", "": LOOPBACK}
# Below the range from which the kernel takes ports for outgoing connections: a port that is free
# now is still free when the process that gets it starts, and again when it starts anew.
_FIRST, _LAST = 20_000, 32_000
LOOPBACK_DEVICE: Final = "lo"
UCX_PORTS: Final = PortRange(_LAST, 32_767)
"""For NIXL over TCP: all processes of all services of this machine find room, and none takes a
port that was found for another."""


@dataclass(frozen=True, slots=True)
class Wish:
    """A listener that the manifest names.

    Attributes:
        host: Address to listen on.
        port: Port; 0 takes a free one.
        host_field: Where the host was said, for errors: a manifest's field or an option.
        port_field: The same of the port.
        flag: Option of `redserve up` that changes the port.
    """

    host: str
    port: int
    host_field: str
    port_field: str
    flag: str


def take(wish: Wish, *, taken: frozenset[int] = frozenset()) -> int:
    """The port of a wish; it is free at this moment.

    Args:
        wish: What is asked for.
        taken: Ports that are promised to others.

    Raises:
        ConfigError: The port is in use, or the address is not one of this machine.
    """
    if wish.port == 0:
        return next(
            port for port in free_ports(wish.host, field=wish.host_field) if port not in taken
        )
    if wish.port in taken:
        raise ConfigError(
            f"port {wish.port} is asked for twice; choose another with {wish.flag} PORT",
            field=wish.port_field,
        )
    try:
        _bind(wish.host, wish.port)
    except OSError as error:
        raise _refusal(wish, error) from error
    return wish.port


def free_ports(host: str = LOOPBACK, *, field: str | None = None) -> Iterator[int]:
    """Ports that are free at this moment, each once, in random order.

    Raises:
        ConfigError: The address is not one of this machine.
        Unavailable: No port is left.
    """
    for port in random.sample(range(_FIRST, _LAST), _LAST - _FIRST):
        try:
            _bind(host, port)
        except OSError as error:
            if error.errno in (errno.EADDRINUSE, errno.EACCES):
                continue
            raise _refusal(Wish(host, port, field or "host", "port", ""), error) from error
        yield port
    raise Unavailable(f"no free port between {_FIRST} and {_LAST} on {host}")


def reachable(host: str, port: int) -> str:
    """host:port by which a client on this machine reaches a listener."""
    host = _ANY.get(host, host)
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _bind(host: str, port: int) -> None:
    """Take a port and give it back. Raises OSError."""
    infos = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, kind, protocol, _, address = infos[0]
    with socket.socket(family, kind, protocol) as listener:
        # As servers do: ports of connections that have just ended count as free.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(1)


def _refusal(wish: Wish, error: OSError) -> ConfigError:
    if error.errno == errno.EADDRINUSE:
        return ConfigError(
            f"port {wish.port} on {wish.host} is in use; stop the process that has it, or choose "
            f"another with {wish.flag} PORT (0 takes a free one)",
            field=wish.port_field,
        )
    if error.errno == errno.EACCES:
        return ConfigError(
            f"port {wish.port} needs privileges; choose one above 1023 with {wish.flag} PORT",
            field=wish.port_field,
        )
    return ConfigError(
        f"{wish.host!r} is no address of this machine ({error.strerror}); "
        "write 127.0.0.1, or 0.0.0.0 for all of them",
        field=wish.host_field,
    )
