"""How busy the encoder is, and telling it to whoever watches."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

LEAST_INTERVAL_S = 0.005


@dataclass(frozen=True, slots=True)
class EncoderLoad:
    """A snapshot.

    Attributes:
        queued_rows: Rows that wait to be encoded.
        running_rows: Rows on the device.
        num_items: Items that wait or are on the device.
        cache_bytes: Bytes of embeddings in the pool, held or cached.
        serving: Whether new work is taken.
    """

    queued_rows: int
    running_rows: int
    num_items: int
    cache_bytes: int
    serving: bool


class LoadWatch:
    """Wakes watchers when something changed; they read the load themselves."""

    def __init__(self, read: Callable[[], EncoderLoad]) -> None:
        self._read = read
        self._changed = asyncio.Event()

    def changed(self) -> None:
        """Something that the load shows may have changed. Cheap; call it often."""
        self._changed.set()
        self._changed = asyncio.Event()

    async def watch(self, min_interval_s: float) -> AsyncIterator[EncoderLoad]:
        """The load at once, then whenever it differs, at most every `min_interval_s` seconds."""
        last: EncoderLoad | None = None
        while True:
            changed = self._changed
            load = self._read()
            if load != last:
                last = load
                yield load
                await asyncio.sleep(max(min_interval_s, LEAST_INTERVAL_S))
            else:
                await changed.wait()
