"""Probes: anybody may ask for one, so they must not take what requests need."""

from __future__ import annotations

import asyncio
import threading
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import torch

from redserve.errors import Overloaded, TensorGone
from redserve.modeling.device_slab import DeviceSlab
from redserve.transport import probe
from redserve.transport.buffer import write
from redserve.transport.grpc_stream import GrpcProducer
from redserve.transport.lease_table import LeaseTable
from redserve.transport.pool import Pool
from redserve.transport.probe import PROBE_BYTES, is_taken, prepare_probe, probe_key
from redserve.transport.slab import HostSlab
from redserve.wire.channel import open_channel
from tests.transport.links import MIB, Link, linked, make_link, until

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redserve.transport.pool import Region
    from redserve.transport.slab import Slab

CPU = torch.device("cpu")


@asynccontextmanager
async def asking(link: Link) -> AsyncIterator[GrpcProducer]:
    """Somebody with nothing but the address."""
    producer = GrpcProducer(open_channel(link.server.address), link.server.address)
    try:
        yield producer
    finally:
        await producer.close()


async def test_there_is_one_at_a_time() -> None:
    link = make_link("grpc", producer_bytes=2 * PROBE_BYTES)
    async with linked(link), asking(link) as producer:
        lease = await producer.prepare(probe_key(PROBE_BYTES), "a", 5)
        for num_bytes in (PROBE_BYTES, 1):
            with pytest.raises(Overloaded) as caught:
                await producer.prepare(probe_key(num_bytes), "b", 5)
            assert is_taken(caught.value)
            assert caught.value.retry_after_s == probe.RETRY_AFTER_S
        assert link.producer_pool.used_bytes == PROBE_BYTES
        await producer.release(lease.lease_id, consumed=True, timeout_s=5)
        lease = await producer.prepare(probe_key(MIB), "b", 5)
        await producer.release(lease.lease_id, consumed=True, timeout_s=5)
        assert (link.producer_pool.used_bytes, link.table.num_offers) == (0, 0)


async def test_whoever_vanishes_with_one_blocks_it_until_its_lease_ends() -> None:
    link = make_link("grpc", ttl_s=0.05)
    link.table.grace_s = 0.05
    async with linked(link), asking(link) as producer:
        await producer.prepare(probe_key(MIB), "vanishing", 5)
        await until(lambda: link.producer_pool.used_bytes == 0)
        await producer.prepare(probe_key(MIB), "next", 5)
        await until(lambda: link.producer_pool.used_bytes == 0)


async def test_one_that_is_still_read_after_its_release_counts() -> None:
    link = make_link("grpc")
    async with linked(link), asking(link) as producer:
        lease = await producer.prepare(probe_key(PROBE_BYTES), "slow", 5)
        read = link.table.buffer_of(lease.lease_id)
        read.hold()  # by whoever is not through with it
        await producer.release(lease.lease_id, consumed=False, timeout_s=5)
        assert link.producer_pool.quarantined_bytes == PROBE_BYTES
        with pytest.raises(Overloaded):
            await producer.prepare(probe_key(MIB), "b", 5)
        read.unhold()
        assert link.producer_pool.used_bytes == 0


async def test_a_check_of_what_another_one_checks_is_not_a_small_figure() -> None:
    link = make_link("grpc")
    async with linked(link), asking(link) as producer:
        lease = await producer.prepare(probe_key(MIB), "other", 5)
        with pytest.raises(Overloaded) as caught:
            await link.puller.check(link.server.address, 5)
        assert is_taken(caught.value)
        await producer.release(lease.lease_id, consumed=True, timeout_s=5)
        assert (await link.puller.check(link.server.address, 20)).num_bytes == 32 * MIB


@pytest.mark.parametrize("make_slab", [HostSlab, lambda size: DeviceSlab(size, CPU)])
async def test_nothing_of_what_was_there_before_is_in_it(make_slab: Callable[[int], Slab]) -> None:
    """No key is needed for a probe, and its room may have held anybody's embeddings."""
    pool = Pool(MIB, make_slab=make_slab)
    former = pool.alloc(MIB)
    write(former, 0, b"secret" * (MIB // 6))
    former.free()
    table = LeaseTable(pool, "p-1", 30.0)
    lease = await prepare_probe(table, probe_key(MIB - 5), "c")
    found = table.copy_of(lease.lease_id, 0, MIB)
    assert len(found) == MIB - 5
    assert b"sec" not in found
    assert b"cret" not in found
    table.release(lease.lease_id, consumed=True)


async def test_where_there_is_little_room_a_small_one_is_read(kind: str) -> None:
    link = make_link(kind, producer_bytes=MIB)
    async with linked(link):
        assert (await link.puller.check(link.server.address, 20)).num_bytes == MIB


class Pen:
    """Writes a probe when it is told to."""

    def __init__(self) -> None:
        self.begun, self.may_go_on = threading.Event(), threading.Event()

    def fill(self, region: Region) -> None:
        self.begun.set()
        assert self.may_go_on.wait(20)
        region.view[:] = 1


@pytest.fixture
def pen(monkeypatch: pytest.MonkeyPatch) -> Pen:
    made = Pen()
    monkeypatch.setattr(probe, "_fill", made.fill)
    return made


async def test_others_are_answered_while_one_is_written(pen: Pen) -> None:
    link = make_link("grpc")
    async with linked(link), asking(link) as producer:
        preparing = asyncio.create_task(producer.prepare(probe_key(MIB), "a", 20))
        await until(pen.begun.is_set)
        await producer.hello(5)
        with pytest.raises(Overloaded):
            await producer.prepare(probe_key(MIB), "b", 5)
        pen.may_go_on.set()
        lease = await preparing
        await producer.release(lease.lease_id, consumed=True, timeout_s=5)


async def test_room_that_is_written_to_stays_when_its_caller_goes(pen: Pen) -> None:
    link = make_link("grpc")
    async with linked(link):
        preparing = asyncio.create_task(probe.prepare_probe(link.table, probe_key(MIB), "a"))
        await until(pen.begun.is_set)
        preparing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await preparing
        assert link.producer_pool.used_bytes == MIB
        assert link.producer_pool.quarantined_bytes == 0
        pen.may_go_on.set()
        await until(lambda: link.producer_pool.used_bytes == 0)
        assert link.table.num_offers == 0


@pytest.mark.parametrize("size", ["", "0", "-1", "x", str(PROBE_BYTES + 1), "9" * 5000])
async def test_sizes_that_are_none(size: str) -> None:
    link = make_link("grpc")
    async with linked(link):
        with pytest.raises(TensorGone):
            await probe.prepare_probe(link.table, f"{probe_key(1)[:-1]}{size}", "a")
