"""Puts the router together, starts it and takes it down."""

from __future__ import annotations

import asyncio
import socket
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry

from redserve.telemetry.log import get_logger
from redserve.telemetry.metrics.endpoint import serve_metrics
from redserve.telemetry.metrics.router import RouterMetrics
from redserve.telemetry.metrics.tracing import TracingMetrics
from redserve.telemetry.tracing import tracing_to
from redserve.v1.router_pb2_grpc import add_RouterServiceServicer_to_server
from redserve.wire.interceptors import ErrorInterceptor
from redserve.wire.server import ServiceServer
from redserve_router.discovery.discovery import discovery_for
from redserve_router.dispatch.dispatcher import Dispatcher
from redserve_router.dispatch.services import RouterServices
from redserve_router.http.app import HttpDoor, max_body_bytes
from redserve_router.http.page.facts import page_facts
from redserve_router.http.page.playground import Playground
from redserve_router.http.server import HttpServer
from redserve_router.http.visitors import OwnHosts
from redserve_router.ledger import Ledger
from redserve_router.limits import Limits
from redserve_router.media.addresses import system_resolver
from redserve_router.media.collect import PictureCollector
from redserve_router.media.fetch import PictureFetcher
from redserve_router.media.policy import MediaPolicy
from redserve_router.metadata import MetadataBook
from redserve_router.overview import overview
from redserve_router.pair_checks import PairChecks
from redserve_router.prompt import PromptBuilder
from redserve_router.refusals import Refusals
from redserve_router.replicas.pools import ReplicaPools
from redserve_router.servicer import RouterServicer
from redserve_router.timelines import TimelineStore

if TYPE_CHECKING:
    from collections.abc import Callable

    from redserve.modeling.prompt import PromptRenderer
    from redserve.spec.settings import RouterSettings
    from redserve_router.discovery.timing import Timing
    from redserve_router.http.page.facts import PageFacts
    from redserve_router.media.addresses import Resolver

log = get_logger()

SERVICE = "redserve.v1.RouterService"
FLUSH_TIMEOUT_S = 3.0


