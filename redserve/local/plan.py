"""From a manifest to the processes of this machine: places, ports, threads, devices."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from redserve.local.checks import check_runnable_here
from redserve.local.devices import Need, Share, share
from redserve.local.ports import (
    LOOPBACK,
    LOOPBACK_DEVICE,
    UCX_PORTS,
    Wish,
    free_ports,
    reachable,
    take,
)
from redserve.spec.placement import Place, Placement, RouterPlace
from redserve.spec.workloads import Workload, serves_playground, workloads_for

if TYPE_CHECKING:
    from collections.abc import Iterator

    from redserve.local.machine import Machine
    from redserve.spec.encoder import DeviceKind
    from redserve.spec.pool import PoolSpec
    from redserve.spec.router import GrpcListener, HttpListener
    from redserve.spec.service import RedService


@dataclass(frozen=True, slots=True)
class Listen:
    """What the command line says about the router's listeners; None leaves the manifest's word."""

    http_host: str | None = None
    http_port: int | None = None
    grpc_host: str | None = None
    grpc_port: int | None = None


@dataclass(frozen=True, slots=True)
class LocalPlan:
    """What to start.

    Attributes:
        service: The manifest.
        workloads: One per process.
        grpc_address: host:port of the router's gRPC API for clients on this machine.
        http_address: host:port of its HTTP API; None when it is disabled.
        playground: Whether the page for people is at / of it.
        warnings: What differs from the manifest, for people.
    """

    service: RedService
    workloads: tuple[Workload, ...]
    grpc_address: str
    http_address: str | None
    playground: bool
    warnings: tuple[str, ...]


def plan(service: RedService, machine: Machine, listen: Listen, model_uri: str) -> LocalPlan:
    """Decide where everything runs. Ports are free at this moment and promised to nobody.

    Args:
        service: The manifest.
        machine: What there is.
        listen: What the command line changes.
        model_uri: Where processes load the checkpoint from; see `redserve.local.model`.

    Raises:
        ConfigError: Something cannot be kept here, or a port is in use; names field and mend.
    """
    warnings = check_runnable_here(service)
    shares = share(_needs(service), machine)
    router = _router_place(service, listen)
    taken = frozenset({router.place.grpc_port, router.place.metrics_port, router.http_port})
    ports = (port for port in free_ports() if port not in taken)
    encoders, llms = _compute_places(service, iter(shares.shares), ports)
    placement = Placement(
        router=router,
        encoders=encoders,
        llms=llms,
        model_uri=model_uri,
        tcp_devices=LOOPBACK_DEVICE,
        tcp_ports=UCX_PORTS,
        playground=True,
    )
    http = service.spec.router.open_ai == "Enabled"
    http_address = reachable(router.http_host, router.http_port) if http else None
    return LocalPlan(
        service=service,
        workloads=tuple(
            # HTTP may listen on another address than gRPC, and has the router's metrics.
            replace(one, metrics_address=http_address) if http and one.role == "router" else one
            for one in workloads_for(service, placement)
        ),
        grpc_address=router.place.address,
        http_address=http_address,
        playground=serves_playground(service, placement),
        warnings=warnings + shares.warnings,
    )


def _needs(service: RedService) -> list[Need]:
    spec = service.spec
    return [
        *_pool_needs("encoder", spec.encoder, spec.encoder.device),
        *_pool_needs("llm", spec.llm, spec.llm.device),
    ]


def _pool_needs(name: str, pool: PoolSpec, device: DeviceKind) -> list[Need]:
    cpu = pool.resources.limits.get("cpu")
    return [Need(name, device, max(cpu.floor, 1) if cpu else None)] * pool.num_replicas


def _router_place(service: RedService, listen: Listen) -> RouterPlace:
    spec = service.spec.router
    http = _wish("http", spec.http, listen.http_host, listen.http_port)
    grpc = _wish("grpc", spec.grpc, listen.grpc_host, listen.grpc_port)
    has_http = spec.open_ai == "Enabled"
    http_port = take(http) if has_http else http.port
    grpc_port = take(grpc, taken=frozenset({http_port}))
    # Without HTTP, `/metrics` has a port of its own, where gRPC listens.
    found = free_ports(grpc.host, field=grpc.host_field)
    metrics_port = 0 if has_http else next(port for port in found if port != grpc_port)
    address = reachable(grpc.host, grpc_port)
    place = Place(
        name="router",
        address=address,
        grpc_host=grpc.host,
        grpc_port=grpc_port,
        advertise_address=address,
        metrics_port=metrics_port,
    )
    return RouterPlace(place=place, http_host=http.host, http_port=http_port)


def _wish(
    name: str, listener: HttpListener | GrpcListener, host: str | None, port: int | None
) -> Wish:
    """What the manifest says, unless the command line does; errors name whoever said it."""
    return Wish(
        host=host or listener.host or LOOPBACK,
        port=listener.port if port is None else port,
        host_field=f"--{name}-host" if host else f"spec.router.{name}.host",
        port_field=f"spec.router.{name}.port" if port is None else f"--{name}-port",
        flag=f"--{name}-port",
    )


def _compute_places(
    service: RedService, shares: Iterator[Share], ports: Iterator[int]
) -> tuple[tuple[Place, ...], tuple[Place, ...]]:
    def places(pool: str, replicas: int) -> tuple[Place, ...]:
        made = []
        for number in range(replicas):
            port, metrics_port, given = next(ports), next(ports), next(shares)
            address = reachable(LOOPBACK, port)
            made.append(
                Place(
                    name=f"{pool}-{number}",
                    address=address,
                    grpc_host=LOOPBACK,
                    grpc_port=port,
                    advertise_address=address,
                    metrics_port=metrics_port,
                    num_threads=given.num_threads,
                    device=given.device,
                )
            )
        return tuple(made)

    spec = service.spec
    return places("encoder", spec.encoder.num_replicas), places("llm", spec.llm.num_replicas)
