"""The pods of one pool."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels
from redserve.cluster.accounts import account_name
from redserve.cluster.blanks import without_blanks
from redserve.cluster.container import grace_period_s, main_container
from redserve.cluster.loader import init_containers
from redserve.cluster.names import MAIN_CONTAINER
from redserve.cluster.pull_secrets import pull_secrets
from redserve.cluster.resources import pods_per_replica
from redserve.cluster.scheduling import affinity, spread
from redserve.cluster.security import pod_security
from redserve.cluster.strategic_merge import merge_pod_template
from redserve.cluster.volumes import volumes

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role

_DEFAULT_CONTAINER: Final = "kubectl.kubernetes.io/default-container"


def pod_template(scope: Scope, pool: Role) -> Manifest:
    """The pod template of a pool, the manifest's `podTemplate` merged over it.

    Labels that selectors use are ours, whatever the manifest says.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    merged = merged_template(scope, pool)
    metadata = merged.setdefault("metadata", {})
    ours = labels.revision_labels(scope.name, pool, scope.revision)
    metadata["labels"] = {**(metadata.get("labels") or {}), **ours}
    return merged


def merged_template(scope: Scope, pool: Role) -> Manifest:
    """As `pod_template`, but a manifest may have changed any label.

    Raises:
        ConfigError: `podTemplate` cannot be merged.
    """
    base, patch = _generated(scope, pool), scope.pool(pool).pod_template or {}
    merged: Manifest = merge_pod_template(base, patch, f"spec.{pool}.podTemplate")
    return {**merged, "spec": without_blanks(merged["spec"])} if "spec" in merged else merged


def _generated(scope: Scope, pool: Role) -> Manifest:
    num_pods = pods_per_replica(scope.service, pool)
    spec: dict[str, Any] = {
        "serviceAccountName": account_name(scope, pool),
        "automountServiceAccountToken": pool == "router",
        # A Service called redserve-router would put variables of our prefix into every pod.
        "enableServiceLinks": False,
        "terminationGracePeriodSeconds": grace_period_s(scope, pool),
        "securityContext": pod_security(scope, pool),
        "volumes": volumes(scope, pool),
        "containers": [main_container(scope, pool)],
    }
    optional = {
        "initContainers": init_containers(scope, pool),
        "imagePullSecrets": pull_secrets(scope),
        "topologySpreadConstraints": spread(scope, pool, num_pods),
        "affinity": affinity(scope, pool),
    }
    return {
        "metadata": {
            "labels": labels.revision_labels(scope.name, pool, scope.revision),
            "annotations": {_DEFAULT_CONTAINER: MAIN_CONTAINER},
        },
        "spec": spec | {name: value for name, value in optional.items() if value},
    }
