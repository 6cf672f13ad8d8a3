"""What is measured, and how much of it. Pure."""

from __future__ import annotations

from typing import Final

from redserve.spec.ucx import ucx_environment

KIB: Final = 1 << 10
MIB: Final = 1 << 20

MEMCPY, SOCKET, IN_PROCESS, GRPC = "memcpy", "socket", "in-process", "grpc"
NIXL_SHM, NIXL_TCP = "nixl-shm", "nixl-tcp"
BACKENDS: Final = (MEMCPY, SOCKET, IN_PROCESS, GRPC, NIXL_SHM, NIXL_TCP)
RAW: Final = (MEMCPY, SOCKET)

SMALL: Final = 64
"""Bytes; what a pull costs beside its bytes."""
SIZES: Final = (SMALL, 64 * KIB, 256 * KIB, MIB, 8 * MIB, 32 * MIB)

WORKING_SET: Final = 128 * MIB
"""Bytes at each end that a burst goes round in: more than processors keep in their caches."""
MAX_SLOTS: Final = 1024
IN_FLIGHT: Final = 8
"""Pulls under way at once in a burst, as an engine pulls the pictures of a request; fewer where the
working set has fewer tensors."""
BURST_S: Final = 0.05
"""What a burst should take: long beside a time slice, short beside the drift of the machine."""
MAX_BURST: Final = 4096

_SHARED_MEMORY: Final = "cma,tcp"
"""What UCX may use within a host: `cma` copies from the memory of another process, `tcp` carries
its control messages. UCX's own shared memory (`sm`) knows no death of a peer, and is refused."""


def num_slots(num_bytes: int) -> int:
    """Tensors of this size that a burst goes round in."""
    return max(1, min(WORKING_SET // num_bytes, MAX_SLOTS))


def num_singles(num_bytes: int) -> int:
    """Reads one at a time, per round, for their latency."""
    return 20 if num_bytes <= MIB else 4


def burst_count(num_done: int, seconds: float) -> int:
    """How many reads take about `BURST_S`, when `num_done` took `seconds`."""
    wanted = round(num_done * BURST_S / max(seconds, 1e-9))
    return max(IN_FLIGHT, min(wanted, MAX_BURST))


def environment(backend: str) -> dict[str, str]:
    """What UCX is told, as `redserve up` tells it; within the host, with one more way."""
    if backend not in (NIXL_SHM, NIXL_TCP):
        return {}
    made = ucx_environment("tcp", net_devices="lo")
    if backend == NIXL_SHM:
        made["UCX_TLS"] = _SHARED_MEMORY
    return made
