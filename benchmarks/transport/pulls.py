"""The data paths of `redserve.transport`, as a consumer uses them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final, Protocol

from benchmarks.transport import plan
from benchmarks.transport.lines import Child
from redserve.transport.factory import make_producer
from redserve.transport.grpc_stream import GrpcProducer, GrpcTransport
from redserve.transport.inproc import InprocProducer, InprocTransport
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.nixl.transport import NixlTransport, peer_info
from redserve.transport.pool import Pool
from redserve.transport.puller import Puller
from redserve.wire.channel import open_channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

    from redserve.transport.base import Descriptor, PeerInfo, Producer, Transport
    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Region

_TIMEOUT_S: Final = 60.0
_TTL_S: Final = 3600.0
_ADDRESS: Final = "benchmark"


class DataPath(Protocol):
    """What is measured. Slots are tensors of one size that reads go round in."""

    async def prepare(self, num_bytes: int, num_slots: int) -> None:
        """From now on tensors have this size."""
        ...

    async def read(self, slot: int) -> None:
        """Move one tensor."""
        ...

    async def burst(self, slots: list[int]) -> None:
        """Move these, as many at once as the backend is used with."""
        ...

    async def close(self) -> None:
        """End, the producer too."""
        ...


class Offers:
    """What a producer offers: tensors of one size, named by their slots."""

    def __init__(self, table: LeaseTable) -> None:
        self._table = table
        self._regions: dict[str, Region] = {}

    async def replace(self, num_bytes: int, num_slots: int) -> None:
        """Offer these and nothing else."""
        for key, region in self._regions.items():
            self._table.withdraw(key)
            region.free()
        self._regions = {str(slot): self._table.pool.alloc(num_bytes) for slot in range(num_slots)}
        for number, (key, region) in enumerate(self._regions.items()):
            region.view.fill(number % 251 + 1)
            self._table.offer(key, region, lambda *_: None)


class Pulls:
    """Transport.pull against leases that are there, and whole pulls beside it.

    Args:
        transport: Which it closes.
        pool: Of the transport.
        connect: Opens the control path.
        address: Of the producer.
        offer: Has the producer offer other tensors.
        end: Has it end.
    """

    def __init__(
        self,
        transport: Transport,
        pool: Pool,
        connect: Callable[[PeerInfo], Producer],
        peer: PeerInfo,
        offer: Callable[[int, int], Awaitable[object]],
        end: Callable[[], object],
    ) -> None:
        self._transport = transport
        self._pool = pool
        self._peer = peer
        self._offer = offer
        self._end = end
        self._control = connect(peer)
        self._puller = Puller(transport, connect, "consumer", pool)
        self._regions: list[Region] = []
        self._leases: list[Descriptor] = []
        transport.add_peer(peer)

    async def prepare(self, num_bytes: int, num_slots: int) -> None:
        """See `DataPath`."""
        for region in self._regions:
            region.free()
        for lease in self._leases:
            await self._control.release(lease.lease_id, consumed=True, timeout_s=_TIMEOUT_S)
        await self._offer(num_bytes, num_slots)
        self._regions = [self._pool.alloc(num_bytes) for _ in range(num_slots)]
        self._leases = [
            await self._control.prepare(str(slot), "consumer", _TIMEOUT_S)
            for slot in range(num_slots)
        ]

    async def read(self, slot: int) -> None:
        """See `DataPath`."""
        await self._transport.pull(self._leases[slot], self._regions[slot], _TIMEOUT_S)

    async def burst(self, slots: list[int]) -> None:
        """See `DataPath`."""
        await _several_at_once(self.read, slots)

    async def whole_pull(self, slot: int) -> None:
        """Lease, move, check, release."""
        await self._puller.pull(self._peer, str(slot), self._regions[slot], _TIMEOUT_S)

    async def whole_burst(self, slots: list[int]) -> None:
        """The same, several at once."""
        await _several_at_once(self.whole_pull, slots)

    async def close(self) -> None:
        """See `DataPath`."""
        await self._control.close()
        await self._puller.close()
        self._end()


async def in_process() -> Pulls:
    """Both ends here."""
    source = make_producer("inproc", Pool(2 * plan.WORKING_SET), "p", _ADDRESS, _TTL_S, None)
    pool = Pool(2 * plan.WORKING_SET)
    transport = InprocTransport(pool, "consumer", "")
    offers = Offers(source.lease_table)
    return Pulls(
        transport,
        pool,
        lambda peer: InprocProducer(peer.address),
        source.peer_info,
        offers.replace,
        source.close,
    )


async def between_processes(backend: str) -> Pulls:
    """The producer in a process of its own; gRPC or NIXL."""
    producer = Child("benchmarks.transport.producer", backend)

    async def offer(num_bytes: int, num_slots: int) -> None:
        producer.ask("prepare", num_bytes=num_bytes, num_slots=num_slots)

    address: str = producer.hello["address"]
    control = GrpcProducer(open_channel(address), address)
    peer = await control.hello(_TIMEOUT_S)
    await control.close()
    pool = Pool(2 * plan.WORKING_SET)
    transport: Transport
    if backend == plan.GRPC:
        transport = GrpcTransport(pool, "consumer", "")
    else:
        endpoint = Endpoint(pool, f"consumer-{peer.incarnation}", serves=False)
        transport = NixlTransport("tcp", endpoint, peer_info(endpoint, pool, "consumer", ""))
    return Pulls(transport, pool, _connect, peer, offer, producer.close)


def _connect(peer: PeerInfo) -> Producer:
    return GrpcProducer(open_channel(peer.address), peer.address)


async def _several_at_once(move: Callable[[int], Awaitable[None]], slots: list[int]) -> None:
    left: Iterator[int] = iter(slots)
    num_workers = min(plan.IN_FLIGHT, len(set(slots)))  # no more than places to land

    async def work() -> None:
        for slot in left:
            await move(slot)

    await asyncio.gather(*(work() for _ in range(num_workers)))
