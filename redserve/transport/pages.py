"""Which pages of a slab are free: first fit, neighbours merged. Not thread-safe by itself."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass


@dataclass(slots=True)
class _Extent:
    """A run of free pages."""

    first: int
    count: int


class PageAllocator:
    """Runs of pages out of [0, num_pages)."""

    def __init__(self, num_pages: int) -> None:
        self._extents = [_Extent(0, num_pages)]  # by first page, never adjacent
        self.num_free = num_pages

    def take(self, count: int) -> int | None:
        """First page of a run of `count` pages; None when there is no such run."""
        for index, extent in enumerate(self._extents):
            if extent.count < count:
                continue
            first = extent.first
            if extent.count == count:
                del self._extents[index]
            else:
                extent.first += count
                extent.count -= count
            self.num_free -= count
            return first
        return None

    def give_back(self, first: int, count: int) -> None:
        """Return a run that `take` gave."""
        extents = self._extents
        index = bisect_left(extents, first, key=lambda extent: extent.first)
        extents.insert(index, _Extent(first, count))
        for left in (index, index - 1):  # merge with the right neighbour, then with the left one
            if left < 0 or left + 1 >= len(extents):
                continue
            extent, right = extents[left], extents[left + 1]
            if extent.first + extent.count == right.first:
                extent.count += right.count
                del extents[left + 1]
        self.num_free += count
