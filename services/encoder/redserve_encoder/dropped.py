"""Which embeddings had to make room."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

MAX_REMEMBERED: Final = 1 << 16
"""Hashes that are remembered; they take some 14 MB at most."""


class DroppedContents:
    """Hashes of what was dropped, the latest of them. Not thread-safe: the event loop owns it.

    What is asked for again although it was here tells that the cache is too small. What was
    dropped so long ago that as many others followed as are remembered counts as never seen.

    Args:
        max_remembered: How many; the oldest are forgotten.
    """

    def __init__(self, max_remembered: int = MAX_REMEMBERED) -> None:
        self._max_remembered = max_remembered
        self._hashes: OrderedDict[bytes, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._hashes)

    def add(self, content_hash: bytes) -> None:
        """It has just been dropped."""
        self._hashes[content_hash] = None
        self._hashes.move_to_end(content_hash)
        if len(self._hashes) > self._max_remembered:
            self._hashes.popitem(last=False)

    def take(self, content_hash: bytes) -> bool:
        """Whether it was dropped; from now on it is not, for it will be made again."""
        if content_hash not in self._hashes:
            return False
        del self._hashes[content_hash]
        return True
