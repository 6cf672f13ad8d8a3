"""One encoder replica, put together: pool, engine, server, metrics."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, ProcessCollector

from redserve.errors import Cancelled
from redserve.scheduling.encoder_batcher import BatchLimit
from redserve.telemetry.clock import now_ns
from redserve.telemetry.log import get_logger
from redserve.telemetry.metrics.encoder import EncoderMetrics
from redserve.telemetry.metrics.endpoint import serve_metrics
from redserve.telemetry.metrics.tracing import TracingMetrics
from redserve.telemetry.metrics.transport import TransportMetrics
from redserve.telemetry.tracing import tracing_to
from redserve.transport.factory import make_producer
from redserve.transport.placement import make_pool
from redserve.v1.encoder_pb2_grpc import add_EncoderServiceServicer_to_server
from redserve.wire.own_address import own_address
from redserve.wire.server import ServiceServer
from redserve_encoder.cache import EmbeddingCache
from redserve_encoder.engine import Engine
from redserve_encoder.intake import Intake
from redserve_encoder.llm_clients import LlmClients
from redserve_encoder.pictures import Pictures
from redserve_encoder.publisher import Publisher
from redserve_encoder.readiness import Readiness
from redserve_encoder.reception import Limits, Parts, Reception
from redserve_encoder.servicer import SERVICE_NAME, EncoderServicer
from redserve_encoder.traces import Traces

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.spec.settings import EncoderSettings
    from redserve_encoder.vision import Vision

log = get_logger()

_CLOSE_TIMEOUT_S = 5.0
_FLUSH_TIMEOUT_S = 3.0


class EncoderReplica:
    """Create it inside the running event loop; `start`, then `drain`, then `close`.

    Attributes:
        settings: As given.
        address: host:port by which peers reach it.
        registry: Its metrics.
        metrics_port: Where they are served; 0 before `start`.
        producer: Its side of the transport.
        pool: The memory of all embeddings.
        cache, pictures, publisher, reception: Its parts.
    """

    def __init__(self, settings: EncoderSettings, vision: Vision) -> None:
        """Take the port, but serve nothing yet.

        Args:
            settings: What it is told.
            vision: The model; closed by `close`.

        Raises:
            ConfigError: The port is taken, there is no such transport, no room for the pool, or
                spans cannot be sent.
        """
        self.settings = settings
        self.registry = CollectorRegistry()
        self.metrics_port = 0
        self._stop_metrics: Callable[[], None] = lambda: None
        self._vision = vision
        self._server = ServiceServer(settings.grpc_host, settings.grpc_port)
        port = self._server.bind()
        self.address = settings.advertise_address or own_address(settings.grpc_host, port)
        name = settings.name or "encoder"
        self._tracing = tracing_to(
            settings.otlp_endpoint,
            role="encoder",
            name=name,
            service=settings.service,
            on_lost=TracingMetrics(self.registry).spans_lost.inc,
        )
        metrics = EncoderMetrics(self.registry)
        self.pool = make_pool(
            settings.transport, settings.pool_bytes, vision.device_memory, is_source=True
        )
        vision.adopt(self.pool.slab)
        self.producer = make_producer(
            settings.transport,
            self.pool,
            name,
            self.address,
            settings.lease_ttl_s,
            TransportMetrics(self.registry),
        )
        self.cache = EmbeddingCache(
            self.pool, metrics.cache_evictions.inc, metrics.cache_returns.inc
        )
        self._tell_of_room()
        self._readiness = Readiness(self._set_ready)
        self.producer.on_readable(self._readiness.readable)
        self.pictures = Pictures(
            vision,
            num_threads=settings.preprocess_threads,
            now_ns=now_ns,
            on_prepared=metrics.preprocess.observe,
        )
        self._clients = LlmClients(self.producer.current, vision.info)
        self.publisher = Publisher(
            self.producer.lease_table, self.cache, self._clients, lane=name, now_ns=now_ns
        )
        parts = Parts(
            vision, self.pictures, self.cache, self.publisher, metrics, lane=name, now_ns=now_ns
        )
        limit = BatchLimit(min(settings.batch_rows_idle, settings.batch_rows), settings.batch_rows)
        self.reception = Reception(parts, Limits(limit, settings.max_queued_rows))
        self._engine = asyncio.create_task(Engine(parts, self.reception).run())
        self._asking = asyncio.create_task(self.publisher.still_wanted.run())
        intake = Intake(self.reception, self.pictures, metrics)
        servicer = EncoderServicer(
            vision.info,
            self.producer.transport,
            self.pictures,
            self.reception,
            intake,
            Traces(self._tracing, now_ns),
            now_ns,
        )
        self._server.add(add_EncoderServiceServicer_to_server, servicer, SERVICE_NAME)
        self.producer.add_to(self._server)

    async def start(self) -> None:
        """Serve gRPC and metrics, and say so.

        Raises:
            ConfigError: The metrics port is taken.
        """
        ProcessCollector(registry=self.registry)
        self.metrics_port, self._stop_metrics = serve_metrics(
            self.registry, self.settings.grpc_host, self.settings.metrics_port
        )
        await self._server.start()
        self._readiness.open()
        log.info(
            "ready",
            address=self.address,
            metrics_port=self.metrics_port,
            family=self._vision.info.family,
            dtype=self._vision.info.dtype,
            pool_bytes=self.pool.num_bytes,
        )

    async def run_until_signal(self) -> None:
        """Return at SIGTERM or SIGINT.

        Raises:
            Exception: What ended the engine: the process must be replaced.
        """
        signalled = asyncio.ensure_future(self._server.wait_for_signal())
        try:
            await asyncio.wait({signalled, self._engine}, return_when=asyncio.FIRST_COMPLETED)
            if self._engine.done():
                self._readiness.shut()
                await self._engine
        finally:
            signalled.cancel()

    async def drain(self, timeout_s: float) -> bool:
        """Take no new work, finish what is here, and wait until the LLM replicas have all of it.

        The server goes on until then: they pull from it. They are asked once a second whether they
        still want what they have not pulled, see `still_wanted`: nobody else is waited for.

        Returns:
            Whether everything was handed over within `timeout_s` seconds.
        """
        self._readiness.shut()
        self.publisher.still_wanted.hurry()
        try:
            async with asyncio.timeout(timeout_s):
                await self.reception.ledger.wait_empty()
        except TimeoutError:
            log.warning("draining took too long", num_items=len(self.reception.ledger))
            return False
        return True

    async def close(self) -> None:
        """Stop everything; what is still here is dropped."""
        await self._server.drain(_CLOSE_TIMEOUT_S)
        for task in (self._engine, self._asking):
            task.cancel()
        await asyncio.gather(self._engine, self._asking, return_exceptions=True)
        for delivery in self.reception.ledger.all():
            self.reception.drop(delivery, Cancelled("the encoder is shutting down"))
        await self._clients.close()
        self.producer.close()
        self.pictures.close()
        self._vision.close()
        self.cache.clear()
        await asyncio.to_thread(self._tracing.close, _FLUSH_TIMEOUT_S)
        self._stop_metrics()

    def _tell_of_room(self) -> None:
        """Room comes back in whichever thread the last reader of an embedding or probe ends."""
        loop = asyncio.get_running_loop()
        is_coming = False

        def come() -> None:
            nonlocal is_coming
            is_coming = False  # before looking: what changes from now on comes again
            self.cache.pages_returned()

        def changed(used_bytes: int, free_bytes: int) -> None:
            nonlocal is_coming
            if not is_coming:
                is_coming = True
                with suppress(RuntimeError):  # the loop is closed
                    loop.call_soon_threadsafe(come)

        self.pool.on_change(changed)

    def _set_ready(self, ready: bool) -> None:
        """Routers with Services look at the one, routers with addresses at the other."""
        self._server.set_ready(ready)
        self.reception.set_serving(serving=ready)
