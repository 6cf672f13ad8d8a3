"""From the engine's thread to the event loop: every notice finds its call."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from redserve_llm.notices import Begun, Delta, Ended, Failed, Gone, RowsNeeded, RowsUsed, Worked

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.domain import SequenceKey
    from redserve.scheduling import SchedulerStats
    from redserve_llm.arena import Arena
    from redserve_llm.load import LoadBoard
    from redserve_llm.notices import Notice


@dataclass(frozen=True, slots=True)
class ItemLanded:
    """An embedding is in the arena."""

    item_index: int
    attempt: int


@dataclass(frozen=True, slots=True)
class ItemNeeded:
    """An embedding is needed (again)."""

    item_index: int
    lost_attempt: int
    why: str


CallEvent = Delta | Begun | Worked | Ended | Failed | ItemLanded | ItemNeeded


class Hub:
    """An `Outlet` and an `ItemListener`: hands everything to whoever serves the request.

    `notify`, `load` and `broken` may be called from any thread; the rest belongs to the loop.

    Args:
        loop: The event loop.
        board: Gets the load.

    Attributes:
        broke: Set when the engine will run no more step.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, board: LoadBoard) -> None:
        self._loop = loop
        self._board = board
        self._arena: Arena | None = None
        self._calls: dict[SequenceKey, asyncio.Queue[CallEvent]] = {}
        self._watched: dict[SequenceKey, int] = {}
        """How many of the arena's bars were told."""
        self._idle = asyncio.Event()
        self._idle.set()
        self.broke = asyncio.Event()

    def attach(self, arena: Arena) -> None:
        """Say who hears of rows. Before the engine starts."""
        self._arena = arena

    def open(self, key: SequenceKey, *, watched: bool = False) -> asyncio.Queue[CallEvent]:
        """A queue on which the events of a request come. A request has one at a time.

        Args:
            key: The request.
            watched: Whether transfers are told as they end.
        """
        queue: asyncio.Queue[CallEvent] = asyncio.Queue()
        self._calls[key] = queue
        if watched:
            self._watched[key] = 0
        self._idle.clear()
        return queue

    def close(self, key: SequenceKey, queue: asyncio.Queue[CallEvent]) -> None:
        """Nobody listens any more."""
        if self._calls.get(key) is queue:
            del self._calls[key]
            self._watched.pop(key, None)
        if not self._calls:
            self._idle.set()

    async def wait_idle(self) -> None:
        """Wait until nobody listens for any request."""
        await self._idle.wait()

    @property
    def num_calls(self) -> int:
        """Requests that somebody listens for."""
        return len(self._calls)

    # -- Outlet ----------------------------------------------------------------------------

    def notify(self, notices: Sequence[Notice]) -> None:
        """See `Outlet`."""
        self._loop.call_soon_threadsafe(self._dispatch, tuple(notices))

    def load(self, stats: SchedulerStats) -> None:
        """See `Outlet`."""
        self._loop.call_soon_threadsafe(self._board.post, stats)

    def broken(self, error: BaseException) -> None:
        """See `Outlet`."""
        self._loop.call_soon_threadsafe(self.broke.set)

    # -- ItemListener ----------------------------------------------------------------------

    def item_landed(self, key: SequenceKey, item_index: int, attempt: int) -> None:
        """See `ItemListener`."""
        self._tell(key, ItemLanded(item_index, attempt))
        num_told = self._watched.get(key)
        if num_told is not None and self._arena is not None:
            bars = self._arena.bars(key)
            self._watched[key] = len(bars)
            self._tell(key, Worked(key, bars[num_told:]))

    def item_needed(self, key: SequenceKey, item_index: int, lost_attempt: int, why: str) -> None:
        """See `ItemListener`."""
        self._tell(key, ItemNeeded(item_index, lost_attempt, why))

    def _dispatch(self, notices: Sequence[Notice]) -> None:
        assert self._arena is not None
        for notice in notices:
            if isinstance(notice, RowsUsed):
                self._arena.rows_used(notice.key, notice.item_index, notice.row_end)
            elif isinstance(notice, RowsNeeded):
                self._arena.rows_needed(notice.key, notice.item_indices)
            elif isinstance(notice, Gone):
                self._arena.close(notice.key)
            elif isinstance(notice, Ended | Failed):
                # Now: the arena forgets the request at the next notice.
                bars = (*notice.bars, *self._arena.bars(notice.key))
                self._tell(notice.key, replace(notice, bars=bars))
            else:
                self._tell(notice.key, notice)

    def _tell(self, key: SequenceKey, event: CallEvent) -> None:
        queue = self._calls.get(key)
        if queue is not None:
            queue.put_nowait(event)
