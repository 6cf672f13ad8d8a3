"""Which service is looked at next: pure, the time comes in.

    add ──▶ waiting (due at the end of its debounce) ──▶ taken ──▶ done ──▶ gone, or waiting again
              ▲                                             │
              └── retry after a back-off ◀── failed ◀───────┘

A service is with one worker at a time; a change that arrives meanwhile makes it wait again at once
when that worker is done.
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from redserve_operator.keys import ServiceKey
    from redserve_operator.kube.backoff import Backoff


@dataclass(slots=True)
class _Item:
    due: float
    failures: int = 0
    taken_at: float | None = None
    again_at: float | None = None
    waits: bool = True


@dataclass(slots=True)
class Agenda:
    """Services and when they are due.

    Attributes:
        debounce_s: How long the first change waits for others, seconds.
        backoff: Waits after failures in a row.
    """

    debounce_s: float
    backoff: Backoff
    _items: dict[ServiceKey, _Item] = field(default_factory=dict)
    _heap: list[tuple[float, ServiceKey]] = field(default_factory=list)

    def add(self, service: ServiceKey, now: float) -> None:
        """Something about it has changed."""
        self.add_after(service, self.debounce_s, now)

    def add_after(self, service: ServiceKey, delay_s: float, now: float) -> None:
        """Look at it after a delay; the earliest wish counts."""
        due = now + delay_s
        item = self._items.get(service)
        if item is None:
            self._items[service] = _Item(due)
        elif item.taken_at is not None:
            item.again_at = due if item.again_at is None else min(item.again_at, due)
            return
        elif item.waits and item.due <= due:
            return
        else:
            item.due, item.waits = due, True
        heapq.heappush(self._heap, (due, service))

    def next_due(self) -> float | None:
        """When the next service is due; None when none waits."""
        self._forget_outdated()
        return self._heap[0][0] if self._heap else None

    def take(self, now: float) -> ServiceKey | None:
        """The service that has been due for the longest; None when none is due."""
        self._forget_outdated()
        if not self._heap or self._heap[0][0] > now:
            return None
        _, service = heapq.heappop(self._heap)
        item = self._items[service]
        item.taken_at, item.waits = now, False
        return service

    def done(self, service: ServiceKey, now: float, again_after_s: float | None = None) -> None:
        """Its worker is done with it; look again after this time, None: when something changes.

        Never before the debounce is over: a look that asks for itself must not starve the others.
        """
        item = self._items[service]
        item.failures = 0
        after = None if again_after_s is None else max(self.debounce_s, again_after_s)
        self._give_back(service, item, now, after)

    def failed(
        self, service: ServiceKey, now: float, chance: float, at_least_s: float | None = None
    ) -> float:
        """Its worker failed; returns the seconds until it is tried again.

        Changes that arrived meanwhile wait for that time too: what fails must not fail faster
        because it is noisy.
        """
        item = self._items[service]
        item.failures += 1
        item.again_at = None
        wait = self.backoff.wait_s(item.failures, chance, at_least_s)
        self._give_back(service, item, now, wait)
        return wait

    def depth(self, now: float) -> int:
        """Number of services that are due and wait for a worker."""
        return sum(1 for item in self._items.values() if item.waits and item.due <= now)

    def oldest_s(self, now: float) -> float:
        """Time since the service that waits or is worked on the longest was due, seconds."""
        starts = [
            item.due
            for item in self._items.values()
            if item.taken_at is not None or (item.waits and item.due <= now)
        ]
        return now - min(starts) if starts else 0.0

    def failures(self, service: ServiceKey) -> int:
        """How often in a row it has failed."""
        item = self._items.get(service)
        return item.failures if item is not None else 0

    def _give_back(
        self, service: ServiceKey, item: _Item, now: float, after_s: float | None
    ) -> None:
        wishes = [item.again_at] if item.again_at is not None else []
        if after_s is not None:
            wishes.append(now + after_s)
        item.taken_at, item.again_at = None, None
        if not wishes:
            del self._items[service]
            return
        item.due, item.waits = min(wishes), True
        heapq.heappush(self._heap, (item.due, service))

    def _forget_outdated(self) -> None:
        # An entry of the heap counts only while the item still waits for that very time.
        while self._heap:
            due, service = self._heap[0]
            item = self._items.get(service)
            if item is not None and item.waits and item.due == due:
                return
            heapq.heappop(self._heap)
