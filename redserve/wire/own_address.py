"""The address by which peers reach this process when nobody has said."""

from __future__ import annotations

import socket

from redserve.errors import ConfigError

_WILDCARDS = frozenset({"0.0.0.0", "::", "[::]"})


def own_address(host: str, port: int) -> str:
    """host:port to tell peers of a server that listens on `host`.

    A process that listens everywhere is reached under the address of its machine's name, which in
    a pod is the pod's.

    Raises:
        ConfigError: It listens everywhere and its name has no address.
    """
    if host not in _WILDCARDS:
        return f"{host}:{port}"
    try:
        return f"{socket.gethostbyname(socket.gethostname())}:{port}"
    except OSError as error:
        raise ConfigError(
            f"{host} is no address that peers can reach, and this machine's name has none: say "
            "host:port",
            field="advertise_address",
        ) from error
