"""RedPools: what autoscalers and `kubectl scale` talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster import names
from redserve.spec.pool_resource import POOL_KIND, ROLES
from redserve.spec.service import API_VERSION

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role
    from redserve.spec.pool import PoolSpec


def red_pool(scope: Scope, pool: Role) -> Manifest:
    """The RedPool of a pool, without `spec.replicas`, which has an owner of its own."""
    return {
        "apiVersion": API_VERSION,
        "kind": POOL_KIND,
        "metadata": scope.shared_metadata(names.pool_name(scope.name, pool), pool),
        "spec": {"role": ROLES[pool], "serviceName": scope.name},
    }


def seeded_replicas(spec: PoolSpec) -> int:
    """Replicas that a pool begins with: an autoscaler that finds 0 would never wake up."""
    if spec.scaling is not None:
        return max(1, spec.scaling.min_replicas)
    return spec.num_replicas
