"""Compares the cache with the API server's lists: kopf cannot tell everything.

When a watch breaks for longer than the API server remembers, kopf lists again and hands out what is
there; it does not tell what has vanished in between. And a watch that has gone deaf looks like a
quiet cluster. So every kind is listed now and then, metadata only: what is not there any more is
dropped, and what the watch should have told of by now, but has not, makes liveness fail.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from typing import TYPE_CHECKING

from redserve.cluster.facts import OPTIONAL_KINDS
from redserve.telemetry.log import get_logger
from redserve_operator.kube.errors import Forbidden, KubeError, NotFound
from redserve_operator.kube.kinds import OF_A_SERVICE, REDSERVICE

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from redserve.telemetry.metrics.operator import OperatorMetrics
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
        """Return once the cache knows everything that is listed; raises `KubeError`.

        What is refused in one namespace, or of another project's kind, is left to later audits:
        everything else is not to wait for it.
        """
        for kind, namespace in self._places():
            try:
                await self._told(kind, namespace)
            except KubeError as error:
                if not _is_minor(error, kind, namespace):
                    raise
                _log_unlisted(kind, namespace, error)

    async def once(self, grace_s: float = GRACE_S) -> None:
        """Look through everything that can be listed, once.

        Raises:
            KubeError: There is no answer.
        """
        late: Counter[str] = Counter()
        unlisted: Counter[str] = Counter()
        for kind, namespace in self._places():
            try:
                late[kind.name] += await self._late(kind, namespace, grace_s)
            except KubeError as error:
                if not error.status:
                    raise
                unlisted[kind.name] += 1
                _log_unlisted(kind, namespace, error)
        for kind in self._kinds:
            self._metrics.watch_lag.labels(kind.name).set(late[kind.name])
            self._metrics.unlisted.labels(kind.name).set(unlisted[kind.name])
        self.deaf = frozenset(name for name, number in late.items() if number)
        for name in sorted(self.deaf):
            log.error("a watch is deaf", kind=name, num_objects=late[name])

    def _places(self) -> Iterator[tuple[Kind, str | None]]:
        return itertools.product(self._kinds, self._namespaces)

    async def _told(self, kind: Kind, namespace: str | None) -> None:
        """Return once the watch has told of everything."""
        missing = self._missing(kind, await self._list(kind, namespace))
        while missing:
            try:
                async with asyncio.timeout(RELIST_S):
                    while missing:
                        await asyncio.sleep(_POLL_S)
                        missing = self._missing(kind, missing)
            except TimeoutError:
                # What was deleted before the watch began will never be told of.
                listed = await self._list(kind, namespace)
                missing = self._missing(kind, [one for one in listed if one in missing])

    async def _late(self, kind: Kind, namespace: str | None, grace_s: float) -> int:
        """Number of objects that the watch has not told of in time."""
        missing = self._missing(kind, await self._list(kind, namespace))
        try:
            async with asyncio.timeout(grace_s):
                while missing:
                    await asyncio.sleep(_POLL_S)
                    missing = self._missing(kind, missing)
        except TimeoutError:
            # Whatever was deleted meanwhile will never be told of.
            listed = await self._list(kind, namespace)
            missing = self._missing(kind, [one for one in listed if one in missing])
        return len(missing)

    async def _list(self, kind: Kind, namespace: str | None) -> tuple[Listed, ...]:
        selector = "" if kind is REDSERVICE else OF_A_SERVICE
        listing = await self._client.list_metadata(kind, namespace, selector)
        for service in self._store.prune(kind.name, namespace, listing.objects, listing.version):
            log.warning("something vanished unseen", kind=kind.name, service=str(service))
            self._queue.add(service)
        return listing.objects

    def _missing(self, kind: Kind, listed: Iterable[Listed]) -> list[Listed]:
        return [found for found in listed if self._store.lacks(kind.name, found)]


def _is_minor(error: KubeError, kind: Kind, namespace: str | None) -> bool:
    """Whether the rest can be served without it."""
    if kind.name in OPTIONAL_KINDS:
        return bool(error.status)
    return namespace is not None and isinstance(error, (Forbidden, NotFound))


def _log_unlisted(kind: Kind, namespace: str | None, error: KubeError) -> None:
    log.warning("not listed", kind=kind.name, namespace=namespace, why=error.message)
