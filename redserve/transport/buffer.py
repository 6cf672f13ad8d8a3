"""Bytes of a pool that make one tensor: in one piece, or in many.

An embedding lies in one region. Paged KV blocks lie in many small ones, and travel as one tensor
all the same: the pieces of a buffer are one string of bytes, whatever the cuts.
"""

from __future__ import annotations

from bisect import bisect_right
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Protocol

import xxhash

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from redserve.transport.pool import Pool, Region


@dataclass(frozen=True, slots=True)
class Segment:
    """Bytes [offset, offset + num_bytes) of a pool."""

    offset: int
    num_bytes: int


class Buffer(Protocol):
    """A tensor's bytes in a pool; see `Region` for what hold, unhold and free mean."""

    @property
    def pool(self) -> Pool:
        """Where they are."""
        ...

    @property
    def num_bytes(self) -> int:
        """All of them."""
        ...

    @property
    def segments(self) -> tuple[Segment, ...]:
        """The pieces in order."""
        ...

    @property
    def freed(self) -> bool:
        """Whether the owner has given them up."""
        ...

    def hold(self) -> None:
        """Keep the pages from being reused."""
        ...

    def unhold(self) -> None:
        """End one hold."""
        ...

    def free(self) -> None:
        """Give them up."""
        ...


class RegionList:
    """Regions of one pool as one buffer. Owns none of them: `free` frees them all, once.

    Args:
        regions: At least one, in the order of the bytes.

    Raises:
        ValueError: None, or regions of several pools.
    """

    def __init__(self, regions: Sequence[Region]) -> None:
        self.regions = tuple(regions)
        if not self.regions:
            raise ValueError("a buffer has at least one region")
        self.pool = self.regions[0].pool
        if any(region.pool is not self.pool for region in self.regions):
            raise ValueError("the regions of a buffer are in one pool")
        self.segments = tuple(region.segments[0] for region in self.regions)
        self.num_bytes = sum(segment.num_bytes for segment in self.segments)

    @property
    def freed(self) -> bool:
        """Whether one of them was given up: then the tensor is not whole any more."""
        return any(region.freed for region in self.regions)

    def hold(self) -> None:
        """Hold every region; none when one of them cannot be held."""
        with ExitStack() as undo:
            for region in self.regions:
                region.hold()
                undo.callback(region.unhold)
            undo.pop_all()

    def unhold(self) -> None:
        """End one hold of every region."""
        for region in self.regions:
            region.unhold()

    def free(self) -> None:
        """Free every region; idempotent."""
        for region in self.regions:
            region.free()


def read(buffer: Buffer, start: int, end: int) -> memoryview:
    """Bytes [start, end) of a buffer; the memory itself where one piece of the host has them."""
    slab = buffer.pool.slab
    pieces = [slab.read(at, at + size) for at, size in _pieces(buffer, start, end)]
    return pieces[0] if len(pieces) == 1 else memoryview(b"".join(pieces))


def write(buffer: Buffer, start: int, data: bytes | memoryview) -> None:
    """Put `data` at byte `start` of a buffer; it must fit."""
    slab, position = buffer.pool.slab, 0
    view = memoryview(data)
    for at, size in _pieces(buffer, start, start + len(view)):
        slab.write(at, view[position : position + size])
        position += size


def checksum(buffer: Buffer) -> int:
    """xxh3_64 over all bytes in order."""
    slab = buffer.pool.slab
    if len(buffer.segments) == 1:
        (only,) = buffer.segments
        return xxhash.xxh3_64_intdigest(slab.read(only.offset, only.offset + only.num_bytes))
    digest = xxhash.xxh3_64()
    for segment in buffer.segments:
        digest.update(slab.read(segment.offset, segment.offset + segment.num_bytes))
    return digest.intdigest()


def _pieces(buffer: Buffer, start: int, end: int) -> Iterator[tuple[int, int]]:
    """(offset in the pool, size) of every piece of [start, end)."""
    ends = list(accumulate(segment.num_bytes for segment in buffer.segments))
    index = bisect_right(ends, start)
    while start < end:
        segment = buffer.segments[index]
        skipped = start - (ends[index] - segment.num_bytes)
        size = min(segment.num_bytes - skipped, end - start)
        yield segment.offset + skipped, size
        start += size
        index += 1
