"""Which ports pods listen on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService

EVERYWHERE: Final = "0.0.0.0"
GRPC_PORT: Final = 50051
METRICS_PORT: Final = 9090
H2C: Final = "kubernetes.io/h2c"
"""HTTP/2 in plain text: tells gateways and meshes that gRPC is spoken."""


@dataclass(frozen=True, slots=True)
class Port:
    """A port by the name that Services, probes and monitors use."""

    name: str
    number: int
    protocol: str = ""
    """`appProtocol` of Services; empty leaves it out."""


def grpc_port(service: RedService, pool: Role) -> int:
    """Where gRPC and its health service listen."""
    return service.spec.router.grpc.port if pool == "router" else GRPC_PORT


def metrics_port(service: RedService, pool: Role) -> Port:
    """Where `/metrics` is: on a router that serves HTTP, there."""
    if pool == "router" and service.spec.router.open_ai == "Enabled":
        return Port("http", service.spec.router.http.port, "http")
    return Port("metrics", METRICS_PORT)


def client_ports(service: RedService) -> tuple[Port, ...]:
    """What clients of the service use."""
    grpc = Port("grpc", grpc_port(service, "router"), H2C)
    if service.spec.router.open_ai == "Enabled":
        return (grpc, metrics_port(service, "router"))
    return (grpc,)


def pod_ports(service: RedService, pool: Role) -> tuple[Port, ...]:
    """Every port of a pod."""
    return (Port("grpc", grpc_port(service, pool), H2C), metrics_port(service, pool))
