"""The process that measures one backend.

python -m benchmarks.transport.consumer BACKEND
"""

from __future__ import annotations

import asyncio
import itertools
import resource
import sys
import time
from typing import TYPE_CHECKING, Any

from benchmarks.transport import plan, pulls, raw
from benchmarks.transport.lines import own_stdout, serve
from redserve.transport.leave import leave

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import TextIO

    Single = Callable[[int], Awaitable[None]]
    Burst = Callable[[list[int]], Awaitable[None]]


class Measurement:
    """Measures a data path.

    Args:
        path: What is measured; its producer runs.
    """

    def __init__(self, path: pulls.DataPath) -> None:
        self._path = path
        self._num_bytes = 0
        self._slots = itertools.cycle([0])
        self._counts: dict[str, int] = {}

    async def prepare(self, num_bytes: int) -> None:
        """Go over to another size, and warm up."""
        num_slots = plan.num_slots(num_bytes)
        self._num_bytes = num_bytes
        await self._path.prepare(num_bytes, num_slots)
        self._slots = itertools.cycle(range(num_slots))
        self._counts = {}
        for name, burst in self._bursts().items():
            await burst(self._take(num_slots))  # every page once
            started = time.perf_counter()
            await burst(self._take(plan.IN_FLIGHT))
            elapsed = time.perf_counter() - started
            self._counts[name] = plan.burst_count(plan.IN_FLIGHT, elapsed)

    async def measure(self) -> dict[str, Any]:
        """One round: latencies in seconds, rates in bytes per second."""
        found: dict[str, Any] = {}
        for name, single in self._singles().items():
            found[f"{name}latency_s"] = times = []
            for slot in self._take(plan.num_singles(self._num_bytes)):
                started = time.perf_counter()
                await single(slot)
                times.append(time.perf_counter() - started)
        for name, burst in self._bursts().items():
            slots = self._take(self._counts[name])
            started = time.perf_counter()
            await burst(slots)
            elapsed = time.perf_counter() - started
            found[f"{name}bytes_per_s"] = len(slots) * self._num_bytes / elapsed
        return found

    async def rest(self, seconds: float) -> dict[str, float]:
        """Do nothing; the share of a core that this process used all the same."""
        before, started = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        await asyncio.sleep(seconds)
        after, elapsed = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter() - started
        used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
        return {"cpu_share": used / elapsed}

    def _take(self, count: int) -> list[int]:
        return list(itertools.islice(self._slots, count))

    def _singles(self) -> dict[str, Single]:
        found: dict[str, Single] = {"": self._path.read}
        if isinstance(self._path, pulls.Pulls):
            found["whole_"] = self._path.whole_pull
        return found

    def _bursts(self) -> dict[str, Burst]:
        found: dict[str, Burst] = {"": self._path.burst}
        if isinstance(self._path, pulls.Pulls):
            found["whole_"] = self._path.whole_burst
        return found


async def main(out: TextIO, backend: str) -> None:
    """Answer until the parent hangs up."""
    path: pulls.DataPath
    if backend == plan.MEMCPY:
        path = raw.Memcpy()
    elif backend == plan.SOCKET:
        path = raw.Socket()
    elif backend == plan.IN_PROCESS:
        path = await pulls.in_process()
    else:
        path = await pulls.between_processes(backend)
    measurement = Measurement(path)
    await serve(
        out,
        {"backend": backend},
        prepare=measurement.prepare,
        measure=measurement.measure,
        rest=measurement.rest,
    )
    await path.close()


if __name__ == "__main__":
    asyncio.run(main(own_stdout(), *sys.argv[1:]))
    leave(0)
