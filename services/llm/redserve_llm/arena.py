"""The items of all live requests: which embeddings are wanted, announced, here, and used.

    EmbeddingReady ──► announce ──► Pulls ──► landed ──► engine.put_rows
                                                              │
    ItemNeeded ◄── rows_needed ◄── preempted, evicted ◄───────┤
                                                              ▼
                       freed ◄── rows_used, close ◄── a step has read them

The event loop owns the arena; nothing here blocks or awaits.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from redserve.errors import InternalError, InvalidArgument, RedServeError
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import get_logger
from redserve.telemetry.timeline import ABORTED, TRANSFER, Bar
from redserve.telemetry.words import DOUBLED, EVICTED, LATE, NOT_NEEDED
from redserve_llm.delivery import Announcement, Delivery, ItemSlot, RowShape, Shelf, State
from redserve_llm.pulls import Pulls

if TYPE_CHECKING:
    from collections.abc import Iterable

    from redserve.domain import SequenceKey, SequenceRequest
    from redserve.telemetry.metrics.llm import LLMMetrics
    from redserve.transport.pool import Pool
    from redserve.transport.puller import Puller
    from redserve_llm.runner.interface import ItemRows

log = get_logger()

PULL_TIMEOUT_S = 10.0
"""A pull that takes longer hangs: the router is told, and another encoder is asked."""


class RowSink(Protocol):
    """What the arena asks of the engine; see `Engine`."""

    def put_rows(self, key: SequenceKey, item_index: int, rows: ItemRows) -> bool:
        """Give rows."""
        ...

    def drop_rows(self, key: SequenceKey, item_index: int) -> bool:
        """Take rows back."""
        ...

    def priority(self, key: SequenceKey, item_index: int) -> tuple[int, int] | None:
        """Lower is needed earlier."""
        ...


class ItemListener(Protocol):
    """Who is told what becomes of the items of a request."""

    def item_landed(self, key: SequenceKey, item_index: int, attempt: int) -> None:
        """Rows are here."""
        ...

    def item_needed(self, key: SequenceKey, item_index: int, lost_attempt: int, why: str) -> None:
        """Rows must be sent (again), by a newer attempt than `lost_attempt`."""
        ...


class Arena:
    """Takes embeddings in and hands them to the engine.

    Args:
        pool: Where they land.
        puller: Moves bytes.
        engine: Takes the rows.
        listener: Is told.
        shape: Of every embedding.
        lane: Name of the replica in timelines.
        metrics: Of the process.
        overlap: Give rows to the engine item by item; else request by request, all at once, as
            far as they fit the pool together.
    """

    def __init__(
        self,
        pool: Pool,
        puller: Puller,
        engine: RowSink,
        listener: ItemListener,
        shape: RowShape,
        lane: str,
        metrics: LLMMetrics,
        *,
        overlap: bool = True,
    ) -> None:
        self._pool = pool
        self._pulls = Pulls(pool, puller, self)
        self._engine = engine
        self._listener = listener
        self._shape = shape
        self._lane = lane
        self._metrics = metrics
        self._overlap = overlap
        self._shelves: dict[SequenceKey, Shelf] = {}
        metrics.arena_bytes.set_function(lambda: pool.used_bytes)

    @property
    def used_bytes(self) -> int:
        """Bytes of embeddings that landed or are landing."""
        return self._pool.used_bytes

    def open(self, request: SequenceRequest, needed: Iterable[int], deadline: float | None) -> None:
        """Expect the items of a request that the engine has just admitted.

        Args:
            request: The request.
            needed: Items that the engine waits for.
            deadline: When the request is over, in event loop time; None for never.
        """
        wanted = frozenset(needed)
        slots = [
            ItemSlot(
                key=request.key,
                index=item.index,
                num_rows=item.num_rows,
                priority=self._engine.priority(request.key, item.index) or (0, 0),
                needed=item.index in wanted,
            )
            for item in request.items
        ]
        self._shelves[request.key] = Shelf(slots, deadline)

    def close(self, key: SequenceKey) -> None:
        """No step reads anything of the request any more: free all that it has."""
        shelf = self._shelves.pop(key, None)
        for slot in shelf.slots if shelf is not None else ():
            self._pulls.discard(slot)
        self._pulls.pump()

    def bars(self, key: SequenceKey) -> tuple[Bar, ...]:
        """Transfers and waits for room of a request so far."""
        shelf = self._shelves.get(key)
        return () if shelf is None else tuple(shelf.bars)

    async def shutdown(self) -> None:
        """Discard everything and wait for the pulls to end."""
        for key in list(self._shelves):
            self.close(key)
        await self._pulls.wait_idle()

    def announce(self, key: SequenceKey, item_index: int, announcement: Announcement) -> str | None:
        """An embedding can be pulled. Producers say so again to ask whether it is still wanted.

        Returns:
            None if it will be pulled and released; else why not, and the producer may drop it:
            whatever the request needs later, it needs by a newer attempt.

        Raises:
            InvalidArgument: There is no such item, it has another shape, or it never fits.
        """
        shelf = self._shelves.get(key)
        if shelf is None:
            why = f"generation {key.generation} of {key.request_id} is not live"
            return why if announcement.is_question else self._refuse(LATE, why)
        if item_index >= len(shelf.slots):
            raise InvalidArgument(
                f"the request has {len(shelf.slots)} items", field="tag.item_index"
            )
        slot = shelf.slots[item_index]
        self._shape.check(announcement.shape, announcement.dtype, slot.num_rows)
        num_bytes = self._shape.num_bytes(slot.num_rows, announcement.dtype)
        if num_bytes > self._pool.num_bytes:
            raise InvalidArgument(
                f"{num_bytes} bytes do not fit the arena of {self._pool.num_bytes}; use the LLM "
                "replica's dtype for the encoders, or raise arena_bytes",
                field="dtype",
            )
        if announcement.attempt == slot.last_attempt:
            return slot.told_again(announcement)
        if slot.last_attempt is not None and announcement.attempt < slot.last_attempt:
            why = f"attempt {slot.last_attempt} was announced already"
            return why if announcement.is_question else self._refuse(LATE, why)
        slot.last_attempt = announcement.attempt
        if not slot.needed:
            return self._refuse(NOT_NEEDED, "its rows are not needed (any more)")
        if slot.delivery is not None and slot.delivery.state is State.LANDED:
            return self._refuse(DOUBLED, "its rows are here already")
        self._pulls.discard(slot)  # the router has given an older attempt up
        slot.delivery = Delivery(slot, announcement, num_bytes)
        self._pulls.add(slot.delivery)
        self._pulls.pump()
        return None

    def rows_used(self, key: SequenceKey, item_index: int, row_end: int) -> None:
        """Rows below `row_end` are computed; the last one frees the item."""
        slot = self._slot(key, item_index)
        if slot is not None and row_end >= slot.num_rows:
            slot.needed = False
            self._pulls.discard(slot)
        self._pulls.pump()

    def rows_needed(self, key: SequenceKey, item_indices: Iterable[int]) -> None:
        """The engine has given rows up, or asks for them for the first time."""
        for item_index in item_indices:
            slot = self._slot(key, item_index)
            if slot is None:
                continue
            slot.needed = True
            if slot.delivery is None:
                self._ask_again(slot, slot.lost_why or "preempted")
            elif slot.delivery.is_put:
                self._put(slot.delivery)  # the region still holds every row: no need to ask
        self._pulls.pump()

    # -- what the pulls ask ----------------------------------------------------------------

    def landed(self, delivery: Delivery, started_ns: int) -> None:
        """See `PullOwner`."""
        slot = delivery.slot
        shelf = self._shelves[slot.key]
        self.took(delivery, TRANSFER, started_ns)
        self._listener.item_landed(slot.key, slot.index, delivery.announcement.attempt)
        if self._overlap:
            self._put(delivery)
        elif shelf.is_complete:
            for other in shelf.held:
                self._put(other)

    def lost(self, delivery: Delivery, started_ns: int, error: BaseException) -> None:
        """See `PullOwner`."""
        if isinstance(error, RedServeError):
            word = error.reason.lower()
        else:
            log.error("a pull failed", exc_info=error)
            word = InternalError.reason.lower()
        self.took(delivery, ABORTED, started_ns, word.replace("_", " "))
        self._pulls.discard(delivery.slot)
        self._metrics.items_dropped.labels(why=word).inc()
        self._ask_again(delivery.slot, word.replace("_", " "))

    def took(self, delivery: Delivery, name: str, start_ns: int, detail: str = "") -> None:
        """See `PullOwner`."""
        slot = delivery.slot
        shelf = self._shelves.get(slot.key)
        if shelf is not None:  # else its request has gone
            times = (start_ns, now_ns())
            shelf.bars.append(Bar(self._lane, name, *times, slot.index, slot.num_rows, detail))

    def evict(self, delivery: Delivery) -> bool:
        """See `PullOwner`."""
        slot = delivery.slot
        if delivery.is_put:
            if not self._engine.drop_rows(slot.key, slot.index):
                return False
            slot.lost_why = EVICTED  # and the engine's RowsNeeded tells the router
        self._pulls.discard(slot)
        self._metrics.items_dropped.labels(why=EVICTED).inc()
        if not delivery.is_put:
            self._ask_again(slot, EVICTED)
        return True

    def release_held(self) -> bool:
        """See `PullOwner`."""
        used = self._pool.used_bytes
        for shelf in self._shelves.values():
            for delivery in shelf.held:
                self._put(delivery)
        return self._pool.used_bytes < used

    def time_left(self, delivery: Delivery) -> float:
        """See `PullOwner`."""
        deadline = self._shelves[delivery.slot.key].deadline
        if deadline is None:
            return PULL_TIMEOUT_S
        return min(PULL_TIMEOUT_S, deadline - asyncio.get_running_loop().time())

    # -- small helpers ---------------------------------------------------------------------

    def _put(self, delivery: Delivery) -> None:
        slot = delivery.slot
        delivery.is_put = self._engine.put_rows(slot.key, slot.index, delivery.rows())
        if not delivery.is_put:  # the prefix cache covers it by now, or the request has ended
            slot.needed = False
            self._pulls.discard(slot)
            self._metrics.items_dropped.labels(why=NOT_NEEDED).inc()

    def _ask_again(self, slot: ItemSlot, why: str) -> None:
        slot.lost_why = ""
        self._listener.item_needed(slot.key, slot.index, slot.last_attempt or 0, why)

    def _slot(self, key: SequenceKey, item_index: int) -> ItemSlot | None:
        shelf = self._shelves.get(key)
        return None if shelf is None else shelf.slots[item_index]

    def _refuse(self, word: str, why: str) -> str:
        self._metrics.items_dropped.labels(why=word).inc()
        return why
