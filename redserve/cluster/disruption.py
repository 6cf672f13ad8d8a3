"""PodDisruptionBudgets: how many pods of a pool maintenance may take away at once."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster import labels, names
from redserve.cluster.deployment import int_or_percent

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role


def disruption_budget(scope: Scope, pool: Role) -> Manifest:
    """The budget of a pool, over its pods of every revision."""
    return {
        "apiVersion": "policy/v1",
        "kind": "PodDisruptionBudget",
        "metadata": scope.shared_metadata(names.pool_name(scope.name, pool), pool),
        "spec": {
            "maxUnavailable": int_or_percent(scope.pool(pool).disruption.max_unavailable),
            "selector": {"matchLabels": labels.pool_selector(scope.name, pool)},
            # A pod that crashes in circles must not keep a node from being drained.
            "unhealthyPodEvictionPolicy": "AlwaysAllow",
        },
    }
