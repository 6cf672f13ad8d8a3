"""The process that is read from.

python -m benchmarks.transport.producer BACKEND [DESCRIPTOR OF SHARED MEMORY]
"""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING

from benchmarks.transport import plan, raw
from benchmarks.transport.lines import own_stdout, serve
from benchmarks.transport.pulls import Offers
from redserve.transport.factory import make_producer
from redserve.transport.leave import leave
from redserve.transport.pool import Pool
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
        await _produce(out, "grpc" if backend == plan.GRPC else "tcp")


async def _produce(out: TextIO, kind: str) -> None:
    server = ServiceServer("127.0.0.1", 0)
    server.bind()
    pool = Pool(2 * plan.WORKING_SET)
    side = make_producer(kind, pool, "producer", server.address, _TTL_S, None)
    side.add_to(server)
    offers = Offers(side.lease_table)
    await server.start()
    await serve(out, {"address": server.address}, prepare=offers.replace)
    await server.drain(0)
    side.close()


if __name__ == "__main__":
    asyncio.run(main(own_stdout(), *sys.argv[1:]))
    leave(0)
