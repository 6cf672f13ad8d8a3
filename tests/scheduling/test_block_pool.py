"""One owner of blocks: nothing leaks, nothing is in two places."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from redserve.errors import InternalError
from redserve.scheduling.block_pool import BlockPool
from tests.strategies import effort


@effort(300)
@given(num_blocks=st.integers(1, 8), data=st.data())
def test_pool_stays_whole_under_any_use(num_blocks: int, data: st.DataObject) -> None:
    evicted: list[int] = []
    pool = BlockPool(num_blocks, 4, on_evict=evicted.append)
    tables: list[list[int]] = []
    kept: set[int] = set()
    for _ in range(data.draw(st.integers(0, 30))):
        action = data.draw(st.sampled_from(["allocate", "release", "keep", "acquire"]))
        if action == "allocate":
            count = data.draw(st.integers(0, num_blocks + 1))
            available = pool.num_available
            evicted.clear()
            blocks = pool.allocate(count)
            assert (blocks is None) == (count > available)
            if blocks is not None:
                assert len(set(blocks)) == count
                assert kept.intersection(blocks) == set(evicted)
                kept -= set(evicted)
                tables.append(blocks)
        elif action == "release" and tables:
            pool.release(tables.pop(data.draw(st.integers(0, len(tables) - 1))))
        elif action == "keep" and any(tables):
            block = data.draw(st.sampled_from(sorted({b for t in tables for b in t})))
            pool.keep(block)
            kept.add(block)
        elif action == "acquire" and kept:
            block = data.draw(st.sampled_from(sorted(kept)))
            pool.acquire([block])
            tables.append([block])
        pool.check_integrity(tables)
        held = {block for table in tables for block in table}
        assert pool.num_available == num_blocks - len(held)
        assert pool.num_cached == len(kept - held)


def test_the_block_released_first_is_evicted_first() -> None:
    evicted: list[int] = []
    pool = BlockPool(3, 4, on_evict=evicted.append)
    blocks = pool.allocate(3)
    assert blocks == [0, 1, 2]
    for block in blocks:
        pool.keep(block)
    pool.release([2, 0, 1])
    pool.touch([2])
    assert pool.allocate(2) == [0, 1]
    assert evicted == [0, 1]


def test_misuse_is_loud() -> None:
    pool = BlockPool(2, 4)
    with pytest.raises(InternalError, match="nobody holds it"):
        pool.release([0])
    with pytest.raises(InternalError, match="nobody holds it"):
        pool.keep(0)
    pool.allocate(1)
    with pytest.raises(InternalError, match="not kept"):
        pool.acquire([0])
    with pytest.raises(InternalError, match="differ from the block tables"):
        pool.check_integrity([])
    assert pool.blocks_for(0) == 0
    assert pool.blocks_for(4) == 1
    assert pool.blocks_for(5) == 2
