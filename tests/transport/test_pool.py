from __future__ import annotations

import asyncio
import random
import threading

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import Overloaded
from redserve.transport.pool import Pool, Region
from tests.strategies import effort

PAGE = 64


@pytest.mark.parametrize("page_bytes", [64, 4096, 1 << 16])
def test_memory_is_aligned_touched_and_shared_by_views(page_bytes: int):
    pool = Pool(10 * page_bytes + 1, page_bytes)
    assert pool.num_bytes == 11 * page_bytes
    assert not pool.buffer.any()
    pool.alloc(1)
    region = pool.alloc(page_bytes + 1)
    assert region.view.ctypes.data % 64 == 0
    assert pool.buffer.ctypes.data % 4096 == 0
    assert len(region.view) == len(region.view.data) == page_bytes + 1
    region.view.data[0:1] = b"\x07"
    assert region.view[0] == pool.buffer[region.offset] == 7


def test_exhaustion_is_typed_and_names_the_figures():
    pool = Pool(4 * PAGE, PAGE)
    kept = pool.alloc(3 * PAGE)
    assert pool.try_alloc(2 * PAGE) is None
    with pytest.raises(Overloaded, match="192 of 256") as caught:
        pool.alloc(2 * PAGE)
    assert caught.value.retry_after_s is not None
    with pytest.raises(Overloaded, match="larger pool") as too_large:
        pool.alloc(5 * PAGE)
    assert too_large.value.retry_after_s is None
    kept.free()
    pool.alloc(4 * PAGE)


@pytest.mark.parametrize("num_bytes", [0, -1])
async def test_nothing_is_no_region(num_bytes: int):
    pool = Pool(PAGE, PAGE)
    with pytest.raises(ValueError, match="at least one byte"):
        pool.alloc(num_bytes)
    with pytest.raises(ValueError, match="at least one byte"):
        await pool.alloc_wait(num_bytes, 1)


@pytest.mark.parametrize(("num_bytes", "page_bytes"), [(0, 64), (64, 0), (64, 100)])
def test_odd_pools_are_refused(num_bytes: int, page_bytes: int):
    with pytest.raises(ValueError, match="no pool"):
        Pool(num_bytes, page_bytes)


def test_a_held_region_returns_after_the_last_unhold():
    pool = Pool(4 * PAGE, PAGE)
    region = pool.alloc(2 * PAGE)
    region.hold()
    region.hold()
    region.free()
    region.free()
    assert (pool.used_bytes, pool.quarantined_bytes) == (2 * PAGE, 2 * PAGE)
    region.unhold()
    assert pool.try_alloc(3 * PAGE) is None
    region.unhold()
    assert (pool.used_bytes, pool.quarantined_bytes) == (0, 0)
    with pytest.raises(RuntimeError):
        region.unhold()
    with pytest.raises(RuntimeError):
        region.hold()


def test_a_hold_that_ends_first_changes_nothing():
    pool = Pool(4 * PAGE, PAGE)
    region = pool.alloc(1)
    region.hold()
    region.unhold()
    assert pool.used_bytes == PAGE
    region.free()
    assert pool.used_bytes == 0


actions = st.lists(
    st.tuples(st.sampled_from(["alloc", "free", "hold", "unhold"]), st.integers(0, 2**16)),
    max_size=80,
)


