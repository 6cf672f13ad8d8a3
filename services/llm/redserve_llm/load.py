"""How busy the replica is, and telling it to whoever watches. The event loop owns it."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from redserve.scheduling import SchedulerStats

LEAST_INTERVAL_S = 0.005


@dataclass(frozen=True, slots=True)
class LlmLoad:
    """A snapshot.

    Attributes:
        num_waiting: Sequences waiting or preempted.
        num_running: Sequences running.
        schedulable_tokens: Tokens that could be computed now.
        waiting_tokens: Tokens of waiting sequences that are not computed, ready or not.
        blocks_free: Blocks nobody holds, cached ones included.
        blocks_total: All blocks.
        serving: Whether new work is taken.
        arena_bytes: Arena bytes in use.
    """

    num_waiting: int = 0
    num_running: int = 0
    schedulable_tokens: int = 0
    waiting_tokens: int = 0
    blocks_free: int = 0
    blocks_total: int = 0
    serving: bool = False
    arena_bytes: int = 0


class LoadBoard:
    """The latest load; wakes watchers when it changes.

    Args:
        arena_bytes: Reads the bytes in use.
    """

    def __init__(self, arena_bytes: Callable[[], int]) -> None:
        self._arena_bytes = arena_bytes
        self._stats: SchedulerStats | None = None
        self._serving = False
        self._changed = asyncio.Event()

    def post(self, stats: SchedulerStats) -> None:
        """There are new figures of the scheduler."""
        self._stats = stats
        self._wake()

    def set_serving(self, *, serving: bool) -> None:
        """Say whether new work is taken."""
        self._serving = serving
        self._wake()

    def read(self) -> LlmLoad:
        """The load now."""
        stats = self._stats
        if stats is None:
            return LlmLoad(serving=self._serving, arena_bytes=self._arena_bytes())
        return LlmLoad(
            num_waiting=stats.num_waiting + stats.num_preempted,
            num_running=stats.num_running,
            schedulable_tokens=stats.schedulable_tokens,
            waiting_tokens=stats.waiting_tokens,
            blocks_free=stats.blocks_free,
            blocks_total=stats.blocks_total,
            serving=self._serving,
            arena_bytes=self._arena_bytes(),
        )

    async def watch(self, min_interval_s: float) -> AsyncIterator[LlmLoad]:
        """The load at once, then whenever it differs, at most every `min_interval_s` seconds."""
        last: LlmLoad | None = None
        while True:
            changed = self._changed
            load = self.read()
            if load == last:
                await changed.wait()
                continue
            last = load
            yield load
            await asyncio.sleep(max(min_interval_s, LEAST_INTERVAL_S))

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()
