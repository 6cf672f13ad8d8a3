"""From a RedService and its places to the processes it needs, wherever they run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from redserve.spec.objectives import objectives_of
from redserve.spec.settings import (
    SERVICE_ACCOUNT_DIR,
    EncoderSettings,
    LLMSettings,
    ProcessSettings,
    RouterSettings,
    compute_environment,
)
from redserve.spec.ucx import ucx_environment

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.spec.encoder import EncoderSpec
    from redserve.spec.llm import LLMSpec
    from redserve.spec.placement import Place, Placement, Role
    from redserve.spec.pool import PoolSpec
    from redserve.spec.service import RedService
    from redserve.spec.settings import TransportKind
    from redserve.spec.transport import TransportType

DEFAULT_MEMORY_PERCENT: Final = 50
QUARANTINE_PERCENT: Final = 25
"""Of an engine's landing room; no manifest has a reason to say otherwise."""
MODULES: Final[Mapping[Role, str]] = {
    "router": "redserve_router",
    "encoder": "redserve_encoder",
    "llm": "redserve_llm",
}
"""What `python -m` runs for each role."""
SETTINGS: Final[Mapping[Role, type[ProcessSettings]]] = {
    "router": RouterSettings,
    "encoder": EncoderSettings,
    "llm": LLMSettings,
}
"""What it reads."""

_TRANSPORTS: Final[Mapping[TransportType, TransportKind]] = {
    "Auto": "auto",
    "RDMA": "rdma",
    "TCP": "tcp",
    "GRPC": "grpc",
    "InProcess": "inproc",
}


@dataclass(frozen=True, slots=True)
class Workload:
    """Identical processes: child processes of `redserve up`, or the pods of one template.

    Attributes:
        role: What they do.
        name: Name of the process; of the pool when there are several.
        module: What `python -m` runs.
        replicas: How many.
        env: What is added to their environment: settings, thread limits, UCX, the manifest's
            own.
        address: host:port by which the other processes reach them.
        metrics_address: host:port of `/metrics`; None when each replica finds a free port.
        drain_timeout_s: Longest wait for running streams after SIGTERM, seconds.
    """

    role: Role
    name: str
    module: str
    replicas: int
    env: Mapping[str, str]
    address: str
    drain_timeout_s: float
    metrics_address: str | None = None


def workloads_for(service: RedService, placement: Placement) -> list[Workload]:
    """Every process of the service: encoders, LLM engines, router."""
    spec = service.spec
    http_port = placement.router.http_port if spec.router.open_ai == "Enabled" else 0
    router = placement.router.place
    made: list[tuple[Role, Place, ProcessSettings, PoolSpec]] = [
        *(
            ("encoder", place, encoder_settings(service, placement, place), spec.encoder)
            for place in placement.encoders
        ),
        *(
            ("llm", place, llm_settings(service, placement, place), spec.llm)
            for place in placement.llms
        ),
        ("router", router, router_settings(service, placement), spec.router),
    ]
    return [
        _workload(
            role,
            place,
            settings,
            pool,
            library_environment(service, placement, role, place),
            http_port if role == "router" else 0,
        )
        for role, place, settings, pool in made
    ]


def transport_kind(service: RedService) -> TransportKind:
    """The data path that the manifest asks for."""
    return _TRANSPORTS[service.spec.transport.type]


def library_environment(
    service: RedService, placement: Placement, role: Role, place: Place
) -> dict[str, str]:
    """What libraries are told, beside a process' settings; a pool's own `env` overrides it."""
    made = compute_environment(place.num_threads)
    if role == "router":
        return made
    ucx = ucx_environment(
        transport_kind(service),
        net_devices=placement.tcp_devices,
        port_range=placement.tcp_ports,
    )
    return made | ucx


def encoder_settings(service: RedService, placement: Placement, place: Place) -> EncoderSettings:
    """What an encoder at `place` reads."""
    spec = service.spec.encoder
    return EncoderSettings(
        **_process(service, placement, place, spec),
        **_compute(service, placement, place, spec),
        batch_rows=spec.batch_rows,
        batch_rows_idle=spec.idle_batch_rows,
        pool_bytes=spec.pool_size.num_bytes,
        preprocess_threads=spec.preprocess_threads,
        max_image_pixels=service.spec.router.media.max_image_pixels,
        max_queued_rows=spec.max_queued_rows,
        lease_ttl_s=float(service.spec.transport.lease_seconds),
    )


