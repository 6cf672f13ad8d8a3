"""A producer in a process of its own: one that can be killed, stopped and restarted.

python producer_process.py '{"kind": ..., "host": ..., "port": ..., "sizes": [...], "ttl_s": ...}'

It offers "k-SIZE" for each size, filled by `fill`.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry

from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.transport.factory import make_producer
from redserve.transport.placement import make_pool
from redserve.wire.server import ServiceServer
from tests.transport.child import answer, arguments, fill, own_stdout, peer_to_json

if TYPE_CHECKING:
    from typing import TextIO

    from redserve.transport.pool import Region


async def main(
    out: TextIO, kind: str, host: str, port: int, sizes: list[int], ttl_s: float
) -> None:
    server = ServiceServer(host, port)
    server.bind()
    registry = CollectorRegistry()
    pool = make_pool(kind, sum(sizes) + len(sizes) * 4096, None, is_source=True)
    metrics = TransportMetrics(registry)
    side = make_producer(kind, pool, "producer", server.address, ttl_s, metrics)
    side.add_to(server)
    regions: dict[int, Region] = {}
    for size in sizes:
        regions[size] = pool.alloc(size)
        fill(regions[size])
        side.lease_table.offer(f"k-{size}", regions[size], lambda *_: None)
    await server.start()

    async def state() -> dict[str, Any]:
        labels = {"transport": kind, "direction": "out"}
        return {
            "leases": side.lease_table.num_leases,
            "out": registry.get_sample_value("redserve_transport_bytes_total", labels) or 0.0,
        }

    async def flip(size: int, at: int) -> dict[str, Any]:
        regions[size].view[at] ^= 1
        return {}

    async def current() -> dict[str, Any]:
        return peer_to_json(await side.current())

    await answer(out, peer_to_json(side.peer_info), state=state, flip=flip, current=current)


if __name__ == "__main__":
    asyncio.run(main(own_stdout(), **arguments()))
