"""The PodMonitor by which Prometheus finds the pods."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels
from redserve.cluster.facts import OPTIONAL_KINDS, POD_MONITOR
from redserve.cluster.names import POOLS
from redserve.cluster.ports import metrics_port

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from redserve.cluster.facts import Manifest
    from redserve.cluster.scope import Scope
    from redserve.spec.placement import Role


def _of_pod(label: str) -> str:
    """What service discovery of Prometheus calls a label of a pod."""
    return "__meta_kubernetes_pod_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", label)


SERIES_LABELS: Final[Mapping[str, str]] = {
    "namespace": "__meta_kubernetes_namespace",
    "redservice": _of_pod(labels.SERVICE),
    "pool": _of_pod(labels.POOL),
    "revision": _of_pod(labels.REVISION),
}
"""Labels that rules and dashboards expect on every series, and where they come from."""


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
                "sourceLabels": [_of_pod(labels.POOL)],
                "regex": "|".join(pools),
            },
            *(
                {"sourceLabels": [source], "targetLabel": target}
                for target, source in SERIES_LABELS.items()
            ),
        ],
    }
