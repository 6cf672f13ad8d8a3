"""Where the processes of a service run: what a manifest does not say and a place decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from redserve.spec.ucx import PortRange

Role = Literal["router", "encoder", "llm"]


@dataclass(frozen=True, slots=True)
class Place:
    """One process, or several that are alike (the replicas of a pod template).

    Attributes:
        name: Name in logs, metrics and timelines; empty when each replica has its own.
        address: host:port by which the other processes of the service reach it. Many replicas
            share a name that resolves to all of them.
        grpc_host: Address to listen on.
        grpc_port: Port to listen on.
        advertise_address: host:port that it tells its peers; empty when each replica finds its own.
        metrics_port: Port of `/metrics`; 0 takes a free one.
        num_threads: Compute threads.
        device: Concrete device ("cpu", "cuda:1"); empty leaves the manifest's word.
        replicas: How many processes this stands for.
    """

    name: str
    address: str
    grpc_host: str
    grpc_port: int
    advertise_address: str = ""
    metrics_port: int = 0
    num_threads: int = 1
    device: str = ""
    replicas: int = 1


@dataclass(frozen=True, slots=True)
class RouterPlace:
    """A router with its HTTP listener.

    Attributes:
        place: Where gRPC is.
        http_host: Address that HTTP listens on.
        http_port: Port that HTTP listens on.
    """

    place: Place
    http_host: str
    http_port: int


@dataclass(frozen=True, slots=True)
class Discovery:
    """How routers of a cluster find replicas, instead of a list of addresses.

    Attributes:
        namespace: Where the headless Services are.
        encoder_service: That of the encoders.
        llm_service: That of the LLM engines.
        encoders_required: Whether a router without any encoder is not ready.
        max_connection_age_s: After about this time clients are asked to connect anew, seconds.
    """

    namespace: str
    encoder_service: str
    llm_service: str
    encoders_required: bool
    max_connection_age_s: float


@dataclass(frozen=True, slots=True)
class Placement:
    """Every process of a service.

    Attributes:
        router: The router.
        encoders: The encoders; one entry each here, one entry in all in a cluster.
        llms: The LLM engines, likewise.
        model_uri: Where processes load the checkpoint from (resolved); empty takes the manifest's.
        model_revision: Commit that the manifest's revision stands for; empty takes its word.
        model_cache_dir: Where downloads go; empty is the hub client's own.
        log_format: What `Auto` means here.
        tcp_devices: Network interface of NIXL over TCP; empty leaves UCX its choice.
        tcp_ports: Ports that it listens on; None takes any.
        playground: Whether routers serve the page where the manifest says `Auto`.
        discovery: How the router finds replicas; None gives it their addresses.
    """

    router: RouterPlace
    encoders: tuple[Place, ...]
    llms: tuple[Place, ...]
    model_uri: str = ""
    model_revision: str = ""
    model_cache_dir: str = ""
    log_format: Literal["text", "json"] = "text"
    tcp_devices: str = ""
    tcp_ports: PortRange | None = None
    playground: bool = False
    discovery: Discovery | None = None
