"""One LLM replica, put together: engine, arena, server, metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from redserve.scheduling import Scheduler, SchedulerConfig
from redserve.telemetry.log import get_logger
from redserve.telemetry.metrics.endpoint import serve_metrics
from redserve.telemetry.metrics.llm import LLMMetrics
from redserve.telemetry.metrics.tracing import TracingMetrics
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.telemetry.tracing import tracing_to
from redserve.transport.factory import make_consumer
from redserve.transport.placement import make_pool
from redserve.v1.llm_pb2_grpc import add_LlmServiceServicer_to_server
from redserve.wire.own_address import own_address
from redserve.wire.server import ServiceServer
from redserve_llm.arena import Arena
from redserve_llm.budget import make_budget
from redserve_llm.engine import Engine, EngineConfig
from redserve_llm.hub import Hub
from redserve_llm.limits import RequestLimits
from redserve_llm.load import LoadBoard
from redserve_llm.readiness import Readiness
from redserve_llm.servicer import SERVICE_NAME, LlmServicer
from redserve_llm.traces import Traces
from redserve_llm.transport_check import TransportChecks

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.spec.settings import LLMSettings
    from redserve_llm.model import Model

log = get_logger()

_CLOSE_TIMEOUT_S = 10.0
_FLUSH_TIMEOUT_S = 3.0


class LlmReplica:
    """Create it inside the running event loop; `start`, then `drain`, then `close`.

    Attributes:
        settings: As given.
        address: host:port by which peers reach it.
        registry: Its metrics.
        metrics_port: Where they are served; 0 before `start`.
        pool: Where embeddings land.
        scheduler, engine, arena, hub: Its parts.
    """

    def __init__(self, settings: LLMSettings, model: Model) -> None:
        """Take the port, but serve nothing yet.

        Args:
            settings: What it is told.
            model: Owned by the replica from now on.

        Raises:
            ConfigError: The port is taken, there is no such transport, no room for the arena, or
                spans cannot be sent.
        """
        self.settings = settings
        self.registry = CollectorRegistry()
        self.metrics_port = 0
        self._stop_metrics: Callable[[], None] = lambda: None
        self._model = model
        self._server = ServiceServer(settings.grpc_host, settings.grpc_port)
        port = self._server.bind()
        self.address = settings.advertise_address or own_address(settings.grpc_host, port)
        info, name = model.info, settings.name or "llm"
        self._tracing = tracing_to(
            settings.otlp_endpoint,
            role="llm",
            name=name,
            service=settings.service,
            on_lost=TracingMetrics(self.registry).spans_lost.inc,
        )
        metrics = LLMMetrics(self.registry)
        self.pool = make_pool(settings.transport, settings.arena_bytes, model.device_memory)
        self._puller = make_consumer(
            settings.transport, self.pool, name, self.address, TransportMetrics(self.registry)
        )
        self._board = LoadBoard(lambda: self.pool.used_bytes)
        self._readiness = Readiness(self.pool, settings.quarantine_percent, self._tell_ready)
        self.hub = Hub(asyncio.get_running_loop(), self._board)
        budget, observe = make_budget(settings, model.cost_guess)
        self.scheduler = Scheduler(_scheduler_config(settings, model), budget)
        self.engine = Engine(
            EngineConfig(name, info.end_token_ids, settings.max_queued_requests, observe),
            self.scheduler,
            model.runner,
            model.vocabulary,
            self.hub,
            metrics,
        )
        self.arena = Arena(
            self.pool,
            self._puller,
            self.engine,
            self.hub,
            info.shape,
            name,
            metrics,
            overlap=settings.overlap,
        )
        self.hub.attach(self.arena)
        limits = RequestLimits(
            info.max_model_length, self.pool.num_bytes, info.shape, info.dtype, info.sampling
        )
        checks = TransportChecks(self._puller, self._puller.transport, self._has_work, metrics)
        traces = Traces(self._tracing, self.engine, self.arena)
        self._servicer = LlmServicer(
            info, limits, self.engine, self.arena, self.hub, self._board, checks, traces
        )
        self._server.add(add_LlmServiceServicer_to_server, self._servicer, SERVICE_NAME)

    async def start(self) -> None:
        """Warm up, serve gRPC and metrics, and say so.

        Raises:
            ConfigError: The metrics port is taken.
            Overloaded: The device has not enough memory for a full step.
        """
        ProcessCollector(registry=self.registry)
        self.metrics_port, self._stop_metrics = serve_metrics(
            self.registry, self.settings.grpc_host, self.settings.metrics_port
        )
        await self._server.start()  # alive, not ready: a start-up probe may look already
        await asyncio.to_thread(self._model.runner.warm_up)
        self.engine.start()
        self._readiness.open()
        log.info(
            "ready",
            address=self.address,
            metrics_port=self.metrics_port,
            family=self._model.info.family,
            dtype=self._model.info.dtype,
            arena_bytes=self.pool.num_bytes,
        )

    async def run_until_signal(self) -> bool:
        """Return at SIGTERM or SIGINT, or when the engine breaks: then it is not ready any more.

        Returns:
            Whether the engine is sound.
        """
        signalled = asyncio.ensure_future(self._server.wait_for_signal())
        broke = asyncio.ensure_future(self.hub.broke.wait())
        try:
            await asyncio.wait({signalled, broke}, return_when=asyncio.FIRST_COMPLETED)
            if broke.done():
                self._readiness.shut()
            return not broke.done()
        finally:
            for waiter in (signalled, broke):
                waiter.cancel()
            await asyncio.gather(signalled, broke, return_exceptions=True)

    async def drain(self, timeout_s: float) -> None:
        """Take no new requests; let running ones end within `timeout_s` seconds.

        Announcements are taken to the end: running requests may wait for their embeddings.
        """
        ends_at = asyncio.get_running_loop().time() + timeout_s
        self._readiness.shut()
        self._servicer.refuse_new()
        with suppress(TimeoutError):
            async with asyncio.timeout_at(ends_at):
                await self.hub.wait_idle()
        await self._server.drain(max(0.0, ends_at - asyncio.get_running_loop().time()))

    async def close(self) -> None:
        """Stop everything. Idempotent."""
        self._readiness.shut()
        await self._server.drain(0.0)
        if not await asyncio.to_thread(self.engine.close, _CLOSE_TIMEOUT_S):
            log.warning("the engine did not end its step in time")
        await self.arena.shutdown()
        await self._puller.close()
        await asyncio.to_thread(self._tracing.close, _FLUSH_TIMEOUT_S)
        self._stop_metrics()
        self._stop_metrics = lambda: None

    def _tell_ready(self, ready: bool) -> None:
        """To the routers that watch the load, and to whoever probes."""
        self._board.set_serving(serving=ready)
        self._server.set_ready(ready)

    def _has_work(self) -> bool:
        """Whether room is needed, or a transfer hangs: a probe would only be the next one."""
        return self.hub.num_calls > 0 or self.pool.quarantined_bytes > 0


def _scheduler_config(settings: LLMSettings, model: Model) -> SchedulerConfig:
    info = model.info
    return SchedulerConfig(
        num_blocks=info.num_blocks,
        block_size=info.block_size,
        max_sequences=settings.max_sequences,
        min_chunk=settings.min_chunk,
        atomic_items=info.atomic_items,
        max_model_length=info.max_model_length,
        prefix_cache=settings.prefix_cache,
        prefix_seed=info.fingerprint.encode(),
    )
