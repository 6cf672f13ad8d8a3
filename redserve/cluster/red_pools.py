"""RedPools: what autoscalers and `kubectl scale` talk to."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from redserve.cluster import names
from redserve.spec.service import API_VERSION

if TYPE_CHECKING:
    from collections.abc import Mapping

    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role
    from redserve.spec.pool import PoolSpec

KIND: Final = "RedPool"
ROLES: Final[Mapping[Role, str]] = {"encoder": "Encoder", "llm": "LLM", "router": "Router"}
"""Pool -> `spec.role`."""


def red_pool(scope: Scope, pool: Role) -> Manifest:
    """The RedPool of a pool, without `spec.replicas`, which has an owner of its own."""
    return {
        "apiVersion": API_VERSION,
        "kind": KIND,
        "metadata": scope.shared_metadata(names.pool_name(scope.name, pool), pool),
        "spec": {"role": ROLES[pool], "serviceName": scope.name},
    }


def seeded_replicas(spec: PoolSpec) -> int:
    """Replicas that a pool begins with: an autoscaler that finds 0 would never wake up."""
    if spec.scaling is not None:
        return max(1, spec.scaling.min_replicas)
    return spec.num_replicas
