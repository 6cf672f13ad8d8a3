"""Compares the cache with the API server's lists: kopf cannot tell everything.

When a watch breaks for longer than the API server remembers, kopf lists again and hands out what is
there; it does not tell what has vanished in between. And a watch that has gone deaf looks like a
quiet cluster. So every kind is listed now and then, metadata only: what is not there any more is
dropped, and what the watch should have told of by now, but has not, makes liveness fail.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from redserve.telemetry.log import get_logger
from redserve_operator.kube.kinds import OF_A_SERVICE, REDSERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from redserve.telemetry.metrics import OperatorMetrics
    from redserve_operator.kube.client import KubeClient, Listed
    from redserve_operator.kube.kinds import Kind
    from redserve_operator.queue import WorkQueue
    from redserve_operator.store.cache import Store

log = get_logger()

GRACE_S = 30.0
"""How long a watch may take to tell of something that is listed."""
RELIST_S = 2.0
"""How long the start waits for what is listed before it asks whether it is still there."""
_POLL_S = 0.05


class Audit:
    """Lists what is watched and mends the cache.

    Args:
        client: Calls of the API server.
        store: The cache.
        queue: Where services go that something was learnt about.
        kinds: What is watched.
        namespaces: Where; empty is everywhere.
        metrics: Takes the number of objects that the watches have not told of.
    """

    def __init__(
        self,
        client: KubeClient,
        store: Store,
        queue: WorkQueue,
        kinds: Sequence[Kind],
        namespaces: Sequence[str],
        metrics: OperatorMetrics,
    ) -> None:
        self._client = client
        self._store = store
        self._queue = queue
        self._kinds = kinds
        self._namespaces: Sequence[str | None] = namespaces or (None,)
        self._metrics = metrics
        self.deaf: frozenset[str] = frozenset()
        """Kinds whose watch has not told of what was listed."""

    async def synced(self) -> None:
        """Return once the cache knows everything that is listed; raises `KubeError`."""
        for kind in self._kinds:
            missing = self._missing(kind, await self._list(kind))
            while missing:
                try:
                    async with asyncio.timeout(RELIST_S):
                        while missing:
                            await asyncio.sleep(_POLL_S)
                            missing = self._missing(kind, missing)
                except TimeoutError:
                    # What was deleted before the watch began will never be told of.
                    listed = await self._list(kind)
                    missing = self._missing(kind, [one for one in listed if one in missing])

    async def once(self, grace_s: float = GRACE_S) -> None:
        """Look through everything once; raises `KubeError`."""
        deaf = set()
        for kind in self._kinds:
            missing = self._missing(kind, await self._list(kind))
            try:
                async with asyncio.timeout(grace_s):
                    while missing:
                        await asyncio.sleep(_POLL_S)
                        missing = self._missing(kind, missing)
            except TimeoutError:
                # Whatever was deleted meanwhile will never be told of.
                missing = self._missing(kind, [m for m in await self._list(kind) if m in missing])
            self._metrics.watch_lag.labels(kind.name).set(len(missing))
            if missing:
                deaf.add(kind.name)
                log.error("a watch is deaf", kind=kind.name, num_objects=len(missing))
        self.deaf = frozenset(deaf)

    async def _list(self, kind: Kind) -> list[Listed]:
        selector = "" if kind is REDSERVICE else OF_A_SERVICE
        found: list[Listed] = []
        for namespace in self._namespaces:
            listing = await self._client.list_metadata(kind, namespace, selector)
            found += listing.objects
            for service in self._store.prune(
                kind.name, namespace, listing.objects, listing.version
            ):
                log.warning("something vanished unseen", kind=kind.name, service=str(service))
                self._queue.add(service)
        return found

    def _missing(self, kind: Kind, listed: Iterable[Listed]) -> list[Listed]:
        return [found for found in listed if self._store.lacks(kind.name, found)]
