"""The PodMonitor by which Prometheus finds the pods."""

from __future__ import annotations

from typing import TYPE_CHECKING

from redserve.cluster import labels
from redserve.cluster.facts import OPTIONAL_KINDS, POD_MONITOR
from redserve.cluster.names import POOLS
from redserve.cluster.ports import metrics_port

if TYPE_CHECKING:
    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope


def pod_monitor(scope: Scope) -> Manifest | None:
    """A PodMonitor over all pools; None where the kind is not served or not wanted."""
    wanted = scope.service.spec.monitoring.pod_monitor != "Disabled"
    if not wanted or POD_MONITOR not in scope.context.facts.kinds:
        return None
    ports = dict.fromkeys(metrics_port(scope.service, pool).name for pool in POOLS)
    return {
        "apiVersion": OPTIONAL_KINDS[POD_MONITOR],
        "kind": POD_MONITOR,
        "metadata": scope.shared_metadata(scope.name),
        "spec": {
            "selector": {"matchLabels": {labels.SERVICE: scope.name}},
            "podTargetLabels": [labels.SERVICE, labels.POOL, labels.REVISION],
            "podMetricsEndpoints": [{"port": port, "path": "/metrics"} for port in ports],
        },
    }
