"""A producer in a process of its own: one that can be killed, stopped and restarted.

    python producer_process.py PORT SIZE...    offers "k-SIZE" for each size, filled by `fill`

Prints one line of JSON when it serves; ends with its parent.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import signal
import sys
from dataclasses import asdict

from redserve.transport.factory import make_producer
from redserve.transport.pool import Pool, Region
from redserve.wire.server import ServiceServer

PR_SET_PDEATHSIG = 1
FILL = 0x5A


def fill(region: Region) -> None:
    """A pattern that is nowhere zero."""
    region.view[:] = FILL
    region.view[::4099] = 0x33


async def main(port: int, sizes: list[int]) -> None:
    server = ServiceServer("127.0.0.1", port)
    server.bind()
    pool = Pool(sum(sizes) + len(sizes) * 4096)
    side = make_producer("grpc", pool, "producer", server.address, 30.0, None)
    side.add_to(server)
    for size in sizes:
        region = pool.alloc(size)
        fill(region)
        side.lease_table.offer(f"k-{size}", region, lambda *_: None)
    await server.start()
    peer = asdict(side.peer_info)
    del peer["metadata"]
    sys.stdout.write(json.dumps(peer) + "\n")
    sys.stdout.flush()
    await server.wait_for_signal()


if __name__ == "__main__":
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    asyncio.run(main(int(sys.argv[1]), [int(size) for size in sys.argv[2:]]))
