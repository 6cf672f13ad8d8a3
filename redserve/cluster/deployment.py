"""Deployments, for replicas that are one pod."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster import labels
from redserve.cluster.pod_template import pod_template
from redserve.cluster.probes import progress_limit_s

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role


def deployment(scope: Scope, pool: Role) -> Manifest:
    """The Deployment of a pool in one revision, without its size.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    template = pod_template(scope, pool)
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": scope.revision_metadata(pool),
        "spec": {
            "selector": {"matchLabels": labels.revision_selector(scope.name, pool, scope.revision)},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": steps(scope, pool)},
            "progressDeadlineSeconds": progress_limit_s(template),
            # Each revision is a Deployment of its own: there is nothing to roll back to.
            "revisionHistoryLimit": 0,
            "template": template,
        },
    }


def steps(scope: Scope, pool: Role) -> dict[str, Any]:
    """`maxSurge` and `maxUnavailable` as Kubernetes writes them."""
    rollout = scope.pool(pool).rollout
    return {
        "maxSurge": int_or_percent(rollout.max_surge),
        "maxUnavailable": int_or_percent(rollout.max_unavailable),
    }


def int_or_percent(text: str) -> int | str:
    """`"1"` as 1, `"25%"` as it is."""
    return text if text.endswith("%") else int(text)
