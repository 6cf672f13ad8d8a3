"""Two data paths in one process: RDMA to those who have it too, gRPC to everybody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from redserve.transport.base import Descriptor, PeerInfo, Transport
    from redserve.transport.buffer import Buffer

log = get_logger()


class EitherTransport:
    """`Transport` that chooses per peer. Belongs to one event loop.

    A peer that offers the fast path and cannot be reached by it (another fabric, another release
    of the library) is asked by the other one from then on, and a log line says so.

    Args:
        fast: One-sided reads.
        plain: What every producer serves.
    """

    def __init__(self, fast: Transport, plain: Transport) -> None:
        self.kind = fast.kind
        self._fast = fast
        self._plain = plain
        self._fast_peers: set[str] = set()
        self._proven: set[str] = set()

    def local_info(self) -> PeerInfo:
        """See `Transport`."""
        return self._fast.local_info()

    def add_peer(self, peer: PeerInfo) -> None:
        """See `Transport`."""
        self._plain.add_peer(peer)
        if peer.backend == self._fast.local_info().backend:
            self._fast.add_peer(peer)
            self._fast_peers.add(peer.incarnation)

    def remove_peer(self, incarnation: str) -> None:
        """See `Transport`."""
        self._fast_peers.discard(incarnation)
        self._proven.discard(incarnation)
        self._fast.remove_peer(incarnation)
        self._plain.remove_peer(incarnation)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """See `Transport`."""
        incarnation = descriptor.incarnation
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        if incarnation in self._fast_peers:
            try:
                await self._fast.pull(descriptor, destination, deadline_s)
            except PeerLost as error:
                # What worked before is no question of the way: the peer is lost.
                if incarnation in self._proven or incarnation not in self._fast_peers:
                    raise
                self._fast_peers.discard(incarnation)
                self._fast.remove_peer(incarnation)
                log.warning("no RDMA to a peer that offers it, using gRPC", why=str(error))
            else:
                self._proven.add(incarnation)
                return
        left_s = ends_at - loop.time()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline of the transfer has passed")
        await self._plain.pull(descriptor, destination, left_s)

    def kind_for(self, incarnation: str) -> str:
        """See `Transport`."""
        transport = self._fast if incarnation in self._fast_peers else self._plain
        return transport.kind_for(incarnation)

    async def close(self, timeout_s: float) -> bool:
        """See `Transport`."""
        ended = await asyncio.gather(self._fast.close(timeout_s), self._plain.close(timeout_s))
        return all(ended)
