"""Where the processes of a service are in a cluster: what `redserve up` decides by free ports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster import names
from redserve.cluster.model_source import model_source
from redserve.cluster.ports import EVERYWHERE, POD_DEVICE, UCX_PORTS, grpc_port, metrics_port
from redserve.cluster.resources import num_threads
from redserve.spec.placement import Discovery, Place, Placement, RouterPlace

if TYPE_CHECKING:
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

_MAX_CONNECTION_AGE_S: Final = 300.0
"""After a scale-up clients spread over the new routers within this time, seconds."""


def placement(scope: Scope) -> Placement:
    """Every process of the service; one entry stands for all pods of a pool.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    service = scope.service
    source = model_source(service.spec.model)
    return Placement(
        router=RouterPlace(
            place=_place(scope, "router"),
            http_host=EVERYWHERE,
            http_port=service.spec.router.http.port,
        ),
        encoders=(_place(scope, "encoder"),),
        llms=(_place(scope, "llm"),),
        model_uri=source.uri,
        model_revision=scope.context.model_revision,
        model_cache_dir=source.cache_dir,
        log_format="json",
        tcp_devices=POD_DEVICE,
        tcp_ports=UCX_PORTS,
        discovery=Discovery(
            namespace=scope.context.namespace,
            encoder_service=names.revision_name(scope.name, "encoder", scope.revision),
            llm_service=names.revision_name(scope.name, "llm", scope.revision),
            encoders_required=not may_be_empty(scope, "encoder"),
            max_connection_age_s=_MAX_CONNECTION_AGE_S,
        ),
    )


def may_be_empty(scope: Scope, pool: Role) -> bool:
    """Whether the manifest lets a pool have no replica at all."""
    spec = scope.pool(pool)
    return (spec.scaling.min_replicas if spec.scaling else spec.replicas) == 0


def _place(scope: Scope, pool: Role) -> Place:
    port = grpc_port(scope.service, pool)
    metrics = metrics_port(scope.service, pool)
    headless = names.revision_name(scope.name, pool, scope.revision)
    return Place(
        name="",
        address=f"{headless}.{scope.context.namespace}.svc:{port}",
        grpc_host=EVERYWHERE,
        grpc_port=port,
        # A router's /metrics is on its HTTP port, which is told apart.
        metrics_port=metrics.number if metrics.name == "metrics" else 0,
        num_threads=num_threads(scope.service, pool),
        replicas=scope.pool(pool).num_replicas,
    )
