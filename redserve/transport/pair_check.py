"""What two processes can do together: a probe is read, whole and checked, and timed."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.errors import Overloaded
from redserve.transport.probe import PROBE_BYTES, is_taken, probe_key

if TYPE_CHECKING:
    from redserve.transport.base import PeerInfo
    from redserve.transport.pool import Pool
    from redserve.transport.puller import Puller

_SMALLEST_BYTES: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class TransportCheck:
    """What a pair of processes did.

    Attributes:
        address: host:port of the producer.
        transport: The data path: "rdma", "tcp", "grpc" or "inproc".
        num_bytes: Read, and found whole.
        seconds: From lease to checked bytes.
    """

    address: str
    transport: str
    num_bytes: int
    seconds: float

    @property
    def gb_per_s(self) -> float:
        """10^9 bytes per second."""
        return self.num_bytes / self.seconds / 1e9


async def measure(
    puller: Puller, pool: Pool, peer: PeerInfo, address: str, deadline_s: float
) -> TransportCheck:
    """Read a probe from `peer`, as large as both pools have room for now.

    Args:
        puller: Of this process.
        pool: Its pool.
        peer: Who is at `address`.
        address: host:port of the producer.
        deadline_s: Longest time for all of it, seconds.

    Raises:
        RedServeError: As of `Puller.pull`; Overloaded when there is no room even for a small
            one, or somebody else reads a probe there.
    """
    ends_at = asyncio.get_running_loop().time() + deadline_s
    num_bytes = PROBE_BYTES
    while True:
        try:
            seconds = await _read(puller, pool, peer, num_bytes, ends_at)
        except Overloaded as error:
            if is_taken(error) or num_bytes <= _SMALLEST_BYTES:
                raise
            num_bytes //= 2
        else:
            return TransportCheck(address, puller.transport_to(peer), num_bytes, seconds)


async def _read(
    puller: Puller, pool: Pool, peer: PeerInfo, num_bytes: int, ends_at: float
) -> float:
    region = pool.alloc(num_bytes)
    try:
        # The first read connects, and touches memory; the second one is measured.
        for _ in range(2):
            left_s = ends_at - asyncio.get_running_loop().time()
            started = time.perf_counter()
            await puller.pull(peer, probe_key(num_bytes), region, max(left_s, 0.0))
        return time.perf_counter() - started
    finally:
        region.free()
