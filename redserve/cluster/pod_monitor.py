"""The PodMonitor by which Prometheus finds the pods."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from redserve.cluster import labels
from redserve.cluster.facts import OPTIONAL_KINDS, POD_MONITOR
from redserve.cluster.names import POOLS
from redserve.cluster.ports import metrics_port
from redserve.cluster.scrape import SERIES_LABELS, of_pod

if TYPE_CHECKING:
    from collections.abc import Sequence

    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role


def pod_monitor(scope: Scope) -> Manifest | None:
    """A PodMonitor over all pools; None where the kind is not served or not wanted."""
    wanted = scope.service.spec.monitoring.pod_monitor != "Disabled"
    if not wanted or POD_MONITOR not in scope.context.facts.kinds:
        return None
    ports: dict[str, list[Role]] = {}
    for pool in POOLS:
        ports.setdefault(metrics_port(scope.service, pool).name, []).append(pool)
    return {
        "apiVersion": OPTIONAL_KINDS[POD_MONITOR],
        "kind": POD_MONITOR,
        "metadata": scope.monitoring_metadata(scope.name),
        "spec": {
            "selector": {"matchLabels": {labels.SERVICE: scope.name}},
            "podMetricsEndpoints": [_endpoint(port, pools) for port, pools in ports.items()],
        },
    }


def _endpoint(port: str, pools: Sequence[Role]) -> dict[str, Any]:
    return {
        "port": port,
        "path": "/metrics",
        "relabelings": [
            # A container that somebody has added may have a port of that name too.
            {
                "action": "keep",
                "sourceLabels": [of_pod(labels.POOL)],
                "regex": "|".join(pools),
            },
            *(
                {"sourceLabels": [source], "targetLabel": target}
                for target, source in SERIES_LABELS.items()
            ),
        ],
    }
