"""Cuts a tensor into what a one-sided read moves at once.

Source and destination are strings of bytes that lie in pieces of their own. Each transfer is a
list of pairs (where it lands, where it lies, size): as few as the pieces allow, and never more
bytes or pairs than a transfer may have, because a transfer that has begun cannot be cancelled.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from redserve.transport.buffer import Segment

CHUNK_BYTES: Final = 8 << 20
"""Most bytes of one transfer: a millisecond of RDMA or shared memory."""
MAX_PAIRS: Final = 1024
"""Most pairs of one transfer; each costs the NIC a work request."""


@dataclass(frozen=True, slots=True)
class Pair:
    """Bytes that lie together at both ends; offsets are in the pools.

    Attributes:
        landing: Where they land, in the consumer's pool.
        source: Where they lie, in the producer's pool.
        num_bytes: How many.
    """

    landing: int
    source: int
    num_bytes: int


def pairs(landing: Iterable[Segment], source: Iterable[Segment]) -> Iterator[Pair]:
    """The longest pieces that lie together at both ends, in order.

    Raises:
        ValueError: The two have different sizes.
    """
    sources = iter(source)
    at = left = 0
    for segment in landing:
        position, wanted = segment.offset, segment.num_bytes
        while wanted:
            if not left:
                following = next(sources, None)
                if following is None:
                    raise ValueError("the destination is larger than the source")
                at, left = following.offset, following.num_bytes
                continue
            size = min(wanted, left)
            yield Pair(position, at, size)
            position, wanted = position + size, wanted - size
            at, left = at + size, left - size
    if left or any(segment.num_bytes for segment in sources):
        raise ValueError("the source is larger than the destination")


def transfers(
    landing: Iterable[Segment],
    source: Iterable[Segment],
    *,
    chunk_bytes: int = CHUNK_BYTES,
    max_pairs: int = MAX_PAIRS,
) -> Iterator[tuple[Pair, ...]]:
    """The transfers that move a tensor, in order; see the module.

    Raises:
        ValueError: The two have different sizes.
    """
    batch: list[Pair] = []
    room = chunk_bytes
    for pair in pairs(landing, source):
        position = 0
        while position < pair.num_bytes:
            size = min(pair.num_bytes - position, room)
            batch.append(Pair(pair.landing + position, pair.source + position, size))
            position += size
            room -= size
            if not room or len(batch) == max_pairs:
                yield tuple(batch)
                batch, room = [], chunk_bytes
    if batch:
        yield tuple(batch)
