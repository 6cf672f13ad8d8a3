"""Producers that die, hang and come back: real processes, real signals."""

from __future__ import annotations

import asyncio
import signal
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from prometheus_client import CollectorRegistry

from redserve.errors import CorruptTransfer, DeadlineExceeded, Overloaded, PeerLost
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.transport.base import PeerInDoubt
from redserve.transport.factory import make_consumer
from redserve.transport.pool import Pool, Region
from redserve.wire.transport import peer_from_proto, peer_to_proto
from tests.transport.child import is_filled
from tests.transport.links import until
from tests.transport.processes import (
    BIG,
    CANARY,
    KINDS,
    SMALL,
    answer_until,
    producer,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from redserve.transport.base import PeerInfo
    from redserve.transport.puller import Puller
    from tests.transport.processes import Child

TRIES = 5
"""A blow that came when all bytes were there is tried again."""


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    backend: str = request.param
    return backend


@pytest.fixture
def registry() -> CollectorRegistry:
    return CollectorRegistry()


@pytest.fixture
async def pool() -> AsyncIterator[Pool]:
    pool = Pool(BIG + 4 * SMALL)
    yield pool
    assert pool.used_bytes == 0
    assert pool.quarantined_bytes == 0


@pytest.fixture
async def puller(kind: str, pool: Pool, registry: CollectorRegistry) -> AsyncIterator[Puller]:
    puller = make_consumer(kind, pool, "consumer", "", TransportMetrics(registry))
    yield puller
    await puller.close()


async def pull_small(puller: Puller, pool: Pool, peer: PeerInfo) -> None:
    region = pool.alloc(SMALL)
    region.view[:] = 0
    try:
        await puller.pull(peer, f"k-{SMALL}", region, 20)
        assert is_filled(region)
    finally:
        region.free()


async def begin(
    puller: Puller, region: Region, peer: PeerInfo, deadline_s: float
) -> asyncio.Task[None]:
    """A pull whose first bytes have landed."""
    region.view[:] = 0
    running = asyncio.create_task(puller.pull(peer, f"k-{region.num_bytes}", region, deadline_s))
    await until(lambda: bool(region.view[0]))
    return running


async def stop_in_the_middle(
    puller: Puller, pool: Pool, there: Child, deadline_s: float
) -> tuple[Region, asyncio.Task[None]]:
    """A pull from a process that was stopped when some bytes had landed, and not the last ones."""
    region = pool.alloc(BIG)
    for _ in range(TRIES):
        running = await begin(puller, region, there.peer, deadline_s)
        there.send(signal.SIGSTOP)
        # What the kernels hold may land yet; nobody knows how long that takes, but it is little.
        if not region.view[-1] and not running.done():
            return region, running
        there.send(signal.SIGCONT)
        await asyncio.gather(running, return_exceptions=True)
    raise AssertionError("the stop always came too late to test anything")


async def test_bytes_cross_a_process_boundary_and_are_counted_at_both_ends(
    kind: str, pool: Pool, puller: Puller, registry: CollectorRegistry
):
    async with producer(kind, SMALL) as there:
        await asyncio.gather(*(pull_small(puller, pool, there.peer) for _ in range(4)))
        labels = {"transport": kind, "direction": "in"}
        assert registry.get_sample_value("redserve_transport_bytes_total", labels) == 4 * SMALL
        state = await there.ask("state")
        assert state["out"] == 4 * SMALL
        assert state["leases"] == 0


async def test_a_producer_killed_in_the_middle_is_lost_at_once(
    kind: str, pool: Pool, puller: Puller
):
    region = pool.alloc(BIG)
    for _ in range(TRIES):
        async with producer(kind, BIG) as there:
            running = await begin(puller, region, there.peer, 60)
            there.send(signal.SIGKILL)
            killed_at = time.monotonic()
            await asyncio.gather(running, return_exceptions=True)
            took_s = time.monotonic() - killed_at
        if region.view[-1]:
            continue
        with pytest.raises(PeerLost):
            await running
        assert took_s < 5
        with pytest.raises(PeerLost):
            await puller.pull(there.peer, f"k-{BIG}", region, 20)
        break
    else:
        raise AssertionError("the kill always came too late to test anything")
    region.free()
    await until(lambda: pool.used_bytes == 0)


async def test_a_producer_that_hangs_costs_the_deadline_and_no_more(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, SMALL) as there:
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


async def test_memory_of_a_pull_that_hangs_is_quarantined_until_nothing_can_land(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, BIG, SMALL) as there:
        started = time.monotonic()
        region, running = await stop_in_the_middle(puller, pool, there, 2.0)
        with pytest.raises(DeadlineExceeded):
            await running
        assert time.monotonic() - started < 2.0 * TRIES + 5
        region.free()
        waiting = asyncio.create_task(pool.alloc_wait(BIG, 30))
        if kind == "tcp":
            assert pool.quarantined_bytes == BIG
            with pytest.raises(Overloaded):
                pool.alloc(BIG)
            await asyncio.sleep(0)
            assert not waiting.done()
        there.send(signal.SIGCONT)
        reused = await waiting  # room that is waited for comes back without an error
        assert pool.quarantined_bytes == 0
        assert reused.offset == region.offset
        reused.view[:] = CANARY
        for _ in range(3):  # over the same connection: whatever was under way is through
            await pull_small(puller, pool, there.peer)
        assert (reused.view == CANARY).all()
        reused.free()


async def test_a_cancelled_pull_writes_nothing_later(kind: str, pool: Pool, puller: Puller):
    async with producer(kind, BIG, SMALL) as there:
        region = pool.alloc(BIG)
        for _ in range(TRIES):
            running = await begin(puller, region, there.peer, 60)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            if not region.view[-1]:
                break
        else:
            raise AssertionError("the cancel always came too late to test anything")
        region.free()
        reused = await pool.alloc_wait(BIG, 30)
        assert reused.offset == region.offset
        reused.view[:] = CANARY
        for _ in range(3):
            await pull_small(puller, pool, there.peer)
        assert (reused.view == CANARY).all()
        reused.free()
        await answer_until(there, lambda state: state["leases"] == 0)


async def test_a_restarted_producer_is_another_one(kind: str, pool: Pool, puller: Puller):
    async with producer(kind, SMALL) as old:
        await pull_small(puller, pool, old.peer)
        await old.kill()
        region = pool.alloc(SMALL)
        with pytest.raises(PeerLost):
            await puller.pull(old.peer, f"k-{SMALL}", region, 20)
        async with producer(kind, SMALL, port=old.port) as new:
            assert new.peer.address == old.peer.address
            assert new.peer.incarnation != old.peer.incarnation
            # It even offers a tensor of the same name; it is not the one that was announced.
            with pytest.raises(PeerLost, match=r"gone|dead"):
                await puller.pull(old.peer, f"k-{SMALL}", region, 20)
            await pull_small(puller, pool, new.peer)
        region.free()


async def test_a_lease_that_is_over_before_the_read_is_no_tensor(
    kind: str, pool: Pool, puller: Puller
):
    """Nothing that ends within the hundredth of a second can be 160 MiB."""
    async with producer(kind, BIG, ttl_s=0.01) as there:
        region = pool.alloc(BIG)
        with pytest.raises(CorruptTransfer, match="lease"):
            await puller.pull(there.peer, f"k-{BIG}", region, 60)
        region.free()
        await until(lambda: pool.used_bytes == 0)
        await answer_until(there, lambda state: state["leases"] == 0)


async def test_a_lease_that_is_slept_through_is_no_tensor_and_its_room_is_not_reused(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, BIG, SMALL, ttl_s=2.0) as there:
        region, running = await stop_in_the_middle(puller, pool, there, 60.0)
        with pytest.raises(CorruptTransfer, match="lease"):  # long before the deadline
            await running
        region.free()
        if kind == "tcp":
            assert pool.quarantined_bytes == BIG
        there.send(signal.SIGCONT)
        reused = await pool.alloc_wait(BIG, 30)
        reused.view[:] = CANARY
        await pull_small(puller, pool, there.peer)
        assert (reused.view == CANARY).all()
        reused.free()


async def test_one_flipped_byte_is_found(kind: str, pool: Pool, puller: Puller):
    async with producer(kind, SMALL) as there:
        await there.ask("flip", size=SMALL, at=SMALL // 2)
        region = pool.alloc(SMALL)
        with pytest.raises(CorruptTransfer, match="checksum"):
            await puller.pull(there.peer, f"k-{SMALL}", region, 20)
        region.free()
        await there.ask("flip", size=SMALL, at=SMALL // 2)
        await pull_small(puller, pool, there.peer)


async def test_more_pulls_than_room_wait_for_each_other(kind: str):
    pool = Pool(2 * SMALL + 4096)
    puller = make_consumer(kind, pool, "consumer", "", None)

    async def fetch(peer: PeerInfo) -> None:
        region = await pool.alloc_wait(SMALL, 30)
        await puller.pull(peer, f"k-{SMALL}", region, 30)
        assert is_filled(region)
        region.free()

    async with producer(kind, SMALL) as there:
        await asyncio.gather(*(fetch(there.peer) for _ in range(16)))
        await puller.close()
    assert pool.used_bytes == 0


async def test_metadata_of_another_is_refused_and_harms_nobody(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, SMALL) as one, producer(kind, SMALL) as other:
        wrong = replace(one.peer, metadata=other.peer.metadata)
        region = pool.alloc(SMALL)
        for _ in range(2):  # before they are known, and then
            if kind == "tcp":
                with pytest.raises(PeerInDoubt, match="metadata"):
                    await puller.pull(wrong, f"k-{SMALL}", region, 20)
            for there in (one, other):
                await pull_small(puller, pool, there.peer)
        region.free()


async def test_metadata_that_cannot_be_loaded_does_not_stand_in_the_way_of_good_one(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, SMALL) as there:
        good = there.peer.metadata
        at = good.find(there.peer.incarnation.encode()) + len(there.peer.incarnation) + 8
        damaged = good[:at] + bytes([good[at] ^ 0x10]) + good[at + 1 :] if good else b""
        region = pool.alloc(SMALL)
        if kind == "tcp":
            with pytest.raises(PeerLost, match="no way"):
                await puller.pull(replace(there.peer, metadata=damaged), f"k-{SMALL}", region, 20)
        region.free()
        await pull_small(puller, pool, there.peer)


async def test_who_was_connected_under_the_name_of_another_is_not_read_in_its_place(
    kind: str, pool: Pool, puller: Puller
):
    async with producer(kind, SMALL) as honest, producer(kind, SMALL) as liar:
        name, claimed = liar.peer.incarnation.encode(), honest.peer.incarnation.encode()
        assert len(name) == len(claimed), "so that the metadata is well formed"
        forged = replace(
            liar.peer,
            incarnation=honest.peer.incarnation,
            metadata=liar.peer.metadata.replace(name, claimed),
        )
        region = pool.alloc(SMALL)
        control = puller._connect(liar.peer)
        lease = await control.prepare(f"k-{SMALL}", "c", 20)
        transport = puller._transport
        transport.add_peer(forged)
        await transport.pull(replace(lease, incarnation=forged.incarnation), region, 20)
        assert is_filled(region), "it does answer to that name"
        transport.remove_peer(forged.incarnation)
        await control.close()
        for _ in range(3):
            await pull_small(puller, pool, honest.peer)
        region.free()


async def test_damaged_metadata_does_not_come_off_the_wire(kind: str, pool: Pool, puller: Puller):
    """The library takes a damaged entry for good, and not even the right one mends it."""
    async with producer(kind, SMALL) as there:
        await pull_small(puller, pool, there.peer)
        good = peer_to_proto(there.peer)
        for at in range(0, len(good.metadata), 16):
            damaged = peer_to_proto(there.peer)
            spoilt = good.metadata[at] ^ 0x10
            damaged.metadata = good.metadata[:at] + bytes([spoilt]) + good.metadata[at + 1 :]
            with pytest.raises(CorruptTransfer, match="digest"):
                peer_from_proto(damaged)
        await pull_small(puller, pool, peer_from_proto(good))
