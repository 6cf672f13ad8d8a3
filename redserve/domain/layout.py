"""Which prompt positions are embedding rows, and of which item."""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.domain.item import Item


@dataclass(frozen=True, slots=True)
class Segment:
    """Prompt positions [start, end) that rows [row_start, row_start + end - start) of an item fill.

    A segment is one span; `index` is its place among all segments of the prompt.
    """

    index: int
    start: int
    end: int
    item_index: int
    row_start: int

    @property
    def row_end(self) -> int:
        """One past its last row."""
        return self.row_start + self.end - self.start

    def rows_below(self, position: int) -> int:
        """Rows of the item that lie before `position`, for a position inside the segment."""
        return self.row_start + min(max(position - self.start, 0), self.end - self.start)


class MediaLayout:
    """The spans of all items of one prompt, in prompt order.

    Args:
        items: In prompt order, `items[i].index == i`; their spans do not overlap.
    """

    __slots__ = ("_starts", "_starts_of", "items", "segments")

    def __init__(self, items: tuple[Item, ...]) -> None:
        self.items = items
        placed: list[tuple[int, int, int, int]] = []
        for item in items:
            row = 0
            for span in item.spans:
                placed.append((span.start, span.end, item.index, row))
                row += span.length
        placed.sort()
        self.segments = tuple(Segment(n, *place) for n, place in enumerate(placed))
        self._starts = [segment.start for segment in self.segments]
        # Per item: starts of its spans, with their segments, to find a row by bisection.
        self._starts_of: list[tuple[list[int], list[Segment]]] = [([], []) for _ in items]
        for segment in self.segments:
            starts, segments = self._starts_of[segment.item_index]
            starts.append(segment.start)
            segments.append(segment)

    def segment_at(self, position: int) -> Segment | None:
        """The segment that holds `position`, or None for text."""
        n = bisect_right(self._starts, position) - 1
        if n >= 0 and position < self.segments[n].end:
            return self.segments[n]
        return None

    def overlapping(self, start: int, end: int) -> Iterator[Segment]:
        """Segments with at least one position in [start, end), in prompt order."""
        if not self.segments or start >= self.segments[-1].end:
            return
        n = max(bisect_right(self._starts, start) - 1, 0)
        while n < len(self.segments) and self.segments[n].start < end:
            if self.segments[n].end > start:
                yield self.segments[n]
            n += 1

    def segments_of(self, item_index: int) -> list[Segment]:
        """The segments of one item, in prompt order."""
        return self._starts_of[item_index][1]

    def rows_before(self, item_index: int, position: int) -> int:
        """Rows of the item that fill positions below `position`."""
        starts, segments = self._starts_of[item_index]
        n = bisect_right(starts, position) - 1
        return segments[n].rows_below(position) if n >= 0 else 0
