"""Whether this process can move bytes by RDMA, and what is missing if not."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path
from typing import Final

_IPC_LOCK: Final = 14
"""Bit of the capability that lifts the limit on locked memory (capabilities(7))."""


def missing(
    pool_bytes: int,
    transports: str,
    *,
    devices: Path = Path("/sys/class/infiniband"),
    verbs: Path = Path("/dev/infiniband"),
    status: Path = Path("/proc/self/status"),
) -> str | None:
    """What this process lacks for RDMA; None when nothing is missing that can be seen from here.

    Args:
        pool_bytes: Memory that will be registered.
        transports: What UCX may use (UCX_TLS).
        devices: Where the kernel lists RDMA devices.
        verbs: Where their device files are.
        status: Of this process.
    """
    if _lets_tcp_in(transports):
        return (
            f"UCX_TLS={transports or '(not set)'} lets UCX fall back to TCP without a word, and be "
            "a hundred times slower: remove it from the pool's env, or list neither tcp nor all"
        )
    names = sorted(path.name for path in devices.iterdir()) if devices.is_dir() else []
    if not names:
        return (
            "no RDMA device (nothing in /sys/class/infiniband): is the node's NIC driver loaded, "
            "and does the pod ask for spec.transport.rdma.resourceName?"
        )
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


def _lets_tcp_in(transports: str) -> bool:
    """UCX takes a list of what it may use, or with a ^ in front of what it may not."""
    listed = {part.strip() for part in transports.removeprefix("^").split(",")}
    if transports.startswith("^"):
        return "tcp" not in listed
    return bool(listed & {"", "tcp", "all"})


def _may_lock(status: Path) -> bool:
    found = re.search(r"^CapEff:\s*([0-9a-f]+)$", status.read_text(), re.MULTILINE)
    return found is not None and bool(int(found.group(1), 16) >> _IPC_LOCK & 1)
