"""Embeddings that are asked for again after they had to make room: the cache is too small."""

from __future__ import annotations

import asyncio

import pytest

from redserve_encoder.dropped import DroppedContents
from redserve_encoder.fake import FakeVision
from tests.encoder.support import MIB, Bench, Gate, bench, item, picture, published

# 64 rows of 4 KiB: four embeddings fill a pool of 1 MiB.
WIDE = 1024
RETURNS = "redserve_encoder_cache_returns_total"
MISSES = "redserve_encoder_cache_misses_total"
EVICTIONS = "redserve_encoder_cache_evictions_total"


def large(shade: int) -> bytes:
    return picture(128, 128, shade)


async def rotate(b: Bench, num_pictures: int, rounds: int) -> None:
    """One picture after the other, again and again."""
    for turn in range(rounds):
        for shade in range(num_pictures):
            events = await b.encode(f"r{turn}-{shade}", [item(0, large(shade))])
            assert published(events) == [0]
            await b.replica.reception.ledger.wait_empty()


@pytest.mark.parametrize("num_pictures", [5, 9])
async def test_a_rotation_that_does_not_fit_is_counted(num_pictures: int) -> None:
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        await rotate(b, num_pictures, 1)
        assert b.metric(EVICTIONS) == num_pictures - 4
        assert b.metric(RETURNS) == 0  # all of them are new
        await rotate(b, num_pictures, 2)
        assert b.metric(RETURNS) == 2 * num_pictures
        assert b.metric(MISSES) == 3 * num_pictures


async def test_a_rotation_that_fits_is_not() -> None:
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        await rotate(b, 4, 3)
        assert b.metric(RETURNS) == b.metric(EVICTIONS) == 0
        assert b.metric(MISSES) == 4


async def test_pictures_that_never_come_again_are_not() -> None:
    async with bench(FakeVision(hidden_size=WIDE), pool_bytes=MIB) as b:
        await rotate(b, 12, 1)
        assert b.metric(EVICTIONS) == 8
        assert b.metric(RETURNS) == 0


async def test_a_return_is_counted_once_however_many_wait_for_it() -> None:
    gate = Gate(is_open=True)
    async with bench(FakeVision(hidden_size=WIDE, wait=gate), pool_bytes=MIB) as b:
        await rotate(b, 5, 1)
        gate.is_open = False
        calls = [asyncio.create_task(b.encode(f"{n}", [item(0, large(0))])) for n in range(3)]
        await b.waiting(3)
        assert b.metric(RETURNS) == 1
        gate.open()
        for call in calls:
            assert published(await call) == [0]
        assert b.metric(RETURNS) == 1


def test_only_the_latest_are_remembered() -> None:
    dropped = DroppedContents(max_remembered=2)
    for content in (b"a", b"b", b"a", b"c"):
        dropped.add(content)
    assert len(dropped) == 2
    assert not dropped.take(b"b")
    assert dropped.take(b"a")
    assert not dropped.take(b"a")
    assert dropped.take(b"c")
    assert not len(dropped)