class Router:
    """One router. Create it inside the event loop; it owns all that it makes.

    Args:
        settings: What is wished.
        renderer: Chat template and tokenizer of the checkpoint.
        model_name: Served name.
        resolver: Name resolution for picture addresses; tests bring their own.
        api_url: The cluster's API server, for settings that name Services; None outside.
        discovery_timing: How long to wait for it; tests are impatient.

    Raises:
        ConfigError: Settings and surroundings do not fit.
    """

    def __init__(
        self,
        settings: RouterSettings,
        renderer: PromptRenderer,
        model_name: str,
        *,
        resolver: Resolver = system_resolver,
        api_url: str | None = None,
        discovery_timing: Timing | None = None,
    ) -> None:
        self._settings = settings
        self.registry = CollectorRegistry()
        self._draining = False
        self._why_told: str | None = ""
        metrics = RouterMetrics(self.registry)
        metrics.model_info.labels(model_name).set(1)
        limits = Limits.from_settings(settings)
        policy = self._policy = MediaPolicy.from_settings(settings)
        self.pools = ReplicaPools(
            () if settings.encoder_service else settings.encoder_addresses,
            () if settings.llm_service else settings.llm_addresses,
            metrics,
            encoders_required=settings.encoders_required,
        )
        self._discovery = discovery_for(
            settings,
            api_url,
            self.pools.set_encoders,
            self.pools.set_llms,
            self.registry,
            discovery_timing,
        )
        if self._discovery is not None:
            self.pools.source = self._discovery.status
        self.pair_checks = PairChecks(self.pools)
        self._fetcher = PictureFetcher(policy, resolver=resolver)
        self._picture_threads = ThreadPoolExecutor(
            max(2, settings.num_threads), thread_name_prefix="pictures"
        )
        self._prompt_thread = ThreadPoolExecutor(1, thread_name_prefix="prompts")
        name = settings.name or "router"
        self._tracing = tracing_to(
            settings.otlp_endpoint,
            role="router",
            name=name,
            service=settings.service,
            sampling_percent=settings.sampling_percent,
            on_lost=TracingMetrics(self.registry).spans_lost.inc,
        )
        services = RouterServices(
            name=name,
            model_name=model_name,
            pools=self.pools,
            collector=PictureCollector(policy, self._fetcher, self._picture_threads),
            metadata=MetadataBook(self.pools, limits.encoder_grace_s),
            prompts=PromptBuilder(renderer, self._prompt_thread),
            metrics=metrics,
            timelines=TimelineStore(settings.num_timelines),
            limits=limits,
            ledger=Ledger(settings.slos, metrics),
            tracing=self._tracing,
        )
        self._services = services
        self.dispatcher = Dispatcher(services)
        refusals = Refusals(metrics)
        self.server = ServiceServer(
            settings.grpc_host,
            settings.grpc_port,
            interceptors=(ErrorInterceptor(on_malformed=refusals.note_malformed),),
            max_connection_age_s=settings.max_connection_age_s,
            max_message_bytes=max_body_bytes(settings.max_request_bytes),
        )
        servicer = RouterServicer(
            self.dispatcher, services, self.pair_checks, refusals, settings.max_images
        )
        self.server.add(add_RouterServiceServicer_to_server, servicer, SERVICE)
        door = HttpDoor(
            self.dispatcher,
            model_name=model_name,
            token_text=lambda token_id: str(renderer.tokenizer.decode([token_id])),
            registry=self.registry,
            why_not_ready=self.why_not_ready,
            max_request_bytes=settings.max_request_bytes,
            refusals=refusals,
            playground=Playground(self._page_facts) if settings.playground else None,
            # In a cluster it is asked for by names that an ingress or a tunnel gives it.
            own_hosts=None
            if self._discovery is not None
            else OwnHosts(settings.http_host, socket.gethostname()),
        )
        self._http = HttpServer(door.app(), settings.http_host, settings.http_port)
        self._stop_metrics: Callable[[], None] | None = None

    @property
    def http_port(self) -> int:
        """Bound HTTP port."""
        return self._http.port

    def why_not_ready(self) -> str | None:
        """A sentence for people, or None when requests can be answered."""
        return "the router is stopping" if self._draining else self.pools.why_not_ready

    async def start(self) -> None:
        """Listen and connect; readiness follows the replicas.

        Raises:
            ConfigError: An address cannot be bound.
        """
        settings = self._settings
        await self.server.start()
        if settings.http_enabled:
            await self._http.start()
        else:
            _, self._stop_metrics = serve_metrics(
                self.registry, settings.grpc_host, settings.metrics_port
            )
        self.pools.on_change(self._tell_readiness)
        self.pools.start()
        self.pair_checks.start()
        if self._discovery is not None:
            self._discovery.start()
        log.info(
            "router listens",
            grpc=self.server.address,
            http=self._http.port if settings.http_enabled else None,
            encoders=settings.encoder_service or settings.encoder_addresses,
            llms=settings.llm_service or settings.llm_addresses,
        )

    async def stop(self, drain_timeout_s: float) -> None:
        """Not ready, no new requests; running ones finish in time or are cancelled."""
        self._draining = True
        await asyncio.gather(self.server.drain(drain_timeout_s), self._http.drain(drain_timeout_s))
        await self.dispatcher.close()
        if self._discovery is not None:
            await self._discovery.stop()
        await self.pair_checks.stop()
        await self.pools.stop()
        await self._fetcher.close()
        self._picture_threads.shutdown(wait=False, cancel_futures=True)
        self._prompt_thread.shutdown(wait=False, cancel_futures=True)
        await asyncio.to_thread(self._tracing.close, FLUSH_TIMEOUT_S)
        if self._stop_metrics is not None:
            await asyncio.to_thread(self._stop_metrics)

    def _page_facts(self) -> PageFacts:
        return page_facts(
            overview(self.dispatcher, self._services),
            why_not_ready=self.why_not_ready(),
            policy=self._policy,
        )

    def _tell_readiness(self) -> None:
        why = self.why_not_ready()
        self.server.set_ready(why is None)
        if why != self._why_told:
            self._why_told = why
            if why is None:
                log.info("router is ready")
            else:
                log.info("router is not ready", why=why)
