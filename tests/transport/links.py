"""A producer and a consumer that any backend joins; tests ask the same of all of them."""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.transport.factory import make_consumer, make_producer
from redserve.transport.placement import make_pool
from redserve.transport.pool import Pool
from redserve.wire.server import ServiceServer

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from numpy.typing import NDArray

    from redserve.transport.lease_table import LeaseTable
    from redserve.transport.pool import Region
    from redserve.transport.producer_side import ProducerSide
    from redserve.transport.puller import Puller

MIB = 1 << 20
TIMEOUT_S = 20.0


def payload(num_bytes: int, seed: int = 0) -> NDArray[np.uint8]:
    """Bytes that differ by place and seed."""
    return np.random.default_rng(seed).integers(0, 256, num_bytes, np.uint8)


@dataclass
class Link:
    """Both ends of one backend, in one event loop.

    Attributes:
        ended: (key, consumed) of every lease that ended.
    """

    kind: str
    producer_pool: Pool
    consumer_pool: Pool
    side: ProducerSide
    puller: Puller
    server: ServiceServer
    registry: CollectorRegistry
    ended: list[tuple[str, bool]] = field(default_factory=list)

    @property
    def table(self) -> LeaseTable:
        return self.side.lease_table

    def offer(self, key: str, data: NDArray[np.uint8]) -> Region:
        region = self.producer_pool.alloc(len(data))
        region.view[:] = data
        self.table.offer(key, region, lambda *end: self.ended.append(end))
        return region

    async def pull(self, key: str, destination: Region, deadline_s: float = TIMEOUT_S) -> None:
        await self.puller.pull(self.side.peer_info, key, destination, deadline_s)

    def metric(self, name: str, **labels: str) -> float:
        return self.registry.get_sample_value(name, labels) or 0.0

    async def close(self) -> None:
        await self.puller.close()
        await self.server.drain(0)
        self.side.close()


def make_link(
    kind: str,
    *,
    producer_bytes: int = 72 * MIB,
    consumer_bytes: int = 72 * MIB,
    ttl_s: float = 30.0,
) -> Link:
    """Both ends, not serving yet."""
    registry = CollectorRegistry()
    metrics = TransportMetrics(registry)
    server = ServiceServer("127.0.0.1", 0)
    server.bind()
    producer_pool = make_pool(kind, producer_bytes, None, is_source=True)
    consumer_pool = Pool(consumer_bytes)
    side = make_producer(kind, producer_pool, "producer", server.address, ttl_s, metrics)
    side.add_to(server)
    puller = make_consumer(kind, consumer_pool, "consumer", "", metrics)
    return Link(kind, producer_pool, consumer_pool, side, puller, server, registry)


@asynccontextmanager
async def linked(link: Link) -> AsyncIterator[Link]:
    """Serve; at the end nothing may have leaked at either side."""
    await link.server.start()
    try:
        yield link
    finally:
        await link.close()
    assert link.table.num_leases == 0
    assert link.producer_pool.quarantined_bytes == 0
    assert link.consumer_pool.used_bytes == 0


async def until(condition: Callable[[], bool], timeout_s: float = TIMEOUT_S) -> None:
    """Let everybody else work until `condition()`."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # noqa: ASYNC110  # the condition has no event
            await asyncio.sleep(0)
