"""A consumer in a process of its own: one that is killed, or leaves in whatever way.

python consumer_process.py '{"kind": ..., "pool_bytes": ...}'
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from redserve.errors import RedServeError
from redserve.transport import leave as leaving
from redserve.transport.factory import make_consumer
from redserve.transport.leave import leave
from redserve.transport.pool import Pool
from tests.transport.child import answer, arguments, is_filled, own_stdout, peer_from_json
from tests.transport.links import until

if TYPE_CHECKING:
    from typing import TextIO

    from redserve.transport.base import PeerInfo
    from redserve.transport.pool import Region

STREAMS = 2
"""Pulls at once: while one is between two transfers, the other is not."""


class Consumer:
    """What the process is asked to do."""

    def __init__(self, kind: str, pool_bytes: int) -> None:
        self.kind = kind
        self.pool = Pool(pool_bytes)
        self.puller = make_consumer(kind, self.pool, "consumer", "", None)
        self.streams: list[asyncio.Task[dict[str, Any]]] = []

    async def pull(self, peer: dict[str, Any], size: int, deadline_s: float) -> dict[str, Any]:
        """Once; `whole` says whether the bytes are right."""
        region = await self.pool.alloc_wait(size, deadline_s)
        region.view[:] = 0
        result = await self._pull(peer_from_json(peer), region, deadline_s)
        whole = result["error"] is None and is_filled(region)
        region.free()
        return {**result, "whole": whole}

    async def start(self, peer: dict[str, Any], size: int, deadline_s: float) -> dict[str, Any]:
        """Pull over and over until a pull fails; answers when bytes are on their way, or if not."""
        regions = [await self.pool.alloc_wait(size, deadline_s) for _ in range(STREAMS)]
        for region in regions:
            region.view[:] = 0
        source = peer_from_json(peer)
        self.streams = [
            asyncio.create_task(self._pull_for_ever(source, region, deadline_s))
            for region in regions
        ]
        await until(
            lambda: (
                any(bool(region.view[0]) for region in regions)
                or all(stream.done() for stream in self.streams)
            )
        )
        return {"reading": not all(stream.done() for stream in self.streams)}

    async def failures(self) -> dict[str, Any]:
        """Wait until all streams have failed; their regions are freed then."""
        return {"failures": await asyncio.gather(*self.streams)}

    async def state(self) -> dict[str, Any]:
        return {
            "quarantined": self.pool.quarantined_bytes,
            "used": self.pool.used_bytes,
        }

    async def close_often(self, peer: dict[str, Any], size: int, times: int) -> dict[str, Any]:
        """Make a consumer, and close it in the middle of its pulls, again and again."""
        for _ in range(times):
            await self.start(peer, size, 60)
            await self.puller.close()
            await self.failures()
            self.puller = make_consumer(self.kind, self.pool, "consumer", "", None)
        return {"used": self.pool.used_bytes}

    async def cycle(self, peer: dict[str, Any], size: int, times: int) -> dict[str, Any]:
        """Be a new consumer, connect, pull, disconnect, again and again."""
        source = peer_from_json(peer)
        region = self.pool.alloc(size)
        for _ in range(times):
            puller = make_consumer(self.kind, self.pool, "cycle", "", None)
            await puller.pull(source, f"k-{size}", region, 30)
            await puller.close()
        whole = is_filled(region)
        region.free()
        return {"whole": whole}

    async def end(self, how: str) -> dict[str, Any]:
        """Never answers."""
        if how == "close":
            await self.puller.close()
            leave(0)
        if how == "leave patiently":
            leaving._CLOSE_TIMEOUT_S = 60.0  # type: ignore[misc]
            leave(0)
        if how == "leave":
            leave(0)
        sys.exit(0)

    async def _pull_for_ever(
        self, peer: PeerInfo, region: Region, deadline_s: float
    ) -> dict[str, Any]:
        try:
            while True:
                result = await self._pull(peer, region, deadline_s)
                if result["error"] is not None:
                    return result
        finally:
            region.free()

    async def _pull(self, peer: PeerInfo, region: Region, deadline_s: float) -> dict[str, Any]:
        started = time.monotonic()
        error, why = None, ""
        try:
            await self.puller.pull(peer, f"k-{region.num_bytes}", region, deadline_s)
        except RedServeError as caught:
            error, why = type(caught).__name__, str(caught)
        return {"error": error, "why": why, "seconds": time.monotonic() - started}


async def main(out: TextIO, kind: str, pool_bytes: int) -> None:
    consumer = Consumer(kind, pool_bytes)
    operations = ("pull", "start", "failures", "state", "close_often", "cycle", "end")
    await answer(out, {}, **{name: getattr(consumer, name) for name in operations})


if __name__ == "__main__":
    asyncio.run(main(own_stdout(), **arguments()))
