"""`Transport` by one-sided reads."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.transport.base import PeerInDoubt, PeerInfo, PeerUnreachable
from redserve.transport.nixl.library import ForeignMetadata, NoWay, version

if TYPE_CHECKING:
    from redserve.transport.base import Descriptor
    from redserve.transport.buffer import Buffer
    from redserve.transport.nixl.endpoint import Endpoint
    from redserve.transport.nixl.library import AgentError
    from redserve.transport.pool import Pool

BACKEND: Final = "nixl"
_LAST_ADDRESS: Final = 2**63 - 1


def peer_info(endpoint: Endpoint, pool: Pool, incarnation: str, address: str) -> PeerInfo:
    """What consumers need to read from this process."""
    return PeerInfo(
        incarnation,
        BACKEND,
        address,
        metadata=endpoint.metadata,
        pool_address=pool.slab.address,
        pool_bytes=pool.num_bytes,
        memory=pool.slab.memory,
        device_id=pool.slab.device_id,
        library=version(),
    )


class NixlTransport:
    """`Transport` on an endpoint, which it closes. Belongs to one event loop.

    Args:
        kind: What UCX was told to use: "rdma" or "tcp".
        endpoint: Of the pool where destinations are.
        info: Of this consumer.
    """

    def __init__(self, kind: str, endpoint: Endpoint, info: PeerInfo) -> None:
        self.kind = kind
        self._endpoint = endpoint
        self._info = info
        self._peers: dict[str, PeerInfo] = {}

    def local_info(self) -> PeerInfo:
        """See `Transport`."""
        return self._info

    def add_peer(self, peer: PeerInfo) -> None:
        """See `Transport`; connects with the first pull."""
        if peer.backend != BACKEND:
            raise PeerLost(
                f"{peer.incarnation} offers {peer.backend} only and this process uses {self.kind}: "
                "give both the same spec.transport.type"
            )
        _check(peer)
        self._peers[peer.incarnation] = peer

    def remove_peer(self, incarnation: str) -> None:
        """See `Transport`."""
        if self._peers.pop(incarnation, None) is not None:
            self._endpoint.forget(incarnation)

    async def pull(self, descriptor: Descriptor, destination: Buffer, deadline_s: float) -> None:
        """See `Transport`. The deadline is kept whatever the peer or the library does."""
        peer = self._peers.get(descriptor.incarnation)
        if peer is None:
            raise PeerLost(f"{descriptor.incarnation} is not a peer (any more)")
        if deadline_s <= 0:
            raise DeadlineExceeded("the deadline of the transfer has passed")
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[AgentError | None] = loop.create_future()

        def settle(error: AgentError | None) -> None:
            if not outcome.done():
                outcome.set_result(error)

        def tell(error: AgentError | None) -> None:
            with suppress(RuntimeError):  # the loop is closed: nobody waits
                loop.call_soon_threadsafe(settle, error)

        destination.hold()
        read = self._endpoint.read(peer, descriptor, destination, tell)
        try:
            async with asyncio.timeout(deadline_s):
                error = await outcome
        except TimeoutError:
            raise DeadlineExceeded(
                f"{peer.incarnation} did not deliver {descriptor.num_bytes} bytes in "
                f"{deadline_s:.3g} s"
            ) from None
        finally:
            if not outcome.done():  # it would wake the thread for nothing
                self._endpoint.abandon(read)
        if isinstance(error, ForeignMetadata):
            raise PeerInDoubt(f"{peer.incarnation}: {error}") from error
        if isinstance(error, NoWay):
            raise PeerUnreachable(f"{peer.incarnation}: {error}") from error
        if error is not None:
            raise PeerLost(f"{peer.incarnation}: {error}") from error

    def kind_for(self, incarnation: str) -> str:
        """See `Transport`."""
        return self.kind

    async def close(self, timeout_s: float) -> bool:
        """See `Transport`."""
        self._peers.clear()
        return await asyncio.to_thread(self._endpoint.close, timeout_s)


def _check(peer: PeerInfo) -> None:
    """Refuse what the library would believe, to the harm of both processes.

    Raises:
        PeerUnreachable: Another release of the library, or a pool that cannot be.
    """
    own = version()
    if peer.library != own:
        raise PeerUnreachable(
            f"{peer.incarnation} has {peer.library or 'an unknown library'} and this process "
            f"{own}: both ends need the same release"
        )
    # The library adds address and offset without a look at the sum.
    if not 0 < peer.pool_bytes <= _LAST_ADDRESS - peer.pool_address or peer.pool_address <= 0:
        raise PeerUnreachable(
            f"{peer.incarnation} says that {peer.pool_bytes} bytes are at {peer.pool_address:#x}"
        )