def llm_settings(service: RedService, placement: Placement, place: Place) -> LLMSettings:
    """What an LLM engine at `place` reads."""
    spec = service.spec.llm
    return LLMSettings(
        **_process(service, placement, place, spec),
        **_compute(service, placement, place, spec),
        token_budget=spec.token_budget,
        tpot_target_ms=float(spec.tpot_target_milliseconds or 0),
        block_size=spec.block_size,
        kv_cache_bytes=spec.kv_cache_size.num_bytes if spec.kv_cache_size else 0,
        memory_percent=spec.memory_percent or DEFAULT_MEMORY_PERCENT,
        max_sequences=spec.max_sequences,
        max_queued_requests=spec.max_queued_requests,
        max_model_length=service.spec.model.max_model_length or 0,
        min_chunk=spec.min_chunk,
        prefix_cache=spec.prefix_cache == "Enabled",
        overlap=spec.overlap == "Enabled",
        arena_bytes=spec.arena_size.num_bytes,
        quarantine_percent=QUARANTINE_PERCENT,
    )


def router_settings(service: RedService, placement: Placement) -> RouterSettings:
    """What the router reads."""
    spec, media = service.spec.router, service.spec.router.media
    found, tracing = placement.discovery, service.spec.monitoring.tracing
    return RouterSettings(
        **_process(service, placement, placement.router.place, spec),
        model_name=service.model_name,
        http_host=placement.router.http_host,
        http_port=placement.router.http_port,
        http_enabled=spec.open_ai == "Enabled",
        encoder_addresses=() if found else tuple(place.address for place in placement.encoders),
        llm_addresses=() if found else tuple(place.address for place in placement.llms),
        encoder_service=found.encoder_service if found else "",
        llm_service=found.llm_service if found else "",
        service_namespace=found.namespace if found else "",
        encoders_required=found.encoders_required if found else False,
        service_account_dir=SERVICE_ACCOUNT_DIR,
        max_connection_age_s=found.max_connection_age_s if found else 0.0,
        request_timeout_s=float(spec.request_timeout_seconds),
        max_inflight_requests=spec.max_inflight_requests,
        max_images=media.max_images,
        max_image_bytes=media.max_image_size.num_bytes,
        max_image_pixels=media.max_image_pixels,
        max_request_bytes=media.max_request_size.num_bytes,
        url_fetch=media.url_fetch == "Enabled",
        url_allowed_hosts=media.allowed_hosts,
        url_allow_private=media.private_addresses == "Enabled",
        url_timeout_s=float(media.fetch_timeout_seconds),
        encoder_grace_s=float(spec.encoder_grace_seconds),
        llm_grace_s=float(spec.llm_grace_seconds),
        num_timelines=spec.kept_timelines,
        playground=serves_playground(service, placement),
        slos=objectives_of(service.spec.slos),
        sampling_percent=float(tracing.sampling_percent if tracing else 0),
    )


def serves_playground(service: RedService, placement: Placement) -> bool:
    """Whether routers serve the page at /."""
    spec = service.spec.router
    wanted = placement.playground if spec.playground == "Auto" else spec.playground == "Enabled"
    return wanted and spec.open_ai == "Enabled"


def _workload(
    role: Role,
    place: Place,
    settings: ProcessSettings,
    pool: PoolSpec,
    libraries: Mapping[str, str],
    http_port: int,
) -> Workload:
    metrics_port = http_port or place.metrics_port
    host = place.address.rpartition(":")[0]
    own = {variable.name: variable.value or "" for variable in pool.env if not variable.value_from}
    return Workload(
        role=role,
        name=place.name or role,
        module=MODULES[role],
        replicas=place.replicas,
        env={**libraries, **own, **settings.to_env()},
        address=place.address,
        drain_timeout_s=float(pool.rollout.drain_timeout_seconds),
        metrics_address=f"{host}:{metrics_port}" if metrics_port else None,
    )


def _process(
    service: RedService, placement: Placement, place: Place, pool: PoolSpec
) -> dict[str, Any]:
    model, monitoring = service.spec.model, service.spec.monitoring
    log_format = monitoring.log_format
    return {
        "name": place.name,
        "service": service.name,
        "model_uri": placement.model_uri or model.uri,
        "model_revision": placement.model_revision or model.revision or "",
        "model_cache_dir": placement.model_cache_dir,
        "grpc_host": place.grpc_host,
        "grpc_port": place.grpc_port,
        "advertise_address": place.advertise_address,
        "metrics_port": place.metrics_port,
        "num_threads": place.num_threads,
        "drain_timeout_s": float(pool.rollout.drain_timeout_seconds),
        "log_level": monitoring.log_level.lower(),
        "log_format": placement.log_format if log_format == "Auto" else log_format.lower(),
        "otlp_endpoint": monitoring.tracing.otlp_endpoint if monitoring.tracing else "",
    }


def _compute(
    service: RedService, placement: Placement, place: Place, pool: EncoderSpec | LLMSpec
) -> dict[str, Any]:
    return {
        "device": place.device or pool.device.lower(),
        "dtype": service.spec.model.dtype.lower(),
        "transport": transport_kind(service),
    }
