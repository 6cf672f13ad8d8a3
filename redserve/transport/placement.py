"""Where a pool lies: in memory of the host, or of the device that the model computes on.

Device memory pays where the NIC reaches it by itself: no copy, and no CPU. That is RDMA only. By
TCP, UCX copies through the host anyway and waits for each copy in the thread that owns the agent;
gRPC builds its messages there. For both, page-locked memory of the host is as fast and simpler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from redserve.errors import ConfigError
from redserve.spec.settings import ucx_net_devices, ucx_transports
from redserve.telemetry.log import get_logger
from redserve.transport.nixl import rdma
from redserve.transport.pool import Pool
from redserve.transport.slab import HostSlab, SharedSlab

if TYPE_CHECKING:
    from redserve.transport.slab import Memory, Slab

log = get_logger()


class DeviceMemory(Protocol):
    """Memory of the device that a model computes on."""

    def why_unreachable(self) -> str | None:
        """Why a NIC cannot read and write it; None if it can."""
        ...

    def make_slab(self, num_bytes: int) -> Slab:
        """Take so much of it. Raises ConfigError: there is no room."""
        ...


@dataclass(frozen=True, slots=True)
class Placement:
    """Where a pool lies, and why."""

    memory: Memory
    why: str


def choose(
    kind: str, *, has_device: bool, no_rdma: str | None, unreachable: str | None
) -> Placement:
    """Decide. Pure.

    Args:
        kind: The transport that is asked for.
        has_device: Whether the model computes on a device with memory of its own.
        no_rdma: What this process lacks for RDMA; None for nothing.
        unreachable: Why no NIC reaches the device's memory; None if one can.
    """
    if not has_device:
        return Placement("dram", "the model computes in memory of the host")
    if kind not in ("auto", "rdma"):
        return Placement("dram", f"{kind} copies through memory of the host anyway")
    if no_rdma is not None:
        return Placement("dram", f"no RDMA: {no_rdma}")
    if unreachable is not None:
        return Placement("dram", unreachable)
    return Placement("vram", "the NIC reaches the device's memory by itself")


def place(kind: str, num_bytes: int, device: DeviceMemory | None) -> Placement:
    """Decide for this process; looks at its devices, takes nothing.

    Args:
        kind: The transport that is asked for.
        num_bytes: Size of the pool.
        device: Memory of the model's device; None when the model computes on the host.
    """
    if device is None or kind not in ("auto", "rdma"):
        return choose(kind, has_device=device is not None, no_rdma=None, unreachable=None)
    no_rdma = rdma.missing(num_bytes, ucx_transports(), ucx_net_devices())
    return choose(
        kind,
        has_device=True,
        no_rdma=no_rdma,
        unreachable=device.why_unreachable() if no_rdma is None else None,
    )


def make_pool(
    kind: str, num_bytes: int, device: DeviceMemory | None, *, is_source: bool = False
) -> Pool:
    """A pool where `place` says, and a log line that tells why.

    Args:
        kind: The transport that is asked for.
        num_bytes: Size.
        device: As of `place`.
        is_source: Whether others read from it. With "tcp" that is done by a process of its own,
            so it must be able to map it.

    Raises:
        ConfigError: The device has no room for it, or the kernel none that can be shared.
    """
    where = place(kind, num_bytes, device)
    log.info("embeddings have memory", memory=where.memory, num_bytes=num_bytes, why=where.why)
    if where.memory == "vram" and device is not None:
        return Pool(num_bytes, make_slab=device.make_slab)
    if not (is_source and kind == "tcp"):
        return Pool(num_bytes, make_slab=HostSlab)
    try:
        return Pool(num_bytes, make_slab=SharedSlab)
    except OSError as error:
        raise ConfigError(
            f"TCP is not to be had: no memory of {num_bytes} bytes that processes share ({error})",
            field="spec.transport.type",
        ) from error
