"""Whether this process can move bytes by RDMA, and what is missing if not."""

from __future__ import annotations

import os
import re
import resource
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

_RDMA: Final = {
    *("rc", "rc_x", "rc_v", "rc_mlx5", "rc_verbs", "dc", "dc_x", "dc_mlx5"),
    *("ud", "ud_x", "ud_v", "ud_mlx5", "ud_verbs", "ib", "srd"),
}
"""UCX's names for what leaves the process by RDMA, each of which it may be left alone with."""
_HARMLESS: Final = re.compile(r"self|gdr_copy|cuda\w*|rocm\w*")
"""What moves bytes within a process or to its GPU: no way to another process's host memory."""

_IPC_LOCK: Final = 14
"""Bit of the capability that lifts the limit on locked memory (capabilities(7))."""
_ACTIVE: Final = "4:"
"""How the kernel begins the state of a port that carries data."""


def missing(
    pool_bytes: int,
    transports: str,
    net_devices: str = "",
    *,
    devices: Path = Path("/sys/class/infiniband"),
    verbs: Path = Path("/dev/infiniband"),
    status: Path = Path("/proc/self/status"),
) -> str | None:
    """What this process lacks for RDMA; None when nothing is missing that can be seen from here.

    Args:
        pool_bytes: Memory that will be registered.
        transports: What UCX may use (UCX_TLS).
        net_devices: Devices and ports that UCX may use (UCX_NET_DEVICES); empty for all.
        devices: Where the kernel lists RDMA devices.
        verbs: Where their device files are.
        status: Of this process.
    """
    problem = _no_list_of_rdma(transports)
    if problem is not None:
        return problem
    names = sorted(path.name for path in devices.iterdir()) if devices.is_dir() else []
    if not names:
        return (
            "no RDMA device (nothing in /sys/class/infiniband): is the node's NIC driver loaded, "
            "and does the pod ask for spec.transport.rdma.resourceName?"
        )
    dead = _no_active_port(devices, net_devices)
    if dead is not None:
        return dead
    files = sorted(verbs.glob("uverbs*"))
    if not any(os.access(path, os.R_OK | os.W_OK) for path in files):
        return (
            f"the node has {', '.join(names)}, but no /dev/infiniband/uverbs* can be opened here: "
            "the pod must ask for spec.transport.rdma.resourceName"
        )
    limit, _ = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if limit != resource.RLIM_INFINITY and limit < pool_bytes and not _may_lock(status):
        return (
            f"{pool_bytes} bytes must be locked and the limit is {limit} (ulimit -l): set "
            "spec.transport.rdma.memlock to IPCLock, or raise the limit of the container runtime"
        )
    return None


def _no_list_of_rdma(transports: str) -> str | None:
    """What is wrong with a list of what UCX may use; None for RDMA and nothing else.

    A list of what is allowed, because UCX has many spellings of the rest: patterns, groups, and a
    backslash that takes a name literally. What it does not know it passes over.
    """
    mend = "remove it from the pool's env, or list rc and what GPUs need (rc,cuda_copy,cuda_ipc)"
    given = f"UCX_TLS={transports or '(not set)'}"
    if transports.startswith("^"):
        return f"{given} lets everything else in, TCP too: {mend}"
    names = [part.strip().removeprefix("\\") for part in transports.split(",")]
    strange = [
        name
        for name in names
        if name.removesuffix(":aux") not in _RDMA and not _HARMLESS.fullmatch(name)
    ]
    if strange:
        return (
            f"{given} may have UCX fall back to something else than RDMA without a word "
            f"({', '.join(name or 'an empty name' for name in strange)}), and be a hundred times "
            f"slower: {mend}"
        )
    if not _RDMA.intersection(names):
        return f"{given} names nothing that is RDMA: {mend}"
    return None


def _no_active_port(devices: Path, net_devices: str) -> str | None:
    """Why no port of an RDMA device can carry anything; None when one can."""
    states = {
        f"{path.parts[-4]}:{path.parts[-2]}": _first_line(path)
        for path in sorted(devices.glob("*/ports/*/state"))
    }
    chosen = {port: state for port, state in states.items() if _is_chosen(port, net_devices)}
    if any(state.startswith(_ACTIVE) for state in chosen.values()):
        return None
    if states and not chosen:
        return (
            f"UCX_NET_DEVICES={net_devices} names no port of an RDMA device; there are "
            f"{', '.join(states)}"
        )
    found = ", ".join(
        f"{port} is {state.partition(': ')[2] or 'unknown'}" for port, state in chosen.items()
    )
    return (
        f"no port of an RDMA device is active ({found or 'none has a state'}): look at cable, "
        "switch and driver, and on InfiniBand at the subnet manager"
    )


def _is_chosen(port: str, net_devices: str) -> bool:
    """Whether UCX may use a port, "mlx5_0:1": names and patterns, with a ^ in front all others."""
    if net_devices in ("", "all"):
        return True
    names = [part.strip() for part in net_devices.removeprefix("^").split(",")]
    named = "all" in names or any(fnmatchcase(port, name) for name in names)
    return named is not net_devices.startswith("^")


def _first_line(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:  # the device went away meanwhile
        return ""


def _may_lock(status: Path) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return found is not None and bool(int(found.group(1), 16) >> _IPC_LOCK & 1)
