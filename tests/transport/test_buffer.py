from __future__ import annotations

from itertools import pairwise

import pytest
import xxhash
from hypothesis import given
from hypothesis import strategies as st

from redserve.transport.buffer import RegionList, Segment, checksum, read, write
from redserve.transport.cutting import Pair, pairs, transfers
from redserve.transport.pool import Pool
from tests.strategies import effort
from tests.transport.links import payload

PAGE = 64


def scattered(sizes: list[int]) -> RegionList:
    """Regions with a gap before each."""
    pool = Pool(sum(-(-size // PAGE) * PAGE + PAGE for size in sizes), PAGE)
    regions = []
    for size in sizes:
        pool.alloc(1)
        regions.append(pool.alloc(size))
    return RegionList(regions)


sizes_lists = st.lists(st.integers(1, 200), min_size=1, max_size=8)


@effort(200)
@given(sizes_lists, st.data())
def test_the_pieces_of_a_buffer_are_one_string_of_bytes(sizes: list[int], data: st.DataObject):
    buffer = scattered(sizes)
    expected = bytearray(payload(buffer.num_bytes).tobytes())
    write(buffer, 0, bytes(expected))
    start = data.draw(st.integers(0, buffer.num_bytes - 1))
    end = data.draw(st.integers(start + 1, buffer.num_bytes))
    write(buffer, start, b"\xa5" * (end - start))
    expected[start:end] = b"\xa5" * (end - start)
    assert bytes(read(buffer, 0, buffer.num_bytes)) == expected
    assert bytes(read(buffer, start, end)) == expected[start:end]
    assert checksum(buffer) == xxhash.xxh3_64_intdigest(bytes(expected))
    touched = sum(int((region.pool.buffer != 0).sum()) for region in buffer.regions[:1])
    assert touched <= buffer.num_bytes, "bytes between the pieces were written"


def test_a_buffer_is_held_and_freed_as_one():
    buffer = scattered([10, 100, 1000])
    pool = buffer.pool
    before = pool.used_bytes
    buffer.hold()
    buffer.free()
    buffer.free()
    assert buffer.freed
    assert pool.used_bytes == before
    assert pool.quarantined_bytes == sum(-(-size // PAGE) * PAGE for size in (10, 100, 1000))
    buffer.unhold()
    assert pool.quarantined_bytes == 0
    assert pool.used_bytes == 3 * PAGE


def test_a_buffer_has_regions_of_one_pool():
    with pytest.raises(ValueError, match="at least one"):
        RegionList([])
    with pytest.raises(ValueError, match="one pool"):
        RegionList([Pool(PAGE).alloc(1), Pool(PAGE).alloc(1)])


def segments(sizes: list[int], gap: int) -> tuple[Segment, ...]:
    made, offset = [], 0
    for size in sizes:
        made.append(Segment(offset, size))
        offset += size + gap
    return tuple(made)


@st.composite
def equal_cuts(draw: st.DrawFn) -> tuple[tuple[Segment, ...], tuple[Segment, ...]]:
    """The same number of bytes, cut in two ways."""
    total = draw(st.integers(1, 300))

    def cut() -> list[int]:
        inner = {0, total, *draw(st.lists(st.integers(1, total), max_size=8))}
        edges = sorted(inner)
        return [end - start for start, end in pairwise(edges)]

    return segments(cut(), draw(st.integers(0, 9))), segments(cut(), draw(st.integers(0, 9)))


def places(pieces: tuple[Segment, ...]) -> list[int]:
    return [piece.offset + n for piece in pieces for n in range(piece.num_bytes)]


@effort(300)
@given(equal_cuts(), st.integers(1, 64), st.integers(1, 5))
def test_transfers_move_every_byte_once_and_in_order(cuts, chunk_bytes: int, max_pairs: int):
    landing, source = cuts
    made = list(transfers(landing, source, chunk_bytes=chunk_bytes, max_pairs=max_pairs))
    moved = [
        (pair.landing + n, pair.source + n)
        for batch in made
        for pair in batch
        for n in range(pair.num_bytes)
    ]
    assert moved == list(zip(places(landing), places(source), strict=True))
    for batch in made:
        assert 1 <= len(batch) <= max_pairs
        assert all(pair.num_bytes for pair in batch)
        assert sum(pair.num_bytes for pair in batch) <= chunk_bytes
    for batch in made[:-1]:  # no transfer ends before it must
        assert len(batch) == max_pairs or sum(pair.num_bytes for pair in batch) == chunk_bytes


def test_a_transfer_has_at_most_8_mib_and_1024_pairs():
    """What has begun cannot be cancelled, and each pair costs a NIC a work request."""
    small = tuple(Segment(2 * n, 1) for n in range(3000))
    assert [len(batch) for batch in transfers(small, small)] == [1024, 1024, 952]
    large = (Segment(0, 20 << 20),)
    sizes = [sum(pair.num_bytes for pair in batch) for batch in transfers(large, large)]
    assert sizes == [8 << 20, 8 << 20, 4 << 20]


def test_pieces_that_lie_together_at_both_ends_are_one_pair():
    assert list(pairs(segments([30], 0), segments([10, 20], 5))) == [
        Pair(0, 0, 10),
        Pair(10, 15, 20),
    ]
    assert list(pairs(segments([10, 20], 5), segments([10, 20], 7))) == [
        Pair(0, 0, 10),
        Pair(15, 17, 20),
    ]


@pytest.mark.parametrize(("landing", "source"), [([3], [2]), ([2], [3]), ([2], [2, 1]), ([1], [])])
def test_sizes_that_differ_are_refused(landing: list[int], source: list[int]):
    with pytest.raises(ValueError, match="larger"):
        list(pairs(segments(landing, 0), segments(source, 0)))


def test_a_buffer_that_cannot_be_held_whole_is_not_held_in_part():
    buffer = scattered([10, 20, 30])
    buffer.regions[2].free()
    with pytest.raises(RuntimeError):
        buffer.hold()
    buffer.free()
    assert all(region.gone for region in buffer.regions)
