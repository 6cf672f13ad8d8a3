"""How a Prometheus without the kind PodMonitor finds the pods of all services."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from redserve.cluster import labels
from redserve.cluster.names import POOLS

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

POD: Final = "__meta_kubernetes_pod"
"""Beginning of what service discovery of Prometheus says of a pod."""
PORTS: Final = (*(f"{pool};metrics" for pool in POOLS), "router;http")
"""Pool and name of the port where its `/metrics` is; of a router it depends on the manifest."""


def of_pod(label: str) -> str:
    """What service discovery calls a label of a pod."""
    return f"{POD}_label_" + re.sub(r"[^a-zA-Z0-9_]", "_", label)


SERIES_LABELS: Final[Mapping[str, str]] = {
    "namespace": "__meta_kubernetes_namespace",
    "redservice": of_pod(labels.SERVICE),
    "pool": of_pod(labels.POOL),
    "revision": of_pod(labels.REVISION),
}
"""Labels that rules and dashboards expect on every series, and where they come from."""


def cluster_scrape_config(namespaces: Sequence[str] = ()) -> dict[str, Any]:
    """A file for `scrape_config_files`; `namespaces` empty is all of them."""
    discovery: dict[str, Any] = {"role": "pod"}
    if namespaces:
        discovery["namespaces"] = {"names": list(namespaces)}
    job = {
        "job_name": "redserve",
        "kubernetes_sd_configs": [discovery],
        "relabel_configs": [
            _rule("keep", [of_pod(labels.POOL), f"{POD}_container_port_name"], "|".join(PORTS)),
            # The loader Job, and what nodes have evicted.
            _rule("drop", [f"{POD}_phase"], "Succeeded|Failed"),
            *_series_labels(),
        ],
    }
    return {"scrape_configs": [job]}


def _series_labels() -> list[dict[str, Any]]:
    sources = {**SERIES_LABELS, "pod": f"{POD}_name"}
    return [{"source_labels": [one], "target_label": target} for target, one in sources.items()]


def _rule(action: str, sources: list[str], regex: str) -> dict[str, Any]:
    return {"action": action, "source_labels": sources, "regex": regex}
