"""The process that is read from.

python -m benchmarks.transport.producer BACKEND [DESCRIPTOR OF SHARED MEMORY]
"""

from __future__ import annotations

import asyncio
import sys
import uuid
from typing import TYPE_CHECKING

from benchmarks.transport import plan, raw
from benchmarks.transport.lines import own_stdout, serve
from benchmarks.transport.pulls import Offers
from redserve.transport.factory import make_producer
from redserve.transport.grpc_stream import TransportServicer
from redserve.transport.lease_table import LeaseTable
from redserve.transport.leave import leave
from redserve.transport.nixl.endpoint import Endpoint
from redserve.transport.nixl.transport import peer_info
from redserve.transport.placement import make_pool
from redserve.transport.pool import Pool
from redserve.transport.producer_side import ProducerSide
from redserve.wire.server import ServiceServer

if TYPE_CHECKING:
    from typing import TextIO

_TTL_S = 3600.0


async def main(out: TextIO, backend: str, *rest: str) -> None:
    """Be the producer of a backend until the consumer hangs up."""
    if backend == plan.MEMCPY:
        shared = raw.share_memory(int(rest[0]))
        await serve(out, {"bytes": len(shared)})
    elif backend == plan.SOCKET:
        await serve(out, {"port": raw.serve_socket()})
    else:
        await _produce(out, backend)


def _side(backend: str, address: str) -> ProducerSide:
    num_bytes = 2 * plan.WORKING_SET
    if backend == plan.NIXL_SHM:
        return _by_shared_memory(Pool(num_bytes), address)
    kind = "tcp" if backend == plan.NIXL_TCP else "grpc"
    pool = make_pool(kind, num_bytes, None, is_source=True)
    return make_producer(kind, pool, "producer", address, _TTL_S, None)


def _by_shared_memory(pool: Pool, address: str) -> ProducerSide:
    """What no service does: UCX is told to use memory that processes share."""
    incarnation = f"producer-{uuid.uuid4().hex[:12]}"
    endpoint = Endpoint(pool, incarnation, serves=True)
    table = LeaseTable(pool, incarnation, _TTL_S)
    peer = peer_info(endpoint, pool, incarnation, address)
    servicer = TransportServicer(table, peer, kind="tcp")
    return ProducerSide(table, servicer, "tcp", endpoint=endpoint)


async def _produce(out: TextIO, backend: str) -> None:
    server = ServiceServer("127.0.0.1", 0)
    server.bind()
    side = _side(backend, server.address)
    side.add_to(server)
    offers = Offers(side.lease_table)
    await server.start()
    await serve(out, {"address": server.address}, prepare=offers.replace)
    await server.drain(0)
    side.close()


if __name__ == "__main__":
    asyncio.run(main(own_stdout(), *sys.argv[1:]))
    leave(0)
