"""Whether a replica takes new work: it has started, goes on, and can land embeddings.

A transfer that hangs keeps its destination from being used again: the pages are quarantined. When
too much of the arena is, requests would only queue for room, and other replicas serve them better.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.transport.pool import Pool

log = get_logger()

PATIENCE_S = 0.5
"""A transfer that was cancelled ends within milliseconds; what takes longer than this hangs."""


class Readiness:
    """Ready from `open` to `shut`, but for times of too much quarantine. The event loop owns it.

    Args:
        pool: Where embeddings land.
        quarantine_percent: Most of it that may be quarantined for longer than `patience_s`.
        tell: Called with every change; it begins with not ready, which nobody is told.
        patience_s: Seconds.
    """

    def __init__(
        self,
        pool: Pool,
        quarantine_percent: int,
        tell: Callable[[bool], None],
        patience_s: float = PATIENCE_S,
    ) -> None:
        self._pool = pool
        self._percent = quarantine_percent
        self._tell = tell
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._is_above = False  # as of the last look
        self._is_held_back = False
        self._is_ready = False  # as was told
        self._timer: asyncio.TimerHandle | None = None
        pool.on_change(self._pool_changed)

    def open(self) -> None:
        """New work is welcome from now on."""
        self._is_open = True
        self._update()

    def shut(self) -> None:
        """No new work any more. Idempotent."""
        self._is_open = False
        self._update()

    def _pool_changed(self, used_bytes: int, free_bytes: int) -> None:
        """In any thread: only a crossing of the limit is worth a turn of the loop."""
        if self._exceeds() != self._is_above:
            with suppress(RuntimeError):  # the loop is closed
                self._loop.call_soon_threadsafe(self._look)

    def _look(self) -> None:
        # Looked at again after it was noted: a crossing in between found the old note.
        while (exceeds := self._exceeds()) != self._is_above:
            self._is_above = exceeds
        if self._is_above and not self._is_held_back and self._timer is None:
            self._timer = self._loop.call_later(self._patience_s, self._hold_back)
        elif not self._is_above:
            self._let_go()

    def _hold_back(self) -> None:
        self._timer = None
        self._is_held_back = True
        log.warning(
            "transfers hang: no new requests until their room can be used again",
            quarantined_bytes=self._pool.quarantined_bytes,
            arena_bytes=self._pool.num_bytes,
            limit_percent=self._percent,
        )
        self._update()

    def _let_go(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._is_held_back:
            self._is_held_back = False
            log.warning(
                "the room of hanging transfers can be used again",
                quarantined_bytes=self._pool.quarantined_bytes,
                arena_bytes=self._pool.num_bytes,
            )
            self._update()

    def _exceeds(self) -> bool:
        return self._pool.quarantined_bytes * 100 > self._pool.num_bytes * self._percent

    def _update(self) -> None:
        ready = self._is_open and not self._is_held_back
        if ready != self._is_ready:
            self._is_ready = ready
            self._tell(ready)
