"""The router's own memory of what it sent where."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class RecentContents:
    """The contents or prefixes lately sent to one replica; the oldest are forgotten.

    Args:
        max_entries: How many to remember; about what the replica's cache can hold.
    """

    def __init__(self, max_entries: int) -> None:
        self._max_entries = max_entries
        self._entries: OrderedDict[bytes, None] = OrderedDict()

    def note(self, entries: Iterable[bytes]) -> None:
        """These were sent now."""
        for entry in entries:
            self._entries[entry] = None
            self._entries.move_to_end(entry)
        while len(self._entries) > self._max_entries:
            self._entries.popitem(last=False)

    def forget(self) -> None:
        """The replica restarted: its caches are empty."""
        self._entries.clear()

    def discard(self, entry: bytes) -> None:
        """The replica does not have it after all."""
        self._entries.pop(entry, None)

    def known(self, entries: Iterable[bytes]) -> frozenset[bytes]:
        """Those of `entries` that are remembered; cheaper than `contents` for a few."""
        return frozenset(entry for entry in entries if entry in self._entries)

    def contents(self) -> frozenset[bytes]:
        """What is remembered now."""
        return frozenset(self._entries)
