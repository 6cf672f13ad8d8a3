"""The keyed queue: `Agenda` with a clock and waiting workers."""

from __future__ import annotations

import asyncio
import random
import time
from typing import TYPE_CHECKING

from redserve_operator.agenda import Agenda

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve_operator.keys import ServiceKey
    from redserve_operator.kube.backoff import Backoff


class WorkQueue:
    """Services to look at; for one event loop.

    Args:
        debounce_s: How long the first change of a service waits for others, seconds.
        backoff: Waits after failures in a row.
        clock: Monotonic seconds.
    """

    def __init__(
        self, debounce_s: float, backoff: Backoff, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._agenda = Agenda(debounce_s, backoff)
        self._clock = clock
        self._changed = asyncio.Event()
        self._closed = False

    def add(self, service: ServiceKey) -> None:
        """Something about it has changed."""
        self._agenda.add(service, self._clock())
        self._changed.set()

    def close(self) -> None:
        """Hand out nothing more."""
        self._closed = True
        self._changed.set()

    async def take(self) -> ServiceKey | None:
        """Wait for a service that is due; its caller owes `done` or `failed`.

        None when the queue has been closed. Lets other tasks run first, even when one is due: a
        worker whose looks need no answer of anybody would else keep the event loop to itself.
        """
        await asyncio.sleep(0)
        while True:
            if self._closed:
                return None
            # Cleared before looking: a change after the look wakes the wait below.
            self._changed.clear()
            service = self._agenda.take(self._clock())
            if service is not None:
                # Another worker may find the next one due already.
                self._changed.set()
                return service
            due = self._agenda.next_due()
            try:
                async with asyncio.timeout(None if due is None else max(0.0, due - self._clock())):
                    await self._changed.wait()
            except TimeoutError:
                continue

    def done(self, service: ServiceKey, again_after_s: float | None) -> None:
        """It has been looked at; look again after this time at the latest."""
        self._agenda.done(service, self._clock(), again_after_s)
        self._changed.set()

    def failed(self, service: ServiceKey, at_least_s: float | None = None) -> float:
        """Looking at it failed; returns the seconds until it is tried again."""
        wait = self._agenda.failed(service, self._clock(), random.random(), at_least_s)
        self._changed.set()
        return wait

    def failures(self, service: ServiceKey) -> int:
        """How often in a row it has failed."""
        return self._agenda.failures(service)

    def depth(self) -> int:
        """Number of services that are due and wait for a worker."""
        return self._agenda.depth(self._clock())

    def oldest_s(self) -> float:
        """Time since the service that waits or is worked on the longest was due, seconds."""
        return self._agenda.oldest_s(self._clock())
