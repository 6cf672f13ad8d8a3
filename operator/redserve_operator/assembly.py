"""The operator put together: probes, the election, and the leader's work.

probes listen ─▶ Lease won ─▶ leader works ─▶ Lease released ─▶ probes closed
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any

from prometheus_client import CollectorRegistry
from prometheus_client.gc_collector import GCCollector
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

from redserve.telemetry.log import get_logger
from redserve.telemetry.metrics.operator import OperatorMetrics
from redserve_operator.election import Election
from redserve_operator.http import ProbeServer
from redserve_operator.kube.access import configuration
from redserve_operator.kube.http_client import HttpKubeClient
from redserve_operator.leading import Leader
from redserve_operator.tasks import done_before, end

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.spec.settings import OperatorSettings

log = get_logger()


class Operator:
    """One process of the operator; `run` once.

    Args:
        settings: As the environment has them.
    """

    def __init__(self, settings: OperatorSettings) -> None:
        self._settings = settings
        self._identity = settings.identity or socket.gethostname()
        self._registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self._registry)
        self._metrics = OperatorMetrics(self._registry)
        self._leader: Leader | None = None
        self._stands_by = False
        self._stop = asyncio.Event()

    def stop(self) -> None:
        """End `run` in good order; may be called at any time, also by a signal handler."""
        self._stop.set()

    async def run(self, take_signals: Callable[[], None] = lambda: None) -> int:
        """Be an operator until `stop`, or until another leads.

        Args:
            take_signals: Installs the signal handlers again, after kopf has installed its own.

        Returns:
            Exit code: 0 after `stop`, 1 when the process has to be started anew.

        Raises:
            ConfigError: It cannot run as it was told to.
        """
        settings = self._settings
        access = await configuration(settings)
        client = HttpKubeClient(access, self._metrics, request_timeout_s=settings.request_timeout_s)
        probes = ProbeServer(
            self._registry,
            refresh=self._refresh,
            not_alive=lambda: self._leader.not_alive() if self._leader else "",
            not_ready=self._not_ready,
        )
        port = await probes.start(settings.http_host, settings.http_port)
        log.info("operator started", identity=self._identity, http_port=port)
        try:
            if not settings.leader_election:
                return await self._lead(client, access, take_signals, lambda: True)
            return await self._compete(client, access, take_signals)
        finally:
            await probes.stop()
            await client.close()
            log.info("operator ended", identity=self._identity)

    async def _compete(
        self, client: HttpKubeClient, access: Any, take_signals: Callable[[], None]
    ) -> int:
        election = Election(
            client,
            self._settings.namespace,
            self._identity,
            duration_s=self._settings.lease_duration_s,
            renew_s=self._settings.lease_renew_s,
            lease_name=self._settings.lease_name,
            when_waiting=self._stand_by,
        )
        try:
            if not await done_before(election.win(), self._stop):
                return 0
            keeping = asyncio.create_task(election.keep(), name="lease")
            leading = asyncio.create_task(
                self._lead(client, access, take_signals, lambda: election.leads), name="leader"
            )
            await asyncio.wait({keeping, leading}, return_when=asyncio.FIRST_COMPLETED)
            lost = not leading.done()
            if lost:
                log.error("lease lost", identity=self._identity)
                await end(leading)
            # Not before: looks that end in their own time need the Lease.
            await end(keeping)
            return 1 if lost else leading.result()
        finally:
            await election.release()

    async def _lead(
        self,
        client: HttpKubeClient,
        access: Any,
        take_signals: Callable[[], None],
        may_write: Callable[[], bool],
    ) -> int:
        log.info("leads", identity=self._identity)
        self._metrics.leader.set(1)
        self._leader = Leader(self._settings, client, self._metrics, self._identity, may_write)
        return await self._leader.run(access, self._stop, take_signals)

    def _stand_by(self) -> None:
        # Ready to take over: a rolling update of the operator must not wait for it to lead.
        self._stands_by = True

    def _not_ready(self) -> str:
        if self._leader is not None:
            return self._leader.not_ready
        return "" if self._stands_by else "waits for the Lease"

    def _refresh(self) -> None:
        if self._leader is not None:
            self._leader.refresh_metrics()
