"""Two data paths in one process: RDMA to those who have it too, gRPC to everybody else."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.telemetry.log import get_logger
from redserve.transport.base import PeerInDoubt, PeerUnreachable

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.base import Descriptor, PeerInfo, Transport
    from redserve.transport.buffer import Buffer

log = get_logger()

FAIR_S: Final = 2.0
"""A first read that is not done in this time will hardly be done in more. One that had less says
nothing of the way: its request had no time left."""
MAX_REMEMBERED: Final = 1024
"""Peers remembered as reached by the fast path, and as many as not reached by it."""


class EitherTransport:
    """`Transport` that chooses per peer. Belongs to one event loop.

    A peer that offers the fast path and has never been reached by it (another fabric, another
    release of the library, a switch that swallows it) is asked by the other one from then on, also
    after it was removed and added again, and a log line says so. What worked once is no question
    of the way any more: a failure is a failure, and the fast path is taken again.

    Args:
        fast: One-sided reads.
        plain: What every producer serves.
        on_fallback: Called for every tensor that came by `plain` from a peer that offers the fast
            path.
    """

    def __init__(
        self, fast: Transport, plain: Transport, on_fallback: Callable[[], None] = lambda: None
    ) -> None:
        self.kind = fast.kind
        self._fast = fast
        self._plain = plain
        self._on_fallback = on_fallback
        self._peers: dict[str, PeerInfo] = {}  # by incarnation
        self._fast_peers: set[str] = set()
        # Oldest first. By all that a peer says of itself: others may claim its incarnation.
        self._proven: dict[PeerInfo, None] = {}
        self._given_up: dict[PeerInfo, None] = {}

    def local_info(self) -> PeerInfo:
        """See `Transport`."""
        return self._fast.local_info()

    def add_peer(self, peer: PeerInfo) -> None:
        """See `Transport`."""
        self._plain.add_peer(peer)
        self._peers[peer.incarnation] = peer
        if peer.backend != self._fast.local_info().backend or peer in self._given_up:
            return
        try:
            self._fast.add_peer(peer)
        except PeerUnreachable as error:
            self._give_up(peer, error)
        else:
            self._fast_peers.add(peer.incarnation)

    def remove_peer(self, incarnation: str) -> None:
        """See `Transport`."""
        self._peers.pop(incarnation, None)
        self._fast_peers.discard(incarnation)
        self._fast.remove_peer(incarnation)
        self._plain.remove_peer(incarnation)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """See `Transport`."""
        incarnation = descriptor.incarnation
        peer = self._peers.get(incarnation)
        if peer is None:
            raise PeerLost(f"{incarnation} is not a peer (any more)")
        loop = asyncio.get_running_loop()
        ends_at = loop.time() + deadline_s
        if incarnation in self._fast_peers:
            try:
                await self._fast.pull(descriptor, destination, deadline_s)
            except PeerInDoubt:
                raise
            except PeerUnreachable as error:
                if peer in self._proven:
                    raise
                self._give_up(peer, error)  # and go on below: nothing will land
            except (PeerLost, DeadlineExceeded) as error:
                # Bytes may still land: not into the same room by the other way.
                was_fair = deadline_s >= FAIR_S or not isinstance(error, DeadlineExceeded)
                if was_fair and peer not in self._proven and incarnation in self._fast_peers:
                    self._give_up(peer, error)
                raise
            else:
                _remember(self._proven, peer)
                return
        left_s = ends_at - loop.time()
        if left_s <= 0:
            raise DeadlineExceeded("the deadline of the transfer has passed")
        await self._plain.pull(descriptor, destination, left_s)
        if peer in self._given_up:
            self._on_fallback()

    def kind_for(self, incarnation: str) -> str:
        """See `Transport`."""
        transport = self._fast if incarnation in self._fast_peers else self._plain
        return transport.kind_for(incarnation)

    async def close(self, timeout_s: float) -> bool:
        """See `Transport`."""
        ended = await asyncio.gather(self._fast.close(timeout_s), self._plain.close(timeout_s))
        return all(ended)

    def _give_up(self, peer: PeerInfo, error: Exception) -> None:
        _remember(self._given_up, peer)
        if self._peers.get(peer.incarnation) == peer:
            self._fast_peers.discard(peer.incarnation)
            self._fast.remove_peer(peer.incarnation)
        log.warning("no RDMA to a peer that offers it, using gRPC", why=str(error))


def _remember(peers: dict[PeerInfo, None], peer: PeerInfo) -> None:
    peers[peer] = None
    while len(peers) > MAX_REMEMBERED:
        del peers[next(iter(peers))]
