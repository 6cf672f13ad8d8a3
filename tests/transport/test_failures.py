"""What every backend must survive, asked of each of them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import pytest

from redserve.errors import (
    CorruptTransfer,
    DeadlineExceeded,
    InternalError,
    PeerLost,
    TensorGone,
    Unavailable,
)
from redserve.transport.factory import make_producer
from redserve.transport.placement import make_pool
from redserve.wire.server import ServiceServer
from tests.transport.links import MIB, Link, linked, make_link, payload, until

if TYPE_CHECKING:
    from redserve.transport.base import Descriptor
    from redserve.transport.pool import Region

CANARY = 0xA5


async def test_an_unknown_tensor_is_gone_and_costs_nothing(link: Link):
    region = link.consumer_pool.alloc(10)
    with pytest.raises(TensorGone):
        await link.pull("never offered", region)
    region.free()
    assert link.metric("redserve_transport_errors_total", transport=link.kind, reason="TENSOR_GONE")


async def test_a_destination_of_another_size_is_refused(link: Link):
    link.offer("k", payload(100))
    for num_bytes in (99, 101):
        region = link.consumer_pool.alloc(num_bytes)
        with pytest.raises(InternalError, match="100 bytes"):
            await link.pull("k", region)
        region.free()


async def test_a_flipped_byte_is_found_after_one_more_try(link: Link):
    source = link.offer("k", payload(5 * MIB))
    source.view[3 * MIB] ^= 1
    region = link.consumer_pool.alloc(5 * MIB)
    with pytest.raises(CorruptTransfer, match="checksum"):
        await link.pull("k", region)
    region.free()
    await until(lambda: len(link.ended) == 2)
    assert link.ended == [("k", False)] * 2
    errors = "redserve_transport_errors_total"
    assert link.metric(errors, transport=link.kind, reason="CORRUPT_TRANSFER") == 2


async def test_a_byte_that_flips_once_is_mended_by_the_second_try(
    link: Link, monkeypatch: pytest.MonkeyPatch
):
    data = payload(5000)
    link.offer("k", data)
    transport = link.puller._transport
    pull = transport.pull
    calls = 0

    async def pull_and_spoil(descriptor: Descriptor, region: Region, deadline_s: float) -> None:
        nonlocal calls
        calls += 1
        await pull(descriptor, region, deadline_s)
        if calls == 1:
            region.view[77] ^= 1

    monkeypatch.setattr(transport, "pull", pull_and_spoil)
    region = link.consumer_pool.alloc(5000)
    await link.pull("k", region)
    assert calls == 2
    assert (region.view == data).all()
    region.free()
    await until(lambda: sorted(link.ended) == [("k", False), ("k", True)])


async def test_a_lease_that_ends_while_it_is_read_one_sidedly_is_noticed(
    monkeypatch: pytest.MonkeyPatch,
):
    """Nobody at the producer sees the read: what tells is the answer to the release."""
    link = make_link("tcp")
    async with linked(link):
        link.offer("k", payload(3 * MIB))
        region = link.consumer_pool.alloc(3 * MIB)
        transport = link.puller._transport
        pull = transport.pull

        async def pull_too_long(lease: Descriptor, region: Region, deadline_s: float) -> None:
            await pull(lease, region, deadline_s)
            link.table.release(lease.lease_id, consumed=False)

        monkeypatch.setattr(transport, "pull", pull_too_long)
        with pytest.raises(CorruptTransfer, match="lease"):
            await link.pull("k", region)
        region.free()


@pytest.mark.parametrize("kind", ["inproc", "grpc"])
async def test_a_lease_that_was_released_cannot_be_read(link: Link):
    link.offer("k", payload(3 * MIB))
    region = link.consumer_pool.alloc(3 * MIB)
    lease = link.table.prepare("k", "c")
    link.table.release(lease.lease_id, consumed=False)
    transport = link.puller._transport
    transport.add_peer(link.side.peer_info)
    with pytest.raises(CorruptTransfer, match="lease"):
        await transport.pull(lease, region, 5)
    region.free()


@pytest.mark.parametrize("kind", ["inproc", "grpc"])
async def test_a_lease_that_expires_while_it_is_read_is_noticed(kind: str):
    """The table's clock jumps in the middle of each read, whatever the machine's speed."""
    link = make_link(kind, ttl_s=30.0)
    source = link.offer("k", payload(40 * MIB))
    clock_calls = 0

    def clock() -> float:
        nonlocal clock_calls
        clock_calls += 1
        return 1000.0 * (clock_calls // 5)

    link.table._clock = clock
    async with linked(link):
        region = link.consumer_pool.alloc(40 * MIB)
        with pytest.raises(CorruptTransfer, match="lease"):
            await link.pull("k", region)
        region.free()
        link.table.withdraw("k")
        source.free()
        link.table.reap(1e9)
    assert link.producer_pool.used_bytes == 0


async def test_withdrawing_during_a_lease_lets_the_reader_finish(link: Link):
    data = payload(48 * MIB)
    source = link.offer("k", data)
    region = link.consumer_pool.alloc(48 * MIB)
    region.view[:1] = ~data[:1]
    running = asyncio.create_task(link.pull("k", region))
    await until(lambda: region.view[0] == data[0])
    assert not running.done()
    assert not link.table.withdraw("k")
    source.free()
    assert link.producer_pool.quarantined_bytes == 48 * MIB
    await running
    assert (region.view == data).all()
    region.free()
    await until(lambda: link.producer_pool.used_bytes == 0)


async def test_after_a_cancel_nothing_lands_in_reused_memory(link: Link):
    num_bytes = 48 * MIB
    data = payload(num_bytes)
    link.offer("big", data)
    link.offer("small", data[:MIB])
    region = link.consumer_pool.alloc(num_bytes)
    region.view[:] = ~data
    running = asyncio.create_task(link.pull("big", region))
    await until(lambda: region.view[0] == data[0])
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert region.view[-1] != data[-1], "the cancel came too late to test anything"
    region.free()
    # What is under way cannot be called back: the room returns when the last byte of it has landed.
    await until(lambda: link.consumer_pool.quarantined_bytes == 0)
    reused = link.consumer_pool.alloc(num_bytes)
    assert reused.offset == region.offset
    reused.view[:] = CANARY
    # Later transfers over the same connection would push out whatever was still on its way.
    for _ in range(3):
        other = link.consumer_pool.alloc(MIB)
        await link.pull("small", other)
        other.free()
    await until(lambda: link.table.num_leases == 0)
    assert (reused.view == CANARY).all()
    assert ("big", False) in link.ended
    reused.free()


async def test_cancel_at_any_moment_leaks_nothing(link: Link):
    data = payload(2 * MIB)
    link.offer("k", data)
    for turns in range(0, 40, 2):
        region = link.consumer_pool.alloc(len(data))
        running = asyncio.create_task(link.pull("k", region))
        for _ in range(turns):
            await asyncio.sleep(0)
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)
        region.free()
        await until(lambda: link.consumer_pool.used_bytes == 0)
    region = link.consumer_pool.alloc(len(data))
    await link.pull("k", region)
    assert (region.view == data).all()
    region.free()
    await until(lambda: link.table.num_leases == 0)


async def test_a_deadline_that_has_passed_is_told_at_once(link: Link):
    link.offer("k", payload(MIB))
    region = link.consumer_pool.alloc(MIB)
    with pytest.raises(DeadlineExceeded):
        await link.pull("k", region, deadline_s=0.0)
    region.free()


async def test_a_deadline_at_any_moment_is_kept_and_leaks_nothing(link: Link):
    data = payload(64 * MIB)
    link.offer("k", data)
    region = link.consumer_pool.alloc(64 * MIB)
    in_time = []
    for deadline_s in (1e-6, 1e-4, 5e-4, 1e-3, 4e-3, 8e-3, 16e-3):
        try:
            await link.pull("k", region, deadline_s=deadline_s)
        except DeadlineExceeded:
            continue
        in_time.append(deadline_s)  # nothing less than a whole and checked tensor
        assert (region.view == data).all()
    assert 1e-4 not in in_time
    region.free()
    await until(lambda: link.table.num_leases == 0)


@pytest.mark.parametrize("knows_the_key", [True, False])
async def test_a_successor_at_the_same_address_is_noticed(kind: str, knows_the_key: bool):
    link = make_link(kind)
    async with linked(link):
        link.offer("k", payload(100))
        region = link.consumer_pool.alloc(100)
        await link.pull("k", region)
        port = link.server.port
        await link.server.drain(0)

        pool = make_pool(kind, MIB, None, is_source=True)
        server = ServiceServer("127.0.0.1", port)
        successor = make_producer(kind, pool, "producer", f"127.0.0.1:{port}", 30.0, None)
        successor.add_to(server)
        await server.start()
        if knows_the_key:
            source = pool.alloc(100)
            source.view[:] = CANARY
            successor.lease_table.offer("k", source, lambda *_: None)
        try:
            with pytest.raises(PeerLost, match="gone"):
                await link.pull("k", region)
            with pytest.raises(PeerLost, match="dead"):
                await link.pull("k", region)
            if knows_the_key:
                assert (region.view != CANARY).any()
                await link.puller.pull(successor.peer_info, "k", region, 5)
                assert (region.view == CANARY).all()
                await until(lambda: successor.lease_table.num_leases == 0)
        finally:
            region.free()
            await server.drain(0)
            successor.close()


async def test_a_peer_that_is_not_there_is_lost_and_found_when_it_comes(kind: str):
    link = make_link(kind)
    link.offer("k", payload(100))
    region = link.consumer_pool.alloc(100)
    if kind == "inproc":
        link.side.close()
        with pytest.raises(PeerLost):
            await link.pull("k", region)
        region.free()
        await link.close()
        return
    port = await link.server.start()
    await link.server.drain(0)
    with pytest.raises(PeerLost):
        await link.pull("k", region)
    link.server = ServiceServer("127.0.0.1", port)
    link.side.add_to(link.server)
    async with linked(link):
        await link.pull("k", region)
        region.free()


async def test_closing_fails_running_pulls_and_refuses_new_ones(link: Link):
    data = payload(64 * MIB)
    link.offer("k", data)
    region = link.consumer_pool.alloc(64 * MIB)
    region.view[:1] = ~data[:1]
    running = asyncio.create_task(link.pull("k", region))
    await until(lambda: region.view[0] == data[0])
    await link.puller.close()
    with pytest.raises(PeerLost):
        await running
    with pytest.raises(Unavailable):
        await link.pull("k", region)
    region.free()
    await link.puller.close()
    link.table.reap(1e9)
