"""Producers that die, hang and come back: real processes, real signals."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from redserve.errors import DeadlineExceeded, PeerLost
from redserve.transport.base import PeerInfo
from redserve.transport.factory import make_consumer
from redserve.transport.pool import Pool, Region
from tests.transport.links import MIB, until
from tests.transport.producer_process import fill

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redserve.transport.puller import Puller

SCRIPT = Path(__file__).with_name("producer_process.py")
ROOT = Path(__file__).resolve().parents[2]
BIG = 160 * MIB
SMALL = 3 * MIB + 1
CANARY = 0xA5


@dataclass
class ProducerProcess:
    process: asyncio.subprocess.Process
    peer: PeerInfo

    @property
    def port(self) -> int:
        return int(self.peer.address.rpartition(":")[2])

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    async def kill(self) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


@asynccontextmanager
async def producer(port: int = 0, *sizes: int) -> AsyncIterator[ProducerProcess]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(SCRIPT),
        str(port),
        *map(str, sizes),
        stdout=asyncio.subprocess.PIPE,
        env=environment,
    )
    assert process.stdout is not None
    line = await asyncio.wait_for(process.stdout.readline(), 30)
    running = ProducerProcess(process, PeerInfo(**json.loads(line)))
    try:
        yield running
    finally:
        await running.kill()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(BIG + 4 * SMALL)
    yield pool
    assert pool.used_bytes == 0
    assert pool.quarantined_bytes == 0


@pytest.fixture
async def puller(pool: Pool) -> AsyncIterator[Puller]:
    puller = make_consumer("grpc", pool, "consumer", "", None)
    yield puller
    await puller.close()


def expected(region: Region) -> bool:
    pool = Pool(region.num_bytes)
    pattern = pool.alloc(region.num_bytes)
    fill(pattern)
    return bool((region.view == pattern.view).all())


async def pull_small(puller: Puller, pool: Pool, peer: PeerInfo) -> None:
    region = pool.alloc(SMALL)
    try:
        await puller.pull(peer, f"k-{SMALL}", region, 20)
        assert expected(region)
    finally:
        region.free()


@asynccontextmanager
async def in_the_middle(
    puller: Puller, region: Region, peer: PeerInfo, deadline_s: float
) -> AsyncIterator[asyncio.Task[None]]:
    """A pull whose first bytes have landed and whose last ones have not."""
    region.view[:] = 0
    running = asyncio.create_task(puller.pull(peer, f"k-{BIG}", region, deadline_s))
    await until(lambda: bool(region.view[0]))
    assert not running.done()
    yield running


async def test_bytes_cross_a_process_boundary(pool: Pool, puller: Puller):
    async with producer(0, SMALL) as there:
        await asyncio.gather(*(pull_small(puller, pool, there.peer) for _ in range(4)))


async def test_a_producer_killed_in_the_middle_is_lost_at_once(pool: Pool, puller: Puller):
    async with producer(0, BIG) as there:
        region = pool.alloc(BIG)
        async with in_the_middle(puller, region, there.peer, 60) as running:
            there.send(signal.SIGKILL)
            killed_at = time.monotonic()
            with pytest.raises(PeerLost):
                await running
            assert time.monotonic() - killed_at < 5
            assert region.view[-1] == 0, "the kill came too late to test anything"
        with pytest.raises(PeerLost):
            await puller.pull(there.peer, f"k-{BIG}", region, 20)
        region.free()


async def test_a_producer_that_hangs_costs_the_deadline_and_no_more(pool: Pool, puller: Puller):
    async with producer(0, SMALL) as there:
        await pull_small(puller, pool, there.peer)
        there.send(signal.SIGSTOP)
        region = pool.alloc(SMALL)
        started = time.monotonic()
        with pytest.raises(DeadlineExceeded):
            await puller.pull(there.peer, f"k-{SMALL}", region, 0.5)
        assert 0.4 < time.monotonic() - started < 4
        region.free()
        there.send(signal.SIGCONT)
        await pull_small(puller, pool, there.peer)


async def test_a_producer_that_hangs_in_the_middle_writes_nothing_later(pool: Pool, puller: Puller):
    async with producer(0, BIG, SMALL) as there:
        region = pool.alloc(BIG)
        async with in_the_middle(puller, region, there.peer, 1.0) as running:
            there.send(signal.SIGSTOP)
            with pytest.raises(DeadlineExceeded):
                await running
            assert region.view[-1] == 0, "the stop came too late to test anything"
        region.free()
        reused = pool.alloc(BIG)
        assert reused.offset == region.offset
        reused.view[:] = CANARY
        there.send(signal.SIGCONT)
        for _ in range(3):  # over the same connection: whatever was under way is through
            await pull_small(puller, pool, there.peer)
        assert (reused.view == CANARY).all()
        reused.free()


async def test_a_restarted_producer_is_another_one(pool: Pool, puller: Puller):
    async with producer(0, SMALL) as old:
        await pull_small(puller, pool, old.peer)
        await old.kill()
        region = pool.alloc(SMALL)
        with pytest.raises(PeerLost):
            await puller.pull(old.peer, f"k-{SMALL}", region, 20)
        async with producer(old.port, SMALL) as new:
            assert new.peer.address == old.peer.address
            assert new.peer.incarnation != old.peer.incarnation
            # It even offers a tensor of the same name; it is not the one that was announced.
            with pytest.raises(PeerLost, match=r"gone|dead"):
                await puller.pull(old.peer, f"k-{SMALL}", region, 20)
            await pull_small(puller, pool, new.peer)
        region.free()


async def test_a_consumer_that_leaves_in_the_middle_leaves_the_producer_well(
    pool: Pool, puller: Puller
):
    async with producer(0, BIG, SMALL) as there:
        doomed_pool = Pool(BIG)
        doomed = make_consumer("grpc", doomed_pool, "doomed", "", None)
        region = doomed_pool.alloc(BIG)
        async with in_the_middle(doomed, region, there.peer, 60) as running:
            await doomed.close()
            with pytest.raises(PeerLost):
                await running
        region.free()
        await pull_small(puller, pool, there.peer)
        assert there.process.returncode is None
