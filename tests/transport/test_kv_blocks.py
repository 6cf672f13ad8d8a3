"""Paged KV blocks: many small regions, one tensor, by every backend."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import numpy as np
import pytest

from redserve.errors import CorruptTransfer, InternalError
from redserve.transport.buffer import RegionList, read, write
from tests.transport.links import Link, linked, make_link, payload, until

if TYPE_CHECKING:
    from redserve.transport.pool import Pool

BLOCK = 16 * 1024
NUM_BLOCKS = 600
CANARY = 0xA5


def blocks(pool: Pool, count: int, seed: int) -> RegionList:
    """Every second block of a run, in a random order: as block tables are after a while."""
    regions = [pool.alloc(BLOCK) for _ in range(2 * count)]
    order = np.random.default_rng(seed).permutation(count)
    for region in regions[1::2]:
        region.view[:] = CANARY
        region.free()
    return RegionList([regions[2 * int(index)] for index in order])


def untouched(buffer: RegionList) -> bool:
    """Whether the blocks between are as they were."""
    ours = {region.offset for region in buffer.regions}
    pool = buffer.pool
    used = pool.buffer[: 2 * len(ours) * BLOCK].reshape(-1, BLOCK)
    between = [row for number, row in enumerate(used) if number * BLOCK not in ours]
    return all((row == CANARY).all() for row in between)


async def test_blocks_arrive_in_their_order_and_nowhere_else(link: Link):
    data = payload(NUM_BLOCKS * BLOCK)
    source = blocks(link.producer_pool, NUM_BLOCKS, seed=1)
    write(source, 0, data.tobytes())
    link.table.offer("kv", source, lambda *end: link.ended.append(end))
    destination = blocks(link.consumer_pool, NUM_BLOCKS, seed=2)
    await link.puller.pull(link.side.peer_info, "kv", destination, 20)
    assert bytes(read(destination, 0, len(data))) == data.tobytes()
    assert untouched(destination)
    assert link.ended == [("kv", True)]
    moved = link.metric("redserve_transport_bytes_total", transport=link.kind, direction="in")
    assert moved == len(data)
    destination.free()


async def test_blocks_of_another_size_than_those_of_the_source(link: Link):
    """A prefill engine with blocks of 16 tokens, a decode engine with blocks of 48."""
    data = payload(30 * BLOCK)
    source = blocks(link.producer_pool, 30, seed=3)
    write(source, 0, data.tobytes())
    link.table.offer("kv", source, lambda *_: None)
    destination = RegionList([link.consumer_pool.alloc(3 * BLOCK) for _ in range(10)])
    await link.puller.pull(link.side.peer_info, "kv", destination, 20)
    assert bytes(read(destination, 0, len(data))) == data.tobytes()
    destination.free()


async def test_too_few_blocks_are_refused_before_a_byte_moves(link: Link):
    source = blocks(link.producer_pool, 4, seed=4)
    link.table.offer("kv", source, lambda *_: None)
    destination = blocks(link.consumer_pool, 3, seed=5)
    with pytest.raises(InternalError, match="bytes"):
        await link.puller.pull(link.side.peer_info, "kv", destination, 20)
    destination.free()


async def test_a_flipped_byte_in_one_block_is_found(link: Link):
    source = blocks(link.producer_pool, 64, seed=6)
    link.table.offer("kv", source, lambda *_: None)
    source.regions[40].view[100] ^= 1
    destination = blocks(link.consumer_pool, 64, seed=7)
    with pytest.raises(CorruptTransfer, match="checksum"):
        await link.puller.pull(link.side.peer_info, "kv", destination, 20)
    destination.free()
    await until(lambda: link.table.num_leases == 0)


async def test_after_a_cancel_every_block_comes_back_when_nothing_can_land(kind: str):
    link = make_link(
        kind, producer_bytes=3 * NUM_BLOCKS * BLOCK, consumer_bytes=3 * NUM_BLOCKS * BLOCK
    )
    async with linked(link):
        source = blocks(link.producer_pool, NUM_BLOCKS, seed=8)
        write(source, 0, payload(NUM_BLOCKS * BLOCK).tobytes())
        link.table.offer("kv", source, lambda *_: None)
        for turns in range(0, 60, 6):
            regions = [link.consumer_pool.alloc(BLOCK) for _ in range(NUM_BLOCKS)]
            running = asyncio.create_task(
                link.puller.pull(link.side.peer_info, "kv", RegionList(regions), 20)
            )
            for _ in range(turns):
                await asyncio.sleep(0)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)
            for region in regions:
                region.free()
            await until(lambda: link.consumer_pool.used_bytes == 0)
            link.consumer_pool.buffer[:] = CANARY
        await until(lambda: link.table.num_leases == 0)
        assert (link.consumer_pool.buffer == CANARY).all()
