"""Whether a replica takes new work: it has started, goes on, and others can read from it.

Over TCP, others read by way of a process that may end and be replaced (`read_server`). When that
does not work, what is encoded here cannot be had, and other replicas serve better.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger

if TYPE_CHECKING:
    from collections.abc import Callable

log = get_logger()

PATIENCE_S = 3.0
"""A process to read from is replaced in a second or two."""


class Readiness:
    """Ready from `open` to `shut`, but for times when nobody can read. The event loop owns it.

    Args:
        tell: Called with every change; it begins with not ready, which nobody is told.
        patience_s: How long it may be that nobody can read, seconds.
    """

    def __init__(self, tell: Callable[[bool], None], patience_s: float = PATIENCE_S) -> None:
        self._tell = tell
        self._patience_s = patience_s
        self._loop = asyncio.get_running_loop()
        self._is_open = False
        self._was_open = False
        self._is_held_back = False
        self._is_ready = False  # as was told
        self._timer: asyncio.TimerHandle | None = None

    def open(self) -> None:
        """New work is welcome from now on."""
        self._is_open = self._was_open = True
        self._update()

    def shut(self) -> None:
        """No new work any more. Idempotent."""
        self._is_open = False
        self._stop_timer()
        self._update()

    def readable(self, readable: bool) -> None:
        """Others can read from here, or cannot; in any thread."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._changed, readable)

    def _changed(self, readable: bool) -> None:
        if not readable:
            if self._timer is None and (self._is_open or not self._was_open):
                self._timer = self._loop.call_later(self._patience_s, self._hold_back)
            return
        self._stop_timer()
        if self._is_held_back:
            log.warning("embeddings can be read again")
        self._is_held_back = False
        self._update()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _hold_back(self) -> None:
        log.warning("nobody can read embeddings from here: no new items until somebody can")
        self._is_held_back = True
        self._update()

    def _update(self) -> None:
        ready = self._is_open and not self._is_held_back
        if ready != self._is_ready:
            self._is_ready = ready
            self._tell(ready)
