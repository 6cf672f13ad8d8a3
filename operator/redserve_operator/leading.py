"""What the one operator does that leads: watch, look, audit.

our kinds are served ─▶ watches run ─▶ cache complete ─▶ workers look at services
                                                                  │
leader has ended ◀─ watches end ◀─ workers end their look ◀── stop, or a watch is over
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster.facts import ClusterFacts, Context, Images, Watching
from redserve.observability import RUNBOOKS
from redserve.telemetry.log import get_logger
from redserve_operator.acting import Hands
from redserve_operator.audit import Audit
from redserve_operator.decide.plan import Event
from redserve_operator.decide.reconcile import reconcile
from redserve_operator.discovery import RENEW_S, Reach, definitions_are_there, reach
from redserve_operator.kube.backoff import Backoff
from redserve_operator.kube.errors import KubeError
from redserve_operator.kube.kinds import watched
from redserve_operator.pool_figures import tell_pools
from redserve_operator.queue import WorkQueue
from redserve_operator.store.cache import Store
from redserve_operator.tasks import done_before, drain, end
from redserve_operator.watch import Watches
from redserve_operator.worker import Worker

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

    from redserve.cluster.facts import Manifest
    from redserve.spec.settings import OperatorSettings
    from redserve.telemetry.metrics.operator import OperatorMetrics
    from redserve_operator.decide.observed import Observed
    from redserve_operator.decide.plan import Plan
    from redserve_operator.keys import ServiceKey
    from redserve_operator.kube.client import KubeClient
    from redserve_operator.kube.kinds import Kind

log = get_logger()

RETRIES: Final = Backoff(first_s=0.5, longest_s=60.0)
"""Of a service whose look failed."""
DRAIN_S: Final = 8.0
"""Longest wait for looks that are under way when the process ends, seconds."""
LONGEST_BETWEEN_AUDITS_S: Final = 120.0
RIGHTS_TRIES: Final = 3
"""So often a named namespace is asked for before the others are served without it: rights that were
given a moment ago are not known to every API server yet."""
TOLD_FAILURES: Final = 3
"""At this failure in a row the service is told of it by an Event."""


class Leader:
    """Looks after all services; `run` once.

    Args:
        settings: As the environment has them.
        client: Calls of the API server.
        metrics: Figures.
        identity: This process, for Events.
        may_write: Whether the Lease is still ours.
    """

    def __init__(
        self,
        settings: OperatorSettings,
        client: KubeClient,
        metrics: OperatorMetrics,
        identity: str,
        may_write: Callable[[], bool],
    ) -> None:
        self._settings = settings
        self._client = client
        self._metrics = metrics
        self._store = Store()
        self._queue = WorkQueue(settings.debounce_s, RETRIES)
        self._may_write = may_write
        self._hands = Hands(client, self._store, metrics, identity, may_write)
        self._worker = Worker(
            self._store,
            self._hands,
            self._decide,
            debounce_s=settings.debounce_s,
            resync_s=settings.resync_s,
        )
        self._reach = Reach(ClusterFacts(), frozenset())
        self._audit: Audit | None = None
        self.not_ready = "waits for the API server"
        """Why it does not look at services yet; empty when it does."""

    def not_alive(self) -> str:
        """Why the process should be started anew; empty when it should not."""
        oldest = self._queue.oldest_s()
        if oldest > self._settings.stuck_after_s:
            return f"a service has waited for {oldest:.0f} s"
        if self._audit is not None and self._audit.deaf:
            return f"watches have gone deaf: {', '.join(sorted(self._audit.deaf))}"
        return ""

    def refresh_metrics(self) -> None:
        """Bring figures up to date that are read rather than counted."""
        self._metrics.queue_depth.set(self._queue.depth())
        self._metrics.queue_oldest.set(self._queue.oldest_s())
        for kind, number in self._store.sizes().items():
            self._metrics.objects.labels(kind).set(number)
        tell_pools(self._metrics.pool_replicas, self._store.resources())

    async def run(self, access: Any, stop: asyncio.Event, take_signals: Callable[[], None]) -> int:
        """Look after services until `stop`, or until it has to be done by a new process.

        Returns:
            Exit code: 0 after `stop`, 1 when the process has to be started anew.
        """
        if not await done_before(self._discover(), stop):
            return 0
        kinds = watched(self._reach.facts.kinds)
        namespaces = self._reach.namespaces
        audit = Audit(self._client, self._store, self._queue, kinds, namespaces, self._metrics)
        watches = Watches(access, kinds, namespaces, self._settings.request_timeout_s, self._notice)
        # Begun before kopf: at its end kopf cancels every task that began after it.
        looking = asyncio.create_task(self._look(audit), name="looking")
        kinds_changed = asyncio.create_task(self._follow_reach(), name="discovery")
        stopping = asyncio.create_task(stop.wait(), name="stopping")
        watching = asyncio.create_task(watches.run(take_signals), name="watching")
        try:
            await asyncio.wait(
                {looking, kinds_changed, stopping, watching}, return_when=asyncio.FIRST_COMPLETED
            )
            return _exit_code(looking, kinds_changed, stopping, watching)
        finally:
            self._queue.close()
            # Without the Lease no look may end in its own time: another operator is about to lead.
            in_order = self._may_write() and not self.not_ready
            await drain([looking], DRAIN_S if in_order else 0.0)
            watches.stop()
            await drain([watching], DRAIN_S)
            await end(kinds_changed, stopping)

    async def _discover(self) -> None:
        tries = 0
        while True:
            try:
                if await definitions_are_there(self._client):
                    found = await reach(self._client, self._settings.watch_namespaces)
                    tries += 1
                    if not found.aside or (found.namespaces and tries >= RIGHTS_TRIES):
                        self._take(found)
                        return
                    self.not_ready = f"may not read namespaces: {', '.join(found.aside)}"
                else:
                    self.not_ready = "waits for the CustomResourceDefinitions of redserve.dev"
                    log.warning("our kinds are not served; install the CustomResourceDefinitions")
            except KubeError as error:
                log.warning("cluster not known", why=error.message)
            await asyncio.sleep(self._settings.lease_renew_s)

    def _take(self, found: Reach) -> None:
        self._reach = found
        self._metrics.namespaces_aside.set(len(found.aside))
        log.info(
            "cluster known",
            minor=found.facts.minor,
            kinds=sorted(found.facts.kinds),
            namespaces_aside=list(found.aside),
        )

    async def _follow_reach(self) -> None:
        """Return when kinds have come or gone, or a namespace that was set aside can be read.

        kopf watches what there was when it began. What can be read no more is none of this: its
        watches say so, if it lasts.
        """
        while True:
            await asyncio.sleep(RENEW_S)
            try:
                found = await reach(self._client, self._settings.watch_namespaces)
            except KubeError as error:
                log.warning("cluster not asked", why=error.message)
                continue
            have = self._reach.facts.kinds
            if not have <= found.served or not found.facts.kinds <= have:
                log.info("kinds have changed", kinds=sorted(found.facts.kinds))
                return
            if back := set(self._reach.aside) & set(found.namespaces):
                log.info("namespaces have come", namespaces=sorted(back))
                return
            facts = ClusterFacts(found.facts.minor, have)
            self._reach = replace(self._reach, facts=facts)

    async def _look(self, audit: Audit) -> None:
        """Workers and audits, once the cache is complete; returns when the queue is closed."""
        self.not_ready = "waits for the cache"
        await self._synced(audit)
        self._audit = audit
        self.not_ready = ""
        log.info("cache complete", num_services=self._store.num_services())
        auditing = asyncio.create_task(self._audits(audit), name="audit")
        try:
            await asyncio.gather(*(self._work() for _ in range(self._settings.num_workers)))
        finally:
            await end(auditing)

    async def _synced(self, audit: Audit) -> None:
        while True:
            try:
                await audit.synced()
            except KubeError as error:
                log.warning("cache not complete", why=error.message)
                await asyncio.sleep(1.0)
            else:
                return

    async def _audits(self, audit: Audit) -> None:
        while True:
            await asyncio.sleep(min(self._settings.resync_s / 4, LONGEST_BETWEEN_AUDITS_S))
            try:
                await audit.once()
            except KubeError as error:
                log.warning("cache not audited", why=error.message)

    async def _work(self) -> None:
        while (service := await self._queue.take()) is not None:
            started = time.monotonic()
            result = "failed"
            try:
                outcome = await self._worker.look(service)
            except KubeError as error:
                await self._failed(service, error.message, error.retry_after_s)
            except Exception as error:  # a bug about one service must not stop the others
                log.exception("look failed", service=str(service))
                await self._failed(service, f"{type(error).__name__}: {error}", None)
            else:
                result = outcome.result
                self._queue.done(service, outcome.again_after_s)
            finally:
                self._metrics.reconcile.labels(result).inc()
                self._metrics.reconcile_duration.observe(time.monotonic() - started)

    async def _failed(self, service: ServiceKey, why: str, at_least_s: float | None) -> None:
        wait = self._queue.failed(service, at_least_s)
        failures = self._queue.failures(service)
        log.warning(
            "look to be tried again",
            service=str(service), why=why, num_failures=failures, after_s=round(wait, 1),
        )  # fmt: skip
        resource = self._store.resource(service)
        if failures == TOLD_FAILURES and resource is not None:
            await self._hands.tell(resource, Event("Warning", "ReconcileFailed", why))

    def _notice(self, kind: Kind, gone: bool, manifest: Manifest) -> None:
        keep = self._store.remove if gone else self._store.put
        service = keep(kind.name, manifest)
        if service is not None:
            self._queue.add(service)

    def _decide(self, service: ServiceKey, observed: Observed, now: datetime) -> Plan:
        settings = self._settings
        context = Context(
            namespace=service.namespace,
            images=Images(
                router=settings.router_image,
                encoder=settings.encoder_image,
                llm=settings.llm_image,
                pull_policy=settings.image_pull_policy,
                pull_secrets=settings.image_pull_secrets,
            ),
            facts=self._reach.facts,
            watching=Watching(
                labels=tuple(sorted(settings.monitoring_labels.items())),
                runbooks=settings.runbooks_url or RUNBOOKS,
            ),
        )
        return reconcile(context, observed, now)


def _exit_code(
    looking: asyncio.Task[None],
    kinds_changed: asyncio.Task[None],
    stopping: asyncio.Task[Any],
    watching: asyncio.Task[None],
) -> int:
    if stopping.done() or kinds_changed.done():
        return 0
    ended = watching if watching.done() else looking
    error = None if ended.cancelled() else ended.exception()
    # A kind is not served any more, a right was taken away, or the API server was away for long.
    log.error("watches ended", why=str(error) if error else "kopf has stopped")
    return 1