@effort(200)
@given(actions)
def test_regions_never_overlap_and_every_page_is_accounted_for(steps: list[tuple[str, int]]):
    pool = Pool(32 * PAGE, PAGE)
    live: list[Region] = []  # owned or held
    holds: dict[int, int] = {}
    for action, number in steps:
        if action == "alloc":
            region = pool.try_alloc(1 + number % (12 * PAGE))
            if region is not None:
                live.append(region)
        elif live:
            region = live[number % len(live)]
            held = holds.get(id(region), 0)
            if action == "hold" and (held or not region.freed):
                region.hold()
                holds[id(region)] = held + 1
            elif action == "unhold" and held:
                region.unhold()
                holds[id(region)] = held - 1
            elif action == "free":
                region.free()
        live = [r for r in live if not r.freed or holds.get(id(r), 0)]
        pages = [p for r in live for p in range(r.offset // PAGE, r.offset // PAGE + r.num_pages)]
        assert len(set(pages)) == len(pages)
        assert pool.used_bytes == len(pages) * PAGE
        quarantined = sum(r.num_pages for r in live if r.freed) * PAGE
        assert pool.quarantined_bytes == quarantined
    for region in live:
        region.free()
        for _ in range(holds.get(id(region), 0)):
            region.unhold()
    assert pool.used_bytes == 0
    pool.alloc(32 * PAGE)  # all holes have merged


def test_threads_never_share_bytes():
    pool = Pool(64 * PAGE, PAGE)
    broken: list[int] = []

    def work(number: int) -> None:
        rng = random.Random(number)
        for _ in range(400):
            region = pool.try_alloc(rng.randint(1, 20 * PAGE))
            if region is None:
                continue
            region.view[:] = number
            if not (region.view == number).all():
                broken.append(number)
            region.free()

    threads = [threading.Thread(target=work, args=(n,)) for n in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert broken == []
    assert pool.used_bytes == 0


def test_changes_are_told():
    pool = Pool(4 * PAGE, PAGE)
    told: list[tuple[int, int]] = []
    pool.on_change(lambda used, free: told.append((used, free)))
    region = pool.alloc(1)
    region.hold()
    region.free()
    region.unhold()
    assert told[0] == (0, 4 * PAGE)
    assert told[1] == (PAGE, 3 * PAGE)
    assert told[-1] == (0, 4 * PAGE)


async def test_waiting_for_room_is_served_in_order():
    pool = Pool(4 * PAGE, PAGE)
    first, second = pool.alloc(2 * PAGE), pool.alloc(2 * PAGE)
    order: list[str] = []

    async def want(name: str, pages: int) -> Region:
        region = await pool.alloc_wait(pages * PAGE, 10)
        order.append(name)
        return region

    large = asyncio.create_task(want("large", 4))
    await asyncio.sleep(0)
    small = asyncio.create_task(want("small", 1))
    await asyncio.sleep(0)
    first.free()
    await asyncio.sleep(0)
    assert order == []  # the small one would fit, but the large one came first
    second.free()
    (await large).free()
    (await small).free()
    assert order == ["large", "small"]
    assert pool.used_bytes == 0


async def test_waiting_ends_with_a_typed_error_and_lets_the_next_pass():
    pool = Pool(4 * PAGE, PAGE)
    kept = pool.alloc(3 * PAGE)
    large = asyncio.create_task(pool.alloc_wait(4 * PAGE, 0.05))
    await asyncio.sleep(0)
    small = asyncio.create_task(pool.alloc_wait(PAGE, 10))
    with pytest.raises(Overloaded):
        await large
    (await asyncio.wait_for(small, 5)).free()
    kept.free()
    assert pool.used_bytes == 0


async def test_what_can_never_fit_is_not_waited_for():
    with pytest.raises(Overloaded, match="larger pool"):
        await Pool(PAGE, PAGE).alloc_wait(2 * PAGE, 3600)


@pytest.mark.parametrize("free_first", [True, False])
async def test_a_waiter_that_is_cancelled_leaks_nothing(free_first: bool):
    pool = Pool(PAGE, PAGE)
    for turns in range(4):  # cancel before, while and after the region is handed over
        kept = pool.alloc(1)
        waiter = asyncio.create_task(pool.alloc_wait(1, 10))
        await asyncio.sleep(0)
        if free_first:
            kept.free()
        for _ in range(turns):
            await asyncio.sleep(0)
        waiter.cancel()
        kept.free()
        [result] = await asyncio.gather(waiter, return_exceptions=True)
        if isinstance(result, Region):
            result.free()
        for _ in range(3):
            await asyncio.sleep(0)
        assert pool.used_bytes == 0


async def test_room_made_by_another_thread_wakes_the_waiter():
    pool = Pool(PAGE, PAGE)
    kept = pool.alloc(1)
    waiter = asyncio.create_task(pool.alloc_wait(1, 10))
    await asyncio.sleep(0)
    await asyncio.to_thread(kept.free)
    (await asyncio.wait_for(waiter, 5)).free()
    assert pool.used_bytes == 0
