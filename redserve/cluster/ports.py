"""Which ports pods listen on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from redserve.spec.ucx import PORT_RANGE, PortRange

if TYPE_CHECKING:
    from redserve.spec.placement import Role
    from redserve.spec.service import RedService

EVERYWHERE: Final = "0.0.0.0"
GRPC_PORT: Final = 50051
METRICS_PORT: Final = 9090
UCX_PORTS: Final = PortRange(29_600, 29_615)
"""For NIXL over TCP. A pod needs one; the others are for a process that starts anew while its last
port is not free yet. Below those of outgoing connections."""
POD_DEVICE: Final = "eth0"
"""The network interface of a pod, by the name that the kubelet's runtimes give it."""
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


def ucx_ports(service: RedService, pool: Role) -> PortRange | None:
    """Where NIXL over TCP listens; None when the service does not use it.

    The manifest may say so too, in the `env` of a pool.
    """
    if service.spec.transport.type != "TCP" or pool == "router":
        return None
    spec = service.spec.encoder if pool == "encoder" else service.spec.llm
    said = [one.value for one in spec.env if one.name == PORT_RANGE and one.value]
    return (PortRange.parse(said[-1]) if said else None) or UCX_PORTS


def client_ports(service: RedService) -> tuple[Port, ...]:
    """What clients of the service use."""
    grpc = Port("grpc", grpc_port(service, "router"), H2C)
    if service.spec.router.open_ai == "Enabled":
        return (grpc, metrics_port(service, "router"))
    return (grpc,)


def pod_ports(service: RedService, pool: Role) -> tuple[Port, ...]:
    """Every port of a pod."""
    return (Port("grpc", grpc_port(service, pool), H2C), metrics_port(service, pool))
