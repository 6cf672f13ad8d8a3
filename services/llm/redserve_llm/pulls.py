"""Room for embeddings, and the pulls into it, first needed first.

    add ──► in line ──► room ──► pull ──► landed ──► discarded when used
               ▲          │
               │          └ none: what is needed later gives way. Rows that landed are evicted
               │            (the router sends them again), pulls under way go back in line.
               └──────────────────┘

So the item that is needed first always gets room, whatever came before it, and the oldest request
always proceeds: everything that may not give way to it is needed even earlier, and will be used.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from redserve.telemetry.clock import now_ns
from redserve.telemetry.timeline import ABORTED, ROOM
from redserve_llm.delivery import State

if TYPE_CHECKING:
    from redserve.transport.pool import Pool
    from redserve.transport.puller import Puller
    from redserve_llm.delivery import Delivery, ItemSlot

MAX_PULLS = 4
"""Pulls at once: enough to fill a link, few enough that the first in line is not slowed down."""


LEAST_WAIT_NS = 100_000
"""Waits for room that are shorter are no bar of their own: book-keeping takes as long."""


class PullOwner(Protocol):
    """Who decides what becomes of deliveries."""

    def landed(self, delivery: Delivery, started_ns: int) -> None:
        """All bytes are there."""
        ...

    def lost(self, delivery: Delivery, started_ns: int, error: BaseException) -> None:
        """It will not come; its region is free."""
        ...

    def took(self, delivery: Delivery, name: str, start_ns: int, detail: str = "") -> None:
        """A delivery, discarded or not, spent the time from `start_ns` until now on `name`."""
        ...

    def evict(self, delivery: Delivery) -> bool:
        """Discard a landed delivery for one that is needed earlier; False if it is being read."""
        ...

    def release_held(self) -> bool:
        """Nothing gives way: use what waits for company; whether that freed room at once."""
        ...

    def time_left(self, delivery: Delivery) -> float:
        """Longest time for a pull, seconds."""
        ...


class Pulls:
    """All deliveries that are in line, under way, or landed. The event loop owns it.

    Args:
        pool: The room.
        puller: Moves bytes.
        owner: Decides.
    """

    def __init__(self, pool: Pool, puller: Puller, owner: PullOwner) -> None:
        self._pool = pool
        self._puller = puller
        self._owner = owner
        self._deliveries: set[Delivery] = set()  # discarded ones not included
        self._running: set[Delivery] = set()  # those with a task, discarded ones included
        self._loop = asyncio.get_running_loop()
        self._is_due = False
        pool.on_change(self._room_changed)

    @property
    def deliveries(self) -> frozenset[Delivery]:
        """All that are not discarded."""
        return frozenset(self._deliveries)

    def add(self, delivery: Delivery) -> None:
        """Put a delivery in line; `pump` starts it."""
        delivery.in_line_ns = now_ns()
        self._deliveries.add(delivery)

    def discard(self, slot: ItemSlot) -> None:
        """Forget the delivery of an item. A pull under way frees its region when it has ended."""
        delivery, slot.delivery = slot.delivery, None
        if delivery is None:
            return
        self._deliveries.discard(delivery)
        if delivery.task is not None:
            delivery.task.cancel()
        else:
            delivery.free()

    def pump(self) -> None:
        """Start pulls as far as there is room. To be called after whatever may have made some."""
        while len(self._running) < MAX_PULLS:
            line = [d for d in self._deliveries if d.state is State.ANNOUNCED and d.task is None]
            if not line:
                return
            first = min(line, key=_priority)
            first.region = self._pool.try_alloc(first.num_bytes)
            if first.region is not None:
                self._start(first)
            elif not self._make_room(first):
                return

    def _room_changed(self, used_bytes: int, free_bytes: int) -> None:
        """A region that was freed while a transfer held it comes back later, in any thread."""
        if self._deliveries and not self._is_due and not self._loop.is_closed():
            self._is_due = True
            self._loop.call_soon_threadsafe(self._pump_due)

    def _pump_due(self) -> None:
        self._is_due = False
        self.pump()

    async def wait_idle(self) -> None:
        """Wait until no pull is under way."""
        tasks = [delivery.task for delivery in self._running if delivery.task is not None]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _make_room(self, first: Delivery) -> bool:
        """Make something that is needed later than `first` give way.

        Returns:
            Whether there is more room now. If not, it comes when a pull or a step ends.
        """
        if any(delivery.gives_way for delivery in self._running):
            return False
        later = [
            delivery
            for delivery in self._deliveries
            if delivery.region is not None and _priority(delivery) > _priority(first)
        ]
        for delivery in sorted(later, key=_priority, reverse=True):
            if delivery.task is not None:
                delivery.state = State.ANNOUNCED
                delivery.task.cancel()
                return False
            if self._owner.evict(delivery):
                return True
        return self._owner.release_held()

    def _start(self, delivery: Delivery) -> None:
        assert delivery.region is not None
        delivery.state = State.PULLING
        task = asyncio.get_running_loop().create_task(
            self._puller.pull(
                delivery.announcement.producer,
                delivery.announcement.tensor_key,
                delivery.region,
                self._owner.time_left(delivery),
            )
        )
        delivery.task = task
        self._running.add(delivery)
        started_ns = now_ns()
        if started_ns - delivery.in_line_ns >= LEAST_WAIT_NS:
            self._owner.took(delivery, ROOM, delivery.in_line_ns)
        # In a callback: a task that is cancelled before its first step never runs any `finally`.
        task.add_done_callback(lambda _: self._ended(delivery, task, started_ns))

    def _ended(self, delivery: Delivery, task: asyncio.Task[None], started_ns: int) -> None:
        self._running.discard(delivery)
        delivery.task = None
        error = None if task.cancelled() else task.exception()
        if task.cancelled() or delivery.slot.delivery is not delivery:
            # Discarded, or back in line; one that was faster than its cancel just goes on.
            why = "gave way" if delivery.slot.delivery is delivery else "given up"
            self._owner.took(delivery, ABORTED, started_ns, why)
            delivery.state = State.ANNOUNCED
            delivery.in_line_ns = now_ns()
            delivery.free()
        elif error is not None:
            delivery.free()
            self._owner.lost(delivery, started_ns, error)
        else:
            delivery.state = State.LANDED
            self._owner.landed(delivery, started_ns)
        self.pump()


def _priority(delivery: Delivery) -> tuple[int, int]:
    return delivery.slot.priority
