"""The loop of discovery: list, watch from there, and again after every failure."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger
from redserve_router.discovery.problem import Problem
from redserve_router.discovery.slices import SliceStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve_router.discovery.api import Change, SliceApi
    from redserve_router.discovery.status import DiscoveryStatus
    from redserve_router.discovery.timing import Timing

log = get_logger()


class SliceFollower:
    """Keeps a store of slices true for as long as the API server can be heard.

    After a failure it lists again, whatever failed: a list heals what may have been missed.

    Args:
        api: Owned by the follower from now on.
        status: Is told how it goes.
        on_change: Called with the store after every change.
        timing: How long to wait.
    """

    def __init__(
        self,
        api: SliceApi,
        status: DiscoveryStatus,
        on_change: Callable[[SliceStore], None],
        timing: Timing,
    ) -> None:
        self._api = api
        self._status = status
        self._on_change = on_change
        self._timing = timing
        self._store = SliceStore()
        self._num_failures = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                pause_s = await self._try()
                await asyncio.sleep(pause_s)
        finally:
            await self._api.close()

    async def _try(self) -> float:
        """Follow until a failure; returns for how long to pause."""
        try:
            await self._follow()
        except Problem as problem:
            self._num_failures += 1
            pause_s = self._timing.backoff_s(self._num_failures)
            if problem.kind == "expired":
                log.info("discovery lists again", why=str(problem))
            else:
                self._status.note_problem(problem)
                pause_s = max(pause_s, problem.retry_after_s or 0.0)
        except Exception:
            # Whatever it is: a router that has gone deaf is worse than one that tries again.
            log.exception("discovery broke down")
            self._status.note_problem(Problem("refused", "an answer could not be understood"))
            pause_s = self._timing.longest_backoff_s
        await self._api.close()
        return pause_s

    async def _follow(self) -> None:
        """Until it raises.

        Raises:
            Problem: The API server cannot be heard any more.
        """
        listing = await self._api.list()
        self._store.replace(listing.objects)
        self._status.note_listed()
        self._on_change(self._store)
        version = listing.resource_version
        clock = asyncio.get_running_loop().time
        while True:
            begun_s = clock()
            async with self._api.watch(version) as changes:
                self._status.note_synced()
                async with aclosing(changes):
                    async for change in changes:
                        version = change.resource_version or version
                        self._apply(change)
            lasted_s = clock() - begun_s
            if lasted_s >= self._timing.shortest_watch_s:
                self._num_failures = 0
            await asyncio.sleep(max(0.0, self._timing.shortest_watch_s - lasted_s))

    def _apply(self, change: Change) -> None:
        self._num_failures = 0
        self._status.note_heard()
        match change.kind:
            case "put":
                self._store.put(change.slice_object)
            case "removed":
                self._store.remove(change.slice_object)
            case "bookmark":
                return
        self._on_change(self._store)
