"""What a data path costs in the long run: memory, descriptors, and the CPU of idle processes."""

from __future__ import annotations

import asyncio

import pytest

from tests.transport.links import MIB
from tests.transport.processes import KINDS, answer_until, as_json, consumer, producer

pytestmark = pytest.mark.parametrize("kind", KINDS)

FEW = 4097
"""Bytes: a cycle is about the connection."""
CYCLES = 1000
WARM_UP = 1000
"""Cycles until allocators and thread pools have what they need: agents come and go with threads,
and the first hundreds of them take a few KB each, which the next thousands find again. After 400
up to 4 MB were still to come, after 1000 less than 0.3."""
MOST_GROWN = 2 * MIB
IDLE_S = 3.0
MOST_CPU = 0.02


@pytest.mark.timeout(600)
async def test_a_thousand_connections_leave_nothing_behind(kind: str):
    async with producer(kind, FEW) as there, consumer(kind, MIB) as here:
        both = (there, here)
        warm = await here.ask("cycle", peer=as_json(there), size=FEW, times=WARM_UP)
        assert warm["whole"]
        descriptors = [process.num_descriptors() for process in both]
        resident = [process.resident_bytes() for process in both]
        cycles = await here.ask("cycle", peer=as_json(there), size=FEW, times=CYCLES)
        assert cycles["whole"]
        for process, num_before, bytes_before in zip(both, descriptors, resident, strict=True):
            # The other end hangs up a moment later.
            await answer_until(process, lambda _: process.num_descriptors() <= num_before + 2)  # noqa: B023
            grown = process.resident_bytes() - bytes_before
            assert grown < MOST_GROWN, f"{grown / CYCLES:.0f} bytes a connection"


@pytest.mark.timeout(120)
async def test_idle_processes_take_no_cpu(kind: str):
    """The one test that has to let time pass."""
    async with producer(kind, FEW) as there, consumer(kind, MIB) as here:
        pulled = await here.ask("pull", peer=as_json(there), size=FEW, deadline_s=30)
        assert pulled["whole"]
        loop = asyncio.get_running_loop()
        before = [process.cpu_s() for process in (there, here)]
        started = loop.time()
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(there.process.wait(), IDLE_S)
        after = [process.cpu_s() for process in (there, here)]
        idle_s = loop.time() - started
        for old, new in zip(before, after, strict=True):
            assert (new - old) / idle_s < MOST_CPU
