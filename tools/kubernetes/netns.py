"""`python -m tools.kubernetes.netns -- COMMAND...`: runs it in a network of its own.

Inside there is loopback and nothing else, and every address of the pod network is local: a process
that plays a pod can have an address that EndpointSlices take (they refuse 127.0.0.0/8). Root makes
a network namespace; others make it in a user namespace of their own, where the kernel allows that.
Needs no other program.
"""

from __future__ import annotations

import ctypes
import fcntl
import ipaddress
import os
import socket
import struct
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from redserve.errors import ConfigError
from tools.kubernetes.networks import POD_NETWORK

if TYPE_CHECKING:
    from collections.abc import Sequence

_CLONE_NEWUSER: Final = 0x10000000
_CLONE_NEWNET: Final = 0x40000000
# From <linux/sockios.h> and <linux/if.h>.
_SIOCSIFFLAGS: Final = 0x8914
_SIOCSIFADDR: Final = 0x8916
_SIOCSIFNETMASK: Final = 0x891C
_IFF_UP_LOOPBACK_RUNNING: Final = 0x49


def enter() -> None:
    """Move this process into a new network, where the pod network is local.

    Raises:
        ConfigError: Neither root's way nor a user namespace is allowed here.
    """
    user, group = os.getuid(), os.getgid()
    libc = ctypes.CDLL(None, use_errno=True)
    if user == 0 and libc.unshare(_CLONE_NEWNET) == 0:
        _bring_up()
        return
    if libc.unshare(_CLONE_NEWUSER | _CLONE_NEWNET) != 0:
        why = os.strerror(ctypes.get_errno())
        raise ConfigError(
            f"cannot make a network namespace ({why}): run as root, or allow user namespaces "
            "(sysctl kernel.unprivileged_userns_clone, user.max_user_namespaces; in a container "
            "its seccomp profile may forbid unshare)"
        )
    # Root inside, or the command could make no mounts for its containers; files keep their owners.
    Path("/proc/self/setgroups").write_text("deny")
    Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    _bring_up()


def pods_are_local() -> bool:
    """Whether this process may listen on the addresses of pods."""
    address = str(ipaddress.ip_network(POD_NETWORK)[1])
    with socket.socket() as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


def _bring_up() -> None:
    network = ipaddress.ip_network(POD_NETWORK)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:

        def set_address(request: int, name: bytes, address: str) -> None:
            packed = struct.pack("=HH4s8x", socket.AF_INET, 0, socket.inet_aton(address))
            fcntl.ioctl(control, request, struct.pack("16s16s", name, packed))

        fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP_LOOPBACK_RUNNING))
        # An address on loopback makes its whole network local.
        set_address(_SIOCSIFADDR, b"lo:pods", str(network[1]))
        set_address(_SIOCSIFNETMASK, b"lo:pods", str(network.netmask))


def main(arguments: Sequence[str]) -> int:
    """Enter the network and become the command."""
    command = list(arguments[1:]) if arguments[:1] == ["--"] else list(arguments)
    if not command:
        print("usage: python -m tools.kubernetes.netns -- COMMAND...", file=sys.stderr)
        return 2
    try:
        enter()
        os.execvp(command[0], command)
    except (ConfigError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
    return 2


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
