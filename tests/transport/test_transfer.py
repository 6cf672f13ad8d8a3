"""What every backend must do, asked of each of them."""

from __future__ import annotations

import asyncio

import pytest

from redserve.errors import (
    Overloaded,
)
from redserve.transport.factory import make_consumer, make_producer
from redserve.transport.lease_table import LeaseTable
from redserve.transport.pool import Pool, Region
from tests.transport.links import MIB, TIMEOUT_S, Link, linked, make_link, payload

CANARY = 0xA5


@pytest.mark.parametrize(
    "num_bytes",
    [1, 63, 64, 65, 4095, 4097, MIB - 1, MIB, MIB + 1, 8 * MIB + 3, 20_000_003, 64 * MIB],
)
async def test_any_size_arrives_whole(link: Link, num_bytes: int):
    data = payload(num_bytes, seed=num_bytes)
    source = link.offer("k", data)
    # A neighbour on each side proves that nothing is written outside.
    before, destination, after = (link.consumer_pool.alloc(n) for n in (1, num_bytes, 1))
    before.view[:] = after.view[:] = CANARY
    await link.pull("k", destination)
    assert (destination.view == data).all()
    assert before.view[0] == after.view[0] == CANARY
    assert link.ended == [("k", True)]
    assert link.table.withdraw("k")
    for region in (before, destination, after, source):
        region.free()
    assert link.producer_pool.used_bytes == 0
    moved = "redserve_transport_bytes_total"
    assert link.metric(moved, transport=link.kind, direction="in") == num_bytes
    if link.kind == "grpc":
        assert link.metric(moved, transport=link.kind, direction="out") == num_bytes
    assert link.metric("redserve_transport_pull_seconds_count", transport=link.kind) == 1


async def test_sixteen_at_once(link: Link):
    datas = [payload(MIB + 1000 * number, seed=number) for number in range(16)]
    regions = [link.consumer_pool.alloc(len(data)) for data in datas]
    for number, data in enumerate(datas):
        link.offer(f"k-{number}", data)
    await asyncio.gather(*(link.pull(f"k-{n}", region) for n, region in enumerate(regions)))
    for data, region in zip(datas, regions, strict=True):
        assert (region.view == data).all()
        region.free()


async def test_a_check_and_a_pull_share_a_connection(link: Link):
    """The peer that is announced is the one that says hello."""
    control = link.puller._connect(link.side.peer_info)
    assert await control.hello(TIMEOUT_S) == link.side.peer_info
    await control.close()
    data = payload(MIB)
    link.offer("k", data)
    region = link.consumer_pool.alloc(MIB)
    await asyncio.gather(
        link.puller.check(link.side.peer_info.address, TIMEOUT_S),
        *(link.pull("k", region) for _ in range(4)),
    )
    assert (region.view == data).all()
    region.free()


async def test_many_readers_of_one_tensor(link: Link):
    data = payload(3 * MIB)
    source = link.offer("k", data)
    regions = [link.consumer_pool.alloc(len(data)) for _ in range(8)]
    await asyncio.gather(*(link.pull("k", region) for region in regions))
    assert all((region.view == data).all() for region in regions)
    assert link.ended == [("k", True)] * 8
    assert link.table.withdraw("k")
    source.free()
    for region in regions:
        region.free()
    assert link.producer_pool.used_bytes == 0


async def test_a_full_consumer_pool_makes_pulls_wait_and_never_corrupts(kind: str):
    num_bytes, room = 2 * MIB, 3
    link = make_link(kind, consumer_bytes=room * num_bytes)
    highest = 0

    def watch(used_bytes: int, _free: int) -> None:
        nonlocal highest
        highest = max(highest, used_bytes)

    async def fetch(number: int) -> bool:
        region = await link.consumer_pool.alloc_wait(num_bytes, 20)
        try:
            await link.pull(f"k-{number}", region)
            return bool((region.view == payload(num_bytes, number)).all())
        finally:
            region.free()

    async with linked(link):
        link.consumer_pool.on_change(watch)
        for number in range(12):
            link.offer(f"k-{number}", payload(num_bytes, number))
        assert all(await asyncio.gather(*map(fetch, range(12))))
    assert num_bytes <= highest <= room * num_bytes


async def test_a_full_consumer_pool_is_a_typed_error_in_time(link: Link):
    kept = link.consumer_pool.alloc(link.consumer_pool.num_bytes)
    with pytest.raises(Overloaded):
        await link.consumer_pool.alloc_wait(MIB, 0.05)
    kept.free()


async def test_pool_gauges_follow_the_pool(kind: str):
    link = make_link(kind, producer_bytes=MIB, consumer_bytes=2 * MIB)
    async with linked(link):
        region: Region = link.consumer_pool.alloc(MIB)
        used = link.metric("redserve_transport_pool_bytes", state="used")
        assert used == MIB
        region.free()
        assert link.metric("redserve_transport_pool_bytes", state="used") == 0
        assert link.metric("redserve_transport_info", transport=kind) == 1


def test_unknown_kinds_are_config_errors_that_list_the_choices():
    for make in (
        lambda: make_consumer("pigeon", Pool(1), "c", "", None),
        lambda: make_producer("pigeon", Pool(1), "p", "x", 1.0, None),
    ):
        with pytest.raises(Exception, match="grpc, inproc") as caught:
            make()
        assert type(caught.value).__name__ == "ConfigError"
    assert LeaseTable(Pool(1), "p", 1.0).num_offers == 0
