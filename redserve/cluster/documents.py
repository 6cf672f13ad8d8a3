"""A service as the list of objects that the operator would create, in an order to read."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster.names import POOLS
from redserve.cluster.red_pools import seeded_replicas
from redserve.cluster.render import render
from redserve.cluster.scope import pool_spec
from redserve.spec.pool_resource import POOL_KIND

if TYPE_CHECKING:
    from redserve.cluster.facts import Context, Manifest
    from redserve.spec.service import RedService


def documents(service: RedService, context: Context) -> list[Manifest]:
    """What a new service begins with: pools and workloads have their first sizes.

    Raises:
        ConfigError: A `podTemplate` cannot be merged.
    """
    rendered = render(service, context)
    sizes = {f"{service.name}-{pool}": seeded_replicas(pool_spec(service, pool)) for pool in POOLS}
    shared = [_sized(manifest, sizes) for manifest in rendered.shared]
    stopped = service.spec.reconcile == "Stopped"
    of_pools = [
        manifest
        for pool in rendered.pools
        for manifest in (
            pool.config,
            pool.service,
            pool.workload_with(0 if stopped else pool.replicas),
        )
    ]
    return [*shared, *([rendered.loader] if rendered.loader else []), *of_pools]


def _sized(manifest: Manifest, sizes: dict[str, int]) -> Manifest:
    if manifest["kind"] != POOL_KIND:
        return manifest
    replicas = sizes[manifest["metadata"]["name"]]
    return {**manifest, "spec": {**manifest["spec"], "replicas": replicas}}
